import os
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.repository import Repository, load_version


@pytest.fixture(scope="module")
def adders(tmp_path_factory):
    """Folders of three models that add 1, 2 and 3."""

    def save(number):
        module = tf.Module()
        module.added = tf.Variable(float(number))
        spec = tf.TensorSpec([None], tf.float32, name="x")
        add = tf.function(lambda x: {"y": x + module.added}, input_signature=[spec])
        directory = tmp_path_factory.mktemp("adders") / str(number)
        tf.saved_model.save(module, str(directory), signatures={"serving_default": add})
        return directory

    return {number: save(number) for number in (1, 2, 3)}


@pytest.fixture
def directory(adders, tmp_path):
    """A model with version 1."""
    shutil.copytree(adders[1], tmp_path / "m" / "1")
    return tmp_path / "m"


@pytest.fixture
def open_repository(directory):
    """A function that opens a repository polled by the test."""
    opened = []

    def open_it(**config):
        repository = Repository([ModelConfig("m", directory, **config)])
        opened.append(repository)
        repository.poll()
        return repository

    yield open_it
    for repository in opened:
        repository.close()


def added(repository, **selection):
    with repository.use("m", **selection) as served:
        return served.engine.run("serving_default", {"x": np.zeros(1, np.float32)})["y"][0]


def states(repository):
    return {served.version: served.state for served in repository.states("m")}


def test_a_new_version_replaces_the_old_one(open_repository, directory, adders):
    repository = open_repository()
    assert added(repository) == 1
    shutil.copytree(adders[2], directory / "2")
    repository.poll()
    assert added(repository) == 2
    assert states(repository) == {2: "AVAILABLE", 1: "END"}
    with pytest.raises(CallError, match="got m, version 1"):
        added(repository, version=1)


def test_the_old_version_stays_loaded_while_in_use(open_repository, directory, adders):
    repository = open_repository()
    with repository.use("m") as old:
        shutil.copytree(adders[2], directory / "2")
        repository.poll()
        assert states(repository) == {2: "AVAILABLE", 1: "UNLOADING"}
        assert added(repository) == 2
        assert old.engine.run("serving_default", {"x": np.zeros(1, np.float32)})["y"] == [1]
    repository.poll()
    assert states(repository)[1] == "END"
    assert old.loaded is None


def break_weights(folder):
    weights = next((folder / "variables").glob("*.data*"))
    weights.write_bytes(weights.read_bytes()[:-1])


def break_graph(folder):
    (folder / "saved_model.pb").write_bytes(b"\xff" * 100)


def break_warmup(folder):
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no record" * 20)


def break_checksums(folder):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  saved_model.pb\n")


@pytest.mark.parametrize("damage", [break_weights, break_graph, break_warmup, break_checksums])
def test_a_broken_version_is_reported_once_and_the_good_one_stays(
    open_repository, directory, adders, capfd, damage
):
    repository = open_repository()
    shutil.copytree(adders[2], directory / "copying")
    damage(directory / "copying")
    (directory / "copying").rename(directory / "2")
    for _ in range(3):
        repository.poll()
    assert added(repository) == 1
    assert states(repository) == {2: "END", 1: "AVAILABLE"}
    assert "Expected" in repository.states("m", 2)[0].error
    assert capfd.readouterr().err.count("Version 2 of model m is not served") == 1

    shutil.rmtree(directory / "2")
    shutil.copytree(adders[2], directory / "2")
    os.utime(directory / "2" / "saved_model.pb")
    repository.poll()
    assert added(repository) == 2


def write_warmup(folder, message):
    (folder / "assets.extra").mkdir()
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(message)


def truncate_graph(folder):
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:1000])


def empty_graph(folder):
    (folder / "saved_model.pb").write_bytes(b"")


def change_graph(folder):
    graph = folder / "saved_model.pb"
    content = np.frombuffer(graph.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(0)
    content[rng.integers(0, content.size, 20)] = rng.integers(0, 256, 20)
    graph.write_bytes(content.tobytes())


def remove_weights(folder):
    shutil.rmtree(folder / "variables")


def remove_index(folder):
    (folder / "variables" / "variables.index").unlink()


def change_index(folder):
    index = folder / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[::-1])


def warm_up_with_an_invalid_message(folder):
    write_warmup(folder, b"\xff" * 50)


def warm_up_with_an_empty_message(folder):
    write_warmup(folder, b"")


def warm_up_with_an_unknown_signature(folder):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "none"
    write_warmup(folder, log.SerializeToString())


