"""The serving graph: a detector as the signatures of a SavedModel.

Takes a Keras model and its metadata; returns one function per signature. Decoding, resizing,
scaling and calibration are part of the graph. Image headers are checked before decoding, since an
invalid image found here costs only its own row, while an error in the decoder fails the request.

Reference:
    ITU-T T.81 (1992), annex B, markers of JPEG; W3C, PNG (2003), section 5; RFC 9649 (2024), WebP.
"""

import functools
from collections.abc import Callable
from typing import cast

import keras
import tensorflow as tf

from jdfd_keras.client.metadata import FILES, SMALLEST, Calibration, ModelMetadata, write_metadata
from jdfd_keras.client.signatures import (
    CLASSES,
    CLASSIFY,
    EXPLAIN,
    FACES,
    MAX_IMAGE_PIXELS,
    METADATA,
    RECONSTRUCT,
    SERVING_DEFAULT,
)
from jdfd_keras.inference.explain import make_cam_fn
from jdfd_keras.model.network import classifier_branch

HEADER_BYTES = 32  # contain the image size in all formats except JPEG
PNG, BMP, RIFF, WEBP = b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"WEBP"
JPEG = b"\xff\xd8\xff"
# A BMP of fewer bits has a palette, which the decoder ignores (TensorFlow 2.21.0).
BMP_BITS = (24, 32)
# JPEG markers. Frame headers, which hold the size, are in this range except for three values.
FRAMES, NOT_FRAMES = (0xC0, 0xCF), (0xC4, 0xC8, 0xCC)
WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xD9))
SCAN, END = 0xDA, 0xD9
MAX_SEGMENTS = 1000  # before the scan; an image with a large color profile has a few hundred


def is_readable(encoded: tf.Tensor) -> tf.Tensor:
    """Check the header and the end of an encoded image, without decoding it.

    Args:
        encoded: string[], any bytes.

    Returns:
        bool[]: False if it is not JPEG, PNG, WebP or BMP; if it is an animated WebP or a BMP with a
        palette; if its end is missing; or if its header declares no pixels or more than
        MAX_IMAGE_PIXELS.

    Example:
        >>> bool(is_readable(tf.constant(b"not an image")))
        False
    """
    header = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=HEADER_BYTES), tf.int64)

    def begins(text: bytes, at: int = 0) -> tf.Tensor:
        return tf.reduce_all(header[at : at + len(text)] == list(text))

    pixels = tf.case(
        [
            (begins(JPEG), lambda: _measure_jpeg(encoded)),
            (begins(PNG) & begins(b"IHDR", 12), lambda: _measure_png(encoded, header)),
            (begins(BMP), lambda: _measure_bmp(header)),
            (begins(RIFF) & begins(WEBP, 8), lambda: _measure_webp(encoded, header, begins)),
        ],
        default=lambda: tf.constant(0, tf.int64),
    )
    # A product of two 32-bit sizes can be negative here, but never wraps to a small number.
    return (pixels > 0) & (pixels <= MAX_IMAGE_PIXELS)


def _read_int(numbers: tf.Tensor, at: int, length: int, *, big_endian: bool = False) -> tf.Tensor:
    powers = range(length)[::-1] if big_endian else range(length)
    return tf.add_n([numbers[at + k] * 256**power for k, power in enumerate(powers)])


def _contains(encoded: tf.Tensor, text: bytes) -> tf.Tensor:
    return tf.size(tf.strings.split(encoded, text, maxsplit=1)) > 1


