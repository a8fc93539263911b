import cv2
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.data.records import encode_face, frame_record
from jdfd_keras.data.shards import UNREADABLE, decode_face, read_label

LABELS = [0, 1, -1]


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def records(crops):
    return [
        encode_face(crop, label=label, video_id="mine/fake/анна", frame_index=7)
        for crop, label in zip(crops, LABELS, strict=True)
    ]


@pytest.fixture
def shard(records, tmp_path):
    path = tmp_path / "train-00000.tfrecord"
    path.write_bytes(b"".join(map(frame_record, records)))
    return path


def test_a_face_comes_back_without_loss(crops, records):
    for record, expected, expected_label in zip(records, crops, LABELS, strict=True):
        crop, label = decode_face(tf.constant(record), 24)
        np.testing.assert_array_equal(crop.numpy(), expected)
        assert label.numpy() == expected_label
        assert (crop.dtype, label.dtype) == (tf.uint8, tf.int64)


def test_decoding_works_in_a_graph_and_knows_its_shape(crops, shard):
    faces = tf.data.TFRecordDataset(str(shard)).map(lambda record: decode_face(record, 24))
    assert faces.element_spec[0].shape == (24, 24, 3)
    assert faces.element_spec[1].shape == ()
    found, labels = zip(*faces.as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(np.stack(found), crops)
    assert list(labels) == LABELS


@pytest.mark.parametrize("size", [23, 25, 48])
def test_a_crop_of_another_size_is_an_error(records, shard, size):
    with pytest.raises(UNREADABLE):
        decode_face(tf.constant(records[0]), size)
    faces = tf.data.TFRecordDataset(str(shard)).map(lambda record: decode_face(record, size))
    with pytest.raises(UNREADABLE):
        next(iter(faces))


def test_a_label_is_read_in_a_graph_and_the_picture_left_as_it_is(shard):
    labels = tf.data.TFRecordDataset(str(shard)).map(read_label)
    assert labels.element_spec == tf.TensorSpec((), tf.int64)
    assert list(labels.as_numpy_iterator()) == LABELS
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(b"no picture")
    example.features.feature["label"].int64_list.value.append(1)
    assert read_label(tf.constant(example.SerializeToString())).numpy() == 1


def test_a_greyscale_picture_of_another_program_becomes_rgb():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    example = tf.train.Example()
    png = cv2.imencode(".png", grey)[1].tobytes()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    example.features.feature["label"].int64_list.value.append(0)
    crop, _ = decode_face(tf.constant(example.SerializeToString()), 8)
    np.testing.assert_array_equal(crop.numpy(), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda shard: shard.write_bytes(shard.read_bytes()[:-3]),
        lambda shard: shard.write_bytes(b"other bytes than those of records" * 9),
        lambda shard: shard.write_bytes(frame_record(b"a record, but no face")),
        lambda shard: shard.write_bytes(frame_record(b"")),
        lambda shard: shard.unlink(),
    ],
    ids=["cut short", "other bytes", "no face", "an empty record", "gone"],
)
def test_a_damaged_shard_raises_one_of_the_errors_named_for_it(shard, damage):
    damage(shard)
    faces = tf.data.TFRecordDataset(str(shard)).map(lambda record: decode_face(record, 24))
    with pytest.raises(UNREADABLE):
        list(faces)
