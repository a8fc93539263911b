import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from jdfd_keras.datasets.manifest import read_videos

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


@pytest.mark.slow
def test_the_demo_runs_every_stage(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jdfd_keras", "demo", "--out", "my demo", "--epochs", "1", *SMALL]
        + ["--format", "json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)

    commands = re.findall(r"^\$ jdfd-keras (\w+)", done.stderr, flags=re.MULTILINE)
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

    # The clips are of the test split, which training does not use.
    videos = read_videos(tmp_path / "my demo/prepared", split_table="official")
    split = {video.path: video.split for video in videos}
    for verdict in result["verdicts"]:
        assert split[verdict["path"].removeprefix("my demo/videos/")] == "test"

    for name in ("roc", "report", "model"):
        assert (tmp_path / result[name]).exists()
    assert "cannot judge" in result["disclaimer"]

    url = re.search(r"http://127.0.0.1:\d+", done.stderr).group()
    with pytest.raises(urllib.error.URLError):  # the server was stopped
        urllib.request.urlopen(url, timeout=5)


def test_a_folder_with_other_options_is_refused(tmp_path):
    from jdfd_keras.cli.demo_stages import run_demo
    from jdfd_keras.io.files import init_folder
    from jdfd_keras.options import DemoOptions

    init_folder(tmp_path / "demo", demo=DemoOptions(subjects=4))
    with pytest.raises(ValueError, match="subjects 4 -> 6"):
        run_demo(tmp_path / "demo", DemoOptions(subjects=6))


def test_too_few_photographs_are_an_error(tmp_path):
    from jdfd_keras.cli.demo_stages import run_demo
    from jdfd_keras.options import DemoOptions

    (tmp_path / "photographs").mkdir()
    with pytest.raises(ValueError, match="6 photographs .*got 0"):
        run_demo(tmp_path / "demo", DemoOptions(portraits=str(tmp_path / "photographs")))
    assert not (tmp_path / "demo").exists()
