"""`export` on a full disk: one line, nothing is left, and the next export is whole."""

import contextlib
import json
import os
import resource
import signal
import subprocess

import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.client.signatures import MODEL_CARD, find_versions
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.io.disk_space import DiskFullError
from jdfd_keras.options import FaceOptions, ModelOptions
from jdfd_keras.serving.export import exporter

FACES = FaceOptions(face_size=71)


@pytest.fixture(scope="module")
def stand_in(build_stand_in):
    """A detector of a few weights."""
    return build_stand_in(ModelOptions(image_size=71))


@contextlib.contextmanager
def small_files(num_bytes=200):
    """Let a write beyond some bytes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


WRITES = {
    "SavedModel": (exporter, "write_saved_model"),
    "OpenVINO": (exporter, "write_openvino"),
    "warm-up": (exporter, "write_warmup"),
    "alignment": (exporter, "save_options"),
    "card": (exporter, "write_model_card"),
    "checksums": (exporter, "write_checksums"),
    "card of the newest version": (exporter.shutil, "copyfile"),
}


@pytest.mark.parametrize(
    "written",
    [
        name if name in ("SavedModel", "OpenVINO") else pytest.param(name, marks=pytest.mark.slow)
        for name in WRITES
    ],
)
def test_nothing_is_left_of_an_export_on_a_full_disk(stand_in, tmp_path, monkeypatch, written):
    directory, (owner, name) = tmp_path / "tiny", WRITES[written]
    write = getattr(owner, name)

    def write_on_full_disk(*args, **kwargs):
        with small_files():
            return write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, write_on_full_disk)
        with pytest.raises(DiskFullError) as raised:
            exporter.export_detector(stand_in, directory, faces=FACES)
    # OpenVINO does not state the cause.
    cause = "No space left on device" if written == "OpenVINO" else "File too large"
    assert str(raised.value) == (
        f"Expected free disk space for {directory / '1'}; got '{cause}'. Free some and run the "
        "same command again: nothing is left of this export."
    )
    assert list(directory.iterdir()) == []


@pytest.mark.slow
def test_an_export_that_failed_changes_no_earlier_version(stand_in, tmp_path, monkeypatch):
    directory = tmp_path / "tiny"
    exporter.export_detector(stand_in, directory, faces=FACES)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    write = exporter.write_openvino

    def write_on_full_disk(*args, **kwargs):
        with small_files():
            return write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(exporter, "write_openvino", write_on_full_disk)
        with pytest.raises(DiskFullError):
            exporter.export_detector(stand_in, directory, faces=FACES)
    assert {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()} == before
    assert exporter.export_detector(stand_in, directory, faces=FACES).version == 2
    assert list(find_versions(directory)) == [2, 1]
    assert (directory / MODEL_CARD).read_bytes() == (
        directory / "2" / "assets.extra" / MODEL_CARD
    ).read_bytes()


@pytest.mark.slow
def test_the_command_on_a_full_file_system(stand_in, tmp_path, capfd):
    models = tmp_path / "models"
    models.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(models)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        stand_in.save(tmp_path / "tiny.keras")
        words = ["export", str(tmp_path / "tiny.keras"), "--name", "tiny"]
        words += ["--saved-models", str(models)]
        assert main(words) == 0
        size = sum(path.stat().st_blocks * 512 for path in models.rglob("*"))
        free = os.statvfs(models)
        filler = models / "filler"
        for share in (0.05, 0.3, 0.6, 0.9):  # of what a version needs
            available = free.f_bavail * free.f_frsize
            filler.write_bytes(b"x" * int(available - share * size))
            capfd.readouterr()
            assert main(words) == 1
            printed = capfd.readouterr().err
            assert "Traceback" not in printed
            line = printed.strip().splitlines()[-1]
            assert line.startswith("jdfd-keras export: Expected free disk space for"), share
            assert line.endswith("nothing is left of this export.")
            assert {path.name for path in (models / "tiny").iterdir()} == {"1", MODEL_CARD}
            filler.unlink()
        assert main(words) == 0
        versions = find_versions(models / "tiny")
        assert list(versions) == [2, 1]
        with contextlib.closing(load_predictor(models / "tiny")) as predictor:
            assert predictor.metadata.version == 2
        assert json.loads((versions[2] / "openvino/engine.json").read_text())["files"]
    finally:
        subprocess.run(["umount", "-l", str(models)], check=True)
