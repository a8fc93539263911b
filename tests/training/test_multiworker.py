"""Training on several devices, and on two machines, which are two processes here."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jdfd_keras.options import OptimizerOptions, RunOptions, TrainOptions
from jdfd_keras.training.devices import open_devices
from jdfd_keras.training.run_folder import read_history
from jdfd_keras.training.train import train

SCRIPT = Path(__file__).with_name("small_run.py")
TOLD = {
    "model": {"encoder_weights": "none"},
    "optimizer": {"learning_rate": 0.01, "weight_decay": 0.1, "average": 0.9},
    "options": {"epochs": 2, "batch_size": 6},
    "augment": {"flip": True, "noise": True},
}


def start(data, out, cluster=None, part=0, **told):
    words = [sys.executable, str(SCRIPT), str(data), str(out), json.dumps(TOLD | told)]
    config = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": part}}
    environment = os.environ | ({"TF_CONFIG": json.dumps(config)} if cluster else {})
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)


def start_two(data, out, **told):
    """Start two workers on ports that are free now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as b:
        cluster = [f"127.0.0.1:{server.getsockname()[1]}" for server in (one, b)]
    run = {"strategy": "multiworker", "checkpoint_steps": 3}
    return [start(data, out, cluster, part, run=run, **told) for part in (0, 1)]


def finish(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def read_weights(run, part=0):
    with np.load(f"{run}-weights-{part}.npz") as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.fixture(scope="module")
def runs(prepared_set, tmp_path_factory):
    """The same training on one device, on two of one machine, on two machines; and interrupted."""
    root = tmp_path_factory.mktemp("runs")
    mirrored = {"run": {"strategy": "mirrored"}, "devices": 2}
    together = [
        start(prepared_set, root / "one"),
        start(prepared_set, root / "mirrored", **mirrored),
    ]
    assert [finish(process)[0] for process in together] == [0, 0]
    assert [finish(process)[0] for process in start_two(prepared_set, root / "two")] == [0, 0]
    return root


@pytest.fixture(scope="module")
def broken(prepared_set, runs):
    """Two workers, of which the second is killed in the second epoch; what the first said."""
    first, second = start_two(prepared_set, runs / "broken", kill_at=[1, 12])
    assert finish(second)[0] == -signal.SIGKILL
    return finish(first)


@pytest.mark.parametrize("name", ["mirrored", "two"])
def test_several_devices_give_what_one_gives(runs, name):
    for one, other in zip(read_weights(runs / "one"), read_weights(runs / name), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    for expected, row in zip(read_history(runs / "one"), read_history(runs / name), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_both_workers_hold_the_same_weights(runs):
    for one, other in zip(read_weights(runs / "two"), read_weights(runs / "two", 1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_worker_that_dies_ends_the_other_with_a_clear_message(broken):
    code, errors = broken
    assert code == 1
    assert "failed: Expected all 2 machines of TF_CONFIG to go on; got, on machine 0" in errors
    assert "goes on from the last checkpoint" in errors


def test_both_go_on_from_the_checkpoint_to_the_same_end(prepared_set, runs, broken):
    assert len(read_history(runs / "broken")) == 1
    ended = [finish(process) for process in start_two(prepared_set, runs / "broken")]
    assert [code for code, _ in ended] == [0, 0], ended
    for part in (0, 1):
        again, whole = (read_weights(runs / name, part) for name in ("broken", "two"))
        for one, other in zip(whole, again, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6)
    assert read_history(runs / "broken")[1] == pytest.approx(
        read_history(runs / "two")[1], rel=1e-5
    )


@pytest.mark.parametrize(
    "config",
    [
        "",
        "no JSON",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_a_cluster_that_is_not_told_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="Expected TF_CONFIG to be.*--strategy mirrored or none"):
        open_devices("multiworker")


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="got 'horovod'"):
        open_devices("horovod")


@pytest.fixture
def two_devices(monkeypatch):
    """Pretend two devices, where what they would do is not the question."""
    from jdfd_keras.training.devices import Devices

    monkeypatch.setattr("jdfd_keras.training.train.open_devices", lambda _: Devices(replicas=2))


def test_a_batch_that_devices_cannot_share_is_refused(prepared_set, tmp_path, two_devices):
    with pytest.raises(ValueError, match="2 devices can share; got 5.*try 4"):
        train(prepared_set, tmp_path / "run", options=TrainOptions(batch_size=5))


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"clip_norm": 1.0}])
def test_what_keras_cannot_do_on_several_devices_is_refused(
    prepared_set, tmp_path, two_devices, options
):
    with pytest.raises(
        ValueError, match="Expected neither accumulate nor clip_norm with 2 devices"
    ):
        train(
            prepared_set,
            tmp_path / "run",
            optimizer=OptimizerOptions(**options),
            run=RunOptions(strategy="mirrored"),
        )
