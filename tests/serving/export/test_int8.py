import json
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.io.console import import_openvino
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import FaceOptions, ModelOptions
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.serving.export import int8
from jdfd_keras.serving.export.exporter import export_detector
from jdfd_keras.serving.export.int8 import write_int8
from jdfd_keras.serving.export.int8_loss import ComparedSet, load_compared_sets, measure_loss
from jdfd_keras.serving.export.openvino_export import write_openvino

SIZE = 64
FACES = FaceOptions(detector="none", face_size=SIZE, frames_per_video=1)


def compared_set(label, video):
    names = [f"video{number}" for number in range(max(video) + 1)]
    rows = [""] * len(label)
    return ComparedSet("clips", Path(), rows, [0] * len(rows), np.array(label), video, names)


def test_the_loss_is_that_of_an_independent_computation():
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(60), 4)
    label = (np.arange(60) % 2 == 1)[video]
    float32 = np.clip(0.3 * label + rng.uniform(0, 0.7, 240), 0, 1)
    changed = np.clip(float32 + rng.normal(0, 0.1, 240), 0, 1)
    loss = measure_loss(compared_set(label, video), float32, changed, n_resamples=200)

    means = [score.reshape(60, 4).mean(axis=1) for score in (float32, changed)]
    is_fake = label.reshape(60, 4)[:, 0]
    frame = [roc_auc_score(label, score) for score in (float32, changed)]
    videos = [roc_auc_score(is_fake, score) for score in means]
    assert [loss.frame_auc.value, loss.frame_auc_int8.value] == pytest.approx(frame)
    assert [loss.video_auc.value, loss.video_auc_int8.value] == pytest.approx(videos)
    assert loss.frame_loss.value == pytest.approx(frame[0] - frame[1])
    assert loss.video_loss.value == pytest.approx(videos[0] - videos[1])
    for estimate in (loss.frame_auc, loss.video_auc_int8, loss.frame_loss, loss.video_loss):
        assert estimate.low < estimate.value < estimate.high
    moves = np.abs(means[0] - means[1])
    assert loss.largest_move == pytest.approx(moves.max())
    assert loss.moved_video == f"video{moves.argmax()}"
    assert loss.largest_face_move == pytest.approx(np.abs(float32 - changed).max())
    assert (loss.num_real, loss.num_fake, loss.num_faces) == (30, 30, 240)


@pytest.mark.parametrize(
    ("frame_loss", "video_loss", "move", "accepted"),
    [
        (0.005, 0.005, 0.05, True),
        (-0.02, -0.02, 0.0, True),
        (0.0051, 0.0, 0.0, False),
        (0.0, 0.0051, 0.0, False),
        (0.0, 0.0, 0.051, False),
        (None, 0.0, 0.0, False),
    ],
)
def test_int8_is_accepted_within_the_bounds_only(frame_loss, video_loss, move, accepted):
    label, score = np.array([False, True]), np.array([0.2, 0.9])
    loss = measure_loss(compared_set(label, np.arange(2)), score, score)
    values = {"frame_loss": Estimate(frame_loss), "video_loss": Estimate(video_loss)}
    changed = loss.from_dict(loss.to_dict() | {"largest_move": move})
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    assert changed.accepted is accepted


def make_model(network="meso4"):
    """A detector whose scores of `draw_face` are spread."""
    keras.utils.set_random_seed(1)
    options = ModelOptions(
        network=network, image_size=SIZE, decoder=False, encoder_weights="none", latent_dim=16
    )
    model = build_detector(options)
    faces = np.stack([draw_face(seed) for seed in range(32)]).astype("float32")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(faces, training=True)
    layer = model.get_layer("classifier_logit")
    logit = keras.Model(model.input, layer.output).predict(faces, verbose=0)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / logit.std(), (bias - logit.mean()) / logit.std()])
    return model


