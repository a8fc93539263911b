import dataclasses
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from jdfd_keras.cli import demo_stages
from jdfd_keras.cli.demo import COMMAND
from jdfd_keras.cli.main import main, parse
from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import NOT_SEEN
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.faces.decode import open_media
from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.inference.verdict import Provenance, judge
from jdfd_keras.io.files import init_folder
from jdfd_keras.options import DemoOptions, FaceOptions
from jdfd_keras.prediction.predict import Predictions

SMALL = [
    "--subjects",
    "20",
    "--frames-per-clip",
    "6",
    "--frames-per-video",
    "3",
    "--face-size",
    "71",
]


def run_demo_in(folder, *words):
    """Run the demo as a user does, and return its result and what it printed meanwhile."""
    done = subprocess.run(
        [sys.executable, "-m", "jdfd_keras", "demo", *words, "--format", "json"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_the_demo_judges_a_real_and_a_fake_video_with_the_shipped_detector(tmp_path):
    result, printed = run_demo_in(tmp_path)

    assert re.findall(r"^\$ (.*)", printed, flags=re.MULTILINE) == [
        "jdfd-keras predict demo/videos/real/astronaut.mp4 "
        "demo/videos/fake/astronaut_person00.mp4 --report demo/verdicts.html --overwrite "
        "--format json > demo/verdicts.json"
    ]
    names = {Path(clip["verdict"]["path"]).name: clip["truth"] for clip in result["clips"]}
    assert names == {"astronaut.mp4": "real", "astronaut_person00.mp4": "fake"}
    provenance = json.loads((tmp_path / "demo/verdicts.json").read_text())["provenance"]
    assert Path(provenance["where"]).parts[-3:] == ("saved_models", "jdfd-faces", "1")
    assert (result["model"], result["version"]) == (provenance["model"], provenance["version"])
    assert (tmp_path / result["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    for clip in result["clips"]:
        verdict = clip["verdict"]
        assert verdict["num_frames"] == 32
        assert verdict["num_people"] == 1
        with open_media(tmp_path / verdict["path"]) as media:
            frame = next(media.read(1))
            assert media.info.codec == "h264"
        assert frame.pixels.shape == (480, 640, 3)

    # A second run keeps the videos and judges them again.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("demo/videos/*/*.mp4")}
    again, _ = run_demo_in(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for first, second in zip(result["clips"], again["clips"], strict=True):
        assert second["outcome"] == first["outcome"]
        assert second["verdict"]["score"] == first["verdict"]["score"]


def predictions_of(verdict):
    path = Path(verdict.path)
    names = {"model": "m", "version": 1, "digest": "ab", "where": "m", "faces": FaceOptions()}
    provenance = Provenance(**names, uncertain_from=0.5, uncertain_to=0.5, thresholds="0.5")
    return Predictions((verdict,), (), (str(path),), 0, provenance)


@pytest.mark.parametrize(
    ("truth", "found", "outcome"),
    [
        ("real", "no_evidence", "no evidence of manipulation (correct)"),
        ("real", "fake", "fake (wrong)"),
        ("real", "uncertain", "uncertain (undecided)"),
        ("fake", "fake", "fake (correct)"),
        ("fake", "no_evidence", "no evidence of manipulation (wrong)"),
        ("fake", "no face", "no face (undecided)"),
    ],
)
def test_the_demo_says_whether_a_verdict_is_right(
    truth, found, outcome, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "videos" / truth / "a.mp4"
    nobody = Extraction([], [], 4, {}, [], 64, 48, MediaInfo(), "ab")
    verdict = judge(path, nobody, lambda crops: crops, Calibration())
    verdict = dataclasses.replace(verdict, verdict=found, score=0.7, reasons=("a reason",))

    def predict(*words, to):
        assert words[:2] == ("predict", path)
        to.write_text(json.dumps(predictions_of(verdict).to_dict()), encoding="utf-8")

    monkeypatch.setattr(demo_stages, "find_portrait", lambda *_: None)
    monkeypatch.setattr(demo_stages, "vary_portrait", lambda *_: [None])
    monkeypatch.setattr(demo_stages, "make_videos", lambda *_, seed: [path])
    monkeypatch.setattr(demo_stages, "_run", predict)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(f"{truth} video {path}: {outcome}: ")]
    assert f"note: {NOT_SEEN}" in lines
    assert "model: m, version 1" in lines


def test_options_of_the_training_need_train(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--epochs", "3", "--seed", "1"]) == 1
    assert "Expected --train with options of the training; got --epochs" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_training_demo_runs_every_stage(tmp_path):
    result, printed = run_demo_in(tmp_path, "--train", "--out", "my demo", "--epochs", "1", *SMALL)

    commands = re.findall(r"^\$ jdfd-keras (\w+)", printed, flags=re.MULTILINE)
    assert commands == ["prepare", "train", "calibrate", "evaluate", "export", "serve", "predict"]

    report = json.loads((tmp_path / "my demo/report/report.json").read_text(encoding="utf-8"))
    assert result["test_frame_auc"] == report["frame"]["auc"]["value"]
    assert 0 <= result["validation_frame_auc"] <= 1
    verdicts = [verdict["verdict"] for verdict in result["verdicts"]]
    assert set(verdicts) <= {"no_evidence", "uncertain", "fake"} and len(verdicts) == 2
    for verdict in result["verdicts"]:
        # The swaps are crude, so that dlib may hardly find the face: then nobody is judged.
        if verdict["num_people"]:
            assert 0 <= verdict["score"] <= 1
        else:
            assert (verdict["verdict"], verdict["score"]) == ("uncertain", None)
            assert verdict["reasons"]
        assert verdict["demonstration"]

    # The clips are of the test split, which training does not use.
    videos = read_videos(tmp_path / "my demo/prepared", split_table="official")
    split = {video.path: video.split for video in videos}
    for verdict in result["verdicts"]:
        assert split[verdict["path"].removeprefix("my demo/videos/")] == "test"

    for name in ("roc", "report", "model"):
        assert (tmp_path / result[name]).exists()
    assert "cannot judge" in result["disclaimer"]

    url = re.search(r"http://127.0.0.1:\d+", printed).group()
    with pytest.raises(urllib.error.URLError):  # the server was stopped
        urllib.request.urlopen(url, timeout=5)


def test_the_demos_have_folders_of_their_own(tmp_path, monkeypatch):
    def refuse(out, options):
        raise ValueError(out)

    monkeypatch.setattr(demo_stages, "run_demo", refuse)
    monkeypatch.setattr(demo_stages, "run_training_demo", refuse)
    for words, folder in ([[], "demo"], [["--train"], "demo-train"]):
        with pytest.raises(ValueError, match=f"^{folder}$"):
            COMMAND.run(parse(["demo", *words]))


def test_a_folder_with_other_options_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_stages, "find_portrait", lambda *_: None)
    monkeypatch.setattr(demo_stages, "vary_portrait", lambda *_: [None])
    init_folder(tmp_path / "demo", demo=DemoOptions(train=True, subjects=4))
    with pytest.raises(ValueError, match="subjects 4 -> 6"):
        demo_stages.run_training_demo(tmp_path / "demo", DemoOptions(train=True, subjects=6))
    with pytest.raises(ValueError, match="train"):
        demo_stages.run_demo(tmp_path / "demo")


@pytest.mark.parametrize(("options", "count"), [(DemoOptions(), 2), (DemoOptions(train=True), 6)])
def test_too_few_photographs_are_an_error(options, count, tmp_path):
    run = demo_stages.run_training_demo if options.train else demo_stages.run_demo
    (tmp_path / "photographs").mkdir()
    options = dataclasses.replace(options, portraits=str(tmp_path / "photographs"))
    with pytest.raises(ValueError, match=f"{count} photographs .*got 0"):
        run(tmp_path / "demo", options)
    assert not (tmp_path / "demo").exists()
