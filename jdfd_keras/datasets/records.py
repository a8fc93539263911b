"""Face crops as records of a TFRecord file, written without TensorFlow.

A process that takes faces of videos needs nothing else of TensorFlow, whose import costs it
seconds and hundreds of megabytes, times the number of processes. The record of a face is a
tf.Example with `image/encoded` (PNG, RGB, since compression is what is being studied), `label`
(int64; 1 fake, 0 real, -1 unlabelled), `video_id` and `frame_index`.

Reference:
    The format of TFRecord files: https://www.tensorflow.org/tutorials/load_data/tfrecord, and of
    protocol buffers: https://protobuf.dev/programming-guides/encoding/

Some faces of a prepared data set, chosen evenly and read without the others.

Takes the folder and rows of its manifest; gives crops. For people who look; training reads
whole splits through `data.pipeline`.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import google_crc32c
import numpy as np

from jdfd_keras.faces.decode import sample_frame_indices
from jdfd_keras.faces.extract import encode_png

SHARDS = "shards"


def encode_face(crop: np.ndarray, *, label: int, video_id: str, frame_index: int) -> bytes:
    """Encode one face as a serialized tf.Example.

    Args:
        crop: uint8[size, size, 3], RGB.
        label: 1 fake, 0 real, -1 unlabelled.
        video_id: Its video.
        frame_index: Its frame in the video.
    """
    features = {  # sorted by name, as TensorFlow's own serialization that is deterministic
        "frame_index": _integer(frame_index),
        "image/encoded": _text(encode_png(crop)),
        "label": _integer(label),
        "video_id": _text(video_id.encode()),
    }
    entries = (_field(1, name.encode()) + _field(2, value) for name, value in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def frame_record(record: bytes) -> bytes:
    """Put a record into the frame that it has in a TFRecord file: its length and checksums."""
    length = struct.pack("<Q", len(record))
    return length + _checksum(length) + record + _checksum(record)


def read_framed(file: BinaryIO) -> Iterator[bytes]:
    """Read the records of a TFRecord file as they stand there, in their frames.

    Raises:
        ValueError: If the file is cut short or a checksum does not fit.
    """
    while head := file.read(12):
        length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
        if len(head) < 12 or head[8:] != _checksum(head[:8]):
            raise ValueError("a record whose length does not fit its checksum")
        body = file.read(length + 4)
        if len(body) < length + 4 or body[-4:] != _checksum(body[:-4]):
            raise ValueError("a record that does not fit its checksum")
        yield head + body


def read_record(path: str | Path, offset: int) -> bytes:
    """Read one record of a TFRecord file, without its frame.

    Args:
        path: The file.
        offset: Where the record begins in it, in bytes.

    Raises:
        ValueError: If the file is not there, is cut short, or a checksum does not fit; it names
            the file.
    """
    try:
        # Without a buffer, and in the pieces that are needed: each copy of a face costs time.
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            head = file.read(12)
            if len(head) < 12 or head[8:] != _checksum(head[:8]):
                raise ValueError("a record whose length does not fit its checksum")
            record, tail = file.read(struct.unpack("<Q", head[:8])[0]), file.read(4)
        if tail != _checksum(record):
            raise ValueError("a record that does not fit its checksum")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a face at byte {offset} of {path}; got {error}. Copy the data set again, "
            "or prepare it again."
        ) from error
    return record


def read_crop(path: str | Path, offset: int) -> np.ndarray:
    """Read the crop of one face of a TFRecord file.

    Args:
        path: The file.
        offset: Where its record begins in it, in bytes.

    Returns:
        uint8[size, size, 3], RGB.

    Raises:
        ValueError: If the file is not there, is damaged, or holds no picture; it names the file.
    """
    record = read_record(path, offset)
    try:
        png = np.frombuffer(read_png(record), np.uint8)
        crop = cv2.imdecode(png, cv2.IMREAD_COLOR_RGB)
        if crop is None:
            raise ValueError("bytes that cannot be decoded")
    except ValueError as error:
        raise ValueError(
            f"Expected a picture at byte {offset} of {path}; got {error}. Copy the data set again, "
            "or prepare it again."
        ) from error
    return crop


def read_png(record: bytes) -> bytes:
    """Find the PNG in a record that `encode_face` made; no other field holds such bytes.

    Raises:
        ValueError: If there is none.
    """
    begin = record.find(b"\x89PNG\r\n")
    if begin < 0:
        raise ValueError("a record without a PNG")
    return record[begin:]


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _text(value: bytes) -> bytes:
    return _field(1, _field(1, value))  # Feature.bytes_list, its value


def _integer(value: int) -> bytes:
    return _field(3, _field(1, _varint(value % 2**64)))  # Feature.int64_list, its packed value


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = []
    while value > 127:
        low.append(value & 127 | 128)
        value >>= 7
    return bytes([*low, value])


def choose_evenly(items: Sequence, count: int) -> list:
    """Choose `count` items spread evenly over all; all of them if there are fewer."""
    return [items[index] for index in sample_frame_indices(len(items), count)] if items else []


def choose_over_videos(video_ids: Sequence[str], indices: Sequence[int], count: int) -> list[int]:
    """Choose faces of as many videos as there may be, and evenly over each.

    Args:
        video_ids: The video of every row of a manifest.
        indices: Rows to choose from.
        count: Faces wanted.

    Returns:
        Rows, in the order of their videos' names; `count` of them where there are as many.
    """
    videos: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        videos[video_ids[index]].append(index)
    names = choose_evenly(sorted(videos), count)
    chosen, left = {}, count
    # Those with few faces first: what they lack is taken of the others.
    for number, name in enumerate(sorted(names, key=lambda name: len(videos[name]))):
        chosen[name] = choose_evenly(videos[name], -(-left // (len(names) - number)))
        left -= len(chosen[name])
    return [index for name in names for index in chosen[name]]


def read_crops(
    directory: str | Path, shards: Sequence[str], offsets: Sequence[int], indices: Iterable[int]
) -> dict[int, np.ndarray]:
    """Read the crops of some rows.

    Args:
        directory: The prepared data set.
        shards: The shard of every row of its manifest.
        offsets: The offset of every row in it.
        indices: The rows wanted.

    Returns:
        Row to crop, uint8[size, size, 3], RGB.

    Raises:
        ValueError: If a shard is not there, is damaged or lacks the face.
    """
    shards_at = Path(directory) / SHARDS
    return {index: read_crop(shards_at / shards[index], offsets[index]) for index in indices}
