"""Verdicts on many files: real clips, whose scores follow from their pixels."""

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from jdfd_keras.cli.main import main
from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.temporary_folder import TemporaryFolder, remove_abandoned
from jdfd_keras.options import (
    EngineOptions,
    FaceOptions,
    LimitOptions,
    PredictOptions,
    PredictRuntime,
)
from jdfd_keras.prediction import predict, result_folder, scoring
from jdfd_keras.prediction.file_list import list_files
from jdfd_keras.prediction.predictions import describe_provenance
from jdfd_keras.prediction.result_folder import check_paths, open_folder
from jdfd_keras.reporting.verdict_text import summarize

FACES = FaceOptions(face_size=71, frames_per_video=3)
THREE = PredictOptions(frames_per_video=3)
METADATA = ModelMetadata(FACES, None, "red", 1, "one")
SETTINGS = {"metadata": METADATA, "faces": FACES, "calibration": Calibration()}


def redness(crops):
    return crops[..., 0].mean(axis=(1, 2)) / 255


def predictor_of(score=redness, digest="one", calibration=None):
    return Predictor("red", ModelMetadata(FACES, calibration, "red", 1, digest), score, None)


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch):
    """A fixed time, so that the results of two runs are equal."""
    clock = SimpleNamespace(now=lambda zone: datetime(2026, 1, 2, 12, tzinfo=zone))
    monkeypatch.setattr(scoring, "datetime", clock)


@pytest.fixture
def use(monkeypatch):
    """A function that sets the predictor of `model="red"`."""
    return lambda predictor: monkeypatch.setattr(predict, "load_predictor", lambda *_: predictor)


