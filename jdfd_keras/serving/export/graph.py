"""Encoded images to what their first bytes tell, in the graph.

Takes one string; tells whether it is to be decoded. What is seen here costs its own row, while what
the decoder refuses fails the whole request. Knows nothing of models.

Reference:
    ITU-T T.81 (1992), annex B, the markers of JPEG; W3C, PNG (2003), section 5; RFC 9649 (2024),
    WebP.

A detector to the functions that a SavedModel serves.

Takes a Keras model and its description; gives the signatures by name. Decoding, resizing, scaling
and calibration are in the graph. Knows nothing of files.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from jdfd_keras.client.metadata import FILES, SMALLEST, Calibration, Description, write_description
from jdfd_keras.client.signatures import (
    CLASSES,
    CLASSIFY,
    DESCRIBE,
    EXPLAIN,
    MAX_IMAGE_PIXELS,
    RECONSTRUCT,
    SCORE_BYTES,
    SCORE_FACES,
)
from jdfd_keras.inference.explain import activation_of
from jdfd_keras.model.network import classifier_of

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


# No Python here depends on a value of a tensor, so none is to be rewritten.
graph = functools.partial(tf.function, autograph=False)


def build_signatures(model: keras.Model, description: Description) -> dict[str, Callable]:
    """Build the signatures; n is any number, S the image size of the model, scores are P(fake).

    `serving_default`: `image_bytes` string[n], encoded JPEG, PNG, BMP or WebP faces of any size,
        to `scores` float32[n] and `valid` bool[n].
    `classify`: `inputs` string[n], serialized tf.Example with `image/encoded`, to `classes`
        string[n, 2] = real, fake and `scores` float32[n, 2].
    `faces`: `faces` uint8[n, S, S, 3] RGB to `scores` float32[n].
    `explain`: the same input to `activation` float32[n, height, width], what spoke for fake, from
        0 to 1, at the encoder's last convolution; see `explain_faces`.
    `reconstruct`: the same input to `reconstruction` float32[n, S, S, 3] on the scale of -1..1 and
        `error` float32[n], its mean squared error; not there without a decoder.
    `describe`: `names` string[n] to `contents` string[n], what `write_description` has by these
        names; empty by others.
    What `is_readable` tells is no image has the score NaN and is not valid; what it does not see
    and the decoder refuses fails the request. All but `reconstruct` hold no operation of the
    decoder network.

    Args:
        model: A detector as `build_detector` makes it, with a decoder or without.
        description: What it tells of itself; scores are corrected by its calibration.

    Returns:
        A tf.function for each, by name.

    Raises:
        ValueError: If the model is no detector.
    """
    size = model.input.shape[1]
    activation = activation_of(model)
    face_input = tf.TensorSpec([None, size, size, 3], tf.uint8, name="faces")

    # What several signatures need is a graph of its own: traced once, and stored once.
    score = graph(
        score_of(model, description.calibration or Calibration()),
        input_signature=[tf.TensorSpec([None, size, size, 3])],
    )

    @graph(input_signature=[tf.TensorSpec([None], tf.string)])
    def score_encoded(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, valid = tf.map_fn(
            lambda one: _read_face(one, size),
            encoded,
            fn_output_signature=(tf.TensorSpec([size, size, 3]), tf.TensorSpec([], tf.bool)),
        )
        return tf.where(valid, score(image), float("nan")), valid

    def pixels(faces: tf.Tensor) -> tf.Tensor:
        # TensorFlow Serving does not hold a request to the height and width of the signature.
        return tf.cast(tf.ensure_shape(faces, face_input.shape), tf.float32)

    @graph(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def score_bytes(image_bytes):
        scores, valid = score_encoded(image_bytes)
        return {"scores": scores, "valid": valid}

    @graph(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(inputs):
        features = tf.io.parse_example(
            inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        )
        fake, _ = score_encoded(features["image/encoded"])
        classes = tf.tile(tf.constant([CLASSES]), [tf.shape(fake)[0], 1])
        return {"classes": classes, "scores": tf.stack([1 - fake, fake], axis=1)}

    @graph(input_signature=[face_input])
    def score_faces(faces):
        return {"scores": score(pixels(faces))}

    @graph(input_signature=[face_input])
    def explain(faces):
        return activation(pixels(faces))

    signatures = {
        SCORE_BYTES: score_bytes,
        CLASSIFY: classify,
        SCORE_FACES: score_faces,
        EXPLAIN: explain,
        DESCRIBE: _make_describe(description),
    }
    if "reconstruction" not in model.output:
        return signatures
    reconstructor = keras.Model(model.input, model.output["reconstruction"])

    @graph(input_signature=[face_input])
    def reconstruct(faces):
        image = pixels(faces)
        reconstruction = reconstructor(image, training=False)
        error = tf.reduce_mean(tf.square(reconstruction - (image / 127.5 - 1)), axis=[1, 2, 3])
        return {"reconstruction": reconstruction, "error": error}

    return signatures | {RECONSTRUCT: reconstruct}


class Weights(tf.Module):
    """What a SavedModel restores: the variables, each once.

    It must not hold the Keras model, which gives the tracker a copy of each variable: every
    weight would be stored twice, and TensorFlow Serving would find neither (keras 19274).
    """

    def __init__(self, model: keras.Model):
        """Take the variables of a model."""
        super().__init__()
        self.weights = [variable.value for variable in model.variables]


def score_of(model: keras.Model, calibration: Calibration) -> Callable[[tf.Tensor], tf.Tensor]:
    """Make the function that scores, for use within a graph.

    Args:
        model: A detector.
        calibration: How its scores are corrected.

    Returns:
        A function from float32[n, S, S, 3], pixel values, 0..255, to float32[n].
    """
    # A model that ends at this output: what the other one needs is then not in the graph at all.
    classifier = classifier_of(model)

    def score(image: tf.Tensor) -> tf.Tensor:
        raw = classifier(image, training=False)[:, 0]
        if calibration.temperature == 1:
            return raw
        kept = tf.clip_by_value(raw, SMALLEST, 1 - SMALLEST)
        return tf.sigmoid(tf.math.log(kept / (1 - kept)) / calibration.temperature)

    return score


def _read_face(encoded: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one face and bring it to the size; black, and False, where it is no image."""

    def decode() -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image.set_shape([None, None, 3])
        return tf.image.resize(image, [size, size], antialias=True)

    valid = is_readable(encoded)
    return tf.cond(valid, decode, lambda: tf.zeros([size, size, 3])), valid


def _make_describe(description: Description) -> Callable:
    texts = write_description(description)

    @graph(input_signature=[tf.TensorSpec([None], tf.string, name="names")])
    def describe(names):
        contents = tf.fill(tf.shape(names), "")
        for name in FILES:
            contents = tf.where(names == name, texts[name], contents)
        return {"contents": contents}

    return describe
