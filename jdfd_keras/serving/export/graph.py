"""The part of the serving graph that reads an image: checks, decoding and orientation.

Image headers are checked before decoding, since an invalid image found here costs only its own row,
while an error in the decoder fails the request. The pixels are those that Pillow and OpenCV decode.

Reference:
    ITU-T T.81 (1992), annex B, markers of JPEG; W3C, PNG (2025), section 5; RFC 9649 (2024), WebP;
    CIPA DC-008 (2023), section 4.6, Exif.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from jdfd_keras.client.signatures import CLASSIFY, MAX_IMAGE_PIXELS, SERVING_DEFAULT

HEADER_BYTES = 70  # contain the size of the image in all formats except JPEG
PNG, BMP, RIFF, WEBP = b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"WEBP"
JPEG, EXIF = b"\xff\xd8\xff", b"Exif\0\0"
# The decoder ignores the palette of fewer bits, and masks (TensorFlow 2.21.0).
BMP_BITS, BMP_MASKS, BMP_ALPHA_MASK = (24, 32), (0xFF0000, 0xFF00, 0xFF), 0xFF000000
PNG_WITH_ALPHA = (4, 6)  # color types
# JPEG markers. Frame headers, which hold the size, are in this range except for three values.
FRAMES, NOT_FRAMES = (0xC0, 0xCF), (0xC4, 0xC8, 0xCC)
WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xD9))
SCAN, END, APP1 = 0xDA, 0xD9, 0xE1
MAX_SEGMENTS = 1000  # of a JPEG before the scan; a large color profile has a few hundred
MAX_CHUNKS = 20_000  # of a PNG or WebP; libpng divides the largest PNG into 16,384
ORIENTATION, LONG = 0x0112, 4  # tag of a field of Exif; type of a field of 4 bytes
UPSIDE_DOWN, MIRRORED = (3, 4, 7, 8), (2, 3, 6, 7)  # after the transposition of 5 to 8


def read_face(encoded: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one face, turn it upright and resize it.

    Args:
        encoded: string[], any bytes.
        size: Width and height of the result in pixels.

    Returns:
        `image`, float32[size, size, 3], RGB in 0..255, transparent pixels on white; zeros if the
        bytes are not a readable image. `valid`, bool[], the first output of `read_header`.

    Example:
        >>> from pathlib import Path
        >>> image, valid = read_face(tf.constant(Path("face.png").read_bytes()), 71)
        >>> image.shape, bool(valid)
        (TensorShape([71, 71, 3]), True)
    """
    readable, has_alpha, exif = read_header(encoded)

    def decode() -> tf.Tensor:
        image = _turn_upright(_decode(encoded, has_alpha), exif)
        return tf.image.resize(image, [size, size], antialias=True)

    return tf.cond(readable, decode, lambda: tf.zeros([size, size, 3])), readable