@pytest.fixture(scope="module")
def inputs(clips_folder, tmp_path_factory):
    """A folder of two clips, an image without a face, a text named .mp4, and hidden files."""
    folder = tmp_path_factory.mktemp("inputs")
    first, second = sorted(clips_folder.rglob("real/*.mp4"))[:2]
    (folder / "b" / ".trash").mkdir(parents=True)
    shutil.copy(first, folder / "c.mp4")
    shutil.copy(second, folder / "b" / "a.MP4")
    shutil.copy(second, folder / "b" / ".trash" / "a.mp4")
    shutil.copy(second, folder / ".hidden.mp4")
    (folder / "notes.txt").write_text("not a video")
    (folder / "text.mp4").write_text("not a video")
    cv2.imwrite(str(folder / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    return folder


def rows_of(out):
    with open(out / "verdicts.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_that_harms_its_process_fails_alone(inputs, use, harm, tmp_path, capsys):
    use(predictor_of())
    for name in ("killed", "changes"):
        shutil.copy(inputs / "c.mp4", tmp_path / f"{name}.mp4")
    files = [tmp_path / "killed.mp4", inputs / "sea.png", tmp_path / "changes.mp4"]
    predictions = predict.predict_files(files, THREE, model="red", out=tmp_path / "out")
    assert [verdict.path for verdict in predictions.files] == [str(inputs / "sea.png")]
    killed, changed = predictions.failed
    assert harm["killed"] in killed.error and harm["changes"] in changed.error
    content = (inputs / "c.mp4").read_bytes()
    assert killed.sha256 == hashlib.sha256(content).hexdigest()
    assert changed.sha256 is None  # of which bytes?
    assert f"{files[0]}: Expected a video or image" in capsys.readouterr().err
    with pytest.raises(OSError, match=r"killed.mp4, whose process died twice \(SIGKILL\)"):
        predict.predict_file(files[0], predictor_of(), THREE)


@pytest.mark.slow
def test_an_annotation_that_crashes_costs_no_verdict(inputs, use, harm, tmp_path, capsys):
    import harmful_functions

    use(predictor_of())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "annotate_file", harmful_functions.annotate_harmful_file)
        predictions = predict.predict_files(
            [inputs / "sea.png"], model="red", annotate=tmp_path / "b.png"
        )
        assert [verdict.verdict for verdict in predictions.files] == ["no face"]
        reason = "sea.png, whose process died twice (SIGSEGV)"
        assert reason in predictions.annotation_error and reason in capsys.readouterr().err
        words = ["predict", str(inputs / "sea.png"), "--server", "http://red"]
        assert main([*words, "--annotate", str(tmp_path / "b.png")]) == 1
    assert "no face" in capsys.readouterr().out
    assert main([*words, "--annotate", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "b.png").is_file()


def test_a_script_without_a_guard_has_its_verdict(inputs, tmp_path):
    """Processes of `multiprocessing` would run it once more in every one of them."""
    shutil.copy(__file__, tmp_path / "tests_of_predict.py")
    (tmp_path / "script.py").write_text(f"""
from tests_of_predict import predictor_of
from jdfd_keras.prediction import predict
print("once")
predict.load_predictor = lambda path, engine: predictor_of()
print(predict.predict_files([{str(inputs / "c.mp4")!r}], model="red").files[0].verdict)
""")
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["once", "no_evidence"], done.stderr


@pytest.mark.parametrize("name", ["max_seconds", "max_pixels", "max_memory"])
def test_a_negative_limit_is_refused_before_a_file_is_opened(use, name):
    use(None)
    limits = LimitOptions(**{name: -1})
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}"):
        predict.predict_files(["a.mp4"], model="red", limits=limits)
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}"):
        predict.predict_file("a.mp4", predictor_of(), limits=limits)


def test_the_limits_of_the_command_reach_the_decoder(inputs, use, tmp_path, capsys):
    use(predictor_of())
    words = ["predict", str(inputs / "sea.png"), "--server", "http://red", "--max-pixels", "10000"]
    assert main(words) == 1  # it has 10,800
    assert "--max-pixels" in capsys.readouterr().err
    limits, out = LimitOptions(max_pixels=10_000), tmp_path / "out.png"
    with pytest.raises(OSError, match="--max-pixels"):  # before the model is loaded
        predict.predict_files([inputs / "sea.png"], model="red", annotate=out, limits=limits)
    assert main(["predict", "https://example.org/a.mp4", "--server", "http://red"]) == 1
    assert "got https://example.org/a.mp4, which is a URL" in capsys.readouterr().err


def test_a_failure_has_a_code_in_json_and_in_the_result_folder(inputs, use, harm, tmp_path):
    use(predictor_of())
    for name in ("killed", "crashes", "changes", "raises"):
        shutil.copy(inputs / "c.mp4", tmp_path / f"{name}.mp4")
    Image.new("RGB", (200, 200)).save(tmp_path / "large.png")
    paths = [*sorted(tmp_path.glob("*.*")), inputs / "text.mp4", tmp_path / "none.mp4"]
    out = tmp_path / "out"
    # 160 x 120
    predictions = predict.predict_files(
        paths, THREE, model="red", out=out, limits=LimitOptions(max_pixels=36_000)
    )
    expected = {
        "changes.mp4": "changed",
        "crashes.mp4": "crashed",
        "killed.mp4": "out_of_memory",
        "large.png": "too_many_pixels",
        "none.mp4": "missing",
        "raises.mp4": "undecodable",
        "text.mp4": "undecodable",
    }
    values = {Path(entry["path"]).name: entry for entry in predictions.to_dict()["failed"]}
    assert {name: entry["code"] for name, entry in values.items()} == expected
    lines = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert {Path(line["path"]).name: line["code"] for line in lines} == expected
    # Lines of before have no code.
    for line in lines:
        del line["code"], line["mtime_ns"]
        assert result_folder.FailedFile.from_dict(line).code == ""


def test_files_of_a_folder_are_sorted_and_selected_by_suffix(inputs):
    media = [inputs / "b" / "a.MP4", inputs / "c.mp4", inputs / "sea.png", inputs / "text.mp4"]
    assert list_files([inputs]) == (media, [inputs / "notes.txt"])
    one = inputs / "c.mp4"
    assert list_files([one, inputs])[0] == [one, media[0], *media[2:]]  # each once
    assert list_files([inputs / "notes.txt"]) == ([inputs / "notes.txt"], [])
    with pytest.raises(ValueError, match="images below .*trash; got none"):
        (inputs / "b" / "trash").mkdir(exist_ok=True)
        list_files([inputs / "b" / "trash"])


def test_every_file_has_a_verdict_or_a_failure(inputs, use, capsys):
    use(predictor_of())
    predictions = predict.predict_files([inputs], THREE, model="red")
    names = [os.path.relpath(path, inputs) for path in predictions.paths]
    assert names == ["b/a.MP4", "c.mp4", "sea.png", "text.mp4"]
    first, second, sea = predictions.files
    (failure,) = predictions.failed
    assert predictions.records == (first, second, sea, failure)
    assert (sea.verdict, sea.score) == ("no face", None)
    assert failure.path.endswith("text.mp4") and "FFmpeg can decode" in failure.error
    assert "text.mp4: Expected a video" in capsys.readouterr().err
    for verdict in (first, second):
        crops = np.stack([face.crop for face in extract_faces(verdict.path, FACES).faces])
        assert verdict.score == pytest.approx(redness(crops).mean(), abs=1e-12)
        assert verdict.duration_s == pytest.approx(6 / 25)
        assert verdict.num_frames == len(verdict.faces) == 3
    values = json.loads(json.dumps(predictions.to_dict(), allow_nan=False))
    assert set(values) == {"files", "failed", "paths", "skipped", "provenance"}
    assert predict.Predictions.from_dict(values) == predictions


def test_several_processes_return_the_same(inputs, use):
    use(predictor_of())
    alone = predict.predict_files([inputs], THREE, model="red")
    several = predict.predict_files([inputs], THREE, PredictRuntime(workers=2), model="red")
    assert several == alone


def test_files_with_a_verdict_are_analysed_again_only_if_they_changed(inputs, use, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(inputs, folder)
    scored = []

    def score(crops):
        scored.append(len(crops))
        return redness(crops)

    use(predictor_of(score))
    out = tmp_path / "out"
    first = predict.predict_files([folder], THREE, model="red", out=out)
    assert len(scored) == 2
    assert [row["path"] for row in rows_of(out)] == list(first.paths)
    table = (out / "verdicts.csv").read_bytes()

    shutil.copy(folder / "c.mp4", folder / "text.mp4")  # failed files are tried again
    second = predict.predict_files([folder], THREE, model="red", out=out)
    assert len(scored) == 3
    assert second.files[:3] == first.files and second.failed == ()
    assert second.files[3].score == first.files[1].score
    assert (out / "verdicts.csv").read_bytes() != table

    os.utime(folder / "c.mp4", ns=(1, 1))
    assert predict.predict_files([folder], THREE, model="red", out=out) == second
    assert len(scored) == 4
    assert predict.predict_files([folder], THREE, model="red", out=out) == second
    assert len(scored) == 4


@pytest.mark.parametrize(
    ("predictor", "options", "change"),
    [
        (predictor_of(digest="two"), THREE, "digest 'one' -> 'two'"),
        (predictor_of(calibration=Calibration(threshold=0.6)), THREE, "threshold 0.5 -> 0.6"),
        (predictor_of(), PredictOptions(frames_per_video=4), "frames_per_video 3 -> 4"),
        (predictor_of(), PredictOptions(frames_per_video=3, threshold=0.7), "threshold 0.5 -> 0.7"),
    ],
)
def test_another_model_or_other_options_are_refused(
    inputs, use, tmp_path, predictor, options, change
):
    sea = inputs / "sea.png"
    use(predictor_of())
    predict.predict_files([sea], THREE, model="red", out=tmp_path / "out")
    use(predictor)
    with pytest.raises(ValueError, match=change):
        predict.predict_files([sea], options, model="red", out=tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        predict.predict_files([sea], options, model="red", out=tmp_path / "other")


def test_hash_and_size_are_those_of_the_analysed_bytes(inputs, use, tmp_path, monkeypatch):
    use(predictor_of())
    path, extractor = tmp_path / "a.mp4", predict.Extractor
    shutil.copy(inputs / "c.mp4", path)

    def change_before(*arguments):
        with open(path, "ab") as file:
            file.write(b"more")
        return extractor(*arguments)

    monkeypatch.setattr(predict, "Extractor", change_before)
    (verdict,) = predict.predict_files([path], THREE, model="red", out=tmp_path / "out").files
    content = path.read_bytes()
    assert verdict.sha256 == hashlib.sha256(content).hexdigest()
    assert verdict.file_bytes == len(content)
    monkeypatch.setattr(predict, "Extractor", extractor)
    # The state that is kept is that of these bytes, too.
    (again,) = predict.predict_files([path], THREE, model="red", out=tmp_path / "out").files
    assert again == verdict
    assert len((tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_and_a_truncated_line_is_repaired(inputs, use, tmp_path):
    use(predictor_of())
    whole = predict.predict_files([inputs], THREE, model="red", out=tmp_path / "whole")
    calls = []

    def interrupt(crops):
        calls.append(len(crops))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return redness(crops)

    out = tmp_path / "out"
    use(predictor_of(interrupt))
    with pytest.raises(KeyboardInterrupt):
        predict.predict_files([inputs], THREE, model="red", out=out)
    lines = (out / "verdicts.jsonl").read_bytes()
    assert lines.count(b"\n") == 1 and not (out / "verdicts.csv").exists()
    (out / "verdicts.jsonl").write_bytes(lines + lines[:100])

    scored = []
    use(predictor_of(lambda crops: scored.append(len(crops)) or redness(crops)))
    assert predict.predict_files([inputs], THREE, model="red", out=out) == whole
    assert len(scored) == 1
    assert (out / "verdicts.csv").read_bytes() == (tmp_path / "whole/verdicts.csv").read_bytes()
    assert [path.name for path in (out / "parts").iterdir()] == ["lock"]
    assert all(map(json.loads, (out / "verdicts.jsonl").read_text().splitlines()))


def test_a_damaged_line_is_named_in_the_error(inputs, use, tmp_path):
    use(predictor_of())
    predict.predict_files([inputs / "sea.png"], THREE, model="red", out=tmp_path / "out")
    with open(tmp_path / "out" / "verdicts.jsonl", "a") as file:
        file.write("{nothing}\n")
    with pytest.raises(ValueError, match="in line 2 of .*verdicts.jsonl"):
        predict.predict_files([inputs / "sea.png"], THREE, model="red", out=tmp_path / "out")


def test_only_the_top_faces_of_the_most_suspicious_files_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(result_folder, "MAX_REPORTED", 2)
    scores = {"a": 0.5, "b": 0.9, "c": 0.7, "d": None}
    with open_folder(tmp_path / "out", dict.fromkeys(scores).items(), **SETTINGS) as folder:
        for value, (name, score) in enumerate(scores.items(), start=1):
            crops = [] if score is None else [np.full((2, 2, 3), value, np.uint8)]
            label = "no face" if score is None else "fake"
            verdict = Verdict(
                name, "ab", label, score, 0.5, 0.5, 1, 0.0, 9, 9, (), (), (), warnings=()
            )
            folder.keep(verdict, crops)
        kept = {name: [crop.mean() for crop in folder.read_top_faces(name)] for name in scores}
    assert kept == {"a": [], "b": [2], "c": [3], "d": []}
    assert len(list((tmp_path / "out" / "top_faces").iterdir())) == 2


def test_two_runs_in_one_folder_are_refused(inputs, use, tmp_path):
    def run_again(crops):
        with pytest.raises(OSError, match=f"only run .*{tmp_path}/out; got"):
            predict.predict_files([inputs / "sea.png"], THREE, model="red", out=tmp_path / "out")
        return redness(crops)

    use(predictor_of(run_again))
    predictions = predict.predict_files(
        [inputs / "c.mp4"], THREE, model="red", out=tmp_path / "out"
    )
    assert len(predictions.files) == 1


def test_invalid_scores_are_a_failure_of_that_file(inputs, use, capsys):
    use(predictor_of(lambda crops: np.full(len(crops), np.nan)))
    paths = [inputs / "c.mp4", inputs / "sea.png"]
    predictions = predict.predict_files(paths, THREE, model="red")
    assert [len(predictions.failed), len(predictions.files)] == [1, 1]
    assert "scores from 0 to 1" in predictions.failed[0].error


@pytest.mark.slow
def test_a_local_and_a_served_model_return_equal_verdicts(exported, model_url, grpc_target, inputs):
    def judge(model, engine=None):
        options = PredictOptions(frames_per_video=2)
        files = predict.predict_files([inputs], options, model=model, engine=engine).files
        assert np.ptp([face.score for face in files[0].faces + files[1].faces]) > 1e-3
        return files

    local = judge(exported, EngineOptions(backend="tensorflow"))
    for url in (model_url, f"grpc://{grpc_target}/tiny"):
        for expected, verdict in zip(local, judge(url), strict=True):
            assert verdict.score == pytest.approx(expected.score, abs=1e-6)
            assert verdict.verdict == expected.verdict
            assert [face.score for face in verdict.faces] == pytest.approx(
                [face.score for face in expected.faces], abs=1e-6
            )


def test_an_impossible_request_is_refused_before_a_file_is_opened(use):
    use(None)
    with pytest.raises(ValueError, match="file to annotate; got 2"):
        predict.predict_files(["a.mp4", "b.mp4"], model="red", annotate="out.mp4")
    with pytest.raises(FileNotFoundError, match="Expected .*nowhere.*Create it"):
        predict.predict_files(["a.mp4"], model="red", annotate="nowhere/out.mp4")


def test_no_output_replaces_an_input_or_another_output(inputs, use, tmp_path):
    use(None)
    clip = inputs / "c.mp4"
    before = clip.read_bytes()
    (tmp_path / "link").symlink_to(inputs)
    (tmp_path / "model").mkdir()
    (tmp_path / "file").write_text("mine")
    refused = [
        ({"report": clip}, ValueError, "c.mp4, which is an input. Choose another name"),
        ({"report": tmp_path / "link" / "c.mp4"}, ValueError, "which is an input"),
        (
            {"report": tmp_path / "a.mp4", "annotate": tmp_path / "a.mp4"},
            ValueError,
            "which is another output",
        ),
        ({"report": tmp_path / "model" / "a.html"}, ValueError, "inside the model"),
        ({"report": tmp_path}, IsADirectoryError, "a file to write to; got the folder"),
        ({"report": "nowhere/page.html"}, FileNotFoundError, "an existing folder.*got nowhere"),
        ({"out": tmp_path / "file"}, NotADirectoryError, "for the verdicts.* got .*file is a"),
        ({"out": tmp_path / "file" / "a"}, NotADirectoryError, "for the verdicts.* got .*a, wh"),
        (
            {"out": tmp_path, "report": tmp_path / "verdicts.jsonl"},
            ValueError,
            "which is part of the result folder",
        ),
    ]
    for outputs, kind, message in refused:
        with pytest.raises(kind, match=message):
            check_paths([clip], model=tmp_path / "model", **outputs)
        if "report" not in outputs:  # `predict_files` checks the others itself
            with pytest.raises(kind, match=message):
                predict.predict_files([clip], model=tmp_path / "model", **outputs)
    assert clip.read_bytes() == before and (tmp_path / "file").read_text() == "mine"


def test_the_command_checks_the_report_before_it_loads_the_model(inputs, tmp_path, capsys):
    clip = shutil.copy(inputs / "c.mp4", tmp_path / "c.html")
    words = ["predict", str(clip), "--server", "grpc://127.0.0.1:9/m", "--report", str(clip)]
    assert main(words) == 1
    assert "c.html, which is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "runtime"),
    [
        ({"frames_per_video": 0}, {}),
        ({"every": -1}, {}),
        ({}, {"explain": -1}),
        ({}, {"workers": -1}),
    ],
)
def test_an_error_about_a_number_names_its_flag(use, options, runtime):
    use(None)
    with pytest.raises(ValueError, match="--frames-per-video .* 1, and --every, --wo"):
        predict.predict_files(
            ["a.mp4"], PredictOptions(**options), PredictRuntime(**runtime), model="red"
        )


def test_an_unreachable_model_ends_the_run_and_the_same_command_resumes_it(inputs, use, tmp_path):
    scored = []

    def disconnect(crops):
        scored.append(len(crops))
        if len(scored) > 1:
            raise ConnectionError("no answer.")
        return redness(crops)

    for out, hint in ((None, "kept without --out"), (tmp_path / "out", "command again to resume")):
        scored.clear()
        use(predictor_of(disconnect))
        with pytest.raises(OSError, match=f"scores for .*c.mp4; got 'no answer.' .*{hint}"):
            predict.predict_files([inputs], THREE, model="red", out=out)
        assert len(scored) == 2
    use(predictor_of())
    predictions = predict.predict_files([inputs], THREE, model="red", out=tmp_path / "out")
    assert [len(predictions.files), len(predictions.failed)] == [3, 1]


def test_a_name_that_is_not_utf_8_fails_alone_and_can_be_written(inputs, use, tmp_path, capsys):
    name = os.fsdecode(b"bad\xff.png")
    try:
        shutil.copy(inputs / "sea.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system refuses such a name")
    shutil.copy(inputs / "sea.png", tmp_path / "sea\x1b[2J.png")
    use(predictor_of())
    predictions = predict.predict_files([tmp_path], THREE, model="red", out=tmp_path / "out")
    (failure,) = predictions.failed
    assert "file name in UTF-8; got " in failure.error
    assert failure.path.endswith("bad\\udcff.png")
    json.dumps(predictions.to_dict(), ensure_ascii=False).encode()
    assert "\\udcff.png,," in (tmp_path / "out" / "verdicts.csv").read_text("utf-8")
    printed = summarize(predictions) + capsys.readouterr().err
    assert "\x1b" not in printed and "sea\\x1b[2J.png: no face" in printed


@pytest.mark.parametrize("mark", [False, True])
def test_a_model_for_demonstration_marks_each_result(inputs, use, tmp_path, mark):
    sentence = "For demonstration only: this model cannot judge real videos."
    metadata = dataclasses.replace(METADATA, demonstration=mark)
    predictor = Predictor("red", metadata, redness, None)
    use(predictor)
    for _ in range(2):  # the second time from the folder
        predictions = predict.predict_files(
            [inputs / "sea.png"], THREE, model="red", out=tmp_path / "out"
        )
        assert predictions.files[0].demonstration is mark
        provenance = json.loads(json.dumps(predictions.to_dict()))["provenance"]
        assert provenance["demonstration"] is mark
        *marks, unseen = provenance["notes"]
        assert marks == [sentence] * mark and "does not see" in unseen
        assert (sentence in summarize(predictions)) is mark
        for name in ("verdicts.csv", "verdicts.jsonl", "options.json"):
            text = (tmp_path / "out" / name).read_text()
            found = sentence in text if name == "verdicts.csv" else '"demonstration": true' in text
            assert found is mark
    assert predict.predict_file(inputs / "sea.png", predictor, THREE).demonstration is mark


def test_the_predictions_state_their_provenance_and_skipped_files(inputs, use, capsys):
    calibration = Calibration(uncertain_from=0.2, uncertain_to=0.9)
    use(predictor_of(calibration=calibration))
    predictions = predict.predict_files([inputs], THREE, model="red")
    provenance = predictions.provenance
    assert (provenance.model, provenance.version, provenance.where) == ("red", 1, "red")
    assert provenance.digest == "one" and provenance.calibration == calibration
    assert (provenance.uncertain_from, provenance.uncertain_to) == (0.2, 0.9)
    assert provenance.thresholds == "calibrated" and provenance.faces.frames_per_video == 3
    assert provenance.versions["jdfd_keras"] == version("jdfd-keras")
    note = "skipped 1 file that is not a video or image (by suffix): "
    assert predictions.skipped == 1 and note in capsys.readouterr().err
    for record in predictions.records:
        content = Path(record.path).read_bytes()
        assert record.sha256 == hashlib.sha256(content).hexdigest()
        assert record.file_bytes == len(content)
        assert record.analysed_at == "2026-01-02T12:00:00+00:00"
    sea, options = [inputs / "sea.png"], PredictOptions(threshold=0.3)
    requested = predict.predict_files(sea, options, model="red")
    assert requested.provenance.thresholds == "threshold"
    use(predictor_of())
    assert predict.predict_files(sea, model="red").provenance.thresholds == "0.5"


@pytest.mark.parametrize("target", ["nothing.mp4", "gone.mp4"])
def test_a_broken_link_or_one_to_itself_is_a_failure(inputs, tmp_path, use, target):
    use(predictor_of())
    (tmp_path / "gone.mp4").symlink_to(tmp_path / target)
    (failure,) = predict.predict_files([tmp_path, inputs / "sea.png"], model="red").failed
    assert "gone.mp4" in failure.error and (failure.sha256, failure.file_bytes) == (None, None)
    with pytest.raises(FileNotFoundError, match="gone.mp4, which is missing"):
        predict.predict_files([tmp_path], model="red", annotate=tmp_path / "out.mp4")


def test_without_an_existing_file_no_model_is_loaded(use, tmp_path):
    use(None)
    with pytest.raises(FileNotFoundError, match=r"a.mp4, which is missing"):
        predict.predict_files([tmp_path / "a.mp4"], model="red")
    with pytest.raises(FileNotFoundError, match=r"got 2 files that are missing, such as .*a.mp4"):
        predict.predict_files([tmp_path / "a.mp4", tmp_path / "b.mp4"], model="red")


def test_the_command_reports_a_missing_file_in_under_a_second_without_tensorflow(tmp_path):
    """Of processor time, so that other programs on this machine do not count."""
    program = (
        "import sys, time; from jdfd_keras.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'tensorflow', 'keras', 'openvino', 'pandas', 'scipy', 'matplotlib'};"
        "print(code, sorted(heavy & set(sys.modules)), time.process_time() < 1)"
    )
    words = ["predict", "missing.mp4", "--model", "nowhere", "--report", "page.html"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "1 [] True\n"
    assert "got missing.mp4, which is missing" in done.stderr


def test_missing_files_among_others_are_reported_before_the_model_is_loaded(
    inputs, monkeypatch, capsys
):
    def load(*_):
        assert "none.mp4, which is missing" in capsys.readouterr().err
        return predictor_of()

    monkeypatch.setattr(predict, "load_predictor", load)
    files = [inputs / "none.mp4", inputs / "sea.png"]
    predictions = predict.predict_files(files, THREE, model="red")
    assert predictions.paths == tuple(map(str, files))
    assert [len(predictions.files), len(predictions.failed)] == [1, 1]
    assert "none.mp4" not in capsys.readouterr().err


STOPPED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # even if it was ignored here
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from tests_of_predict import predictor_of
from jdfd_keras.cli.main import main
from jdfd_keras.prediction import predict
def score(crops):
    print("scoring", flush=True)
    time.sleep(60)
predict.load_predictor = lambda *_: predictor_of(score)
sys.exit(main(["predict", sys.argv[1], "--server", "http://red"]))
"""


@pytest.mark.parametrize(
    ("number", "times", "code"),
    [
        (signal.SIGTERM, 2, 143),  # as `timeout` sends it
        pytest.param(signal.SIGTERM, 1, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 2, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 1, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_without_temporary_files(inputs, tmp_path, number, times, code):
    shutil.copy(__file__, tmp_path / "tests_of_predict.py")
    (tmp_path / "stopped.py").write_text(STOPPED)
    (tmp_path / "temporary").mkdir()
    folders = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        [sys.executable, tmp_path / "stopped.py", inputs / "c.mp4"],
        env=os.environ | folders,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "scoring\n"
        assert list((tmp_path / "temporary").iterdir()) != []
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.01)
        assert process.wait(timeout=30) == code
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_a_killed_run_leaves_is_removed_by_the_next_one(inputs, tmp_path, monkeypatch):
    shutil.copy(__file__, tmp_path / "tests_of_predict.py")
    (tmp_path / "stopped.py").write_text(STOPPED)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folders = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, tmp_path / "stopped.py", inputs / "c.mp4"],
        env=os.environ | folders,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "scoring\n"
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        living = TemporaryFolder()
        others = {path for path in temporary.iterdir() if path != Path(living.name)}
        assert len(others) == 2  # of the crops, and of the processes
        process.kill()
    remove_abandoned(temporary)
    assert list(temporary.iterdir()) == [Path(living.name)]
    living.cleanup()


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("openvino", {"openvino"}), ("tensorflow", {"tensorflow", "keras"}), ("server", set())],
)
def test_provenance_states_the_versions_of_the_engine_that_computed(backend, expected):
    import openvino
    import tensorflow

    assert openvino and tensorflow  # a server has imported both
    predictor = dataclasses.replace(predictor_of(), engine=Engine(backend))
    provenance = describe_provenance(predictor, FaceOptions(), Calibration(), THREE)
    assert set(provenance.versions) & {"openvino", "tensorflow", "keras"} == expected


def test_top_faces_are_kept_for_a_later_report_and_the_predictor_is_closed(inputs, use, tmp_path):
    closed = []
    use(dataclasses.replace(predictor_of(), close=lambda: closed.append(True)))
    runtime = PredictRuntime(workers=1, explain=0)
    predict.predict_files([inputs / "c.mp4"], THREE, runtime, model="red", out=tmp_path / "out")
    (kept,) = (tmp_path / "out" / "top_faces").iterdir()
    assert len(np.load(kept)) == 3 and closed == [True]


def test_an_unreachable_server_costs_only_the_maps_and_is_asked_once(inputs, use):
    calls = []

    def explain(crops):
        calls.append(crops)
        raise ConnectionRefusedError("connection refused")

    use(dataclasses.replace(predictor_of(), explain=explain))
    predictions = predict.predict_files([inputs], THREE, model="red", explain=True)
    assert len(calls) == 1
    first, second, _ = (predictions.top_faces[verdict.path] for verdict in predictions.files)
    for faces in (first, second):
        assert faces.crops.shape == (3, 71, 71, 3) and faces.cams is None
        assert faces.failure.endswith("reached (connection refused)")


DYING = """
import os, signal, sys
import numpy as np
from tests_of_predict import predictor_of, redness, THREE
from jdfd_keras.options import PredictRuntime
from jdfd_keras.prediction import predict

calls = []
def score(crops):
    calls.append(1)
    if len(calls) > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return redness(crops)
predict.load_predictor = lambda path, engine: predictor_of(score)
predict.predict_files(
    [sys.argv[1]], THREE, PredictRuntime(workers=2), model="red", out=sys.argv[2]
)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_with_the_same_rows(clips_folder, use, tmp_path):
    shutil.copy(__file__, tmp_path / "tests_of_predict.py")
    (tmp_path / "dying.py").write_text(DYING)
    use(predictor_of())
    predict.predict_files([clips_folder], THREE, model="red", out=tmp_path / "whole")
    codes = [
        subprocess.run(
            [sys.executable, tmp_path / "dying.py", clips_folder, tmp_path / "out", after],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            stderr=subprocess.DEVNULL,
        ).returncode
        for after in ("3", "5", "1000")
    ]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert (tmp_path / "out/verdicts.csv").read_bytes() == (
        tmp_path / "whole/verdicts.csv"
    ).read_bytes()


@pytest.mark.slow
def test_every_frame_of_a_long_clip_needs_little_memory(clips_folder, use, tmp_path):
    resource = pytest.importorskip("resource")
    capture = cv2.VideoCapture(str(sorted(clips_folder.rglob("real/*.mp4"))[0]))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    size = frames[0].shape[1::-1]
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    for index in range(1200):  # 1,200 crops of 299 px are 320 MB
        writer.write(frames[index % len(frames)])
    writer.release()
    metadata = ModelMetadata(FaceOptions(face_size=299), None, "red", 1, "one")
    use(Predictor("red", metadata, redness, None))
    predict.predict_files([tmp_path / "a.mp4"], PredictOptions(frames_per_video=8), model="red")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = PredictOptions(every=1)
    (verdict,) = predict.predict_files([tmp_path / "a.mp4"], options, model="red").files
    assert len(verdict.faces) == 1200
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 256  # a batch of 256 crops, with room for its mean


@pytest.fixture
def crops(tmp_path):
    """A folder of a square crop, a wide one and a clip of crops, all without a face.

    They have grain, since a flat crop has too little sharpness to be judged.
    """
    folder, rng = tmp_path / "crops", np.random.default_rng(0)
    folder.mkdir()
    for name, shape, red in (("a", (71, 71), 204), ("b", (60, 90), 51)):
        green_blue = rng.integers(0, 100, (*shape, 2), np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), np.dstack([green_blue, np.full(shape, red)]))
    writer = cv2.VideoWriter(str(folder / "c.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (80, 80))
    grain = np.kron(rng.choice([62, 142], (20, 20)), np.ones((4, 4)))
    frame = np.repeat((grain - grain.mean() + 102)[..., None], 3, axis=2).round().astype(np.uint8)
    for _ in range(6):
        writer.write(frame)
    writer.release()
    return folder


def test_the_text_names_the_model_and_its_version(crops, use):
    use(predictor_of())
    found = predict.predict_files([crops / "a.png"], PredictOptions(detector="none"), model="red")
    for number, stated in ((7, "version 7"), (0, "not exported")):
        provenance = dataclasses.replace(found.provenance, model="faces", version=number)
        text = summarize(dataclasses.replace(found, provenance=provenance))
        assert text.splitlines().count(f"model: faces, {stated}") == 1


def test_crops_are_judged_as_they_are_and_their_framing_is_stated(crops, use, tmp_path):
    use(predictor_of())
    options = PredictOptions(frames_per_video=3, detector="none")
    found = predict.predict_files([crops], options, model="red", out=tmp_path / "out")
    scores = [verdict.score for verdict in found.files]
    assert scores == [0.8, 0.2, pytest.approx(0.4, abs=0.02)]
    assert [len(verdict.faces) for verdict in found.files] == [1, 1, 3]
    assert found.files[1].warnings == (
        "1 of 1 image is not square, such as 90 x 60: resized to 71 x 71, which distorts faces",
    )
    assert found.provenance.faces.detector == "none"
    assert "and these are images taken as they are" in found.provenance.framing
    json.loads(json.dumps(found.to_dict()), parse_constant=pytest.fail)
    for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert f"note: {found.provenance.framing}" in summarize(found)
    again = predict.predict_files([crops], options, model="red", out=tmp_path / "out")
    assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
    with pytest.raises(ValueError, match="detector"):
        predict.predict_files([crops], THREE, model="red", out=tmp_path / "out")


def test_faces_that_are_found_as_those_of_the_model_have_its_framing(inputs, use):
    use(predictor_of())
    found = predict.predict_files([inputs / "c.mp4"], THREE, model="red")
    assert found.provenance.framing == ""
    assert "framing" not in summarize(found)


def test_a_model_of_crops_refuses_files_without_a_stated_detector(crops, use):
    metadata = ModelMetadata(
        dataclasses.replace(FACES, detector="none", margin=2.0), None, "red", 1, "one"
    )
    predictor = Predictor("red", metadata, redness, None)
    use(predictor)
    with pytest.raises(ValueError, match=r"--detector none for face crops, or --detector dlib"):
        predict.predict_files([crops], model="red")
    with pytest.raises(ValueError, match="--detector none"):
        predict.predict_file(crops / "a.png", predictor)
    options = PredictOptions(detector="none")
    assert predict.predict_file(crops / "a.png", predictor, options).score == 0.8
    found = predict.predict_files([crops / "a.png"], options, model="red")
    assert "if their framing differs" in found.provenance.framing


def test_codecs_print_nothing_about_damaged_files(inputs, use, tmp_path, capfd):
    """LibTIFF and others print to stderr of the process, not through Python."""
    use(predictor_of())
    clip = bytearray((inputs / "c.mp4").read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(len(clip) // 4, len(clip), 40):
        clip[position] ^= 0xFF
    (tmp_path / "damaged.mp4").write_bytes(clip)
    image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    image.save(tmp_path / "damaged.tiff", compression="tiff_lzw")
    tiff = bytearray((tmp_path / "damaged.tiff").read_bytes())
    tiff[400:600] = b"\xff" * 200
    (tmp_path / "damaged.tiff").write_bytes(tiff)
    with pytest.raises(OSError, match="Expected"):  # noisy in this process
        extract_faces(tmp_path / "damaged.tiff", FACES)
    assert "tif" in capfd.readouterr().err
    predictions = predict.predict_files([tmp_path], THREE, model="red")
    assert predictions.failed[-1].path.endswith("damaged.tiff")
    own = ("judging files", "Expected a complete image", "Expected a video")
    lines = capfd.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in lines if line and not any(text in line for text in own)] == []


def test_the_command_judges_and_annotates_a_crop(crops, use, tmp_path, capsys):
    use(predictor_of())
    page, marked = tmp_path / "page.html", tmp_path / "marked.png"
    command = ["predict", crops / "a.png", "--model", "red", "--detector", "none"]
    command += ["--report", page, "--annotate", marked]
    assert main([*map(str, command), "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert values["files"][0]["tracks"][0]["confidence"] is None
    assert "another domain" in values["provenance"]["framing"]
    text = page.read_text()
    assert "images taken as they are: crops of another framing" in text
    assert not re.search(r"\bnan\b", text.split("</style>")[-1])
    assert marked.stat().st_size > 0
