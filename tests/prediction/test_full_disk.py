"""`predict` on a full disk: one line, verdicts made until then are kept, and the run resumes."""

import contextlib
import errno
import json
import resource
import shutil
import signal
import subprocess
import tempfile

import cv2
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.io.disk_space import DiskFullError
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction import asked_models, predict, result_folder
from jdfd_keras.prediction.extraction import extract_file

FACES = FaceOptions(face_size=71, frames_per_video=3, tracks="all")
THREE = PredictOptions(frames_per_video=3)


def predictor_of(name):
    def score(crops):
        return crops[..., 0].mean(axis=(1, 2)) / 255

    return Predictor(name, ModelMetadata(FACES, None, name, 1, f"weights of {name}"), score, None)


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Load a predictor by any name."""
    for module in (predict, asked_models):
        monkeypatch.setattr(module, "load_predictor", lambda name, _: predictor_of(str(name)))


@pytest.fixture(scope="module")
def clips(clips_folder, tmp_path_factory):
    """Three clips."""
    folder = tmp_path_factory.mktemp("clips")
    for number, clip in enumerate(sorted(clips_folder.rglob("real/*.mp4"))[:3]):
        shutil.copy(clip, folder / f"{number}.mp4")
    return folder


@contextlib.contextmanager
def small_files(num_bytes):
    """Let a write beyond some bytes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def words_of(clips, out, *further):
    return ["predict", str(clips), "--model", "red", "--frames-per-video", "3", "--out", str(out)]


def last_line(capfd):
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    return printed.strip().splitlines()[-1]


def without_times(text):
    records = [json.loads(line) for line in text.splitlines()]
    return sorted(json.dumps(r | {"analysed_at": ""}, sort_keys=True) for r in records)


WRITES = {
    "the line of a verdict": (result_folder.os, "fsync"),
    "the top faces": (result_folder.np, "save"),
    "the table": (result_folder, "csv_lines"),
}


@pytest.mark.parametrize(
    "written", [*list(WRITES)[:2], pytest.param("the table", marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_line_and_the_same_command_resumes(
    clips, tmp_path, capfd, monkeypatch, written
):
    assert main(words_of(clips, tmp_path / "whole")) == 0
    out, (owner, name) = tmp_path / "out", WRITES[written]
    write, calls = getattr(owner, name), []

    def write_on_full_disk(*args, **kwargs):
        calls.append(name)
        if name == "csv_lines" or len(calls) > 1:
            if name in ("fsync", "csv_lines"):
                raise OSError(errno.ENOSPC, "No space left on device")
            with small_files(500):
                return write(*args, **kwargs)
        return write(*args, **kwargs)

    capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, write_on_full_disk)
        assert main(words_of(clips, out)) == 1
    line = last_line(capfd)
    assert line.startswith(
        f"jdfd-keras predict: Expected free disk space for the verdicts in {out} and in the folder "
        "for temporary files; got '"
    )
    assert line.endswith(
        "'. Free some and run the same command again: verdicts made until now are kept."
    )
    assert not (out / "verdicts.csv").exists()
    assert list(out.rglob(".unfinished*")) == []
    assert main(words_of(clips, out)) == 0
    lines = [(tmp_path / f / "verdicts.jsonl").read_text() for f in ("whole", "out")]
    last = [{json.loads(line)["path"]: line for line in text.splitlines()} for text in lines]
    whole, resumed = (without_times("\n".join(by_path.values())) for by_path in last)
    assert resumed == whole
    for name in ("whole", "out"):
        assert len(list((tmp_path / name / "top_faces").iterdir())) == 3


def test_several_models_end_together_on_a_full_disk(clips, tmp_path, capfd, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    words = [*words_of(clips, tmp_path / "out"), "--model", "blue"]
    with monkeypatch.context() as patch:
        patch.setattr("jdfd_keras.prediction.model_run.open_folder", fail)
        assert main(words) == 1
    assert "Expected free disk space for the verdicts in" in last_line(capfd)
    assert main(words) == 0


def test_a_full_disk_of_temporary_files_is_not_an_error_of_the_file(clips, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("jdfd_keras.prediction.extraction.extract_faces", fail)
    with pytest.raises(OSError, match="No space left"):
        extract_file(clips / "0.mp4", FACES, None)


@pytest.fixture
def full_folder(tmp_path):
    """A folder on a file system of its own, of 96 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_file_system_of_temporary_files_names_it(clips, full_folder, capfd, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(full_folder))
    words = ["predict", str(clips), "--model", "red", "--frames-per-video", "6"]
    assert main(words) == 1
    assert last_line(capfd) == (
        "jdfd-keras predict: Expected free disk space for faces in the folder for temporary files "
        "(TMPDIR); got 'No space left on device'. Free some and run the same command again."
    )


@pytest.mark.slow
def test_a_full_file_system_keeps_the_verdicts_that_it_held(clips, full_folder, tmp_path, capfd):
    out = full_folder / "out"
    cv2.imwrite(str(tmp_path / "sea.png"), np.full((90, 120, 3), 99, np.uint8))
    assert main(words_of(clips, out)) == 1
    assert "Expected free disk space for the verdicts" in last_line(capfd)
    shutil.copytree(out, tmp_path / "out")
    kept = (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()
    assert 1 <= len(kept) < 3
    assert main(words_of(clips, tmp_path / "out")) == 0
    lines = (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()
    assert lines[: len(kept)] == kept and len(lines) == 3


def test_an_annotated_video_is_whole_or_absent(clips, tmp_path, capfd, monkeypatch):
    run = predict.run_with_progress

    def run_on_full_disk(*args):
        with small_files(2000):  # also of the process that it starts
            return run(*args)

    monkeypatch.setattr(predict, "run_with_progress", run_on_full_disk)
    out = tmp_path / "marked.mp4"
    words = ["predict", str(clips / "0.mp4"), "--model", "red", "--annotate", str(out)]
    assert main([*words, "--every", "2"]) == 1
    assert f"{out}: Expected free disk space for {out}" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_error_in_python_is_an_oserror_of_a_full_disk(clips, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("9 requested and 0 written")

    monkeypatch.setattr(result_folder.np, "save", fail)
    with pytest.raises(DiskFullError) as raised:
        predict.predict_files([clips], THREE, model="red", out=tmp_path / "out")
    assert raised.value.errno == errno.ENOSPC
