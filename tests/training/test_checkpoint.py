"""Checkpoints: the complete state of a training is restored, and a damaged file is rejected."""

import os

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from jdfd_keras.training.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    load_checkpoint,
    restore,
    save_checkpoint,
    take_checkpoint,
)

# Floats that change when they are written with fewer than 17 digits, or as float32.
FLOATS = [0.1 + 0.2, 1 / 3, float(np.float32(0.1)), 5e-324, 1.7976931348623157e308, -0.0, 1e23]


@pytest.fixture
def state():
    """A checkpoint with arrays of every dtype that Keras variables have."""
    rng = np.random.default_rng(0)
    return Checkpoint(
        epoch=2,
        step=7,
        history=[{"epoch": 1, **{f"name {index}": f for index, f in enumerate(FLOATS)}}],
        weights=[
            rng.normal(size=(3, 4, 2)).astype(np.float32),
            np.array(9, np.int32),
            np.array([1337, 2**32 - 1], np.uint32),
            np.array([np.nan, np.inf, -0.0, 1e-45], np.float32),
            np.zeros((0, 3), np.float32),
            *(
                np.full(2, index, np.float32) for index in range(20)
            ),  # more than ten, to test their order
        ],
        metrics=[np.float32(np.pi) * np.ones(5, np.float32), np.array(3.5, np.float32)],
    )


def assert_same_arrays(found, expected):
    """Assert that arrays have the same dtype, shape and bytes."""
    assert [(a.dtype, a.shape, a.tobytes()) for a in found] == [
        (a.dtype, a.shape, a.tobytes()) for a in expected
    ]


def assert_same(found, expected):
    assert (found.epoch, found.step) == (expected.epoch, expected.step)
    assert repr(found.history) == repr(expected.history)  # repr is exact, also for -0.0
    assert_same_arrays(found.weights, expected.weights)
    assert_same_arrays(found.metrics, expected.metrics)


def test_a_checkpoint_is_read_back_bit_for_bit(state, tmp_path):
    save_checkpoint(tmp_path, state)
    assert_same(load_checkpoint(str(tmp_path)), state)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_run_without_checkpoint_starts_at_epoch_0(tmp_path):
    assert_same(load_checkpoint(tmp_path), Checkpoint(0, 0, [], [], []))


def test_a_new_checkpoint_replaces_the_previous_one(state, tmp_path):
    save_checkpoint(tmp_path, state)
    later = Checkpoint(3, 0, state.history * 2, state.weights[:2], [])
    save_checkpoint(tmp_path, later)
    assert_same(load_checkpoint(tmp_path), later)


def build_small(optimizer, units=6):
    """Build a network with its own random seed, of the dropout."""
    x = keras.Input((4,))
    hidden = keras.layers.Dense(units, activation="relu", name="hidden")(x)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = keras.layers.Dropout(0.5, name="dropout")(hidden)
    model = keras.Model(x, keras.layers.Dense(1, name="last")(hidden))
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5), momentum=0.9
    ),
    "average": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8),
    "accumulate": lambda: keras.optimizers.SGD(0.05, gradient_accumulation_steps=3),
}


def train_steps(model, first, count):
    for step in range(first, first + count):
        rng = np.random.default_rng(step)
        model.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, 1)))


