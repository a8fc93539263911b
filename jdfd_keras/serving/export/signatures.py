"""A detector to the functions that a SavedModel serves.

Takes a Keras model and its description; gives the signatures by name. Decoding, resizing, scaling
and calibration are in the graph. Knows nothing of files.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from jdfd_keras.evaluation.calibration import SMALLEST, Calibration
from jdfd_keras.evaluation.explain import activation_of
from jdfd_keras.model.network import classifier_of
from jdfd_keras.serving.contract import (
    CLASSES,
    CLASSIFY,
    DESCRIBE,
    EXPLAIN,
    RECONSTRUCT,
    SCORE_BYTES,
    SCORE_FACES,
)
from jdfd_keras.serving.description import FILES, Description, write_description
from jdfd_keras.serving.export.image_headers import is_readable

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