def warm_up_with_an_unknown_dtype(folder):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "serving_default"
    log.predict_log.request.inputs["x"].dtype = 99
    write_warmup(folder, log.SerializeToString())


@pytest.mark.parametrize(
    "damage",
    [
        truncate_graph,
        empty_graph,
        change_graph,
        remove_weights,
        remove_index,
        change_index,
        warm_up_with_an_invalid_message,
        warm_up_with_an_empty_message,
        warm_up_with_an_unknown_signature,
        warm_up_with_an_unknown_dtype,
    ],
)
def test_any_damage_raises_oserror(adders, tmp_path, damage):
    shutil.copytree(adders[2], tmp_path / "2")
    damage(tmp_path / "2")
    with pytest.raises(OSError, match="(?s)2.* to .*; got '.+'"):
        load_version(tmp_path / "2")


def test_a_repaired_file_of_equal_size_and_time_is_retried(open_repository, directory):
    graph = directory / "1" / "saved_model.pb"
    good, times = graph.read_bytes(), graph.stat()
    graph.write_bytes(good[::-1])
    os.utime(graph, ns=(times.st_atime_ns, times.st_mtime_ns))
    repository = open_repository()
    assert states(repository) == {1: "END"}
    graph.write_bytes(good)
    os.utime(graph, ns=(times.st_atime_ns, times.st_mtime_ns))
    repository.poll()
    assert added(repository) == 1


def test_with_a_broken_newest_version_the_previous_one_is_served(
    open_repository, directory, adders
):
    shutil.copytree(adders[2], directory / "2")
    break_graph(directory / "2")
    repository = open_repository()
    repository.poll()
    assert added(repository) == 1


def test_a_removed_version_is_unloaded_unless_it_is_the_last(open_repository, directory, adders):
    shutil.copytree(adders[2], directory / "2")
    repository = open_repository(latest=0)
    assert states(repository) == {2: "AVAILABLE", 1: "AVAILABLE"}
    shutil.rmtree(directory / "2")
    repository.poll()
    assert added(repository) == 1
    repository.poll()
    assert states(repository) == {1: "AVAILABLE"}
    shutil.rmtree(directory)
    repository.poll()
    assert added(repository) == 1


def test_labels_and_numbers_select_a_version(open_repository, directory, adders):
    shutil.copytree(adders[2], directory / "2")
    repository = open_repository(versions=(1, 2), labels={"stable": 1, "canary": 2, "next": 3})
    assert added(repository) == added(repository, label="canary") == 2
    assert added(repository, label="stable") == added(repository, version=1) == 1
    with pytest.raises(CallError, match=r"\['canary', 'next', 'stable'\]; got nope"):
        added(repository, label="nope")
    with pytest.raises(CallError, match="got m, version 3") as caught:
        added(repository, label="next")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_folders_other_than_versions_are_ignored(open_repository, directory, adders):
    shutil.copytree(adders[2], directory / "2.partial")
    shutil.copytree(adders[2], directory / str(2**63))
    (directory / "3").mkdir()
    repository = open_repository()
    assert states(repository) == {1: "AVAILABLE"}


def test_start_reports_why_a_model_cannot_be_served(directory, tmp_path):
    break_graph(directory / "1")
    with pytest.raises(OSError, match="model m .*got version 1: "):
        Repository([ModelConfig("m", directory)]).start()
    with pytest.raises(OSError, match=f"{tmp_path}/none .*nothing at"):
        Repository([ModelConfig("m", tmp_path / "none")]).start()
    with pytest.raises(OSError, match="none of .*configured"):
        Repository([ModelConfig("m", directory, versions=(7,))]).start()


def test_a_new_version_is_found_while_the_model_is_in_use(directory, adders):
    repository = Repository([ModelConfig("m", directory)])
    repository.start()
    seen, stopped = set(), threading.Event()

    def request():
        while not stopped.is_set():
            seen.add(added(repository))

    thread = threading.Thread(target=request)
    thread.start()
    shutil.copytree(adders[3], directory / "copying")
    (directory / "copying").rename(directory / "3")
    end = time.monotonic() + 20
    while 3 not in seen and time.monotonic() < end:
        time.sleep(0.05)
    stopped.set()
    thread.join()
    repository.close()
    assert seen == {1, 3}


def test_an_export_of_another_format_version_is_not_served(exported, tmp_path):
    version = tmp_path / "1"
    shutil.copytree(exported, version)
    (version / "SHA256SUMS").unlink()
    path = version / "assets.extra" / "alignment.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(ValueError, match="format_version 2 in .*alignment.json; got 3"):
        load_version(version)
