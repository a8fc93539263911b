"""Content of a run folder: figures, TensorBoard, history and models."""

import csv
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jdfd_keras.datasets.face_index import COLUMNS, index_faces
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.options import ModelOptions, TrainOptions, TrainRuntime
from jdfd_keras.training.callbacks import draw_curves
from jdfd_keras.training.train import train

AUC = "classification_frame_auc"
PANEL_PX = (384, 480)  # 3.2 by 4 inches at 120 dpi


def build_small(options):
    """Build a detector of a few weights, with or without a decoder."""
    image = keras.Input((options.image_size, options.image_size, 3), name="image")
    small = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    mean = keras.layers.GlobalAveragePooling2D()(small)
    outputs = {"classification": keras.layers.Dense(1, "sigmoid", name="classification")(mean)}
    if options.decoder:
        outputs["reconstruction"] = keras.layers.Conv2D(3, 1, name="reconstruction")(small)
    return keras.Model(image, outputs)


def train_small(data, out, **model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jdfd_keras.training.train.build_detector", build_small)
        options = TrainOptions(epochs=2, batch_size=16)
        runtime = TrainRuntime(keep_optimizer=True)  # the weights are compared to those of files
        return train(data, out, ModelOptions(**model), train=options, runtime=runtime)


@pytest.fixture(scope="module")
def run(prepared_set, tmp_path_factory):
    """A training of two epochs."""
    return train_small(prepared_set, tmp_path_factory.mktemp("pictures") / "run")


@pytest.fixture(scope="module")
def run_without_decoder(prepared_set, tmp_path_factory):
    """The same training without a decoder."""
    out = tmp_path_factory.mktemp("pictures") / "baseline"
    return train_small(prepared_set, out, decoder=False)


@pytest.fixture(scope="module")
def shown(prepared_set):
    """The 4 of 8 real and 4 of 8 fake validation faces that the figure shows."""
    faces = index_faces(prepared_set, read_faces(prepared_set, split="val", columns=COLUMNS))
    indices = []
    for label in (0, 1):
        members = np.flatnonzero(faces.label == label)
        assert len(members) == 8
        indices += [members[position] for position in (0, 2, 4, 7)]
    return np.stack([faces.read(index) for index in indices])


def read_image(path):
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image is not None, f"{path} cannot be decoded"
    return image


def test_reconstructions_show_validation_faces_above_the_output_of_the_last_model(run, shown):
    sheet = read_image(run.directory / "reconstructions.png")
    assert sheet.shape == (2 * 71, 8 * 71, 3)
    np.testing.assert_array_equal(sheet[:71], np.concatenate(shown, axis=1))
    last = keras.models.load_model(run.directory / "last.keras")
    reconstruction = last.predict(shown.astype(np.float32), verbose=0)["reconstruction"]
    expected = np.clip((np.concatenate(reconstruction, axis=1) + 1) * 127.5, 0, 255)
    assert np.abs(sheet[71:] - expected).max() < 0.51


def test_curves_have_a_panel_for_each_loss_their_sum_and_the_auc(run):
    height, width = read_image(run.directory / "curves.png").shape[:2]
    assert (height, width) == (PANEL_PX[0], 4 * PANEL_PX[1])


NAMES = [f"{prefix}{name}" for name in ("loss", AUC) for prefix in ("", "val_")]


@pytest.mark.parametrize(("changed", "panel"), list(zip(NAMES, (0, 0, 1, 1), strict=True)))
def test_each_panel_shows_its_columns_of_the_history(tmp_path, changed, panel):
    # The range of the axes does not change: it depends on the first and the last epoch.
    history = [
        {"epoch": epoch, **dict.fromkeys(NAMES, value)}
        for epoch, value in enumerate((0.2, 0.5, 0.8), start=1)
    ]
    draw_curves(tmp_path / "before.png", history)
    history[1][changed] = 0.3
    draw_curves(tmp_path / "after.png", history)
    images = [read_image(tmp_path / f"{name}.png") for name in ("before", "after")]
    assert images[0].shape[:2] == (PANEL_PX[0], 2 * PANEL_PX[1])
    differs = (images[0] != images[1]).any(axis=(0, 2))
    halves = [differs[: PANEL_PX[1]].any(), differs[PANEL_PX[1] :].any()]
    assert halves == [panel == 0, panel == 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.png", "before.png"]


def test_curves_of_one_epoch_are_drawn(tmp_path):
    draw_curves(tmp_path / "curves.png", [{"epoch": 1, **dict.fromkeys(NAMES, 0.5)}])
    assert read_image(tmp_path / "curves.png").std() > 0


def read_events(directory):
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}


def test_tensorboard_has_the_history_of_both_epochs(run):
    for folder, prefix in (("train", ""), ("validation", "val_")):
        logged = read_events(run.directory / "logs" / folder)
        for name in ("loss", "classification_loss", "reconstruction_loss", AUC):
            events = logged[f"epoch_{name}"]
            assert [event.step for event in events] == [0, 1]
            found = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
            assert found == pytest.approx([row[prefix + name] for row in run.history], rel=1e-6)


def test_tensorboard_has_the_reconstructions_of_each_epoch(run):
    (events,) = read_events(run.directory / "logs" / "figures").values()
    assert [event.step for event in events] == [0, 1]
    sheets = [tf.io.decode_png(event.tensor_proto.string_val[2]).numpy() for event in events]
    np.testing.assert_array_equal(sheets[1], read_image(run.directory / "reconstructions.png"))
    assert sheets[0].shape == sheets[1].shape
    assert not np.array_equal(sheets[0], sheets[1]), "the models of both epochs differ"


@pytest.mark.parametrize("which", ["run", "run_without_decoder"])
def test_the_history_has_a_row_per_epoch(request, which):
    run = request.getfixturevalue(which)
    with open(run.directory / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(cell) for name, cell in row.items()} for row in rows] == run.history
    assert [row["epoch"] for row in rows] == ["1", "2"]
    names = {"loss", AUC}
    if which == "run":
        names |= {"classification_loss", "reconstruction_loss"}
    assert set(rows[0]) >= {"epoch", *names, *(f"val_{name}" for name in names)}


