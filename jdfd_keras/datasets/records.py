"""Face crops as records of TFRecord files, written and read without TensorFlow.

Importing TensorFlow would cost every extraction process seconds and hundreds of megabytes. The
record of a face is a tf.Example with `image/encoded` (PNG, RGB: lossless, since detectors learn
from compression traces), `label` (int64; 1 fake, 0 real, -1 unlabelled), `video_id`, `frame_index`
and, for a fake with known manipulated pixels, `mask/encoded` (PNG, grey: 255 manipulated, 0 not).

Reference:
    https://www.tensorflow.org/tutorials/load_data/tfrecord (the format of the files) and
    https://protobuf.dev/programming-guides/encoding/ (that of a record)
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import google_crc32c
import numpy as np

from jdfd_keras.faces.extract import encode_png
from jdfd_keras.faces.media import sample_frame_indices

SHARDS = "shards"
_MASK, _PNG = "mask/encoded", b"\x89PNG\r\n"


def encode_face(
    crop: np.ndarray, *, label: int, video_id: str, frame_index: int, mask: bytes = b""
) -> bytes:
    """Encode a crop, uint8[size, size, 3] RGB, and the PNG of its mask as a serialized tf.Example.

    Example:
        >>> crop = np.zeros((8, 8, 3), np.uint8)
        >>> record = encode_face(crop, label=1, video_id="clips/fake/a", frame_index=3)
        >>> read_png(record)[1:4]
        b'PNG'
    """
    features = {  # sorted by name, as in TensorFlow's deterministic serialization
        "frame_index": _integer(frame_index),
        "image/encoded": _text(encode_png(crop)),
        "label": _integer(label),
        **({_MASK: _text(mask)} if mask else {}),
        "video_id": _text(video_id.encode()),
    }
    entries = (_field(1, name.encode()) + _field(2, value) for name, value in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def frame_record(record: bytes) -> bytes:
    """Add the framing of a TFRecord file to a record: its length and both checksums.

    Example:
        >>> list(frame_record(b"abc")[:8]), frame_record(b"abc")[12:15]
        ([3, 0, 0, 0, 0, 0, 0, 0], b'abc')
    """
    length = struct.pack("<Q", len(record))
    return length + _checksum(length) + record + _checksum(record)


def read_framed(file: BinaryIO) -> Iterator[bytes]:
    """Read the records of a TFRecord file with their framing, after a check of each.

    Example:
        >>> import io
        >>> next(read_framed(io.BytesIO(frame_record(b"abc")))) == frame_record(b"abc")
        True
    """
    while head := file.read(12):
        length = parse_length(head)
        body = file.read(length + 4)
        if len(body) < length + 4 or body[-4:] != _checksum(body[:-4]):
            raise ValueError("a record that does not match its checksum")
        yield head + body


def parse_length(head: bytes) -> int:
    """Return the length of a record from the 12 bytes before it.

    Raises:
        ValueError: If they do not match their checksum.

    Example:
        >>> parse_length(frame_record(b"abc")[:12])
        3
    """
    if len(head) < 12 or head[8:] != _checksum(head[:8]):
        raise ValueError("a record with a length that does not match its checksum")
    return struct.unpack("<Q", head[:8])[0]


def read_record(path: str | Path, offset: int) -> bytes:
    """Read the record at a byte of a TFRecord file, without its framing.

    Raises:
        ValueError: If the file does not exist or is truncated, or a checksum does not match.

    Example:
        >>> record = read_record("prepared/shards/00000.tfrecord", 0)
        >>> b"video_id" in record
        True
    """
    try:
        # Unbuffered, and only the bytes that are needed: each copy of a face costs time.
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            record, tail = file.read(parse_length(file.read(12))), file.read(4)
        if tail != _checksum(record):
            raise ValueError("a record that does not match its checksum")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a face at byte {offset} of {path}; got {error}. Copy the dataset again, "
            "or prepare it again."
        ) from error
    return record


def read_crop(path: str | Path, offset: int) -> np.ndarray:
    """Read the crop, uint8[size, size, 3] RGB, in the record at a byte of a TFRecord file.

    Raises:
        ValueError: If the file does not exist, is damaged, or the record has no valid image.

    Example:
        >>> read_crop("prepared/shards/00000.tfrecord", 0).shape
        (71, 71, 3)
    """
    record = read_record(path, offset)
    try:
        return decode_crop(record)
    except ValueError as error:
        raise ValueError(
            f"Expected an image at byte {offset} of {path}; got {error}. Copy the dataset again, "
            "or prepare it again."
        ) from error


def decode_crop(record: bytes) -> np.ndarray:
    """Decode the crop, uint8[size, size, 3] RGB, in a record; raise ValueError if it is invalid.

    Example:
        >>> decode_crop(read_record("prepared/shards/00000.tfrecord", 0)).shape
        (71, 71, 3)
    """
    crop = cv2.imdecode(np.frombuffer(read_png(record), np.uint8), cv2.IMREAD_COLOR_RGB)
    if crop is None:
        raise ValueError("bytes that cannot be decoded")
    return crop


def read_png(record: bytes) -> bytes:
    """Return the record from the PNG of its face on, which decoders take; only a mask has another.

    Example:
        >>> record = read_record("prepared/shards/00000.tfrecord", 0)
        >>> read_png(record)[1:4]
        b'PNG'
    """
    start = record.find(_PNG)
    if start < 0:
        raise ValueError("a record without a PNG")
    return record[start:]


def decode_mask(record: bytes) -> np.ndarray | None:
    """Decode the mask in a record, float32[size, size], 1 where a pixel is manipulated, else 0.

    Returns:
        The mask; None if the record has none.

    Raises:
        ValueError: If it is damaged.

    Example:
        >>> decode_mask(read_record("prepared/shards/00000.tfrecord", 0)) is None
        True
    """
    _, name, content = record.partition(_MASK.encode())
    start = content.find(_PNG)
    if not name or start < 0:
        return None
    mask = cv2.imdecode(np.frombuffer(content[start:], np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError("a mask that cannot be decoded")
    return mask.astype(np.float32) / 255


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _text(value: bytes) -> bytes:
    return _field(1, _field(1, value))  # Feature.bytes_list with one value


def _integer(value: int) -> bytes:
    return _field(3, _field(1, _varint(value % 2**64)))  # Feature.int64_list with one packed value


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low_bytes = []
    while value > 127:
        low_bytes.append(value & 127 | 128)
        value >>= 7
    return bytes([*low_bytes, value])


def choose_evenly(items: Sequence, count: int) -> list:
    """Choose `count` evenly spread items; all of them if there are fewer.

    Example:
        >>> choose_evenly("abcdef", 3)
        ['b', 'd', 'f']
    """
    return [items[index] for index in sample_frame_indices(len(items), count)] if items else []


def choose_over_videos(video_ids: Sequence[str], indices: Sequence[int], count: int) -> list[int]:
    """Choose rows of a manifest from as many videos as possible, evenly spread over each video.

    Args:
        video_ids: Video id of every row.
        indices: Rows to choose from.
        count: Number of rows.

    Returns:
        Rows in the order of their video ids; `count` of them, or all if there are fewer.

    Example:
        >>> choose_over_videos(["a", "a", "b"], [0, 1, 2], 2)
        [1, 2]
    """
    videos: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        videos[video_ids[index]].append(index)
    names = choose_evenly(sorted(videos), count)
    chosen, remaining = {}, count
    # Videos with few faces first, so that the others can fill the remaining places.
    for number, name in enumerate(sorted(names, key=lambda name: len(videos[name]))):
        chosen[name] = choose_evenly(videos[name], -(-remaining // (len(names) - number)))
        remaining -= len(chosen[name])
    return [index for name in names for index in chosen[name]]


def read_crops(
    directory: str | Path, shards: Sequence[str], offsets: Sequence[int], indices: Iterable[int]
) -> dict[int, np.ndarray]:
    """Read the crops of the rows `indices` of a manifest; errors are those of `read_crop`.

    Returns:
        Row to crop, uint8[size, size, 3], RGB.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> table = read_faces("prepared", columns=["shard", "offset"]).to_pydict()
        >>> list(read_crops("prepared", table["shard"], table["offset"], [0, 9]))
        [0, 9]
    """
    folder = Path(directory) / SHARDS
    return {index: read_crop(folder / shards[index], offsets[index]) for index in indices}
