import gc
import shutil
import weakref

import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.client.signatures import TensorInfo, find_versions
from jdfd_keras.inference.saved_model import SavedModelEngine, serialize_example


def test_signatures_have_dtypes_and_shapes(engine):
    names = ["classify", "explain", "faces", "metadata", "reconstruct", "serving_default"]
    assert sorted(engine.signatures) == names
    faces = engine.signatures["faces"]
    assert faces.inputs == {"faces": TensorInfo("uint8", (None, 71, 71, 3))}
    assert faces.outputs == {"scores": TensorInfo("float", (None,))}
    assert engine.signatures["reconstruct"].outputs["error"] == TensorInfo("float", (None,))


def test_no_faces_return_no_scores(engine):
    assert engine.run("faces", {"faces": np.zeros((0, 71, 71, 3), np.uint8)})["scores"].size == 0


def test_an_image_that_cannot_be_decoded_is_an_error_and_not_a_score(engine, encoded_faces):
    png = bytearray(encoded_faces[0])
    png[60:80] = bytes(20)  # within its pixels: the header that the graph checks first is intact
    with pytest.raises(tf.errors.InvalidArgumentError, match="PNG"):
        engine.run("serving_default", {"image_bytes": np.array([bytes(png)], object)})


def test_only_the_requested_outputs_are_returned_in_any_order(engine, face_batch):
    both = engine.run("reconstruct", {"faces": face_batch[:1]})
    assert set(both) == {"error", "reconstruction"}
    num_callables = engine._callable.cache_info().currsize
    for outputs in (["error"], ["error", "reconstruction"], ["reconstruction", "error"]):
        some = engine.run("reconstruct", {"faces": face_batch[:1]}, outputs)
        assert set(some) == set(outputs)
        np.testing.assert_allclose(some["error"], both["error"], rtol=1e-6)
    assert engine._callable.cache_info().currsize == num_callables + 1  # that of `error` alone


def test_a_closed_version_is_freed_at_once(exported, face_batch):
    engine = SavedModelEngine(exported)
    engine.run("faces", {"faces": face_batch})
    session = weakref.ref(engine._session)
    engine.close()
    gc.disable()
    try:
        del engine
        assert session() is None
    finally:
        gc.enable()


def test_an_example_keeps_bytes_integers_and_floats():
    example = tf.train.Example.FromString(
        serialize_example({"text": [b"\xff", b"b"], "whole": [-1, 2], "real": [0.5], "none": []})
    )
    features = example.features.feature
    assert list(features["text"].bytes_list.value) == [b"\xff", b"b"]
    assert list(features["whole"].int64_list.value) == [-1, 2]
    assert list(features["real"].float_list.value) == [0.5]
    assert features["none"].WhichOneof("kind") == "float_list"


def test_a_folder_without_a_model_is_an_error_in_three_parts(tmp_path):
    with pytest.raises(OSError, match=f"Expected {tmp_path} .*; got .*jdfd-keras export"):
        SavedModelEngine(tmp_path)


def test_versions_are_sorted_by_number_newest_first(tmp_path):
    for name in ("2", "10", "11.partial", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "12").mkdir()
    assert list(find_versions(tmp_path)) == [10, 2]


@pytest.mark.parametrize("name", ["nowhere", "empty", "file", "1"])
def test_a_path_that_is_not_a_model_is_an_error_in_three_parts(exported, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "1").mkdir()
    shutil.copy(exported / "saved_model.pb", tmp_path / "1")
    reason = {
        "nowhere": "nothing at that path",
        "empty": "a folder without a version",
        "file": "a file",
        "1": "a single version",
    }[name]
    with pytest.raises(OSError, match=f"Expected .*{name} .*; got {reason}.*jdfd-keras export"):
        find_versions(tmp_path / name)
