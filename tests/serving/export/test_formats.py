import json
import shutil

import cv2
import keras
import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.datasets.pipeline import load_faces
from jdfd_keras.datasets.split_dataset import split_dataset
from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.inference.saved_model import SavedModelEngine
from jdfd_keras.io.files import save_options
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import FaceOptions, ModelOptions, SplitOptions, TrainOptions
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.serving.export.exporter import export_detector
from jdfd_keras.serving.export.formats import (
    FILES,
    _score_file,
    check_formats,
    choose_split_table,
    export_formats,
)

# Largest change of a score. Measured: 0.0015, 0.044 and 0.0000002; 0.20 with swapped channels and
# 0.22 without calibration (TensorFlow 2.21.0).
TOLERANCE = {"float16": 0.005, "int8": 0.08, "onnx": 1e-5}
TEMPERATURE, BIAS = 3, 0.5


def test_unknown_or_repeated_formats_are_rejected():
    with pytest.raises(ValueError, match="of float16, int8, onnx, openvino-int8; got int4"):
        check_formats(["int4"], "prepared")
    with pytest.raises(ValueError, match="each once.* got int8, int8"):
        check_formats(["int8", "int8"], "prepared")


def test_formats_need_data_and_data_needs_formats():
    check_formats([], None)
    with pytest.raises(ValueError, match="formats float16 and .*data none"):
        check_formats(["float16"], None)
    with pytest.raises(ValueError, match="formats none and .*data prepared"):
        check_formats([], "prepared")


def test_openvino_int8_needs_foreign_data_which_nothing_else_takes(prepared_set):
    with pytest.raises(ValueError, match="openvino-int8 and the foreign data none"):
        check_formats(["openvino-int8"], prepared_set)
    with pytest.raises(ValueError, match="formats onnx and the foreign data other"):
        check_formats(["onnx"], prepared_set, "other")
    with pytest.raises(ValueError, match="--allow-loss for nothing else; got the formats onnx"):
        check_formats(["onnx"], prepared_set, allow_loss=True)
    with pytest.raises(OSError, match="missing"):
        check_formats(["openvino-int8"], prepared_set, "missing")
    check_formats(["openvino-int8"], prepared_set, prepared_set, allow_loss=True)


def test_openvino_int8_needs_nncf(monkeypatch):
    find_spec = "jdfd_keras.serving.export.formats.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None)
    with pytest.raises(OSError, match=r"Expected nncf .*pip install 'jdfd-keras\[int8\]'"):
        check_formats(["openvino-int8"], "prepared", "other")


def test_onnx_needs_its_packages(monkeypatch):
    find_spec = "jdfd_keras.serving.export.formats.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None if name == "tf2onnx" else name)
    with pytest.raises(OSError, match=r"no tf2onnx.*jdfd-keras\[onnx\]"):
        check_formats(["onnx"], "prepared")


def test_data_of_another_image_size_is_rejected(prepared_set, tmp_path):
    image = keras.Input((8, 8, 3))
    logit = keras.layers.Dense(1, name="classifier_logit")(keras.layers.Flatten()(image))
    model = keras.Model(image, {"classification": keras.layers.Activation("sigmoid")(logit)})
    with pytest.raises(ValueError, match="8 pixels .* got 16 of 71"):
        export_formats(model, tmp_path, ["float16"], None, prepared_set)


def test_the_split_table_is_that_of_the_run_if_the_dataset_has_it(prepared_set, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "split")
    split_dataset(tmp_path / "split", SplitOptions(strategy="kfold", folds=3))
    run = tmp_path / "run"
    run.mkdir()
    save_options(run / "options.json", train=TrainOptions(split_table="kfold-1-of-3"))
    assert choose_split_table(run, tmp_path / "split") == "kfold-1-of-3"
    assert choose_split_table(run / "best.keras", tmp_path / "split") == "kfold-1-of-3"
    assert choose_split_table(run, prepared_set) == "official"
    for unknown in (None, tmp_path / "model.keras"):
        assert choose_split_table(unknown, tmp_path / "split") == "official"
    path = tmp_path / "mine.csv"
    save_options(run / "options.json", train=TrainOptions(split_table=str(path)))
    assert choose_split_table(run, prepared_set) == "official"
    path.touch()
    assert choose_split_table(run, prepared_set) == str(path)


def test_faces_are_those_of_the_split_table(prepared_set, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "set")
    path = tmp_path / "set" / "splits" / "official.csv"
    swapped = path.read_text().replace(",val,", ",other,").replace(",test,", ",val,")
    path.with_name("swapped.csv").write_text(swapped.replace(",other,", ",test,"))
    image = keras.Input((8, 8, 3))  # of another size, so that the number of faces is in the error
    logit = keras.layers.Dense(1, name="classifier_logit")(keras.layers.Flatten()(image))
    model = keras.Model(image, {"classification": keras.layers.Activation("sigmoid")(logit)})
    with pytest.raises(ValueError, match="got 8 of 71"):  # 16 by the official table
        export_formats(model, tmp_path, ["float16"], None, tmp_path / "set", "swapped")


