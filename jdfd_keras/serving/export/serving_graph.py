"""The graph that is served: the signatures of a detector as a SavedModel.

Takes a Keras model and the metadata of a version; reading of images and calibration are part of the
graph. How it reads an image is in `graph.py`.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import keras
import tensorflow as tf

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import FILES, ModelMetadata, write_metadata
from jdfd_keras.client.signatures import (
    CLASSES,
    CLASSIFY,
    CLASSIFY_METHOD,
    EXPLAIN,
    FACES,
    MAX_FILE_SIZE,
    METADATA,
    RECONSTRUCT,
    SERVING_DEFAULT,
)
from jdfd_keras.inference.explain import make_cam_fn
from jdfd_keras.serving.export.formats import make_score_fn
from jdfd_keras.serving.export.graph import read_examples, read_faces

# No Python control flow here depends on a tensor, so AutoGraph is not needed.
graph = functools.partial(tf.function, autograph=False)


def build_signatures(model: keras.Model, metadata: ModelMetadata) -> dict[str, Callable]:
    """Build the signatures; n is the batch size, S the image size, scores are P(fake) in [0, 1].

    `serving_default`: `image_bytes` string[n], encoded JPEG, PNG, BMP or WebP faces of any size,
        to `scores` float32[n] and `valid` bool[n].
    `classify`: `inputs` string[n], serialized tf.Example with `image/encoded`, to `classes`
        string[n, 2] = real, fake and `scores` float32[n, 2].
    `faces`: `faces` uint8[n, S, S, 3] RGB to `scores` float32[n].
    `explain`: the same input to `cam` float32[n, height, width], contributions to the uncalibrated
        logit of fake, at least 0, of the cells of the last features with spatial axes; see
        `explain_faces`.
    `reconstruct`: the same input to `reconstruction` float32[n, S, S, 3] in [-1, 1] and `error`
        float32[n], its mean squared error; only with a decoder.
    `metadata`: `names` string[n] to `contents` string[n], the texts of `write_metadata`; empty for
        other names.
    An image rejected by `read_header` has the score NaN and `valid` False; an image that only the
    decoder rejects fails the request. Only `reconstruct` contains operations of the decoder
    network, unless the classifier has attention, which reads the reconstruction.

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
        image, valid = read_faces(encoded, size)
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
        fake, _ = score_encoded(read_examples(inputs))
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


def _make_metadata_fn(metadata: ModelMetadata) -> Callable:
    texts = write_metadata(metadata)

    @graph(input_signature=[tf.TensorSpec([None], tf.string, name="names")])
    def read(names):
        contents = tf.fill(tf.shape(names), "")
        for name in FILES:
            contents = tf.where(names == name, texts[name], contents)
        return {"contents": contents}

    return read


def write_saved_model(model: keras.Model, directory: Path, metadata: ModelMetadata) -> None:
    """Write a detector as a SavedModel with the signatures of `build_signatures`.

    Its variables are divided into as many files as MAX_FILE_SIZE requires.

    Example:
        >>> from jdfd_keras.training.run_folder import load_run_model
        >>> run = load_run_model("run")
        >>> metadata = ModelMetadata(run.faces, None, "detector", 1, "ab" * 32)
        >>> write_saved_model(run.model, Path("graph"), metadata)
        >>> sorted(path.name for path in Path("graph").iterdir())
        ['assets', 'saved_model.pb', 'variables']
    """
    signatures = build_signatures(model, metadata)
    # Not the Keras model, which tracks a copy of each variable: every weight would be stored twice,
    # and TensorFlow Serving would find neither (keras 19274).
    root: Any = tf.Module()
    root.weights = [variable.value for variable in model.variables]
    shards = tf.train.experimental.MaxShardSizePolicy(MAX_FILE_SIZE)
    options = tf.saved_model.SaveOptions(experimental_sharding_callback=shards)
    tf.saved_model.save(root, str(directory), signatures=signatures, options=options)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(directory))
    updater.replace_method_name(signature_key=CLASSIFY, method_name=CLASSIFY_METHOD, tags="serve")
    updater.save()
    # It is the fingerprint of the graph before that change. TensorFlow has no public function to
    # write a new one (2.21.0), and accepts a model without one, as from before 2.12.
    (directory / "fingerprint.pb").unlink()
