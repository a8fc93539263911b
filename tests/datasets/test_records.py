import io
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from jdfd_keras.datasets.records import (
    decode_crop,
    decode_mask,
    encode_face,
    frame_record,
    read_crop,
    read_framed,
    read_png,
    read_record,
)
from jdfd_keras.datasets.transforms import decode_face


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)


def encode_all(crops):
    return [
        encode_face(crop, label=index % 2, video_id="mine/fake/анна", frame_index=7 * index)
        for index, crop in enumerate(crops)
    ]


def frame_all(records):
    return b"".join(frame_record(record) for record in records)


def test_a_record_is_a_tf_example_that_other_programs_can_read(crops):
    example = tf.train.Example.FromString(encode_all(crops)[2])
    features = example.features.feature
    assert set(features) == {"image/encoded", "label", "video_id", "frame_index"}
    assert features["label"].int64_list.value == [0]
    assert features["frame_index"].int64_list.value == [14]
    assert features["video_id"].bytes_list.value[0].decode() == "mine/fake/анна"
    png = np.frombuffer(features["image/encoded"].bytes_list.value[0], np.uint8)
    assert png[:4].tobytes() == b"\x89PNG"
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), crops[2])


@settings(deadline=None, max_examples=50)
@given(
    frame_index=st.integers(0, 2**63 - 1) | st.sampled_from([127, 128, 16383, 16384]),
    label=st.sampled_from([1, 0, -1]),
    video_id=st.text(st.characters(exclude_categories=["Cs"])) | st.just("a" * 300),
    size=st.integers(1, 90),
)
def test_a_record_has_the_bytes_that_tensorflow_serializes(frame_index, label, video_id, size):
    crop = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    record = encode_face(crop, label=label, video_id=video_id, frame_index=frame_index)
    png = tf.train.Example.FromString(record).features.feature["image/encoded"].bytes_list.value
    expected = tf.train.Example()
    feature = expected.features.feature
    feature["video_id"].bytes_list.value.append(video_id.encode())
    feature["label"].int64_list.value.append(label)
    feature["image/encoded"].bytes_list.value.extend(png)
    feature["frame_index"].int64_list.value.append(frame_index)
    assert record == expected.SerializeToString(deterministic=True)
    np.testing.assert_array_equal(tf.io.decode_png(png[0]).numpy(), crop)


@pytest.mark.parametrize("video_id", ["mine/fake/a", "mine/mask/encoded"])
def test_a_record_may_have_a_mask(crops, video_id):
    marked = np.zeros((24, 24), np.uint8)
    marked[3:9, 5:20] = 255
    png = cv2.imencode(".png", marked)[1].tobytes()
    fields = {"label": 1, "video_id": video_id, "frame_index": 3}
    plain, record = encode_face(crops[0], **fields), encode_face(crops[0], **fields, mask=png)
    expected = tf.train.Example.FromString(plain)
    expected.features.feature["mask/encoded"].bytes_list.value.append(png)
    assert record == expected.SerializeToString(deterministic=True)
    assert decode_mask(plain) is None
    mask = decode_mask(record)
    assert mask is not None and mask.dtype == np.float32
    np.testing.assert_array_equal(mask, marked / 255)
    for one in (plain, record):
        np.testing.assert_array_equal(decode_crop(one), crops[0])
        np.testing.assert_array_equal(decode_face(tf.constant(one), 24)[0].numpy(), crops[0])


def test_a_damaged_mask_is_an_error(crops):
    record = encode_face(
        crops[0], label=1, video_id="a/b", frame_index=3, mask=b"\x89PNG\r\n\x1a\n" + b"x" * 40
    )
    with pytest.raises(ValueError, match="a mask that cannot be decoded"):
        decode_mask(record)


def test_a_file_of_records_has_the_bytes_that_tensorflow_writes(crops, tmp_path):
    records = [*encode_all(crops), b"", b"\0" * 5000]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs.tfrecord")) as writer:
        for record in records:
            writer.write(record)
    assert frame_all(records) == (tmp_path / "theirs.tfrecord").read_bytes()


def test_tensorflow_reads_a_file_of_records(crops, tmp_path):
    records = encode_all(crops)
    (tmp_path / "ours.tfrecord").write_bytes(frame_all(records))
    found = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "ours.tfrecord"))]
    assert found == records


def test_records_are_read_with_their_framing(crops):
    framed = [frame_record(record) for record in [b"", *encode_all(crops), b"x"]]
    assert list(read_framed(io.BytesIO(b"".join(framed)))) == framed
    assert list(read_framed(io.BytesIO(b""))) == []


def test_every_flipped_bit_is_detected():
    record = encode_face(np.zeros((1, 1, 3), np.uint8), label=1, video_id="a/b", frame_index=3)
    whole = frame_record(record) + frame_record(b"second")
    undetected = []
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            list(read_framed(io.BytesIO(damaged)))
            undetected.append(bit)
        except ValueError:
            pass
    assert undetected == []


