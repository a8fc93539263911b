"""Size of the Content Credentials inside a file, without reading them.

What a signer adds must not count as pixels: a measure of compression would change with the length
of a signature. Boxes of MP4 and HEIF, segments of JPEG, chunks of PNG and RIFF are walked by their
lengths; files of other formats count as having none.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # of a box of ISO base media
MAX_PARTS = 100_000  # of a file; more are not walked


def count_credential_bytes(handle: BinaryIO) -> int:
    """Return the number of bytes of a file that hold Content Credentials.

    Args:
        handle: The open file; its position changes.

    Returns:
        The number; 0 without credentials, in other formats, and from damage on.

    Example:
        >>> with open("photograph.png", "rb") as file:
        ...     count_credential_bytes(file)
        0
    """
    handle.seek(0)
    head = handle.read(12)
    if head[4:8] == b"ftyp":
        parts = _walk_boxes(handle)
    elif head[:2] == b"\xff\xd8":
        parts = _walk_jpeg(handle)
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        parts = _walk_chunks(handle, 8, "big", b"caBX", 12)
    elif head[:4] == b"RIFF":
        parts = _walk_chunks(handle, 12, "little", b"C2PA", 8)
    else:
        return 0
    return sum(size for _, size in zip(range(MAX_PARTS), parts, strict=False))


def _walk_boxes(handle: BinaryIO) -> Iterator[int]:
    """Yield the size of each top-level box, 0 for all but those of credentials."""
    size, position = os.fstat(handle.fileno()).st_size, 0
    while position + 8 <= size:
        handle.seek(position)
        head = handle.read(32)
        length, start = int.from_bytes(head[:4], "big"), 8
        if length == 1:  # 64 bits
            length, start = int.from_bytes(head[8:16], "big"), 16
        if length < start or position + length > size:  # 0: to the end of the file
            return
        is_credentials = head[4:8] == b"uuid" and head[start : start + 16] == C2PA_UUID
        yield length if is_credentials else 0
        position += length


def _walk_jpeg(handle: BinaryIO) -> Iterator[int]:
    """Yield the size of each segment before the pixels, 0 for all but those of JUMBF in APP11."""
    position = 2
    while True:
        handle.seek(position)
        head = handle.read(12)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
            return
        length = 2 + int.from_bytes(head[2:4], "big")
        yield length if head[1] == 0xEB and head[4:6] == b"JP" else 0
        position += length


def _walk_chunks(
    handle: BinaryIO, position: int, order: str, name: bytes, overhead: int
) -> Iterator[int]:
    """Yield the size of each chunk of PNG (big-endian) or RIFF, 0 for all but those of a name."""
    size = os.fstat(handle.fileno()).st_size
    while position + 8 <= size:
        handle.seek(position)
        head = handle.read(8)
        if order == "big":
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
        else:
            length, kind = int.from_bytes(head[4:], "little"), head[:4]
            length += length % 2
        if position + overhead + length > size:
            return
        yield overhead + length if kind == name else 0
        position += overhead + length
