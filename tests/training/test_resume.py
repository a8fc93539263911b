"""Trainings in their own processes, killed by a signal and resumed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jdfd_keras.training.checkpoint import load_checkpoint
from jdfd_keras.training.run_folder import read_history

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("small_run.py")
# Everything with a state: momentum, average, dropout, order, augmentation, schedule, metrics.
CONFIG = {
    "model": {"dropout": 0.3, "encoder_weights": "none"},
    "optimizer": {"learning_rate": 0.05, "decay_epochs": 1, "average": 0.9},
    "train": {"epochs": 3, "batch_size": 4, "seed": 3},
    "pipeline": {"balance": True},
    "augment": {"flip": True, "noise": True, "colour": True},
    "runtime": {"checkpoint_steps": 4},
}


def start(data, out, **config):
    command = [sys.executable, str(SCRIPT), str(data), str(out), json.dumps(CONFIG | config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


BLENDED = {"pipeline": {"fakes": "mixed", "reconstruct": "clean"}}


@pytest.fixture(
    scope="module",
    # Steps per epoch of the 34 training faces, and of the same with 20 blended fakes.
    params=[({}, 9), pytest.param((BLENDED, 14), marks=pytest.mark.slow)],
    ids=["labelled fakes", "blended fakes"],
)
def runs(request, prepared_set, tmp_path_factory):
    """Two runs of one seed, the second killed twice, and one of another seed."""
    root, (changes, steps) = tmp_path_factory.mktemp("runs"), request.param
    others = [
        start(prepared_set, root / "one", **changes),
        start(prepared_set, root / "other", train=CONFIG["train"] | {"seed": 4}, **changes),
    ]
    # In epoch 2, three steps after a checkpoint; then in epoch 3.
    for kill_at, epoch, step in (([0, steps + 7], 1, 4), ([0, steps + 2], 2, 4)):
        code, _ = finish(start(prepared_set, root / "killed", kill_at=kill_at, **changes))
        assert code == -signal.SIGKILL
        checkpoint = load_checkpoint(root / "killed")
        assert (checkpoint.epoch, checkpoint.step) == (epoch, step)
    assert finish(start(prepared_set, root / "killed", **changes))[0] == 0
    assert [finish(process)[0] for process in others] == [0, 0]
    return root


def test_a_killed_and_resumed_triplet_training_ends_with_the_same_weights(prepared_set, tmp_path):
    changes = {
        "model": {"method": "xception-triplet", "encoder_weights": "none"},
        "train": CONFIG["train"] | {"epochs": 2},
    }
    whole = start(prepared_set, tmp_path / "one", **changes)
    # In epoch 2, three steps after a checkpoint.
    code, _ = finish(start(prepared_set, tmp_path / "killed", kill_at=[0, 9 + 7], **changes))
    assert code == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "killed").step == 4
    assert finish(start(prepared_set, tmp_path / "killed", **changes))[0] == 0
    assert finish(whole)[0] == 0
    one, killed = (load_checkpoint(tmp_path / name) for name in ("one", "killed"))
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, killed.weights, strict=True))
    rows = [read_history(tmp_path / name)[-1] for name in ("one", "killed")]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)
    assert rows[0]["embedding_loss"] > 0


def test_another_seed_gives_other_weights(runs):
    one, other = (load_checkpoint(runs / name) for name in ("one", "other"))
    assert not np.array_equal(one.weights[0], other.weights[0])


def test_a_killed_and_resumed_run_ends_with_the_same_weights_bit_for_bit(runs):
    one, killed = (load_checkpoint(runs / name) for name in ("one", "killed"))
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, killed.weights, strict=True))


def test_a_killed_and_resumed_run_has_the_history_of_an_uninterrupted_one(runs):
    one, killed = (read_history(runs / name) for name in ("one", "killed"))
    assert len(one) == 3
    assert len({row["loss"] for row in one}) == 3
    for expected, row in zip(one, killed, strict=True):
        assert row == pytest.approx(expected, rel=1e-6)
