"""Trainings of the methods of Table 2: they learn, and their runs hold the detector alone."""

import json

import cv2
import keras
import numpy as np
import pytest

from jdfd_keras.model.embedding import add_embedding
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import ModelOptions, OptimizerOptions, TrainOptions, resolve_settings
from jdfd_keras.training.compile import build_optimizer, compile_detector
from jdfd_keras.training.fast_layers import accelerate
from jdfd_keras.training.run_folder import load_run_model, read_history
from jdfd_keras.training.train import train

# Image size, faces per step, epochs, learning rate of the encoder and that of the classifier.
LEARNING = {
    "xception": (71, 16, 6, 0.0005, 0.0005),
    "xception-triplet": (71, 16, 8, 0.0005, 0.05),
    "xception-regression": (71, 16, 7, 0.0005, 0.0005),
    "capsule": (32, 16, 18, 0.005, 0.005),
    "fwa": (64, 32, 14, 0.0003, 0.0003),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNING)
def test_every_network_learns_32_faces_by_heart(method):
    size, batch_size, epochs, rate, classifier_rate = LEARNING[method]
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    faces = np.stack([cv2.resize(face, (size, size)) for face in coarse]).astype(np.float32)
    label = np.arange(32) % 2

    # Statistics of so few steps need a small momentum.
    momentum = 0.9 if method == "capsule" else 0.5
    options = ModelOptions(
        method=method, image_size=size, encoder_weights="none", batch_norm_momentum=momentum
    )
    model = accelerate(build_detector(options))
    optimizer = OptimizerOptions("adam", rate, classifier_rate, decay_rate=1.0)
    loss = resolve_settings({"model": options})["loss"]
    compile_detector(model, build_optimizer(optimizer, steps_per_epoch=1), loss)
    targets = dict.fromkeys(("classification", "embedding"), label[:, None].astype(np.float32))
    mask = np.zeros((32, 5, 5, 1), np.float32)
    mask[1::2, 1:4, 1:4] = 1
    targets = {name: (targets | {"manipulation_map": mask})[name] for name in model.output}
    history = model.fit(faces, targets, batch_size=batch_size, epochs=epochs, verbose=0).history

    score = np.asarray(model(faces, training=False)["classification"])[:, 0]
    assert score[label == 1].min() > score[label == 0].max()
    assert history["classification_frame_auc"][-1] == 1
    if method == "xception-regression":
        losses = history["manipulation_map_loss"]
        assert losses[-1] < 0.6 * losses[0]


@pytest.fixture
def small_networks(monkeypatch):
    """Replace the networks of training by small ones with the outputs of each method."""

    def build(options):
        layers, size = keras.layers, options.image_size
        image = keras.Input((size, size, 3), name="image")
        x = layers.Conv2D(4, 5, strides=15, name="encoder")(layers.Rescaling(1 / 255)(image))
        outputs = {}
        if options.method == "xception-regression":
            cells = layers.Conv2D(1, 1, activation="sigmoid", name="manipulation_map")(x)
            outputs["manipulation_map"] = cells
            x = layers.Multiply()([x, cells])
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(1, "sigmoid", name="classifier_logit")(x)
        model = keras.Model(image, {"classification": x, **outputs}, name="small")
        return add_embedding(model) if options.method == "xception-triplet" else model

    monkeypatch.setattr("jdfd_keras.training.train.build_detector", build)


@pytest.mark.parametrize(
    ("method", "output"),
    [("xception-triplet", "embedding"), ("xception-regression", "manipulation_map")],
)
def test_a_saved_model_has_the_classification_alone(
    small_networks, prepared_set, tmp_path, method, output
):
    model = ModelOptions(method=method, encoder_weights="none")
    train(prepared_set, tmp_path, model=model, train=TrainOptions(epochs=1, batch_size=8))
    assert list(load_run_model(tmp_path).model.output) == ["classification"]
    for name in ("best.keras", "last.keras"):
        saved = keras.models.load_model(tmp_path / name, compile=False)
        assert list(saved.output) == ["classification"]

    (row,) = read_history(tmp_path)
    own = row["classification_loss"] + row[f"{output}_loss"]
    assert row["loss"] == pytest.approx(own, rel=1e-5)  # both of weight 1
    groups = json.loads((tmp_path / "options.json").read_text(encoding="utf-8"))
    assert (groups["model"]["method"], groups["model"]["decoder"]) == (method, False)
    assert groups["pipeline"]["balance"]  # of the method's settings
    if output == "embedding":  # a loss of batches, not of faces
        assert "val_embedding_loss" not in row
        assert "val_classification_loss" not in row  # it is val_loss
    else:
        own = row["val_classification_loss"] + row["val_manipulation_map_loss"]
        assert row["val_loss"] == pytest.approx(own, rel=1e-5)
        assert "from the difference to the real frame" in groups["data"]["masks"]


def test_a_method_refuses_another_ones_options_before_it_writes(prepared_set, tmp_path):
    model = ModelOptions(method="xception-triplet", encoder_weights="none", dropout=0.5)
    with pytest.raises(ValueError, match="the method xception-triplet has; got dropout 0.5"):
        train(prepared_set, tmp_path / "run", model=model)
    assert not (tmp_path / "run").exists()
