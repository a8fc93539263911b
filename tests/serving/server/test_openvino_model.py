"""Answers of the embedded server by OpenVINO, compared with those of TensorFlow."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.client import connect
from jdfd_keras.inference.openvino_engine import EngineUnavailableError, OpenVINOEngine
from jdfd_keras.inference.saved_model import SavedModelEngine, serialize_example
from jdfd_keras.options import EngineOptions, ModelOptions, ServeOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.model_server import ModelServer
from jdfd_keras.serving.server.openvino_model import OpenVINOModel
from jdfd_keras.serving.server.repository import Repository

FLOAT32 = EngineOptions("openvino", "float32")


@pytest.fixture(scope="module")
def openvino(exported):
    with OpenVINOModel(exported, OpenVINOEngine(exported, "float32")) as model:
        yield model


@pytest.fixture(scope="module")
def images(encoded_faces):
    """PNG faces, a JPEG of another size, and two files that are not images."""
    jpeg = tf.io.encode_jpeg(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8))
    return [*encoded_faces, b"not an image", jpeg.numpy(), b""]


def texts(values):
    return np.array(list(values), object)


def ask(signature, images, faces):
    """The inputs of a signature."""
    examples = [serialize_example({"image/encoded": [image]}) for image in images]
    return {
        "serving_default": {"image_bytes": texts(images)},
        "classify": {"inputs": texts(examples)},
        "metadata": {"names": texts([b"model.json", b"calibration.json", b"x", b"alignment.json"])},
    }.get(signature, {"faces": faces})


SIGNATURES = ("serving_default", "classify", "faces", "explain", "reconstruct", "metadata")


def check_same(values, expected, tolerance):
    assert list(values) == list(expected)
    for name, array in expected.items():
        assert (values[name].dtype, values[name].shape) == (array.dtype, array.shape), name
        if array.dtype.kind == "f":
            np.testing.assert_allclose(values[name], array, rtol=0, atol=tolerance, err_msg=name)
        else:
            assert values[name].tolist() == array.tolist(), name


@pytest.mark.parametrize("signature", SIGNATURES)
def test_every_signature_has_the_answer_of_tensorflow(
    openvino, engine, images, face_batch, signature
):
    inputs = ask(signature, images, face_batch)
    tolerance = 1e-4 if signature == "reconstruct" else 1e-5
    check_same(openvino.run(signature, inputs), engine.run(signature, inputs), tolerance)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_an_empty_batch_has_the_answer_of_tensorflow(openvino, engine, face_batch, signature):
    inputs = {name: array[:0] for name, array in ask(signature, [b""], face_batch).items()}
    check_same(openvino.run(signature, inputs), engine.run(signature, inputs), 0)


@pytest.mark.parametrize(
    ("signature", "output"),
    [
        ("serving_default", "valid"),
        ("serving_default", "scores"),
        ("classify", "classes"),
        ("reconstruct", "error"),
    ],
)
def test_a_single_output_has_the_answer_of_tensorflow(
    openvino, engine, images, face_batch, signature, output
):
    inputs = ask(signature, images, face_batch)
    values = openvino.run(signature, inputs, [output])
    check_same(values, engine.run(signature, inputs, [output]), 1e-4)
    with pytest.raises(KeyError, match="none"):
        openvino.run(signature, inputs, [output, "none"])


def test_only_requested_scores_are_computed(openvino, images, monkeypatch):
    monkeypatch.setattr(OpenVINOEngine, "run", lambda *_: pytest.fail("scored"))
    assert openvino.run("serving_default", ask("serving_default", images, None), ["valid"])


def test_an_image_that_the_decoder_rejects_fails_as_with_tensorflow(
    openvino, engine, encoded_faces
):
    damaged = bytearray(encoded_faces[0])
    damaged[len(damaged) // 2] ^= 0xFF
    inputs = {"image_bytes": texts([encoded_faces[1], bytes(damaged)])}
    for model in (openvino, engine):
        with pytest.raises(tf.errors.InvalidArgumentError, match="[Ii]nvalid PNG"):
            model.run("serving_default", inputs)
    with pytest.raises(tf.errors.InvalidArgumentError, match="parse example"):
        openvino.run("classify", {"inputs": texts([b"no example"])})


@pytest.mark.slow
def test_bfloat16_scores_are_close_to_those_of_tensorflow(
    build_stand_in, tiny_faces, face_batch, tmp_path
):
    import keras

    from jdfd_keras.serving.export.exporter import export_detector

    # With the random weights of the tiny detector, scores differ by less than bfloat16 resolves.
    keras.utils.set_random_seed(0)
    detector = build_stand_in(ModelOptions(image_size=71))
    layer = detector.get_layer("classifier_logit")
    layer.set_weights([5 * weights for weights in layer.get_weights()])
    path = export_detector(detector, tmp_path / "tiny", faces=tiny_faces).path
    try:
        model = OpenVINOModel(path, OpenVINOEngine(path, "bfloat16"))
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    with model, SavedModelEngine(path) as engine:
        inputs = {"faces": face_batch}
        scores = engine.run("faces", inputs)["scores"]
        assert np.ptp(scores) > 0.05, "equal scores would hide an error"
        moved = np.abs(model.run("faces", inputs)["scores"] - scores).max()
        assert 0 < moved < 0.02
        check_same(model.run("explain", inputs), engine.run("explain", inputs), 1e-5)


@pytest.fixture(scope="module")
def openvino_server(exported):
    options = ServeOptions(port=0, grpc_port=0)
    with ModelServer([ModelConfig("tiny", exported.parent)], options, FLOAT32) as server:
        yield server


def test_clients_get_the_scores_and_the_engine(
    openvino_server, server, encoded_faces, expected_scores
):
    import openvino

    expected = {
        openvino_server: ("openvino", openvino.__version__.split("-")[0]),
        server: ("tensorflow", tf.__version__),
    }
    for one, (backend, version) in expected.items():
        for url in (f"{one.url}/v1/models/tiny", f"grpc://{one.grpc_target}/tiny"):
            with connect(url) as client:
                engine = {"backend": backend, "version": version, "precision": "float32"}
                assert client.engine == engine | {"note": ""}
                scores = client.predict_faces([*encoded_faces, b"no image"])
                np.testing.assert_allclose(scores, [*expected_scores, np.nan], atol=1e-5)


def test_loading_is_announced_and_the_engine_is_stated(exported, capfd):
    repository = Repository([ModelConfig("tiny", exported.parent)], FLOAT32)
    repository.poll()
    first, second = capfd.readouterr().err.splitlines()
    assert first == f"Loading {exported} ..."
    assert second.startswith("tiny 1: OpenVINO 20")
    assert ", float32, loaded in " in second
    repository.close()


def test_metrics_name_the_engine_of_loaded_versions(openvino_server):
    import urllib.request

    url = f"{openvino_server.url}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url, timeout=20) as response:
        lines = response.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("jdfd_keras_model_engine{")]
    assert 'backend="openvino"' in line
    assert 'model_name="tiny"' in line
    assert 'precision="float32"' in line
    assert line.endswith(" 1.0")


def test_a_model_without_engine_is_served_by_tensorflow_unless_openvino_is_requested(
    small_model, capfd
):
    repository = Repository([small_model])
    repository.poll()
    with repository.use("small") as served:
        x = np.array([1, 2], np.float32)
        assert served.run("serving_default", {"x": x}, [])["y"].tolist() == [2, 4]
        assert served.identity.note
    message = capfd.readouterr().err
    assert f"small 1: TensorFlow {tf.__version__}, float32 ({served.identity.note})" in message
    repository.close()
    with pytest.raises(OSError, match="--backend openvino"):
        Repository([small_model], FLOAT32).start()


@pytest.mark.slow
def test_an_unloaded_version_releases_its_engine(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "1")
    repository = Repository([ModelConfig("tiny", tmp_path)], FLOAT32)
    repository.poll()
    old = repository.states("tiny")[0].engine
    shutil.copytree(exported, tmp_path / "2")
    repository.poll()
    assert [served.state for served in repository.states("tiny")] == ["AVAILABLE", "END"]
    with pytest.raises(KeyError):
        old.run("faces", {"faces": np.zeros((1, 71, 71, 3), np.uint8)})
    repository.close()
