import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdfd_keras.cli import EXAMPLES, main, parse

COMMANDS = sorted(EXAMPLES)
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)])
def test_help_answers_at_once(words):
    def seconds() -> float:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "jdfd_keras", *words, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0
        assert done.stdout.startswith("usage: jdfd-keras")
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(3)) < 0.5


def commands_in(text: str) -> list[str]:
    text = text.replace("\\\n", " ")
    return re.findall(r"^ *(jdfd-keras .+?)(?: &)?$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("line", [line for text in EXAMPLES.values() for line in commands_in(text)])
def test_examples_in_the_help_are_parsed(line):
    assert parse(shlex.split(line)[1:]).command in COMMANDS


def test_commands_in_the_readme_are_parsed():
    blocks = re.findall(r"^    .*$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = commands_in("\n".join(blocks))
    assert {parse(shlex.split(line)[1:]).command for line in lines} == set(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["no-such-command"],
        ["prepare"],
        ["prepare", "videos"],
        ["prepare", "videos", "root", "--out", "x"],
        ["prepare", "folder", "videos", "--out", "x", "--detector", "guess"],
        ["prepare", "folder", "videos", "--out", "x", "--temp_location", "y"],
        ["prepare", "folder", "videos", "--out", "x", "--frames", "3"],
        ["audit"],
        ["train", "prepared", "--out", "x", "--epochs", "many"],
        ["predict", "clip.mp4"],
        ["predict", "clip.mp4", "--model", "m", "--server", "http://127.0.0.1:1/v1/models/m"],
    ],
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as exit:
        main(words)
    assert exit.value.code == 2
    assert "usage: jdfd-keras" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model_file(tiny_detector, tmp_path_factory):
    """The tiny detector as a .keras file."""
    path = tmp_path_factory.mktemp("cli") / "tiny.keras"
    tiny_detector.save(path)
    return path


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory, clips_folder):
    """Files that have no verdict, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad files")
    whole = next((clips_folder / "real").glob("*.mp4")).read_bytes()
    (folder / "notes.mp4").write_text("These are my notes on the case.\n")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    wall = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    write_video(folder / "wall.mp4", [wall] * 3)
    (folder / "folder.mp4").mkdir()
    return {
        "is not there": folder / "missing.mp4",
        "which is a folder": folder / "folder.mp4",
        "which is neither": folder / "notes.mp4",
        "(0 bytes)": folder / "empty.mp4",
        "cut short": folder / "cut.mp4",
        "Expected a face": folder / "wall.mp4",
    }


def assert_one_line(text: str, command: str, *parts: str) -> None:
    """An error is one line for a person: no traceback, no words of TensorFlow or FFmpeg."""
    assert re.fullmatch(rf"jdfd-keras {command}: Expected [^\n]+; got [^\n]+\.\n", text), text
    for part in parts:
        assert part in text


def test_files_without_a_verdict_are_named_and_the_others_keep_theirs(
    model_file, bad_files, clips_folder, capfd
):
    good = next((clips_folder / "fake").glob("*.mp4"))
    paths = [good, *bad_files.values()]
    code = main(["predict", *map(str, paths), "--model", str(model_file), "--format", "json"])
    assert code == 1
    printed = capfd.readouterr()
    import json

    result = json.loads(printed.out)
    assert [verdict["path"] for verdict in result["files"]] == [str(good)]
    assert result["files"][0]["score"] == pytest.approx(
        np.mean([face["score"] for face in result["files"][0]["faces"]])
    )
    assert [failure["path"] for failure in result["failed"]] == [
        str(path) for path in bad_files.values()
    ]
    lines = printed.err.splitlines()
    assert len(lines) == len(bad_files)
    for line, (reason, path) in zip(lines, bad_files.items(), strict=True):
        assert line.startswith(f"{path}: Expected")
        assert reason in line


def test_wrong_model_path_is_one_clear_line(tmp_path, prepared_set, clips_folder, capfd):
    clip = next((clips_folder / "fake").glob("*.mp4"))
    nowhere = tmp_path / "nowhere"
    calls = {
        "predict": [str(clip), "--model", str(nowhere)],
        "evaluate": [str(nowhere), str(prepared_set), "--out", str(tmp_path / "report")],
        "export": [str(nowhere), "--name", "m", "--saved-models", str(tmp_path / "models")],
        "serve": [str(nowhere)],
    }
    for command, words in calls.items():
        assert main([command, *words]) == 1
        printed = capfd.readouterr()
        assert printed.out == ""
        assert_one_line(printed.err, command, str(nowhere))
    assert list(tmp_path.iterdir()) == []


def test_bad_data_set_is_one_clear_line(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    for name in ("real", "fake"):
        (tmp_path / "no videos" / name).mkdir(parents=True)
    (tmp_path / "one class" / "real").mkdir(parents=True)
    (tmp_path / "one class" / "real" / "a.mp4").touch()
    for root, reason in {
        "nowhere": "which is no folder",
        "empty": "real/, fake/, train/real/, train/fake/; got an empty folder",
        "no videos": "real/, fake/, train/real/, train/fake/; got an empty folder",
        "one class": "got 1 files and none that is fake",
    }.items():
        out = tmp_path / "out"
        assert main(["prepare", "folder", str(tmp_path / root), "--out", str(out)]) == 1
        assert_one_line(capfd.readouterr().err, "prepare", reason)
        assert not out.exists()


def test_training_on_what_is_no_data_set_is_one_clear_line(tmp_path, capfd):
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    error = capfd.readouterr().err
    assert_one_line(error.split("\n", 1)[1], "train", "got no manifest.parquet", "prepare")


def test_threshold_in_per_cent_is_refused(model_file, clips_folder, capfd):
    clip = next((clips_folder / "fake").glob("*.mp4"))
    assert main(["predict", str(clip), "--model", str(model_file), "--threshold", "50"]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Expected a threshold in 0..1; got 50.0" in printed.err


def test_server_that_is_not_there_is_one_clear_line(clips_folder, capfd):
    clip = next((clips_folder / "fake").glob("*.mp4"))
    code = main(["predict", str(clip), "--server", "http://127.0.0.1:9/v1/models/m"])
    assert code == 1
    assert_one_line(capfd.readouterr().err, "predict", "http://127.0.0.1:9/v1/models/m")


def test_prepare_counts_faces_and_names_videos_without(clips_folder, bad_files, tmp_path, capfd):
    import json
    import shutil

    root = tmp_path / "videos"
    shutil.copytree(clips_folder, root)
    shutil.copy(bad_files["Expected a face"], root / "fake" / "wall.mp4")
    shutil.copy(bad_files["which is neither"], root / "real" / "notes.mp4")
    words = [
        "prepare",
        "folder",
        str(root),
        "--out",
        str(tmp_path / "out"),
        "--frames-per-video",
        "2",
    ]
    words += ["--face-size", "71", "--format", "json"]
    assert main([*words, "--max-failed", "0.5"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert "failed" not in result
    assert result["videos"] == 18
    assert sum(sum(count.values()) for count in result["faces"].values()) <= 2 * 16
    assert {row["path"] for row in result["excluded"]} >= {"fake/wall.mp4", "real/notes.mp4"}
    assert all(row["reason"] for row in result["excluded"])

    assert main([*words, "--max-failed", "0.1"]) == 1
    printed = capfd.readouterr()
    assert json.loads(printed.out)["failed"] == result["excluded"]
    assert "videos gave no face, more than --max-failed 0.1" in printed.err


def test_a_reader_who_has_seen_enough_is_no_failure(prepared_set):
    words = [sys.executable, "-m", "jdfd_keras", "audit", str(prepared_set)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == b""