def _measure_png(encoded: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    pixels = _read_int(header, 16, 4, big_endian=True) * _read_int(header, 20, 4, big_endian=True)
    return tf.where(_contains(encoded, b"IEND"), pixels, 0)


def _measure_bmp(header: tf.Tensor) -> tf.Tensor:
    width, height = _read_int(header, 18, 4), _read_int(header, 22, 4)
    # Signed 32 bits; a negative height means that rows are stored from the top.
    height = tf.minimum(height, 2**32 - height)
    has_colors = tf.reduce_any(_read_int(header, 28, 2) == BMP_BITS)
    return tf.where(has_colors, width * height, 0)


def _measure_webp(encoded: tf.Tensor, header: tf.Tensor, begins) -> tf.Tensor:
    def bits(number: tf.Tensor, first: int, count: int) -> tf.Tensor:
        return tf.math.floormod(number // 2**first, 2**count)

    lossy = bits(_read_int(header, 26, 2), 0, 14) * bits(_read_int(header, 28, 2), 0, 14)
    packed = _read_int(header, 21, 4)
    lossless = (bits(packed, 0, 14) + 1) * (bits(packed, 14, 14) + 1)
    extended = (_read_int(header, 24, 3) + 1) * (_read_int(header, 27, 3) + 1)
    is_still = bits(header[20], 1, 1) == 0
    extended = tf.where(is_still, extended, 0)
    pixels = tf.where(begins(b"VP8X", 12), extended, tf.where(begins(b"VP8L", 12), lossless, lossy))
    is_complete = _read_int(header, 4, 4) + 8 <= tf.cast(tf.strings.length(encoded), tf.int64)
    return tf.where(is_complete, pixels, 0)


def _measure_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Count the pixels; 0 if the scan has no start or no end.

    Walks from segment to segment, so that a thumbnail, a complete JPEG inside a segment, is not
    mistaken for the image itself.
    """
    length = tf.strings.length(encoded)

    def has_more(position, pixels, marker):
        return (position < length) & (marker != SCAN) & (marker != END)

    def step(position, pixels, marker):
        head = tf.io.decode_raw(tf.strings.substr(encoded, position, 9), tf.uint8, fixed_length=9)
        head = tf.cast(head, tf.int64)
        is_marker = (head[0] == 0xFF) & (head[1] != 0xFF)  # FF may be repeated before a marker
        marker = tf.where(is_marker, head[1], 0)
        is_frame = (marker >= FRAMES[0]) & (marker <= FRAMES[1])
        is_frame &= tf.reduce_all(marker != NOT_FRAMES)
        size = _read_int(head, 5, 2, big_endian=True) * _read_int(head, 7, 2, big_endian=True)
        has_length = tf.reduce_all(marker != WITHOUT_LENGTH)
        advance = 2 + tf.where(has_length, _read_int(head, 2, 2, big_endian=True), 0)
        advance = tf.where(is_marker, advance, 1)
        pixels = tf.where(is_frame, size, pixels)
        return position + tf.cast(advance, tf.int32), pixels, marker

    first = tf.constant(2), tf.constant(0, tf.int64), tf.constant(0, tf.int64)
    position, pixels, marker = tf.while_loop(
        has_more, step, first, maximum_iterations=MAX_SEGMENTS, parallel_iterations=1
    )
    # Inside the scan FF is never followed by END.
    scan = tf.strings.substr(encoded, tf.minimum(position, length), -1)
    return tf.where((marker == SCAN) & _contains(scan, bytes([0xFF, END])), pixels, 0)


# No Python control flow here depends on a tensor, so AutoGraph is not needed.
graph = functools.partial(tf.function, autograph=False)


def build_signatures(model: keras.Model, metadata: ModelMetadata) -> dict[str, Callable]:
    """Build the signatures; n is the batch size, S the image size, scores are P(fake) in [0, 1].

    `serving_default`: `image_bytes` string[n], encoded JPEG, PNG, BMP or WebP faces of any size,
        to `scores` float32[n] and `valid` bool[n].
    `classify`: `inputs` string[n], serialized tf.Example with `image/encoded`, to `classes`
        string[n, 2] = real, fake and `scores` float32[n, 2].
    `faces`: `faces` uint8[n, S, S, 3] RGB to `scores` float32[n].
    `explain`: the same input to `cam` float32[n, height, width], evidence for fake, in [0, 1], at
        the encoder's last convolution; see `explain_faces`.
    `reconstruct`: the same input to `reconstruction` float32[n, S, S, 3] in [-1, 1] and `error`
        float32[n], its mean squared error; only with a decoder.
    `metadata`: `names` string[n] to `contents` string[n], the texts of `write_metadata`; empty for
        other names.
    An image rejected by `is_readable` has the score NaN and `valid` False; an image that only the
    decoder rejects fails the request. Only `reconstruct` contains operations of the decoder
    network.

    Args:
        model: A detector from `build_detector`, with or without a decoder.
        metadata: Metadata of the version; its calibration is applied to the scores.

    Returns:
        A tf.function per signature, by name.

    Raises:
        ValueError: If the model is not a detector.

    Example:
        >>> from jdfd_keras.training.run_folder import load_run_model
        >>> run = load_run_model("run")
        >>> metadata = ModelMetadata(run.faces, None, "detector", 1, "ab" * 32)
        >>> list(build_signatures(run.model, metadata))
        ['serving_default', 'classify', 'faces', 'explain', 'metadata', 'reconstruct']
    """
    size, outputs = model.input_shape[1], cast(dict, model.output)
    cam = make_cam_fn(model)
    face_input = tf.TensorSpec([None, size, size, 3], tf.uint8, name="faces")

    # A separate function that several signatures share: traced and stored once.
    score = graph(
        make_score_fn(model, metadata.calibration or Calibration()),
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
        # TensorFlow Serving does not check the height and width of a request.
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
        fake, _ = score_encoded(cast(tf.Tensor, features["image/encoded"]))
        classes = tf.tile(tf.constant([CLASSES]), tf.stack([tf.shape(fake)[0], 1]))
        return {"classes": classes, "scores": tf.stack([1 - fake, fake], axis=1)}

    @graph(input_signature=[face_input])
    def score_faces(faces):
        return {"scores": score(pixels(faces))}

    @graph(input_signature=[face_input])
    def explain(faces):
        return cam(pixels(faces))

    signatures = {
        SERVING_DEFAULT: score_bytes,
        CLASSIFY: classify,
        FACES: score_faces,
        EXPLAIN: explain,
        METADATA: _make_metadata_fn(metadata),
    }
    if "reconstruction" not in outputs:
        return signatures
    reconstructor = keras.Model(model.input, outputs["reconstruction"])

    @graph(input_signature=[face_input])
    def reconstruct(faces):
        image = pixels(faces)
        reconstruction = reconstructor(image, training=False)
        error = tf.reduce_mean(tf.square(reconstruction - (image / 127.5 - 1)), axis=[1, 2, 3])
        return {"reconstruction": reconstruction, "error": error}

    return signatures | {RECONSTRUCT: reconstruct}


def make_score_fn(model: keras.Model, calibration: Calibration) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the scoring function of a detector, for use in a graph.

    Args:
        model: A detector.
        calibration: Calibration of the scores.

    Returns:
        A function from float32[n, S, S, 3], pixel values in [0, 255], to float32[n], P(fake).

    Example:
        >>> from jdfd_keras.training.run_folder import load_run_model
        >>> score = make_score_fn(load_run_model("run").model, Calibration())
        >>> score(tf.zeros([2, 71, 71, 3])).shape
        TensorShape([2])
    """
    # A model with this output only, so that the decoder is not part of the graph.
    classifier = classifier_branch(model)

    def score(image: tf.Tensor) -> tf.Tensor:
        raw = classifier(image, training=False)[:, 0]
        if calibration.temperature == 1:
            return raw
        clipped = tf.clip_by_value(raw, SMALLEST, 1 - SMALLEST)
        return tf.sigmoid(tf.math.log(clipped / (1 - clipped)) / calibration.temperature)

    return score


def _read_face(encoded: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode and resize one face; black and False if it is not a readable image."""

    def decode() -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image.set_shape([None, None, 3])
        return tf.image.resize(image, [size, size], antialias=True)

    valid = is_readable(encoded)
    return tf.cond(valid, decode, lambda: tf.zeros([size, size, 3])), valid


def _make_metadata_fn(metadata: ModelMetadata) -> Callable:
    texts = write_metadata(metadata)

    @graph(input_signature=[tf.TensorSpec([None], tf.string, name="names")])
    def read(names):
        contents = tf.fill(tf.shape(names), "")
        for name in FILES:
            contents = tf.where(names == name, texts[name], contents)
        return {"contents": contents}

    return read
