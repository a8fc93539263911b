"""`train` ended by a signal or a full disk: one line, and the same command resumes it."""

import contextlib
import hashlib
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.model.weight_import import ImportFacts
from jdfd_keras.options import ModelOptions
from jdfd_keras.training import callbacks, checkpoint, run_folder, validation
from jdfd_keras.training.checkpoint import CHECKPOINT, load_checkpoint
from jdfd_keras.training.run_folder import read_history

pytestmark = pytest.mark.signals

STEPS = 9  # per epoch, of the 34 training faces in batches of 4
FLAGS = ["--encoder-weights", "none", "--epochs", "2", "--batch-size", "4", "--keep-optimizer"]
ENDS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "stopped by SIGTERM"),
    signal.SIGHUP: (129, "stopped by SIGHUP"),
}


@pytest.fixture(scope="module", autouse=True)
def stand_in(build_stand_in):
    """Train a detector of a few weights, of which the last epoch is the best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jdfd_keras.training.train.build_detector", build_stand_in)
        patch.setattr(run_folder, "best_epoch", lambda history: len(history) - 1)
        yield


@pytest.fixture(scope="module")
def run_command(prepared_set):
    """A function that runs `train` and returns its exit code."""
    return lambda out: main(["train", str(prepared_set), "--out", str(out), *FLAGS])


@pytest.fixture(scope="module")
def whole(run_command, tmp_path_factory):
    """A run that nothing ended."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_command(out) == 0
    return out


def last_line(capfd):
    return capfd.readouterr().err.strip().splitlines()[-1]


def assert_same(out, whole):
    one, other = load_checkpoint(whole), load_checkpoint(out)
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))
    assert [row["epoch"] for row in read_history(out)] == [1, 2]
    for expected, row in zip(read_history(whole), read_history(out), strict=True):
        assert row == pytest.approx(expected, rel=1e-6)


@contextlib.contextmanager
def signal_in_step(number, stop_at, times=1):
    """Raise a signal within a step, counted from 1 over all epochs."""
    steps = []

    def on_train_batch_begin(self, batch, logs=None):
        steps.append(batch)
        if len(steps) == stop_at:
            for _ in range(times):
                signal.raise_signal(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            callbacks.RunFolder, "on_train_batch_begin", on_train_batch_begin, raising=False
        )
        yield


