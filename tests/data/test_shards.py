import cv2
import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.data.shards import decode_face, encode_face, join_shards, write_shard


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)


def encode_all(crops):
    return [
        encode_face(crop, label=index % 2, video_id="mine/fake/анна", frame_index=7 * index)
        for index, crop in enumerate(crops)
    ]


def test_a_face_comes_back_without_loss(crops):
    for index, record in enumerate(encode_all(crops)):
        crop, label = decode_face(tf.constant(record), 24)
        np.testing.assert_array_equal(crop.numpy(), crops[index])
        assert label.numpy().tolist() == [index % 2]
        assert (crop.dtype, label.dtype) == (tf.uint8, tf.float32)


def test_a_record_says_what_it_is_to_other_programs(crops):
    example = tf.train.Example.FromString(encode_all(crops)[2])
    features = example.features.feature
    assert set(features) == {"image/encoded", "label", "video_id", "frame_index"}
    assert features["label"].int64_list.value == [0]
    assert features["frame_index"].int64_list.value == [14]
    assert features["video_id"].bytes_list.value[0].decode() == "mine/fake/анна"
    png = np.frombuffer(features["image/encoded"].bytes_list.value[0], np.uint8)
    assert png[:4].tobytes() == b"\x89PNG"
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), crops[2])


def test_decoding_works_in_a_graph_and_knows_its_shape(crops, tmp_path):
    write_shard(tmp_path / "a.tfrecord", encode_all(crops))
    faces = tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord")).map(lambda r: decode_face(r, 24))
    assert faces.element_spec[0].shape == (24, 24, 3)
    assert faces.element_spec[1].shape == (1,)
    found = np.stack([crop.numpy() for crop, _ in faces])
    np.testing.assert_array_equal(found, crops)


def test_a_crop_of_another_size_is_an_error(crops):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        decode_face(tf.constant(encode_all(crops)[0]), 25)


def test_joined_shards_hold_the_records_of_their_parts_in_order(crops, tmp_path):
    records = encode_all(crops)
    parts = [tmp_path / name for name in ("one", "none", "two")]
    for part, content in zip(parts, [records[:1], [], records[1:]], strict=True):
        write_shard(part, content)
    join_shards(tmp_path / "whole", parts)
    found = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "whole"))]
    assert found == records


def test_a_record_has_the_same_bytes_in_every_process():
    crop = np.zeros((8, 8, 3), np.uint8)
    record = encode_face(crop, label=1, video_id="a/b", frame_index=3)
    parsed = tf.train.Example.FromString(record)
    # Its own order of the features is by chance, another one in every process.
    assert record == parsed.SerializeToString(deterministic=True)
