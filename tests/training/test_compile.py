import keras
import numpy as np
import pytest

from jdfd_keras.training.compile import compile_detector


@pytest.fixture(scope="module")
def compiled(build_tiny):
    """A detector of this module's own: compiling and stepping change it."""
    model = build_tiny()
    compile_detector(model)
    return model


@pytest.fixture(scope="module")
def targets(face_batch):
    return {
        "classification": np.array([[0.0], [1.0], [1.0], [0.0]], np.float32),
        "reconstruction": face_batch.astype(np.float32) / 127.5 - 1,
    }


def test_total_loss_is_worked_out_by_hand(compiled, face_batch, targets):
    outputs = compiled.predict(face_batch, verbose=0)
    score = outputs["classification"].astype(np.float64)[:, 0]
    label = targets["classification"][:, 0]
    cross_entropy = -np.mean(label * np.log(score) + (1 - label) * np.log(1 - score))
    squared_error = np.mean((outputs["reconstruction"] - targets["reconstruction"]) ** 2)

    logs = compiled.evaluate(face_batch, targets, verbose=0, return_dict=True)
    assert logs["classification_loss"] == pytest.approx(cross_entropy, rel=1e-5)
    assert logs["reconstruction_loss"] == pytest.approx(squared_error, rel=1e-5)
    assert logs["loss"] == pytest.approx(0.8 * cross_entropy + 0.2 * squared_error, rel=1e-5)


def test_one_step_moves_every_trainable_weight(compiled, face_batch, targets):
    before = [variable.numpy() for variable in compiled.trainable_variables]
    compiled.train_on_batch(face_batch, targets)
    still = [
        variable.path
        for variable, value in zip(compiled.trainable_variables, before, strict=True)
        if np.array_equal(variable.numpy(), value)
    ]
    assert still == []


@pytest.mark.parametrize(
    "weights",
    [
        {"clasification": 0.8, "reconstruction": 0.2},
        {"classification": 0.8},
        {"classification": 0.8, "reconstruction": 0.2, "other": 1.0},
    ],
)
def test_loss_weights_for_other_outputs_are_refused(tiny_detector, weights):
    with pytest.raises(ValueError, match="Expected loss weights for the outputs"):
        compile_detector(tiny_detector, loss_weights=weights)


@pytest.mark.slow
def test_detector_learns_faces_that_a_colour_tells_apart(build_tiny):
    rng = np.random.default_rng(0)
    label = np.arange(32) % 2
    faces = rng.integers(60, 160, (32, 71, 71, 3)).astype(np.float32)
    faces[label == 1, :, :, 0] += 60  # fakes are redder
    targets = {
        "classification": label[:, None].astype(np.float32),
        "reconstruction": faces / 127.5 - 1,
    }
    model = build_tiny()
    compile_detector(model, keras.optimizers.Adam(1e-3))
    history = model.fit(faces, targets, batch_size=16, epochs=9, verbose=0).history
    assert history["reconstruction_loss"][-1] < 0.7 * history["reconstruction_loss"][0]
    score = model.predict(faces, verbose=0)["classification"][:, 0]
    assert score[label == 1].min() > score[label == 0].max()