@pytest.mark.parametrize(
    ("number", "stop_at"),
    [
        (signal.SIGINT, 5),
        (signal.SIGTERM, 12),
        pytest.param(signal.SIGHUP, 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_writes_a_checkpoint_of_its_step_and_the_same_command_resumes(
    run_command, whole, tmp_path, capfd, number, stop_at
):
    out = tmp_path / "run"
    code, text = ENDS[number]
    with signal_in_step(number, stop_at, times=2):  # as `timeout` sends it
        assert run_command(out) == code
    line = f"jdfd-keras train: {text}. Run the same command again to resume."
    assert last_line(capfd) == line
    saved = load_checkpoint(out)
    assert (saved.epoch, saved.step) == divmod(stop_at, STEPS)
    assert run_command(out) == 0
    assert_same(out, whole)


def test_a_signal_in_the_first_step_ends_the_run_at_once(run_command, whole, tmp_path, capfd):
    with signal_in_step(signal.SIGTERM, 1):
        assert run_command(tmp_path / "run") == 143
    assert "again to resume" in last_line(capfd)
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert run_command(tmp_path / "run") == 0
    assert_same(tmp_path / "run", whole)


def test_a_signal_during_validation_waits_for_the_end_of_the_epoch(
    run_command, whole, tmp_path, monkeypatch
):
    on_epoch_end = validation.Validation.on_epoch_end

    def validate(self, epoch, logs=None):
        signal.raise_signal(signal.SIGTERM)
        on_epoch_end(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "on_epoch_end", validate)
        assert run_command(tmp_path / "run") == 143
    saved = load_checkpoint(tmp_path / "run")
    assert (saved.epoch, saved.step, len(read_history(tmp_path / "run"))) == (1, 0, 1)
    assert run_command(tmp_path / "run") == 0
    assert_same(tmp_path / "run", whole)


def test_the_handlers_are_as_before(run_command, whole):
    before = [signal.getsignal(number) for number in ENDS]
    assert run_command(whole) == 0
    assert [signal.getsignal(number) for number in ENDS] == before


@contextlib.contextmanager
def small_files():
    """Let a write beyond some bytes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


WRITES = {
    "the last model, by Keras": (keras.Model, "save"),
    "the best model": (shutil, "copyfile"),
    "the checkpoint": (checkpoint.np, "savez"),
    "curves": (callbacks, "draw_curves"),
}


@pytest.mark.parametrize(
    "written",
    [*list(WRITES)[:2], *(pytest.param(w, marks=pytest.mark.slow) for w in list(WRITES)[2:])],
)
def test_a_full_disk_is_one_line_the_best_model_is_kept_and_the_run_resumes(
    run_command, whole, tmp_path, capfd, monkeypatch, written
):
    out, digests = tmp_path / "run", []
    owner, name = WRITES[written]
    write = getattr(owner, name)

    def write_on_full_disk(*args, **kwargs):
        if not (out / "best.keras").exists() or len(read_history(out)) < 1:
            return write(*args, **kwargs)
        digests.append(hashlib.sha256((out / "best.keras").read_bytes()).digest())
        with small_files():
            return write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, write_on_full_disk)
        assert run_command(out) == 1
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    assert printed.strip().splitlines()[-1] == (
        f"jdfd-keras train: Expected free disk space for the run {out}; got 'File too large'. Free "
        "some and run the same command again: training resumes from its last checkpoint."
    )
    assert hashlib.sha256((out / "best.keras").read_bytes()).digest() == digests[0]
    assert list(out.glob(".unfinished*")) == []
    run_folder.load_run_model(out)
    assert run_command(out) == 0
    assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 8, 60, 140, 220])  # KB; a whole run needs more
def test_a_run_on_a_full_file_system(run_command, whole, tmp_path, capfd, free):
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        (small / "filler").write_bytes(b"x" * (2**20 - free * 1024))
        assert run_command(small / "run") == 1
        printed = capfd.readouterr().err
        assert "Traceback" not in printed
        assert printed.strip().splitlines()[-1] == (
            f"jdfd-keras train: Expected free disk space for the run {small / 'run'}; got 'No "
            "space left on device'. Free some and run the same command again: training resumes "
            "from its last checkpoint."
        )
        (small / "filler").unlink()
        assert run_command(small / "run") == 0
        assert_same(small / "run", whole)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_published_weights_that_could_not_be_written_leave_no_folder_in_the_way(
    build_stand_in, tmp_path
):
    model = build_stand_in(ModelOptions(image_size=71))
    facts = ImportFacts("mesonet-meso4", "meso4", "Meso4_DF.h5", "ab" * 32)
    with pytest.raises(OSError), small_files():
        run_folder.write_imported_run(tmp_path / "run", model, facts)
    assert list((tmp_path / "run").iterdir()) == []
    run_folder.write_imported_run(tmp_path / "run", model, facts)
    assert run_folder.was_imported(tmp_path / "run")


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import small_run
from jdfd_keras.cli.main import main
from jdfd_keras.training import callbacks, train
train.build_detector = small_run.build
after = callbacks.RunFolder.on_train_batch_end
def on_train_batch_end(self, batch, logs=None):
    after(self, batch, logs)
    print(self.epoch, batch, flush=True)
callbacks.RunFolder.on_train_batch_end = on_train_batch_end
sys.exit(main(["train", *sys.argv[2:]]))
"""


@pytest.mark.slow
def test_sigterm_of_another_process_is_a_checkpoint_and_143(prepared_set, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(prepared_set)]
    command += ["--out", str(out), *FLAGS, "--epochs", "3000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "0 0\n"
        process.terminate()
        printed, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert errors.splitlines()[-1].startswith("jdfd-keras train: stopped by SIGTERM. Run the same")
    saved = load_checkpoint(out)
    # The step at whose end it stopped is not printed.
    steps = [(0, 0), *(tuple(map(int, line.split())) for line in printed.splitlines())]
    assert saved.epoch * STEPS + saved.step == len(steps) + 1