def test_a_truncated_file_is_an_error_at_every_length():
    framed = [frame_record(b"a first record"), frame_record(b"and a second")]
    whole = b"".join(framed)
    for length in set(range(1, len(whole))) - {len(framed[0])}:
        with pytest.raises(ValueError, match="checksum"):
            list(read_framed(io.BytesIO(whole[:length])))


def test_records_before_a_damaged_one_are_read(crops):
    framed = [frame_record(record) for record in encode_all(crops)]
    records = read_framed(io.BytesIO(b"".join(framed)[:-1]))
    assert [next(records), next(records)] == framed[:2]
    with pytest.raises(ValueError, match="checksum"):
        next(records)


def test_a_damaged_length_is_an_error():
    # Without a check of the length's checksum, 2 ** 60 bytes would be allocated.
    with pytest.raises(ValueError, match="length"):
        list(read_framed(io.BytesIO(struct.pack("<Q", 2**60) + b"\0" * 100)))


@pytest.mark.parametrize("video_id", ["mine/fake/анна", "a\u0089PNG\r\n\u001a\n"])
def test_the_png_of_a_record_is_found(crops, video_id):
    record = encode_face(crops[0], label=-1, video_id=video_id, frame_index=2**40)
    png = np.frombuffer(read_png(frame_record(record)), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), crops[0])


def test_a_record_without_a_png_is_an_error():
    with pytest.raises(ValueError, match="without a PNG"):
        read_png(frame_record(b"another kind of record"))


@pytest.fixture
def file_of_three(crops, tmp_path):
    """A file written by TensorFlow, its records, and the start of each."""
    records, path = encode_all(crops), tmp_path / "three.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    # The format: 8 bytes of length, 4 of its checksum, the record, 4 of its checksum.
    offsets = [sum(len(before) + 16 for before in records[:index]) for index in range(3)]
    return path, records, offsets


def test_a_record_is_read_from_its_offset(file_of_three, crops):
    path, records, offsets = file_of_three
    for index in (2, 0, 1):
        assert read_record(path, offsets[index]) == records[index]
        crop = read_crop(str(path), offsets[index])
        assert crop.dtype == np.uint8
        np.testing.assert_array_equal(crop, crops[index])


def assert_error(path, offset, reason):
    with pytest.raises(ValueError, match=reason) as error:
        read_record(path, offset)
    assert f" face at byte {offset} of {path}; got " in str(error.value)


@pytest.mark.parametrize("shift", [-1, 1, 12, 10**6])
def test_a_wrong_offset_is_an_error(file_of_three, shift):
    path, _, offsets = file_of_three
    assert_error(path, offsets[2] + shift, "does not match its checksum")


def test_a_record_of_a_missing_file_is_an_error(tmp_path):
    assert_error(tmp_path / "gone.tfrecord", 0, "No such file")
    assert_error(tmp_path, 0, "Is a directory")


def test_every_flipped_bit_is_detected_when_its_record_is_read(tmp_path):
    first = frame_record(b"a first one")
    record = encode_face(np.zeros((1, 1, 3), np.uint8), label=1, video_id="a/b", frame_index=3)
    whole = first + frame_record(record)
    path = tmp_path / "flipped.tfrecord"
    for bit in range(8 * len(first), 8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert read_record(path, 0) == b"a first one"
        assert_error(path, len(first), "checksum")


def test_a_truncated_record_is_an_error_at_every_length(tmp_path):
    whole = frame_record(b"a record")
    path = tmp_path / "cut.tfrecord"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert_error(path, 0, "checksum")


def test_an_invalid_png_is_an_error_with_its_file(tmp_path):
    path = tmp_path / "odd.tfrecord"
    path.write_bytes(frame_record(b"\x89PNG\r\n and no image"))
    with pytest.raises(ValueError, match="image at byte 0 of .*odd.tfrecord"):
        read_crop(path, 0)


def test_a_record_without_a_png_is_an_error_with_its_file(tmp_path):
    path = tmp_path / "odd.tfrecord"
    path.write_bytes(frame_record(b"another kind of record"))
    with pytest.raises(ValueError, match="at byte 0 of .*odd.tfrecord"):
        read_crop(path, 0)


def test_records_are_written_and_read_without_tensorflow():
    code = """
import io, sys
import numpy as np
from jdfd_keras.datasets.records import (
    encode_face,
    frame_record,
    read_crop,
    read_framed,
    read_png,
    read_record,
)
record = encode_face(np.zeros((8, 8, 3), np.uint8), label=1, video_id="a/b", frame_index=3)
(framed,) = read_framed(io.BytesIO(frame_record(record)))
assert read_png(framed)
sys.exit("tensorflow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
