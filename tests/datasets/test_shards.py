import cv2
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.datasets.records import encode_face, frame_record
from jdfd_keras.datasets.transforms import decode_face

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
    path = tmp_path / "00000.tfrecord"
    path.write_bytes(b"".join(map(frame_record, records)))
    return path


def test_a_face_is_decoded_without_loss(crops, records):
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
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_face(tf.constant(records[0]), size)
    faces = tf.data.TFRecordDataset(str(shard)).map(lambda record: decode_face(record, size))
    with pytest.raises(tf.errors.InvalidArgumentError):
        next(iter(faces))


def test_a_greyscale_png_of_another_program_becomes_rgb():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    example = tf.train.Example()
    png = cv2.imencode(".png", grey)[1].tobytes()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    example.features.feature["label"].int64_list.value.append(0)
    crop, _ = decode_face(tf.constant(example.SerializeToString()), 8)
    np.testing.assert_array_equal(crop.numpy(), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("record", [b"a record, but not a face", b""])
def test_a_record_that_is_not_a_face_is_an_error(record):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_face(tf.constant(record), 24)
