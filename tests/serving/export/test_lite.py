import json

import keras
import numpy as np
import pytest

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.datasets.pipeline import load_faces
from jdfd_keras.model.network import build_detector
from jdfd_keras.options import ModelOptions
from jdfd_keras.serving.export.lite import (
    KINDS,
    check_lite,
    describe_lite,
    export_all_lite,
    score_lite,
)

# Largest change of a score. Measured: 0.0015 and 0.044; 0.20 with swapped channels and 0.22 without
# calibration (TensorFlow 2.21.0).
TOLERANCE = {"float16": 0.005, "int8": 0.08}
TEMPERATURE = 3


def test_unknown_or_repeated_formats_are_rejected():
    with pytest.raises(ValueError, match="of float16, int8; got int4"):
        check_lite(["int4"], "prepared")
    with pytest.raises(ValueError, match="each once.* got int8, int8"):
        check_lite(["int8", "int8"], "prepared")


def test_formats_without_data_are_rejected():
    check_lite([], None)
    with pytest.raises(ValueError, match=r"with float16, to calibrate .* got none\. Give --data"):
        check_lite(["float16"], None)


@pytest.mark.slow
def test_data_of_another_image_size_is_rejected(prepared_set, tmp_path):
    image = keras.Input((8, 8, 3))
    logit = keras.layers.Dense(1, name="classifier_logit")(keras.layers.Flatten()(image))
    model = keras.Model(image, {"classification": keras.layers.Activation("sigmoid")(logit)})
    with pytest.raises(ValueError, match="faces of 8 pixels .* got 16 of 71"):
        export_all_lite(model, tmp_path, ["float16"], None, prepared_set)


@pytest.fixture(scope="module")
def faces_and_labels(prepared_set):
    """uint8[n, 71, 71, 3] and bool[n] of the validation split, as training reads them."""
    batches = list(load_faces(prepared_set, "val", batch_size=4, labelled_only=True))
    faces = np.concatenate([image for image, _ in batches]).astype(np.uint8)
    label = np.concatenate([targets["classification"][:, 0] for _, targets in batches])
    return faces, label == 1


@pytest.fixture(scope="module")
def fitted_detector(faces_and_labels):
    """A tiny detector with random weights whose scores are spread around 0.5.

    Its batch normalization has the statistics of these faces: otherwise values differ only in the
    sixth digit, which small formats do not preserve.
    """
    keras.utils.set_random_seed(0)
    model = build_detector(
        ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", batch_norm_momentum=0.0)
    )
    faces = faces_and_labels[0].astype("float32")
    model(faces, training=True)
    layer = model.get_layer("classifier_logit")
    logit = keras.Model(model.input, layer.output).predict(faces, verbose=0)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / logit.std(), (bias - logit.mean()) / logit.std()])
    return model


@pytest.mark.slow
def test_formats_score_like_the_model_and_report_their_loss(
    fitted_detector, prepared_set, faces_and_labels, tmp_path
):
    faces, label = faces_and_labels
    raw, swapped = (
        fitted_detector.predict(pixels.astype("float32"), verbose=0)["classification"][:, 0]
        for pixels in (faces, faces[..., ::-1])
    )
    expected = cool(raw)
    for wrong in (raw, cool(swapped)):
        assert np.abs(wrong - expected).max() > 2 * max(TOLERANCE.values())

    calibration = Calibration(temperature=TEMPERATURE)
    costs = export_all_lite(fitted_detector, tmp_path, KINDS, calibration, prepared_set)

    weights = 4 * sum(int(np.prod(weight.shape)) for weight in fitted_detector.weights)
    for cost, share in zip(costs, (0.5, 0.25), strict=True):
        file = tmp_path / cost.file
        assert file.name == f"classifier-{cost.kind}.tflite"
        assert cost.bytes == file.stat().st_size < 1.1 * share * weights
        scores = score_lite(file, faces)
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE[cost.kind])
        assert cost.largest_change == pytest.approx(np.abs(scores - expected).max(), abs=1e-4)
        assert cost.num_faces == len(faces)
        assert cost.auc == pytest.approx(auc_by_pairs(label, expected), abs=1e-6)
        assert cost.lite_auc == pytest.approx(auc_by_pairs(label, scores), abs=1e-6)
        assert cost.auc_loss == pytest.approx(cost.auc - cost.lite_auc)
    stored = json.loads((tmp_path / "tflite.json").read_text())
    assert [one["kind"] for one in stored] == ["float16", "int8"]
    assert stored[1]["lite_auc"] == costs[1].lite_auc
    section = describe_lite(costs)["TensorFlow Lite"]
    assert f"| classifier-int8.tflite | {costs[1].bytes / 2**20:.1f} MiB |" in section


def cool(score):
    """Scores at TEMPERATURE in closed form: odds to the power of 1 / TEMPERATURE."""
    odds = (score / (1 - score)) ** (1 / TEMPERATURE)
    return odds / (1 + odds)


def auc_by_pairs(label, scores):
    """The share of correctly ordered pairs of a real and a fake; ties count half."""
    difference = scores[label][:, None] - scores[~label]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