@pytest.fixture(scope="module")
def faces_and_labels(prepared_set):
    """uint8[n, 71, 71, 3] and bool[n] of the validation split, as training reads them."""
    batches = list(load_faces(prepared_set, "val", batch_size=4, labelled_only=True))
    faces = np.concatenate([image for image, _ in batches]).astype(np.uint8)
    label = np.concatenate([targets["classification"][:, 0] for _, targets in batches])
    return faces, label == 1


@pytest.fixture(scope="module")
def fitted_detector(build_tiny, faces_and_labels):
    """A tiny detector with random weights whose scores are spread around 0.5.

    Its batch normalization has the statistics of these faces: otherwise values differ only in the
    sixth digit, which small formats do not preserve.
    """
    return spread_scores(build_tiny(), faces_and_labels[0].astype("float32"))


def spread_scores(model: keras.Model, faces: np.ndarray) -> keras.Model:
    """Set the statistics of batch normalization and the logit of a model to those of faces."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
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
    kinds = list(FILES)
    for package in ("onnxruntime", "tf2onnx"):
        pytest.importorskip(package)
    faces, label = faces_and_labels
    raw, swapped = (
        fitted_detector.predict(pixels.astype("float32"), verbose=0)["classification"][:, 0]
        for pixels in (faces, faces[..., ::-1])
    )
    expected = cool(raw)
    for wrong in (raw, cool(swapped)):
        assert np.abs(wrong - expected).max() > 2 * max(TOLERANCE.values())

    calibration = Calibration(temperature=TEMPERATURE, bias=BIAS)
    np.testing.assert_allclose(calibration.apply(raw), expected, atol=1e-6)
    costs = export_formats(fitted_detector, tmp_path, kinds, calibration, prepared_set)

    classifier = [w for w in fitted_detector.weights if not w.path.startswith("decoder_")]
    num_bytes = 4 * sum(int(np.prod(weight.shape)) for weight in classifier)
    for cost, share in zip(costs, (0.5, 0.25, 1), strict=True):
        file = tmp_path / cost.file
        assert cost.bytes == file.stat().st_size < 1.1 * share * num_bytes
        scores = _score_file(file, faces)
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE[cost.kind])
        assert cost.largest_change == pytest.approx(np.abs(scores - expected).max(), abs=1e-4)
        assert cost.num_faces == len(faces)
        assert cost.auc == pytest.approx(auc_by_pairs(label, expected), abs=1e-6)
        assert cost.file_auc == pytest.approx(auc_by_pairs(label, scores), abs=1e-6)
        assert cost.auc_loss == pytest.approx(cost.auc - cost.file_auc)
    stored = json.loads((tmp_path / "formats.json").read_text())
    assert [(one["kind"], one["file_auc"]) for one in stored] == [
        (cost.kind, cost.file_auc) for cost in costs
    ]
    section = render_template("formats.md.j2", costs=costs)
    assert f"| {costs[1].bytes / 2**20:.1f} MiB |" in section and "classifier.onnx" in section


@pytest.mark.slow
def test_a_detector_with_attention_is_exported_as_a_whole(prepared_set, faces_and_labels, tmp_path):
    """The classifier reads the reconstruction, so every export of it contains the decoder."""
    for package in ("onnxruntime", "tf2onnx"):
        pytest.importorskip(package)
    keras.utils.set_random_seed(0)
    options = ModelOptions(
        network="xception-pytorch",
        attention="residual",
        image_size=71,
        latent_dim=16,
        encoder_weights="none",
    )
    faces = faces_and_labels[0]
    model = spread_scores(build_detector(options), faces.astype("float32"))
    expected = model.predict(faces.astype("float32"), verbose=0)
    scores = expected["classification"][:, 0]
    assert np.ptp(scores) > 0.2

    done = export_detector(
        model,
        tmp_path / "attentive",
        faces=FaceOptions(face_size=71),
        formats=["float16", "onnx"],  # not int8, which changed scores by up to 0.25
        data=prepared_set,
    )
    for cost in done.formats:
        # The tolerances are of scores at TEMPERATURE; these have the temperature 1.
        assert cost.largest_change < TEMPERATURE * TOLERANCE[cost.kind], cost.kind
    with SavedModelEngine(done.path) as engine:
        found = {
            name: engine.run(name, {"faces": faces}) for name in ("faces", "reconstruct", "explain")
        }
    np.testing.assert_allclose(found["faces"]["scores"], scores, atol=1e-4)
    reconstruction = found["reconstruct"]["reconstruction"]
    np.testing.assert_allclose(reconstruction, expected["reconstruction"], atol=1e-4)
    cam = [cv2.resize(cells, (71, 71)) for cells in found["explain"]["cam"]]
    np.testing.assert_allclose(cam, explain_faces(model, faces).cam, atol=1e-3)


def cool(score):
    """Scores at TEMPERATURE and BIAS in closed form: odds to a power, times a factor."""
    odds = (score / (1 - score)) ** (1 / TEMPERATURE) * np.exp(BIAS)
    return odds / (1 + odds)


def auc_by_pairs(label, scores):
    """The share of correctly ordered pairs of a real and a fake; ties count half."""
    difference = scores[label][:, None] - scores[~label]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
