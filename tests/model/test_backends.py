"""The same network on two backends: TensorFlow here, JAX in another process."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import ModelOptions

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None, reason="jax is not installed: pip install jax"
    ),
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND is not tensorflow"
    ),
]

BUILD = """
import json, os, sys
import keras
import numpy as np
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import ModelOptions
from jdfd_keras.training.compile import compile_detector

options = json.loads(sys.argv[2])
model = build_detector(ModelOptions(latent_dim=16, encoder_weights="none", **options))
os.chdir(sys.argv[1])
faces = np.load("faces.npy")
"""
PREDICT = """
model.load_weights("detector.weights.h5")
np.savez("outputs.npz", **model.predict(faces, verbose=0))
print(json.dumps({"backend": keras.backend.backend()}))
"""
TRAIN = """
before = [variable.numpy() for variable in model.trainable_variables]
compile_detector(model)
label = np.arange(len(faces), dtype=np.float32)[:, None] % 2
targets = {"classification": label, "reconstruction": faces / np.float32(127.5) - 1}
targets = {name: targets[name] for name in model.output}
logs = model.train_on_batch(faces, targets, return_dict=True)
unchanged = [
    variable.path
    for variable, value in zip(model.trainable_variables, before, strict=True)
    if np.array_equal(variable.numpy(), value)
]
logs = {name: float(value) for name, value in logs.items()}
print(json.dumps({"backend": keras.backend.backend(), "logs": logs, "unchanged": unchanged}))
"""

PLAIN = {"image_size": 71}
ATTENTION = {"image_size": 71, "network": "xception-pytorch", "attention": "residual"}
MESONET = {"image_size": 71, "network": "mesoinception4"}


@pytest.fixture(scope="module")
def faces():
    """Six images of squares in random colours."""
    coarse = np.random.default_rng(0).uniform(0, 255, (6, 9, 9, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1)))[:, :71, :71].astype(np.float32)


def run_on_jax(code: str, folder, options: dict) -> dict:
    """Run code in a folder on a detector of some options; return the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), json.dumps(options)],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "options",
    [PLAIN, pytest.param(ATTENTION, marks=pytest.mark.slow), MESONET],
    ids=["plain", "attention", "mesonet"],
)
@pytest.mark.slow
def test_equal_weights_have_equal_outputs_on_tensorflow_and_jax(options, faces, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_detector(ModelOptions(latent_dim=16, encoder_weights="none", **options))
    # With initial moving statistics every face scores 0.50: use the statistics of a batch.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(faces, training=True)
    ours = {name: np.asarray(value) for name, value in model(faces, training=False).items()}
    assert np.ptp(ours["classification"]) > 0.01
    if "reconstruction" in ours:
        assert np.ptp(ours["reconstruction"], axis=0).max() > 0.01

    model.save_weights(tmp_path / "detector.weights.h5")
    np.save(tmp_path / "faces.npy", faces)
    assert run_on_jax(BUILD + PREDICT, tmp_path, options) == {"backend": "jax"}
    theirs = dict(np.load(tmp_path / "outputs.npz"))
    assert set(theirs) == set(ours)
    for name, output in ours.items():
        assert theirs[name].shape == output.shape
        assert np.abs(theirs[name] - output).max() <= 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("options", [PLAIN, ATTENTION], ids=["plain", "attention"])
def test_the_detector_trains_on_jax(options, faces, tmp_path):
    np.save(tmp_path / "faces.npy", faces)
    report = run_on_jax(BUILD + TRAIN, tmp_path, options)
    assert report["backend"] == "jax"
    logs = report["logs"]
    assert np.all(np.isfinite(list(logs.values())))
    total = 0.8 * logs["classification_loss"] + 0.2 * logs["reconstruction_loss"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    assert report["unchanged"] == []