def values_of(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_model_takes_the_same_steps_as_the_original(name, tmp_path):
    keras.utils.set_random_seed(1)
    model = build_small(OPTIMIZERS[name]())
    train_steps(model, 0, 4)
    save_checkpoint(tmp_path, take_checkpoint(model, 0, 4, []))
    train_steps(model, 4, 3)

    keras.utils.set_random_seed(2)
    other = build_small(OPTIMIZERS[name]())
    if name == "average":  # restoring must replace an existing state
        train_steps(other, 20, 2)
    restore(other, load_checkpoint(tmp_path))
    train_steps(other, 4, 3)
    assert_same_arrays(
        [v.numpy() for v in other.trainable_variables],
        [v.numpy() for v in model.trainable_variables],
    )
    assert_same_arrays(
        [v.numpy() for v in other.optimizer.variables],
        [v.numpy() for v in model.optimizer.variables],
    )
    assert_same_arrays(
        [v.numpy() for v in other.get_layer("dropout").variables],
        [v.numpy() for v in model.get_layer("dropout").variables],
    )
    assert_same_arrays(other.get_weights(), model.get_weights())


def test_restoring_a_checkpoint_resets_weights_and_optimizer_state():
    model = build_small(OPTIMIZERS["average"]())
    train_steps(model, 0, 3)
    before = values_of(model)
    checkpoint = take_checkpoint(model, 0, 3, [])
    train_steps(model, 3, 2)
    assert any(a.tobytes() != b.tobytes() for a, b in zip(values_of(model), before, strict=True))
    restore(model, checkpoint)
    metrics = {id(variable) for variable in model.metrics_variables}
    of_state = [id(v) not in metrics for v in [*model.variables, *model.optimizer.variables]]
    found, expected = (
        [value for value, is_state in zip(values, of_state, strict=True) if is_state]
        for values in (values_of(model), before)
    )
    assert_same_arrays(found, expected)


def test_a_checkpoint_is_a_copy_that_further_training_does_not_change():
    model = build_small(OPTIMIZERS["average"]())
    history = [{"epoch": 1, "loss": 0.5}]
    checkpoint = take_checkpoint(model, 1, 3, history)
    before = [value.tobytes() for value in [*checkpoint.weights, *checkpoint.metrics]]
    train_steps(model, 0, 1)
    history.append({"epoch": 2, "loss": 0.4})
    assert [value.tobytes() for value in [*checkpoint.weights, *checkpoint.metrics]] == before
    assert len(checkpoint.history) == 1


def test_metric_sums_are_stored_only_within_an_epoch():
    model = build_small(OPTIMIZERS["average"]())
    train_steps(model, 0, 2)
    within = take_checkpoint(model, 0, 2, [])
    assert_same_arrays(within.metrics, [v.numpy() for v in model.metrics_variables])
    assert any(value.any() for value in within.metrics)
    assert take_checkpoint(model, 1, 0, []).metrics == []


def test_a_checkpoint_of_another_network_is_rejected_with_both_shapes():
    checkpoint = take_checkpoint(build_small(OPTIMIZERS["average"](), units=6), 1, 0, [])
    with pytest.raises(
        ValueError,
        match=r"network .*shape \(4, 7\) of hidden/kernel; got .*shape \(4, 6\)",
    ):
        restore(build_small(OPTIMIZERS["average"](), units=7), checkpoint)


def test_a_checkpoint_of_another_optimizer_is_rejected_with_both_counts_and_changes_nothing():
    model, other = (build_small(OPTIMIZERS[name]()) for name in ("average", "momentum"))
    train_steps(model, 0, 1)
    checkpoint = take_checkpoint(model, 1, 0, [])
    other.optimizer.build(other.trainable_variables)
    before = values_of(other)
    # 9 variables of the network; the optimizer has an iteration count and a momentum for each of 6
    # trainable ones, or an iteration count, the rate, and two moments and an average for each.
    with pytest.raises(
        ValueError,
        match=r"16 variables .*shape \(4, 6\) of .*momentum; got 29 variables.*shape \(\)",
    ):
        restore(other, checkpoint)
    assert_same_arrays(values_of(other), before)


@pytest.fixture
def saved(tmp_path):
    """A small checkpoint in a file: its path, its bytes and the checkpoint."""
    state = Checkpoint(
        1,
        2,
        [{"epoch": 1, "loss": 0.25}],
        [np.arange(6, dtype=np.float32), np.ones((2, 2), np.float32)],
        [np.array([4.0], np.float32)],
    )
    save_checkpoint(tmp_path, state)
    path = tmp_path / CHECKPOINT
    return path, path.read_bytes(), state


def assert_rejected(path):
    with pytest.raises(ValueError, match=f"training in {path}; got .*damaged"):
        load_checkpoint(path.parent)


DAMAGED = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@DAMAGED
@given(share=strategies.floats(0, 1, exclude_max=True))
def test_a_checkpoint_truncated_anywhere_is_rejected_with_its_path(saved, share):
    path, whole, _ = saved
    path.write_bytes(whole[: int(share * len(whole))])
    assert_rejected(path)


@DAMAGED
@given(data=strategies.data())
def test_every_flipped_bit_of_the_content_is_detected(saved, data):
    path, whole, state = saved
    arrays = [*state.weights, *state.metrics]
    starts = [(whole.index(array.tobytes()), array.nbytes) for array in arrays]
    starts.append((whole.index("epoch".encode("utf-32-le")), 200))
    offsets = [offset for start, size in starts for offset in range(start, start + size)]
    damaged = bytearray(whole)
    damaged[data.draw(strategies.sampled_from(offsets))] ^= 1 << data.draw(
        strategies.integers(0, 7)
    )
    path.write_bytes(damaged)
    assert_rejected(path)


@DAMAGED
@given(share=strategies.floats(0, 1, exclude_max=True), bit=strategies.integers(0, 7))
def test_a_flipped_bit_anywhere_is_detected_or_harmless(saved, share, bit):
    path, whole, state = saved
    damaged = bytearray(whole)
    damaged[int(share * len(whole))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        assert_same(load_checkpoint(path.parent), state)
    except ValueError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00", b"PK\x03\x04" * 20])
def test_a_file_of_another_format_is_rejected_with_its_path(tmp_path, content):
    (tmp_path / CHECKPOINT).write_bytes(content)
    assert_rejected(tmp_path / CHECKPOINT)


def test_an_npz_file_that_is_not_a_checkpoint_is_rejected_with_its_path(tmp_path):
    np.savez(tmp_path / CHECKPOINT, weights=np.zeros(3))
    assert_rejected(tmp_path / CHECKPOINT)


def break_in_the_middle(file, *, allow_pickle, **arrays):
    file.write(b"PK\x03\x04 half a file")
    file.flush()
    raise OSError("No space left on device")


def refuse_to_replace(source, target):
    raise OSError("the power is gone")


@pytest.mark.parametrize(
    ("name", "broken"),
    [("numpy.savez", break_in_the_middle), ("os.replace", refuse_to_replace)],
    ids=["while writing", "before replacing"],
)
def test_a_failed_write_leaves_the_previous_checkpoint_and_no_other_file(
    state, tmp_path, monkeypatch, name, broken
):
    save_checkpoint(tmp_path, state)
    later = Checkpoint(3, 1, state.history, state.weights, state.metrics)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="space|power"):
        patch.setattr(name, broken)
        save_checkpoint(tmp_path, later)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert_same(load_checkpoint(tmp_path), state)
    save_checkpoint(tmp_path, later)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert_same(load_checkpoint(tmp_path), later)


def test_a_checkpoint_is_flushed_to_disk_before_it_replaces_the_previous_one(
    state, tmp_path, monkeypatch
):
    calls = []

    def record(name, function):
        def call(*arguments):
            sizes = [path.stat().st_size for path in tmp_path.glob(f".unfinished-*-{CHECKPOINT}")]
            calls.append((name, *sizes))
            return function(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, record(name, getattr(os, name)))
    save_checkpoint(tmp_path, state)
    size = (tmp_path / CHECKPOINT).stat().st_size
    assert calls == [("fsync", size), ("replace", size), ("fsync",)]  # the folder at the end