def draw_face(seed):
    """uint8[SIZE, SIZE, 3], smooth random image."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def prepare_images(model, folder, count, first_seed, noise):
    """Prepare images whose labels are what the model says, up to noise."""
    seeds = np.arange(first_seed, first_seed + count)
    faces = np.stack([draw_face(seed) for seed in seeds])
    score = model.predict(faces.astype("float32"), verbose=0)["classification"][:, 0]
    drawn = score + np.random.default_rng(first_seed).normal(0, noise, count)
    for seed, face, is_fake in zip(seeds, faces, drawn > np.median(drawn), strict=True):
        path = folder / "images" / "val" / ("fake" if is_fake else "real") / f"person{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), face[..., ::-1])
    prepare(folder / "images", folder / "prepared", FACES)
    return folder / "prepared"


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    return prepare_images(model, tmp_path_factory.mktemp("val"), 110, 1000, noise=0.2)


@pytest.fixture(scope="module")
def foreign(model, tmp_path_factory):
    return prepare_images(model, tmp_path_factory.mktemp("foreign"), 104, 5000, noise=0.3)


def test_small_or_unlabelled_data_cannot_judge(prepared_set, data):
    with pytest.raises(
        ValueError, match=r"100 labelled videos.*the split val of .*got 2 real and 2"
    ):
        load_compared_sets(prepared_set, data)
    with pytest.raises(ValueError, match=r"got 8 real and 7 fake"):
        load_compared_sets(data, prepared_set)


def test_faces_are_read_with_their_labels(model, data, foreign):
    first, second = load_compared_sets(data, foreign)
    assert (len(first.label), len(second.label)) == (110, 104)
    assert [first.label.sum(), second.label.sum()] == [55, 52]
    for one in (first, second):
        for index in (0, 50, 100):
            is_fake = "/fake/" in one.names[one.video[index]]
            assert one.label[index] == is_fake


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("version")
    write_openvino(model, folder, ModelMetadata(FACES, None, "any", 1, "ab" * 32))
    return folder


@pytest.mark.parametrize("allowed", [(0.0, 0.5), (0.99, 1.0)])
def test_a_detector_that_cannot_show_the_loss_is_refused(
    version, data, foreign, monkeypatch, allowed
):
    monkeypatch.setattr(int8, "AUC_RANGE", allowed)
    with pytest.raises(ValueError, match=r"frame AUC from .* got 0\.\d{3}\. Give validation"):
        write_int8(version, load_compared_sets(data, foreign), allow_loss=True)


@pytest.mark.slow
def test_an_accepted_network_scores_nearly_as_in_float32(
    model, data, foreign, tmp_path, monkeypatch
):
    pytest.importorskip("nncf")
    monkeypatch.setattr(int8, "AUC_RANGE", (0.5, 1.0))
    for name in ("MAX_AUC_LOSS", "MAX_MOVE"):
        monkeypatch.setattr(f"jdfd_keras.serving.export.int8_loss.{name}", 0.5)
    done = export_detector(
        model,
        tmp_path / "fast",
        faces=FACES,
        formats=["openvino-int8"],
        data=data,
        foreign=foreign,
    )
    folder = done.path / "openvino"
    facts = json.loads((folder / "engine.json").read_text())
    assert {"openvino/int8.xml", "openvino/int8.bin"} <= facts["files"].keys()
    assert facts["int8"] == done.int8.to_dict()
    assert done.int8.accepted and done.int8.kept == ()
    assert done.int8.bytes == sum((folder / f"int8.{end}").stat().st_size for end in ("xml", "bin"))

    faces = np.stack([draw_face(seed) for seed in range(1000, 1110)])
    expected = model.predict(faces.astype("float32"), verbose=0)["classification"][:, 0]
    import_openvino()
    from openvino import Core

    network = Core().read_model(folder / "int8.xml")
    assert [output.any_name for output in network.outputs] == ["scores"]
    compiled = Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    scores = np.concatenate([compiled(face[None].astype("float32"))[0] for face in faces])
    assert 0 < np.abs(scores - expected).max() < 0.5
    assert np.corrcoef(scores, expected)[0, 1] > 0.95
    (loss, other) = done.int8.sets
    label = expected * 0 + [s in fakes_of(data) for s in range(1000, 1110)]
    assert loss.frame_auc.value == pytest.approx(roc_auc_score(label, expected), abs=1e-4)
    assert (other.num_real, other.num_fake) == (52, 52)
    card = (done.path.parent / "MODEL_CARD.md").read_text()
    assert "## OpenVINO in int8" in card and "It is used unless another precision" in card
    assert f"{loss.frame_auc.value:.3f} [" in card


def fakes_of(data):
    return {int(path.stem[6:]) for path in (data.parent / "images" / "val" / "fake").iterdir()}


@pytest.mark.slow
def test_a_network_that_loses_too_much_is_written_on_request_only(
    model, data, foreign, tmp_path, monkeypatch
):
    pytest.importorskip("nncf")
    monkeypatch.setattr(int8, "AUC_RANGE", (0.5, 1.0))
    monkeypatch.setattr("jdfd_keras.serving.export.int8_loss.MAX_MOVE", -1.0)
    options = {"faces": FACES, "formats": ["openvino-int8"], "data": data, "foreign": foreign}
    with pytest.raises(
        ValueError, match=r"Expected int8 to lose at most .*moved by 0\.\d+.*--allow"
    ):
        export_detector(model, tmp_path / "slow", **options)
    assert list((tmp_path / "slow").iterdir()) == []
    done = export_detector(model, tmp_path / "slow", allow_loss=True, **options)
    facts = json.loads((done.path / "openvino" / "engine.json").read_text())
    assert facts["int8"]["accepted"] is False
    assert 0 < len(done.int8.kept) < done.int8.num_layers
    assert "lost too much to be accepted" in render_template("int8.md.j2", int8=done.int8)