def test_a_run_folder_has_the_documented_files(run):
    names = {path.name for path in run.directory.iterdir()}
    assert names == {
        *("options.json", "history.csv", "curves.png", "reconstructions.png"),
        *("best.keras", "last.keras", "checkpoint.npz", "training_faces.parquet", "logs"),
    }


def test_a_run_without_decoder_has_no_reconstructions(run_without_decoder):
    run = run_without_decoder
    names = {path.name for path in run.directory.iterdir()}
    assert names == {
        *("options.json", "history.csv", "curves.png"),
        *("best.keras", "last.keras", "checkpoint.npz", "training_faces.parquet", "logs"),
    }
    assert {path.name for path in (run.directory / "logs").iterdir()} == {"train", "validation"}
    shape = read_image(run.directory / "curves.png").shape[:2]
    assert shape == (PANEL_PX[0], 2 * PANEL_PX[1])
    best = keras.models.load_model(run.directory / "best.keras")
    assert set(best.output) == {"classification"}
    assert run.validation_frame_auc == max(row[f"val_{AUC}"] for row in run.history)


@pytest.mark.slow
def test_the_models_load_without_this_package(run, shown, tmp_path):
    np.save(tmp_path / "faces.npy", shown.astype(np.float32))
    code = """
import sys
sys.modules["jdfd_keras"] = None  # importing it raises an ImportError
import keras, numpy
folder, faces = sys.argv[1], numpy.load("faces.npy")
for name in ("best", "last"):
    outputs = keras.models.load_model(f"{folder}/{name}.keras").predict(faces, verbose=0)
    numpy.savez(f"{name}.npz", **outputs)
"""
    command = [sys.executable, "-c", code, str(run.directory)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    weights = np.load(run.directory / "checkpoint.npz")
    here = build_small(ModelOptions(image_size=71))
    here.set_weights([weights[f"weights/{index:05d}"] for index in range(len(here.weights))])
    expected = here.predict(shown.astype(np.float32), verbose=0)
    found = np.load(tmp_path / "last.npz")
    assert set(found) == {"classification", "reconstruction"}
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
    assert set(np.load(tmp_path / "best.npz")) == set(found)
