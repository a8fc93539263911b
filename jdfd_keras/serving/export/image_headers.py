"""Encoded images to what their first bytes tell, in the graph.

Takes one string; tells whether it is to be decoded. What is seen here costs its own row, while what
the decoder refuses fails the whole request. Knows nothing of models.

Reference:
    ITU-T T.81 (1992), annex B, the markers of JPEG; W3C, PNG (2003), section 5; RFC 9649 (2024),
    WebP.
"""

import tensorflow as tf

from jdfd_keras.serving.contract import MAX_IMAGE_PIXELS

HEADER = 32  # bytes; the sizes of all but JPEG lie within
PNG, BMP, RIFF, WEBP = b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"WEBP"
JPEG = b"\xff\xd8\xff"
# A BMP of fewer bits has a palette, which the decoder passes over (TensorFlow 2.21.0).
BMP_BITS = (24, 32)
WEBP_ANIMATED = 0x02
# Of JPEG: frame headers hold the size, but these three between them are none; then markers that
# have no length, the start of the scan, and the end.
FRAMES, NO_FRAMES = (0xC0, 0xCF), (0xC4, 0xC8, 0xCC)
BARE = (0x00, 0x01, *range(0xD0, 0xD9))
SCAN, END = 0xDA, 0xD9
# Before the scan; a picture with a large profile has some hundred.
MAX_SEGMENTS = 1000


def is_readable(encoded: tf.Tensor) -> tf.Tensor:
    """Tell whether an encoded image is one that can be decoded, as far as that is cheap to see.

    Args:
        encoded: string[], anything.

    Returns:
        bool[]: False for what does not begin as JPEG, PNG, WebP or BMP; for an animated WebP and a
        BMP with a palette; where the end is lacking; and where the header tells of no pixel or of
        more than MAX_IMAGE_PIXELS.
    """
    header = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=HEADER), tf.int64)

    def begins(text: bytes, at: int = 0) -> tf.Tensor:
        return tf.reduce_all(header[at : at + len(text)] == list(text))

    pixels = tf.case(
        [
            (begins(JPEG), lambda: _measure_jpeg(encoded)),
            (begins(PNG) & begins(b"IHDR", 12), lambda: _measure_png(encoded, header)),
            (begins(BMP), lambda: _measure_bmp(header)),
            (begins(RIFF) & begins(WEBP, 8), lambda: _measure_webp(encoded, header, begins)),
        ],
        default=_none,
    )
    # A product of two sizes of 32 bits may be negative here, but never wraps to a small number.
    return (pixels > 0) & (pixels <= MAX_IMAGE_PIXELS)


def _none() -> tf.Tensor:
    return tf.constant(0, tf.int64)


def _number(numbers: tf.Tensor, at: int, length: int, *, big_endian: bool = False) -> tf.Tensor:
    places = range(length)[::-1] if big_endian else range(length)
    return tf.add_n([numbers[at + k] * 256**place for k, place in enumerate(places)])


def _holds(encoded: tf.Tensor, text: bytes) -> tf.Tensor:
    return tf.size(tf.strings.split(encoded, text, maxsplit=1)) > 1


def _measure_png(encoded: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    pixels = _number(header, 16, 4, big_endian=True) * _number(header, 20, 4, big_endian=True)
    return tf.where(_holds(encoded, b"IEND"), pixels, 0)


def _measure_bmp(header: tf.Tensor) -> tf.Tensor:
    width, height = _number(header, 18, 4), _number(header, 22, 4)
    # Of 32 bits with a sign; a negative one says that the first row is the uppermost.
    height = tf.minimum(height, 2**32 - height)
    has_colours = tf.reduce_any(_number(header, 28, 2) == BMP_BITS)
    return tf.where(has_colours, width * height, 0)


def _measure_webp(encoded: tf.Tensor, header: tf.Tensor, begins) -> tf.Tensor:
    lossy = _number(header, 26, 2) % 2**14 * (_number(header, 28, 2) % 2**14)
    packed = _number(header, 21, 4)
    lossless = (packed % 2**14 + 1) * (packed // 2**14 % 2**14 + 1)
    extended = (_number(header, 24, 3) + 1) * (_number(header, 27, 3) + 1)
    extended = tf.where(header[20] // WEBP_ANIMATED % 2 == 0, extended, 0)
    pixels = tf.where(begins(b"VP8X", 12), extended, tf.where(begins(b"VP8L", 12), lossless, lossy))
    is_whole = _number(header, 4, 4) + 8 <= tf.cast(tf.strings.length(encoded), tf.int64)
    return tf.where(is_whole, pixels, 0)


def _measure_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Count the pixels; 0 where no scan begins, or none ends.

    From segment to segment, so that neither the size nor the end of a thumbnail, which is a whole
    JPEG within a segment, is taken for that of the picture.
    """
    length = tf.strings.length(encoded)

    def has_more(place, pixels, marker):
        return (place < length) & (marker != SCAN) & (marker != END)

    def step(place, pixels, marker):
        part = tf.io.decode_raw(tf.strings.substr(encoded, place, 9), tf.uint8, fixed_length=9)
        part = tf.cast(part, tf.int64)
        is_marker = (part[0] == 0xFF) & (part[1] != 0xFF)  # before one, FF may be repeated
        marker = tf.where(is_marker, part[1], 0)
        is_frame = (marker >= FRAMES[0]) & (marker <= FRAMES[1])
        is_frame &= tf.reduce_all(marker != NO_FRAMES)
        size = _number(part, 5, 2, big_endian=True) * _number(part, 7, 2, big_endian=True)
        has_length = tf.reduce_all(marker != BARE)
        skipped = 2 + tf.where(has_length, _number(part, 2, 2, big_endian=True), 0)
        skipped = tf.where(is_marker, skipped, 1)
        pixels = tf.where(is_frame, size, pixels)
        return place + tf.cast(skipped, tf.int32), pixels, marker

    first = tf.constant(2), tf.constant(0, tf.int64), tf.constant(0, tf.int64)
    place, pixels, marker = tf.while_loop(
        has_more, step, first, maximum_iterations=MAX_SEGMENTS, parallel_iterations=1
    )
    # In the scan FF is never followed by this but at the end.
    scan = tf.strings.substr(encoded, tf.minimum(place, length), -1)
    return tf.where((marker == SCAN) & _holds(scan, bytes([0xFF, END])), pixels, 0)
