"""The callbacks in a `model.fit` of a user, on data of a user."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.training.callbacks import ProgressLine, RunFolder, StopAtNaN
from jdfd_keras.training.checkpoint import load_checkpoint, restore
from jdfd_keras.training.compile import compile_detector
from jdfd_keras.training.run_folder import read_history
from jdfd_keras.training.validation import Validation


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    mean = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(
        image,
        {
            "classification": keras.layers.Dense(1, "sigmoid", name="classifier_dense")(mean),
            "reconstruction": keras.layers.Conv2D(3, 1, name="decoder_conv")(x),
        },
    )


@pytest.fixture
def faces():
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32)
    targets = {
        "classification": (np.arange(8) % 2).astype(np.float32)[:, None],
        "reconstruction": images / 127.5 - 1,
    }
    return tf.data.Dataset.from_tensor_slices((images, targets)).batch(4)


def test_callbacks_show_progress_and_write_a_run_folder_in_any_fit(model, faces, tmp_path, capsys):
    compile_detector(model)
    callbacks = [Validation(faces), ProgressLine(steps=2, batch_size=4), RunFolder(tmp_path)]
    model.fit(faces, epochs=2, verbose=0, callbacks=[StopAtNaN(), *callbacks])
    assert "epoch 2/2: 8/8 faces" in capsys.readouterr().err
    assert [row["epoch"] for row in read_history(tmp_path)] == [1, 2]
    loaded = keras.models.load_model(tmp_path / "last.keras")
    for name, value in loaded.predict(faces, verbose=0).items():
        np.testing.assert_array_equal(value, model.predict(faces, verbose=0)[name])


def test_a_nan_loss_stops_any_fit(model, faces):
    compile_detector(model, keras.optimizers.SGD(1e30))
    with pytest.raises(ValueError, match=r"got (nan|inf) in epoch 1, step \d\."):
        model.fit(faces, epochs=3, verbose=0, callbacks=[StopAtNaN()])


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [([], "coarse .*Validation"), ([Validation], "val_classification_frame_auc.*before RunFolder")],
    ids=["with validation_data", "after RunFolder"],
)
def test_a_run_folder_takes_only_the_exact_auc(model, faces, tmp_path, callbacks, message):
    compile_detector(model)
    data = None if callbacks else faces
    callbacks = [RunFolder(tmp_path), *(callback(faces) for callback in callbacks)]
    with pytest.raises(ValueError, match=message):
        model.fit(faces, validation_data=data, verbose=0, callbacks=callbacks)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_restores_any_fit(model, faces, tmp_path):
    compile_detector(model)
    model.fit(faces, verbose=0, callbacks=[Validation(faces), RunFolder(tmp_path)])
    saved = model.get_weights()
    model.fit(faces, verbose=0)
    assert not np.array_equal(model.get_weights()[0], saved[0])
    restore(model, load_checkpoint(tmp_path))
    for value, expected in zip(model.get_weights(), saved, strict=True):
        np.testing.assert_array_equal(value, expected)