def read_faces(encoded: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Read faces, string[n], by `read_face`; return float32[n, size, size, 3] and bool[n].

    Example:
        >>> image, valid = read_faces(tf.constant([b"not an image"]), 71)
        >>> image.shape, valid.numpy().tolist()
        (TensorShape([1, 71, 71, 3]), [False])
    """
    outputs = tf.TensorSpec([size, size, 3]), tf.TensorSpec([], tf.bool)
    return tf.map_fn(lambda one: read_face(one, size), encoded, fn_output_signature=outputs)


def read_examples(inputs: tf.Tensor) -> tf.Tensor:
    """Return `image/encoded` of serialized tf.Examples, string[n].

    Example:
        >>> example = tf.train.Example()
        >>> example.features.feature["image/encoded"].bytes_list.value.append(b"abc")
        >>> read_examples(tf.constant([example.SerializeToString()])).numpy().tolist()
        [b'abc']
    """
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    parsed: Any = tf.io.parse_example(inputs, features)
    return parsed["image/encoded"]


def write_image_reader(directory: str | Path, size: int) -> None:
    """Write the reading of images by `serving_default` and `classify` as a model of its own.

    It lets a server read images exactly as the exported graph does, and score them elsewhere. Its
    two signatures have the inputs of those of the detector, and the outputs `faces`
    float32[n, size, size, 3] and `valid` bool[n].

    Example:
        >>> write_image_reader("image_reader", 71)
        >>> sorted(tf.saved_model.load("image_reader").signatures)
        ['classify', 'serving_default']
    """

    def read(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        faces, valid = read_faces(encoded, size)
        return {"faces": faces, "valid": valid}

    functions = {
        SERVING_DEFAULT: (lambda image_bytes: read(image_bytes), "image_bytes"),
        CLASSIFY: (lambda inputs: read(read_examples(inputs)), "inputs"),
    }
    signatures: Any = {
        name: tf.function(
            function,
            input_signature=[tf.TensorSpec([None], tf.string, name=argument)],
            autograph=False,
        )
        for name, (function, argument) in functions.items()
    }
    tf.saved_model.save(tf.Module(), str(directory), signatures=signatures)


def read_header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Check the header and the end of an encoded image, without decoding it.

    Args:
        encoded: string[], any bytes.

    Returns:
        `readable`, bool[], False if it is not JPEG, PNG, WebP or BMP; if it is animated; if it is a
        BMP with a palette or an unusual order of colors; if its end is missing; or if its header
        declares no pixels or more than MAX_IMAGE_PIXELS. `has_alpha`, bool[], True if it is a PNG
        or BMP with transparency. `exif`, string[], its Exif metadata; empty if it has none.

    Example:
        >>> readable, _, _ = read_header(tf.constant(b"not an image"))
        >>> bool(readable)
        False
    """
    header = _read_bytes(encoded, 0, HEADER_BYTES)
    pixels, has_alpha, exif = tf.case(
        [
            (_begins(header, JPEG), lambda: _measure_jpeg(encoded)),
            (_begins(header, PNG), lambda: _measure_png(encoded, header)),
            (_begins(header, BMP), lambda: _measure_bmp(encoded, header)),
            (_begins(header, RIFF), lambda: _measure_webp(encoded, header)),
        ],
        default=lambda: (tf.constant(0, tf.int64), tf.constant(False), tf.constant("")),
    )
    # A product of two 32-bit sizes can be negative here, but never wraps to a small number.
    return (pixels > 0) & (pixels <= MAX_IMAGE_PIXELS), has_alpha, exif


def _count_bytes(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(encoded), tf.int64)


def _slice(encoded: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int) -> tf.Tensor:
    start = tf.minimum(tf.cast(start, tf.int64), _count_bytes(encoded))
    return tf.strings.substr(encoded, start, tf.cast(length, tf.int64))


def _read_bytes(encoded: tf.Tensor, start: tf.Tensor | int, length: int) -> tf.Tensor:
    """Return int64[length], the bytes at a position; zeros after the end."""
    raw = tf.io.decode_raw(_slice(encoded, start, length), tf.uint8, fixed_length=length)
    return tf.cast(raw, tf.int64)


def _read_int(numbers: tf.Tensor, at: int, length: int, *, big_endian: bool = False) -> tf.Tensor:
    powers = range(length)[::-1] if big_endian else range(length)
    return tf.add_n([numbers[at + k] * 256**power for k, power in enumerate(powers)])


def _begins(header: tf.Tensor, text: bytes, at: int = 0) -> tf.Tensor:
    return tf.reduce_all(header[at : at + len(text)] == list(text))


def _find_segments(
    encoded: tf.Tensor, first: int, count: int, parse: Callable, max_segments: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Walk from segment to segment, until the last of `count` kinds is found.

    Args:
        encoded: string[], the file.
        first: Position of the first segment.
        count: Number of kinds.
        parse: Function from int64[10], the first bytes of a segment, to bool[count], whether it is
            of each kind, and int64[] thrice: start and length of its content, and its own length.
        max_segments: Most segments to read.

    Returns:
        int64[count] twice: start and length of the content of the first segment of each kind; a
        start of 0 if there is none.
    """
    size, none = _count_bytes(encoded), tf.zeros([count], tf.int64)

    def has_more(position, starts, lengths):
        return (position < size) & (starts[-1] == 0)

    def step(position, starts, lengths):
        is_kind, start, length, advance = parse(_read_bytes(encoded, position, 10))
        is_first = tf.stack(is_kind) & (starts == 0)
        starts = tf.where(is_first, position + start, starts)
        return position + advance, starts, tf.where(is_first, length, lengths)

    begin = tf.constant(first, tf.int64), none, none
    limits = {"maximum_iterations": max_segments, "parallel_iterations": 1}
    return tf.while_loop(has_more, step, begin, **limits)[1:]


def _measure_jpeg(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the pixels, 0 if the scan has no start or no end, no alpha, and the Exif metadata.

    The walk does not mistake a thumbnail, a complete JPEG inside a segment, for the image itself.
    """

    def parse(head):
        is_marker = (head[0] == 0xFF) & (head[1] != 0xFF)  # FF may be repeated before a marker
        marker = tf.where(is_marker, head[1], 0)
        is_frame = (marker >= FRAMES[0]) & (marker <= FRAMES[1])
        is_frame &= tf.reduce_all(marker != NOT_FRAMES)
        is_exif = (marker == APP1) & _begins(head, EXIF, 4)  # XMP has the same marker
        is_scan = marker == SCAN
        has_length = tf.reduce_all(marker != WITHOUT_LENGTH)
        length = 2 + tf.where(has_length, _read_int(head, 2, 2, big_endian=True), 0)
        length = tf.where(is_marker, length, 1)
        return (is_frame, is_exif, is_scan, is_scan | (marker == END)), 4, length - 4, length

    starts, lengths = _find_segments(encoded, 2, 4, parse, MAX_SEGMENTS)
    frame = _read_bytes(encoded, starts[0], 5)
    pixels = _read_int(frame, 1, 2, big_endian=True) * _read_int(frame, 3, 2, big_endian=True)
    # Inside the scan FF is never followed by END.
    parts = tf.strings.split(_slice(encoded, starts[2], -1), bytes([0xFF, END]), maxsplit=1)
    is_whole = (starts[0] > 0) & (starts[2] > 0) & (tf.size(parts) > 1)
    exif = _slice(encoded, starts[1], lengths[1])
    return tf.where(is_whole, pixels, 0), tf.constant(False), exif


def _measure_png(encoded: tf.Tensor, header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    def parse(head):
        length = _read_int(head, 0, 4, big_endian=True)
        kinds = [_begins(head, kind, 4) for kind in (b"eXIf", b"tRNS", b"acTL", b"IEND")]
        return kinds, 8, length, length + 12  # the last 4 bytes are a checksum

    starts, lengths = _find_segments(encoded, len(PNG), 4, parse, MAX_CHUNKS)
    is_whole = (starts[3] > 0) & (starts[3] + 4 <= _count_bytes(encoded))
    is_still = starts[2] == 0
    pixels = _read_int(header, 16, 4, big_endian=True) * _read_int(header, 20, 4, big_endian=True)
    pixels = tf.where(_begins(header, b"IHDR", 12) & is_whole & is_still, pixels, 0)
    has_alpha = tf.reduce_any(header[25] == PNG_WITH_ALPHA) | (starts[1] > 0)
    return pixels, has_alpha, _slice(encoded, starts[0], lengths[0])


def _measure_bmp(encoded: tf.Tensor, header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    width, height, bits = _read_int(header, 18, 4), _read_int(header, 22, 4), header[28]
    # Signed 32 bits; a negative height means that rows are stored from the top.
    height = tf.minimum(height, 2**32 - height)
    compression = _read_int(header, 30, 4)
    masks = tf.stack([_read_int(header, at, 4) for at in (54, 58, 62)])
    has_masks = (compression == 3) & (bits == 32) & tf.reduce_all(masks == BMP_MASKS)
    is_plain = (compression == 0) & tf.reduce_any(bits == BMP_BITS)
    row_bytes = (bits // 8 * width + 3) // 4 * 4
    is_whole = _read_int(header, 10, 4) + row_bytes * height == _count_bytes(encoded)
    pixels = tf.where((is_plain | has_masks) & is_whole, width * height, 0)
    has_alpha_mask = (header[14] >= 56) & (_read_int(header, 66, 4) == BMP_ALPHA_MASK)
    return pixels, has_masks & has_alpha_mask, tf.constant("")


def _measure_webp(encoded: tf.Tensor, header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    def bits(number: tf.Tensor, first: int, count: int) -> tf.Tensor:
        return tf.math.floormod(number // 2**first, 2**count)

    def parse(head):
        length = _read_int(head, 4, 4)
        return [_begins(head, b"EXIF")], 8, length, 8 + length + tf.math.floormod(length, 2)

    packed = _read_int(header, 21, 4)
    extended = (_read_int(header, 24, 3) + 1) * (_read_int(header, 27, 3) + 1)
    sizes = {
        b"VP8 ": bits(_read_int(header, 26, 2), 0, 14) * bits(_read_int(header, 28, 2), 0, 14),
        b"VP8L": (bits(packed, 0, 14) + 1) * (bits(packed, 14, 14) + 1),
        b"VP8X": tf.where(bits(header[20], 1, 1) == 0, extended, 0),  # 0 if it is animated
    }
    pixels = tf.add_n([tf.where(_begins(header, kind, 12), n, 0) for kind, n in sizes.items()])
    is_whole = _read_int(header, 4, 4) + 8 <= _count_bytes(encoded)
    pixels = tf.where(_begins(header, WEBP, 8) & is_whole, pixels, 0)
    starts, lengths = _find_segments(encoded, 12, 1, parse, MAX_CHUNKS)
    return pixels, tf.constant(False), _slice(encoded, starts[0], lengths[0])


def _read_orientation(exif: tf.Tensor) -> tf.Tensor:
    """Return the orientation in Exif metadata, int64[], 1 to 8; 1 (upright) if it has none."""
    exif = _slice(exif, tf.where(_slice(exif, 0, len(EXIF)) == EXIF, len(EXIF), 0), -1)
    is_big_endian = _slice(exif, 0, 4) == b"MM\0*"

    def read_int(numbers: tf.Tensor, at: int, length: int) -> tf.Tensor:
        big, little = (_read_int(numbers, at, length, big_endian=big) for big in (True, False))
        return tf.where(is_big_endian, big, little)

    first = read_int(_read_bytes(exif, 4, 4), 0, 4)
    count = read_int(_read_bytes(exif, first, 2), 0, 2)
    raw = tf.cast(tf.io.decode_raw(_slice(exif, first + 2, 12 * count), tf.uint8), tf.int64)
    fields = tf.transpose(tf.reshape(raw[: tf.size(raw) // 12 * 12], [-1, 12]))
    is_long = read_int(fields, 2, 2) == LONG
    values = tf.where(is_long, read_int(fields, 8, 4), read_int(fields, 8, 2))
    found = tf.boolean_mask(values, read_int(fields, 0, 2) == ORIENTATION)
    value = tf.concat([tf.constant([1], tf.int64), found], axis=0)[-1]
    is_exif = is_big_endian | (_slice(exif, 0, 4) == b"II*\0")
    return tf.where(is_exif & (value >= 1) & (value <= 8), value, 1)


def _decode(encoded: tf.Tensor, has_alpha: tf.Tensor) -> tf.Tensor:
    """Decode a readable image, uint8[height, width, 3]; transparent pixels are put on white."""

    def decode(channels: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_image(encoded, channels, expand_animations=False)

    def decode_jpeg() -> tf.Tensor:
        # By default the result is up to 18 levels from that of Pillow and OpenCV, and not faster.
        return tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE")

    image = tf.case(
        [
            (_slice(encoded, 0, len(JPEG)) == JPEG, decode_jpeg),
            # WebP is decoded with its own number of channels, 3 or 4, only. A PNG of 1 to 4 bits
            # without transparency gets a wrong one with 4 channels (TensorFlow 2.21.0).
            (_slice(encoded, 0, len(RIFF)) == RIFF, decode(0)),
            (has_alpha, decode(4)),
        ],
        default=decode(3),
    )

    def put_on_white() -> tf.Tensor:
        pixels = tf.cast(image, tf.float32)
        missing = (255 - pixels[..., :3]) * pixels[..., 3:] / 255
        return 255 - tf.cast(tf.round(missing), tf.uint8)

    image = tf.cond(tf.shape(image)[2] == 4, put_on_white, lambda: image)
    return tf.ensure_shape(image, [None, None, 3])


def _turn_upright(image: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
    """Turn an image, uint8[height, width, 3], as its Exif metadata state."""

    def turn() -> tf.Tensor:
        orientation = _read_orientation(exif)
        rows = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        flips = [tf.reduce_any(orientation == kinds) for kinds in (UPSIDE_DOWN, MIRRORED)]
        return tf.reverse(rows, tf.boolean_mask([0, 1], tf.stack(flips)))

    turned = tf.cond(tf.strings.length(exif) > 0, turn, lambda: image)
    return tf.ensure_shape(turned, [None, None, 3])
