import hashlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.inference.openvino_network import read_network, select_outputs
from jdfd_keras.io.console import import_openvino
from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.network import digest_weights
from jdfd_keras.options import FaceOptions, ModelOptions
from jdfd_keras.serving.export import exporter, openvino_export
from jdfd_keras.serving.export.openvino_export import write_network, write_openvino

TEMPERATURE, BIAS = 2.5, -0.75
NETWORKS = {
    "xception": {"network": "xception"},
    "pytorch": {"network": "xception-pytorch"},
    "attention": {"network": "xception-pytorch", "attention": "residual"},
    # With a square dense layer: OpenVINO 2026.4.1 confuses such a matrix with its transpose.
    "no decoder": {"network": "xception", "decoder": False, "latent_dim": 128},
    "meso4": {"network": "meso4", "decoder": False},
    "mesoinception4": {"network": "mesoinception4", "decoder": False},
}


def spread_scores(model, faces):
    """Give batch normalization the statistics of faces, and scores a wide range.

    With random weights they are equal in the first six digits otherwise.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(faces, training=True)
    layer = model.get_layer("classifier_logit")
    logit = keras.Model(model.input, layer.output).predict(faces, verbose=0)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / logit.std(), (bias - logit.mean()) / logit.std()])


def run_float32(path, faces):
    """Outputs of a network by name, computed in float32 and in one batch."""
    import_openvino()
    from openvino import Core

    network = read_network(Core(), path)
    compiled = Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {output.any_name: values for output, values in compiled(faces.astype("float32")).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("is_calibrated", [False, True])
def test_the_network_computes_what_keras_computes(name, is_calibrated, face_batch, tmp_path):
    keras.utils.set_random_seed(0)
    network = {"latent_dim": 16, **NETWORKS[name]}
    options = ModelOptions(image_size=71, encoder_weights="none", **network)
    model = build_detector(options)
    spread_scores(model, face_batch.astype("float32"))
    outputs = model.predict(face_batch.astype("float32"), verbose=0)
    raw = outputs["classification"][:, 0].astype(np.float64)
    assert np.ptp(raw) > 0.2
    calibration, expected = None, raw
    if is_calibrated:
        calibration = Calibration(temperature=TEMPERATURE, bias=BIAS)
        odds = (raw / (1 - raw)) ** (1 / TEMPERATURE) * np.exp(BIAS)
        expected = odds / (1 + odds)
        np.testing.assert_allclose(calibration.apply(raw), expected, atol=1e-12)

    metadata = ModelMetadata(FaceOptions(face_size=71), calibration, "any", 1, "ab" * 32)
    write_openvino(model, tmp_path, metadata)

    found = run_float32(tmp_path / "openvino" / "float32.xml", face_batch)
    names = {"scores", "cam"} | ({"reconstruction"} & outputs.keys())
    assert found.keys() == names
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)
    if "reconstruction" in names:
        np.testing.assert_allclose(found["reconstruction"], outputs["reconstruction"], atol=1e-4)
    explained = explain_faces(model, face_batch).cam
    resized = keras.ops.image.resize(found["cam"][..., None], (71, 71))[..., 0]
    np.testing.assert_allclose(resized, explained, atol=1e-4)


def convert(function, shape):
    """A function of float32[n, *shape] as a network of OpenVINO, converted as a detector is."""
    import_openvino()
    import openvino
    from openvino.frontend.tensorflow import ConversionExtension

    pixels = tf.TensorSpec([None, *shape], tf.float32)
    traced = tf.function(function, input_signature=[pixels], autograph=False)
    extensions = [ConversionExtension(*rule) for rule in openvino_export.CONVERSIONS.items()]
    converted = openvino.convert_model(traced.get_concrete_function(), extension=extensions)
    return openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


WEIGHTS = np.random.default_rng(1).normal(size=(3, 4, 4)).astype(np.float32)
# The gradient of the sum of a function of x, float[n, 3, 4], in closed form.
GRADIENTS = {
    "sqrt": (tf.math.sqrt, lambda x: 0.5 * x**-0.5),
    "rsqrt": (tf.math.rsqrt, lambda x: -0.5 * x**-1.5),
    "one value for several": (
        lambda x: x * keras.ops.sum(x, axis=1, keepdims=True),
        lambda x: 2 * np.repeat(x.sum(axis=1, keepdims=True), 3, axis=1),
    ),
    "values for all faces": (lambda x: x * x * WEIGHTS[0, :3], lambda x: 2 * x * WEIGHTS[0, :3]),
    "einsum": (
        lambda x: keras.ops.einsum("npi,pij->npj", x, WEIGHTS) ** 2,
        lambda x: 2 * np.einsum("npi,pij,pkj->npk", x, WEIGHTS, WEIGHTS),
    ),
}


@pytest.mark.parametrize("num_faces", [1, 5])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_the_closed_form(name, num_faces):
    function, gradient = GRADIENTS[name]
    compiled = convert(lambda x: {"gradient": tf.gradients(function(x), x)[0]}, (3, 4))
    x = np.random.default_rng(0).uniform(0.5, 2, (num_faces, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(compiled(x)["gradient"], gradient(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation", ["npi,qij->npqj", "npi,pij->p", "npi,npj->nij", "npi,pij->ni"])
def test_sums_of_products_are_those_of_numpy(equation):
    of_faces = ",n" in equation
    compiled = convert(lambda x: tf.einsum(equation, x, x if of_faces else WEIGHTS), (3, 4))
    x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    expected = np.einsum(equation, x, x if of_faces else WEIGHTS)
    np.testing.assert_allclose(compiled(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation", ["nii->ni", "n...,n...->n...", "nii,nij->nj"])
def test_other_sums_of_products_are_refused(equation):
    inputs = 1 + equation.count(",")
    with pytest.raises(Exception, match=r"Expected an Einsum of two arrays"):
        convert(lambda x: tf.raw_ops.Einsum(inputs=[x] * inputs, equation=equation), (4, 4))


def test_sizes_that_depend_on_the_number_of_faces_are_refused():
    def product(x):  # of n x 4 x 4 and 4 x n x 4, which fit if n is 1 or 4
        return tf.gradients(x * tf.transpose(x, (1, 0, 2)), x)[0]

    with pytest.raises(Exception, match=r"Expected arrays whose sizes are known"):
        convert(product, (4, 4))


def test_weights_are_stored_in_float32_once(exported, detector):
    sizes = [path.stat().st_size for path in (exported / "openvino").glob("float32.bin*")]
    assert max(sizes) <= 48e6
    weights = 4 * sum(int(np.prod(weight.shape)) for weight in detector.weights)
    assert 0.9 * weights < sum(sizes) < 1.2 * weights


@pytest.mark.parametrize(
    ("limit", "sizes"), [(4000, [4000]), (3999, [3999, 1]), (1500, [1500] * 2 + [1000])]
)
def test_weights_beyond_the_limit_are_in_parts(limit, sizes, tmp_path, monkeypatch):
    import_openvino()
    import openvino
    from openvino import opset14

    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    numbers = opset14.parameter([1000])
    network = openvino.Model([opset14.multiply(numbers, opset14.constant(values))], [numbers])
    monkeypatch.setattr(openvino_export, "MAX_FILE_SIZE", limit)
    write_network(network, tmp_path / "network.xml")

    paths = sorted(tmp_path.glob("network.bin*"))
    assert [path.stat().st_size for path in paths] == sizes
    assert b"".join(path.read_bytes() for path in paths) == values.tobytes()
    read = read_network(openvino.Core(), tmp_path / "network.xml")
    compiled = openvino.Core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_array_equal(compiled(np.ones(1000, np.float32))[0], values)


def test_scores_alone_do_not_need_the_decoder(exported):
    import_openvino()
    from openvino import Core

    network = read_network(Core(), exported / "openvino" / "float32.xml")
    kinds = [node.get_type_name() for node in select_outputs(network, "scores").get_ops()]
    assert "Convolution" in kinds
    assert "ConvolutionBackpropData" not in kinds


def test_engine_json_states_the_files_that_belong_together(exported, detector):
    facts = json.loads((exported / "openvino" / "engine.json").read_text())
    listed = {"openvino/float32.xml", "saved_model.pb"}
    listed |= {f"openvino/float32.bin-0000{number}-of-00002" for number in (0, 1)}
    listed |= {f"variables/{path.name}" for path in (exported / "variables").iterdir()}
    reader = exported / "openvino" / "image_reader"
    listed |= {
        f"openvino/image_reader/variables/{x.name}" for x in (reader / "variables").iterdir()
    }
    listed.add("openvino/image_reader/saved_model.pb")
    assert facts["files"] == {
        name: hashlib.sha256((exported / name).read_bytes()).hexdigest() for name in listed
    }
    assert facts["digest"] == digest_weights(detector)
    assert json.loads(facts["metadata"]["model.json"])["digest"] == facts["digest"]
    assert facts["int8"] is None
    assert facts["openvino"] == import_openvino()
    assert "  openvino/engine.json\n" in (exported / "SHA256SUMS").read_text()


@pytest.mark.slow
def test_an_engine_with_other_scores_fails_the_export(
    detector, build_tiny, tiny_faces, tmp_path, monkeypatch
):
    other = build_tiny()
    layer = other.get_layer("classifier_logit")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + 1e-3])  # moves scores by 2.5e-4 at most
    monkeypatch.setattr(
        exporter,
        "write_openvino",
        lambda model, version, metadata: write_openvino(other, version, metadata),
    )
    with pytest.raises(ValueError, match="Expected the scores of TensorFlow from OpenVINO"):
        exporter.export_detector(detector, tmp_path / "tiny", faces=tiny_faces)
    assert list((tmp_path / "tiny").iterdir()) == []


# Every connection and every name that is looked up is recorded and refused.
WATCH = """
import socket, sys
def refuse(*arguments, **options):
    print("network:", arguments, flush=True)
    raise OSError("refused")
socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = socket.socket.connect_ex = refuse
"""
CONVERT = """
from jdfd_keras.io.console import import_openvino
import_openvino()
import numpy as np, openvino, tensorflow as tf
function = tf.function(lambda x: tf.nn.relu(x @ np.eye(3, dtype=np.float32)))
model = openvino.convert_model(function.get_concrete_function(tf.TensorSpec([1, 3])))
openvino.Core().compile_model(model, "CPU")(np.ones((1, 3), np.float32))
from jdfd_keras.serving.export.quantized_layers import quantize
"""
QUANTIZE = CONVERT + "quantize(model, np.ones((4, 3), np.uint8))\n"
BARE = "import openvino, time\ntime.sleep(2)\n"


def watch_network(code, home):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "NNCF_DEV")
    }
    environment |= {"HOME": str(home), "KERAS_HOME": str(home.parent / "keras")}
    environment["MPLCONFIGDIR"] = str(home.parent / "matplotlib")  # its cache of fonts
    run = subprocess.run(
        [sys.executable, "-c", WATCH + code], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return [line for line in run.stdout.splitlines() if line.startswith("network:")]


@pytest.mark.slow
def test_conversion_quantization_and_prediction_send_nothing_and_leave_no_identifier(tmp_path):
    (tmp_path / "home").mkdir()
    code = QUANTIZE if _has("nncf") else CONVERT
    assert watch_network(code, tmp_path / "home") == []
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.slow
def test_the_watch_sees_the_telemetry_of_a_bare_import(tmp_path):
    (tmp_path / "home").mkdir()
    seen = watch_network(BARE, tmp_path / "home")
    assert seen and (tmp_path / "home" / "intel").is_dir()


def _has(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None
