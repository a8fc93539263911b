"""Verdicts on many files: real clips, scores that can be worked out from their pixels."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jdfd_keras.client.metadata import Calibration, Description
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.inference.backends import Scorer
from jdfd_keras.options import FaceOptions, PredictOptions, PredictWorkOptions
from jdfd_keras.prediction import predict
from jdfd_keras.prediction import result_folder as folder
from jdfd_keras.prediction import result_folder as places
from jdfd_keras.reporting.verdict_text import summarize

FACES = FaceOptions(face_size=71, frames_per_video=3)
THREE = PredictOptions(frames_per_video=3)
GROUNDS = {"digest": "one", "faces": FACES, "borders": Calibration()}


def redness(crops):
    return crops[..., 0].mean(axis=(1, 2)) / 255


def scorer_of(score=redness, digest="one", calibration=None):
    return Scorer("red", Description(FACES, calibration, "red", 1, digest), score, None)


@pytest.fixture(autouse=True)
def noon(monkeypatch):
    """One time of judging, so that what two runs give can be compared."""
    clock = SimpleNamespace(now=lambda zone: datetime(2026, 1, 2, 12, tzinfo=zone))
    monkeypatch.setattr(predict, "datetime", clock)


@pytest.fixture
def use(monkeypatch):
    """A function that sets the scorer of `model="red"`."""
    return lambda scorer: monkeypatch.setattr(predict, "local_scorer", lambda path: scorer)


@pytest.fixture(scope="module")
def inputs(clips_folder, tmp_path_factory):
    """A folder of two clips, a picture without a face, a text named .mp4, and what is hidden."""
    folder = tmp_path_factory.mktemp("inputs")
    first, second = sorted(clips_folder.rglob("real/*.mp4"))[:2]
    (folder / "b" / ".trash").mkdir(parents=True)
    shutil.copy(first, folder / "c.mp4")
    shutil.copy(second, folder / "b" / "a.MP4")
    shutil.copy(second, folder / "b" / ".trash" / "a.mp4")
    shutil.copy(second, folder / ".hidden.mp4")
    (folder / "notes.txt").write_text("no video")
    (folder / "text.mp4").write_text("no video")
    cv2.imwrite(str(folder / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    return folder


def rows_of(out):
    with open(out / "verdicts.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_files_of_a_folder_are_sorted_known_by_suffix_and_not_hidden(inputs):
    below = [inputs / "b" / "a.MP4", inputs / "c.mp4", inputs / "sea.png", inputs / "text.mp4"]
    assert places.list_files([inputs]) == (below, [inputs / "notes.txt"])
    one = inputs / "c.mp4"
    assert places.list_files([one, inputs])[0] == [one, below[0], *below[2:]]  # each once
    assert places.list_files([inputs / "notes.txt"]) == ([inputs / "notes.txt"], [])
    with pytest.raises(ValueError, match="videos or images below .*trash; got none"):
        (inputs / "b" / "trash").mkdir(exist_ok=True)
        places.list_files([inputs / "b" / "trash"])


def test_every_file_gets_its_verdict_or_its_failure(inputs, use, capsys):
    use(scorer_of())
    result = predict.predict_files([inputs], THREE, model="red")
    names = [os.path.relpath(path, inputs) for path in result["paths"]]
    assert names == ["b/a.MP4", "c.mp4", "sea.png", "text.mp4"]
    first, second, sea = result["files"]
    (failure,) = result["failed"]
    assert (sea["verdict"], sea["score"]) == ("no face", None)
    assert failure["path"].endswith("text.mp4") and "FFmpeg can decode" in failure["error"]
    assert "text.mp4: Expected a video" in capsys.readouterr().err
    for verdict in (first, second):
        crops = np.stack([face.crop for face in extract_faces(verdict["path"], FACES).faces])
        assert verdict["score"] == pytest.approx(redness(crops).mean(), abs=1e-12)
        assert verdict["duration_s"] == pytest.approx(6 / 25)
        assert verdict["num_frames"] == len(verdict["faces"]) == 3
    json.dumps(result, allow_nan=False)


def test_several_processes_give_the_same(inputs, use):
    use(scorer_of())
    alone = predict.predict_files([inputs], THREE, model="red")
    several = predict.predict_files([inputs], THREE, PredictWorkOptions(workers=2), model="red")
    assert several == alone


def test_what_is_done_is_not_done_again_unless_it_changed(inputs, use, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(inputs, folder)
    scored = []

    def score(crops):
        scored.append(len(crops))
        return redness(crops)

    use(scorer_of(score))
    out = tmp_path / "out"
    first = predict.predict_files([folder], THREE, model="red", out=out)
    assert len(scored) == 2
    assert [row["path"] for row in rows_of(out)] == first["paths"]
    table = (out / "verdicts.csv").read_bytes()

    shutil.copy(folder / "c.mp4", folder / "text.mp4")  # what failed is tried again
    second = predict.predict_files([folder], THREE, model="red", out=out)
    assert len(scored) == 3
    assert second["files"][:3] == first["files"] and second["failed"] == []
    assert second["files"][3]["score"] == first["files"][1]["score"]
    assert (out / "verdicts.csv").read_bytes() != table

    os.utime(folder / "c.mp4", ns=(1, 1))
    assert predict.predict_files([folder], THREE, model="red", out=out) == second
    assert len(scored) == 4
    assert predict.predict_files([folder], THREE, model="red", out=out) == second
    assert len(scored) == 4


@pytest.mark.parametrize(
    ("scorer", "options", "named"),
    [
        (scorer_of(digest="two"), THREE, "digest 'one' -> 'two'"),
        (scorer_of(calibration=Calibration(threshold=0.6)), THREE, "threshold 0.5 -> 0.6"),
        (scorer_of(), PredictOptions(frames_per_video=4), "frames_per_video 3 -> 4"),
        (scorer_of(), PredictOptions(frames_per_video=3, threshold=0.7), "threshold 0.5 -> 0.7"),
    ],
)
def test_another_model_or_other_options_are_refused(inputs, use, tmp_path, scorer, options, named):
    sea = inputs / "sea.png"
    use(scorer_of())
    predict.predict_files([sea], THREE, model="red", out=tmp_path / "out")
    use(scorer)
    with pytest.raises(ValueError, match=named):
        predict.predict_files([sea], options, model="red", out=tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        predict.predict_files([sea], options, model="red", out=tmp_path / "other")


def test_interrupted_it_goes_on_and_a_line_that_was_cut_is_repaired(inputs, use, tmp_path):
    use(scorer_of())
    whole = predict.predict_files([inputs], THREE, model="red", out=tmp_path / "whole")
    calls = []

    def break_off(crops):
        calls.append(len(crops))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return redness(crops)

    out = tmp_path / "out"
    use(scorer_of(break_off))
    with pytest.raises(KeyboardInterrupt):
        predict.predict_files([inputs], THREE, model="red", out=out)
    lines = (out / "verdicts.jsonl").read_bytes()
    assert lines.count(b"\n") == 1 and not (out / "verdicts.csv").exists()
    (out / "verdicts.jsonl").write_bytes(lines + lines[:100])
    (out / "parts" / "left.crops").write_bytes(b"left by a killed run")

    scored = []
    use(scorer_of(lambda crops: scored.append(len(crops)) or redness(crops)))
    assert predict.predict_files([inputs], THREE, model="red", out=out) == whole
    assert len(scored) == 1
    assert (out / "verdicts.csv").read_bytes() == (tmp_path / "whole/verdicts.csv").read_bytes()
    assert [path.name for path in (out / "parts").iterdir()] == ["lock"]
    assert all(map(json.loads, (out / "verdicts.jsonl").read_text().splitlines()))


def test_a_damaged_line_is_named(inputs, use, tmp_path):
    use(scorer_of())
    predict.predict_files([inputs / "sea.png"], THREE, model="red", out=tmp_path / "out")
    with open(tmp_path / "out" / "verdicts.jsonl", "a") as file:
        file.write("{nothing}\n")
    with pytest.raises(ValueError, match="in line 2 of .*verdicts.jsonl"):
        predict.predict_files([inputs / "sea.png"], THREE, model="red", out=tmp_path / "out")


def test_the_strongest_faces_of_the_most_suspicious_files_alone_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MOST_SHOWN", 2)
    scores = {"a": 0.5, "b": 0.9, "c": 0.7, "d": None}
    with folder.open_folder(tmp_path / "out", map(Path, scores), **GROUNDS) as kept_in:
        for value, (name, score) in enumerate(scores.items(), start=1):
            crops = [] if score is None else [np.full((2, 2, 3), value, np.uint8)]
            verdict = "no face" if score is None else "fake"
            kept_in.keep({"path": name, "score": score, "verdict": verdict}, crops)
        kept = {name: [crop.mean() for crop in kept_in.read_strongest(name)] for name in scores}
    assert kept == {"a": [], "b": [2], "c": [3], "d": []}
    assert len(list((tmp_path / "out" / "strongest").iterdir())) == 2


def test_two_runs_in_one_folder_are_refused(inputs, use, tmp_path):
    def run_again(crops):
        with pytest.raises(OSError, match="only run that writes"):
            predict.predict_files([inputs / "sea.png"], THREE, model="red", out=tmp_path / "out")
        return redness(crops)

    use(scorer_of(run_again))
    result = predict.predict_files([inputs / "c.mp4"], THREE, model="red", out=tmp_path / "out")
    assert len(result["files"]) == 1


def test_scores_that_are_none_are_a_failure_of_that_file(inputs, use, capsys):
    use(scorer_of(lambda crops: np.full(len(crops), np.nan)))
    result = predict.predict_files([inputs / "c.mp4", inputs / "sea.png"], THREE, model="red")
    assert [len(result["failed"]), len(result["files"])] == [1, 1]
    assert "scores from 0 to 1" in result["failed"][0]["error"]


def test_model_and_servers_give_equal_verdicts(exported, model_url, grpc_target, inputs):
    def judge(**where):
        files = predict.predict_files([inputs], PredictOptions(frames_per_video=2), **where)[
            "files"
        ]
        assert np.ptp([face["score"] for face in files[0]["faces"] + files[1]["faces"]]) > 1e-3
        return files

    local = judge(model=exported)
    for url in (model_url, f"grpc://{grpc_target}/tiny"):
        for mine, theirs in zip(local, judge(server=url), strict=True):
            assert theirs["score"] == pytest.approx(mine["score"], abs=1e-6)
            assert theirs["verdict"] == mine["verdict"]
            assert [face["score"] for face in theirs["faces"]] == pytest.approx(
                [face["score"] for face in mine["faces"]], abs=1e-6
            )


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({}, "Expected a model or a server.*Give one of them"),
        ({"model": "run", "server": "http://h/v1/models/m"}, "Expected a model or a server"),
        ({"model": "red", "annotate": "out.mp4"}, "one file to annotate; got 2"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_file_is_opened(use, asked, named):
    use(None)
    with pytest.raises(ValueError, match=named):
        predict.predict_files(["a.mp4", "b.mp4"], **asked)
    for lost in ({"report": "nowhere/page.html"}, {"annotate": "nowhere/out.mp4"}):
        with pytest.raises(FileNotFoundError, match="a folder that is there.*got nowhere"):
            predict.predict_files(["a.mp4"], model="red", **lost)


def test_no_file_that_is_read_or_kept_is_written_over(inputs, use, tmp_path):
    use(None)
    clip = inputs / "c.mp4"
    before = clip.read_bytes()
    (tmp_path / "link").symlink_to(inputs)
    (tmp_path / "model").mkdir()
    (tmp_path / "file").write_text("mine")
    refused = [
        ({"report": clip}, ValueError, "c.mp4, which is looked at. Choose another name"),
        ({"report": tmp_path / "link" / "c.mp4"}, ValueError, "which is looked at"),
        (
            {"report": tmp_path / "a.mp4", "annotate": tmp_path / "a.mp4"},
            ValueError,
            "which is written already",
        ),
        ({"report": tmp_path / "model" / "a.html"}, ValueError, "within the model"),
        ({"report": tmp_path}, IsADirectoryError, "a file to write to; got the folder"),
        ({"out": tmp_path / "file"}, NotADirectoryError, "to keep verdicts in; got .*file is a"),
        ({"out": tmp_path / "file" / "a"}, NotADirectoryError, "to keep verdicts in; got .*a, wh"),
        (
            {"out": tmp_path, "report": tmp_path / "verdicts.jsonl"},
            ValueError,
            "in which verdicts are kept",
        ),
    ]
    for asked, kind, named in refused:
        with pytest.raises(kind, match=named):
            predict.predict_files([clip], model=tmp_path / "model", **asked)
    assert clip.read_bytes() == before and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "work"),
    [
        ({"frames_per_video": 0}, {}),
        ({"every": -1}, {}),
        ({}, {"explain": -1}),
        ({}, {"workers": -1}),
    ],
)
def test_numbers_out_of_range_are_refused_by_the_names_of_their_flags(use, options, work):
    use(None)
    with pytest.raises(ValueError, match="--frames-per-video to be at least 1, and --every, --wo"):
        predict.predict_files(
            ["a.mp4"], PredictOptions(**options), PredictWorkOptions(**work), model="red"
        )


def test_a_model_that_goes_away_ends_the_run_and_the_same_command_goes_on(inputs, use, tmp_path):
    scored = []

    def go_away(crops):
        scored.append(len(crops))
        if len(scored) > 1:
            raise ConnectionError("no answer.")
        return redness(crops)

    for out, rest in ((None, "kept without --out"), (tmp_path / "out", "the same command goes on")):
        scored.clear()
        use(scorer_of(go_away))
        with pytest.raises(OSError, match=f"scores for .*c.mp4; got 'no answer.' .*{rest}"):
            predict.predict_files([inputs], THREE, model="red", out=out)
        assert len(scored) == 2
    use(scorer_of())
    result = predict.predict_files([inputs], THREE, model="red", out=tmp_path / "out")
    assert [len(result["files"]), len(result["failed"])] == [3, 1]


def test_a_name_that_is_no_utf_8_fails_alone_and_can_be_written(inputs, use, tmp_path, capsys):
    name = os.fsdecode(b"bad\xff.png")
    try:
        shutil.copy(inputs / "sea.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    shutil.copy(inputs / "sea.png", tmp_path / "sea\x1b[2J.png")
    use(scorer_of())
    result = predict.predict_files([tmp_path], THREE, model="red", out=tmp_path / "out")
    (failure,) = result["failed"]
    assert failure["error"].startswith("Expected a file name in UTF-8; got ")
    assert failure["path"].endswith("bad\\udcff.png")
    json.dumps(result, ensure_ascii=False).encode()
    assert "\\udcff.png,," in (tmp_path / "out" / "verdicts.csv").read_text("utf-8")
    printed = summarize(result) + capsys.readouterr().err
    assert "\x1b" not in printed and "sea\\x1b[2J.png: no face" in printed


def test_the_result_says_what_it_was_made_with_and_what_was_passed_over(inputs, use, capsys):
    use(scorer_of(calibration=Calibration(uncertain_from=0.2, uncertain_to=0.9)))
    result = predict.predict_files([inputs], THREE, model="red")
    made = result["made_with"]
    assert [made[name] for name in ("model", "version", "where")] == ["red", 1, "red"]
    assert made["digest"] == "one"
    assert (made["uncertain_from"], made["uncertain_to"]) == (0.2, 0.9)
    assert made["borders"] == "calibrated" and made["faces"]["frames_per_video"] == 3
    assert made["jdfd_keras"] == version("jdfd-keras")
    assert result["passed_over"] == 1 and "passed over 1 file" in capsys.readouterr().err
    for record in result["files"] + result["failed"]:
        content = Path(record["path"]).read_bytes()
        assert record["sha256"] == hashlib.sha256(content).hexdigest()
        assert record["file_bytes"] == len(content)
        assert record["judged"] == "2026-01-02T12:00:00+00:00"
    sea, asked = [inputs / "sea.png"], PredictOptions(threshold=0.3)
    assert predict.predict_files(sea, asked, model="red")["made_with"]["borders"] == "threshold"
    use(scorer_of())
    assert predict.predict_files(sea, model="red")["made_with"]["borders"] == "0.5"


def test_a_link_that_leads_nowhere_is_a_failure(tmp_path, use):
    use(scorer_of())
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    (failure,) = predict.predict_files([tmp_path], model="red")["failed"]
    assert "gone.mp4, which is not there" in failure["error"] and "sha256" not in failure


def test_faces_are_kept_for_a_later_report_and_the_scorer_is_closed(inputs, use, tmp_path):
    closed = []
    use(dataclasses.replace(scorer_of(), close=lambda: closed.append(True)))
    work = PredictWorkOptions(workers=1, explain=0)
    predict.predict_files([inputs / "c.mp4"], THREE, work, model="red", out=tmp_path / "out")
    (kept,) = (tmp_path / "out" / "strongest").iterdir()
    assert len(np.load(kept)) == 3 and closed == [True]


DYING = """
import os, signal, sys
import numpy as np
from tests_of_predict import scorer_of, redness, THREE
from jdfd_keras.options import PredictWorkOptions
from jdfd_keras.prediction import predict

if __name__ == "__main__":
    calls = []
    def score(crops):
        calls.append(1)
        if len(calls) > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return redness(crops)
    predict.local_scorer = lambda path: scorer_of(score)
    predict.predict_files(
        [sys.argv[1]], THREE, PredictWorkOptions(workers=2), model="red", out=sys.argv[2]
    )
"""


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_same_rows(clips_folder, use, tmp_path):
    shutil.copy(__file__, tmp_path / "tests_of_predict.py")
    (tmp_path / "dying.py").write_text(DYING)
    use(scorer_of())
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
def test_every_frame_of_a_long_film_costs_little_memory(clips_folder, use, tmp_path):
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
    known = Description(FaceOptions(face_size=299), None, "red", 1, "one")
    use(Scorer("red", known, redness, None))
    predict.predict_files([tmp_path / "a.mp4"], PredictOptions(frames_per_video=8), model="red")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = predict.predict_files([tmp_path / "a.mp4"], PredictOptions(every=1), model="red")
    assert len(result["files"][0]["faces"]) == 1200
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 256  # a part of 256 crops, stacked, with room for its mean
