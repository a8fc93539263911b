"""Training on several devices, and on two machines, here two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jdfd_keras.options import OptimizerOptions, TrainOptions, TrainRuntime
from jdfd_keras.training.devices import open_devices
from jdfd_keras.training.run_folder import read_history
from jdfd_keras.training.train import train

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("small_run.py")
CONFIG = {
    "model": {"encoder_weights": "none"},
    "optimizer": {"learning_rate": 0.01, "weight_decay": 0.1, "average": 0.9},
    "train": {"epochs": 2, "batch_size": 6},
    "augment": {"flip": True, "noise": True},
}


def start(data, out, cluster=None, worker=0, **config):
    command = [sys.executable, str(SCRIPT), str(data), str(out), json.dumps(CONFIG | config)]
    tf_config = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": worker}}
    environment = os.environ | ({"TF_CONFIG": json.dumps(tf_config)} if cluster else {})
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def start_two(data, out, **config):
    """Start two workers on free ports."""
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        cluster = [f"127.0.0.1:{server.getsockname()[1]}" for server in (a, b)]
    runtime = {"strategy": "multiworker", "checkpoint_steps": 3}
    return [start(data, out, cluster, worker, runtime=runtime, **config) for worker in (0, 1)]


def finish(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def read_weights(run, worker=0):
    with np.load(f"{run}-weights-{worker}.npz") as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.fixture(scope="module")
def runs(prepared_set, tmp_path_factory):
    """The same training on one device, on two devices of one machine, and on two machines."""
    root = tmp_path_factory.mktemp("runs")
    mirrored = {"runtime": {"strategy": "mirrored"}, "devices": 2}
    processes = [
        start(prepared_set, root / "one"),
        start(prepared_set, root / "mirrored", **mirrored),
    ]
    assert [finish(process)[0] for process in processes] == [0, 0]
    assert [finish(process)[0] for process in start_two(prepared_set, root / "two")] == [0, 0]
    return root


@pytest.fixture(scope="module")
def broken(prepared_set, runs):
    """Exit code and errors of worker 0, whose only peer is killed in the second epoch."""
    first, second = start_two(prepared_set, runs / "broken", kill_at=[1, 12])
    code, errors = finish(second)
    assert code == -signal.SIGKILL, errors
    return finish(first)


@pytest.mark.parametrize("name", ["mirrored", "two"])
def test_several_devices_give_the_same_result_as_one(runs, name):
    for one, other in zip(read_weights(runs / "one"), read_weights(runs / name), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    for expected, row in zip(read_history(runs / "one"), read_history(runs / name), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_both_workers_have_the_same_weights(runs):
    for one, other in zip(read_weights(runs / "two"), read_weights(runs / "two", 1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_when_one_worker_is_killed_the_other_stops_with_a_clear_message(broken):
    code, errors = broken
    assert code == 1
    assert "Expected all 2 machines of TF_CONFIG " in errors and "' on machine 0: " in errors
    assert "last checkpoint" in errors


def test_both_workers_resume_from_the_checkpoint_with_the_same_result(prepared_set, runs, broken):
    assert len(read_history(runs / "broken")) == 1
    ended = [finish(process) for process in start_two(prepared_set, runs / "broken")]
    assert [code for code, _ in ended] == [0, 0], ended
    for worker in (0, 1):
        resumed, whole = (read_weights(runs / name, worker) for name in ("broken", "two"))
        for one, other in zip(whole, resumed, strict=True):
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
def test_an_invalid_cluster_description_is_rejected(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="Expected TF_CONFIG .*--strategy mirrored"):
        open_devices("multiworker")


def test_an_unknown_strategy_is_rejected():
    with pytest.raises(ValueError, match="got 'horovod'"):
        open_devices("horovod")


@pytest.fixture
def two_devices(monkeypatch):
    """Pretend that there are two devices, for tests that fail before devices are used."""
    from jdfd_keras.training.devices import Devices

    monkeypatch.setattr("jdfd_keras.training.train.open_devices", lambda _: Devices(replicas=2))


def test_a_batch_size_that_is_not_divisible_by_the_devices_is_rejected(
    prepared_set, tmp_path, two_devices
):
    with pytest.raises(ValueError, match="by the 2 devices; got 5.*try 4"):
        train(prepared_set, tmp_path / "run", train=TrainOptions(batch_size=5))


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"clip_norm": 1.0}])
def test_options_that_keras_does_not_support_on_several_devices_are_rejected(
    prepared_set, tmp_path, two_devices, options
):
    with pytest.raises(ValueError, match="neither accumulate nor clip_norm .*2 devices"):
        train(
            prepared_set,
            tmp_path / "run",
            optimizer=OptimizerOptions(**options),
            runtime=TrainRuntime(strategy="mirrored"),
        )
