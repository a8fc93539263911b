"""Loading the model of a run: which models are detectors, and their precision."""

import traceback
import zipfile
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.io.files import save_options
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import FaceOptions, ModelOptions, TrainOptions
from jdfd_keras.training.run_folder import load_run_model, read_provenance


@pytest.fixture(scope="module")
def scaled(build_tiny):
    """The tiny detector with a scaled last layer: else every score is 0.5, in any precision."""
    model = build_tiny()
    layer = model.get_layer("classifier_logit")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * 4e5, bias])
    return model


@pytest.fixture(scope="module")
def expected(scaled, face_batch):
    """Outputs of the scaled detector for `face_batch`, computed in float32."""
    return scaled.predict(face_batch, verbose=0)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.slow
def test_a_detector_trained_in_mixed_precision_is_loaded_in_float32(
    build_tiny, scaled, expected, face_batch, tmp_path, policy
):
    keras.config.set_dtype_policy(policy)
    try:
        mixed = build_tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(scaled.get_weights())
    mixed.save(tmp_path / "best.keras")
    as_trained = mixed(face_batch.astype(np.float32), training=False)["classification"].numpy()
    assert np.abs(as_trained - expected["classification"]).max() > 1e-3, (
        "the test would pass with any precision"
    )

    model = load_run_model(tmp_path).model
    outputs = model.predict(face_batch, verbose=0)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    np.testing.assert_allclose(outputs["classification"], expected["classification"], atol=1e-6)
    # Untrained, it is near 0: the error of bfloat16 is 2 % of the largest value, of float16 100 %.
    reconstruction = expected["reconstruction"]
    largest = np.abs(reconstruction).max()
    np.testing.assert_allclose(outputs["reconstruction"], reconstruction, atol=1e-4 * largest)


def test_a_model_of_a_run_carries_its_mark_and_one_outside_a_run_none(tmp_path):
    image = keras.Input((8, 8, 3))
    score = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(image))
    for name in ("run", "other", "published"):
        (tmp_path / name).mkdir()
        keras.Model(image, {"classification": score}).save(tmp_path / name / "best.keras")
    assert not load_run_model(tmp_path / "run").demonstration
    faces = FaceOptions(face_size=8)
    save_options(
        tmp_path / "run" / "options.json", faces=faces, train=TrainOptions(demonstration=True)
    )
    save_options(tmp_path / "other" / "options.json", faces=faces, train=TrainOptions())
    save_options(tmp_path / "published" / "options.json", faces=faces)
    assert load_run_model(tmp_path / "run").demonstration
    assert load_run_model(tmp_path / "run" / "best.keras").demonstration
    assert not load_run_model(tmp_path / "other").demonstration
    assert not load_run_model(tmp_path / "published").demonstration


@pytest.mark.slow
def test_a_detector_without_decoder_is_loaded(tmp_path, face_batch):
    model = build_detector(
        ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", decoder=False)
    )
    model.save(tmp_path / "baseline.keras")
    loaded = load_run_model(tmp_path / "baseline.keras")
    assert loaded.faces == FaceOptions(face_size=71)
    outputs = loaded.model.predict(face_batch, verbose=0)
    assert set(outputs) == {"classification"}
    direct = model(face_batch.astype(np.float32), training=False)["classification"]
    np.testing.assert_allclose(outputs["classification"], direct, atol=1e-6)


def test_a_run_of_another_format_version_is_refused_before_its_model_is_loaded(tmp_path):
    with zipfile.ZipFile(tmp_path / "best.keras", "w") as archive:
        archive.writestr("config.json", "of another version")
    pq.write_table(pa.table({"video_id": ["a"]}), tmp_path / "training_faces.parquet")
    (tmp_path / "options.json").write_text('{"format_version": 1, "faces": {}}')
    for read in (load_run_model, read_provenance):
        with pytest.raises(ValueError, match="Expected format_version 2 in .*; got 1"):
            read(tmp_path)


@pytest.mark.parametrize(
    "names", [[], ["reconstruction"], ["classification", "other"], ["score"]], ids=",".join
)
def test_a_model_with_other_outputs_is_rejected(tmp_path, names):
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(image)
    outputs = {name: keras.layers.Dense(1, name=name)(flat) for name in names}
    keras.Model(image, outputs or flat).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="output 'classification'.*other.keras"):
        load_run_model(tmp_path / "other.keras")


class OwnLayer(keras.layers.Layer):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: keras.layers.Lambda(lambda image: image * 2.0), "Python code of its author"),
        (OwnLayer, "OwnLayer"),
    ],
    ids=["lambda", "own class"],
)
def test_a_model_with_code_of_its_author_is_refused_without_advice_to_run_it(
    tmp_path, capsys, layer, named
):
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(layer()(image))
    score = keras.layers.Dense(1, name="classification")(flat)
    keras.Model(image, {"classification": score}).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=f"Keras' own layers.*other.keras.*{named}") as caught:
        load_run_model(tmp_path / "other.keras")
    shown = "".join(traceback.format_exception(caught.value))
    assert "safe_mode" not in shown
    assert "unsafe" not in shown
    assert "`jdfd-keras train`" in str(caught.value)

    image = Path(__file__).parents[1] / "pictures" / "astronaut.png"
    assert main(["predict", str(image), "--model", str(tmp_path / "other.keras")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line
    assert "safe" not in line
