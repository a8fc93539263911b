"""A trained detector to a SavedModel that TensorFlow Serving runs.

Takes a Keras model or a run folder; gives `saved_models/<name>/<version>/` with its signatures,
alignment options and warm-up requests, and a model card. Decoding, resizing and scaling are in
the graph. Knows nothing of HTTP.
"""

import contextlib
import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.claims import OPTIONS, save_options
from jdfd_keras.evaluation.calibration import (
    SMALLEST,
    Calibration,
    load_calibration,
    save_calibration,
)
from jdfd_keras.model.network import classifier_of
from jdfd_keras.options import (
    FaceOptions,
)
from jdfd_keras.serving.contract import (
    ALIGNMENT_FILE,
    CALIBRATION_FILE,
    CLASSES,
    CLASSIFY,
    CLASSIFY_METHOD,
    MODEL_CARD,
    RECONSTRUCT,
    SCORE_BYTES,
    SCORE_FACES,
    WARMUP_FILE,
    find_versions,
)
from jdfd_keras.serving.engine import SavedModelEngine
from jdfd_keras.serving.model_card import write_model_card
from jdfd_keras.serving.warmup import write_warmup
from jdfd_keras.training.run import best_epoch, load_run_model, read_history


def export_run(
    run: str | Path, directory: str | Path, name: str, version: int | None = None
) -> Path:
    """Export the best model of a run, with its calibration and what the run knows on its card.

    Args:
        run: A run folder or a .keras file.
        directory: Where models lie, such as `saved_models`.
        name: The name to serve it under.
        version: As `export_detector` takes it.

    Returns:
        The folder of the new version.

    Raises:
        OSError: If the run cannot be read or the export cannot be written.
        ValueError: If the run, the name or the version is not as it should be.
    """
    model, faces = load_run_model(run)
    return export_detector(
        model,
        Path(directory) / name,
        faces=faces,
        calibration=load_calibration(run),
        card=_read_run(Path(run)),
        version=version,
    )


def export_detector(
    model: keras.Model,
    directory: str | Path,
    *,
    faces: FaceOptions,
    calibration: Calibration | None = None,
    card: dict[str, dict] | None = None,
    version: int | None = None,
) -> Path:
    """Write a detector as the next version of a served model.

    The version appears at once and whole: it is written under another name, loaded as
    TensorFlow Serving loads it, sent its own warm-up requests, and only then renamed.

    Signatures; n is any number, S the image size of the model, scores are P(fake):
        `serving_default`: `image_bytes` string[n], encoded JPEG, PNG, BMP or WebP faces of any
            size, to `scores` float32[n].
        `classify`: `inputs` string[n], serialized tf.Example with `image/encoded`, to `classes`
            string[n, 2] = real, fake and `scores` float32[n, 2].
        `faces`: `faces` uint8[n, S, S, 3] RGB to `scores` float32[n].
        `reconstruct`: the same input to `reconstruction` float32[n, S, S, 3] on the scale of
            -1..1 and `error` float32[n], its mean squared error; not there without a decoder.
    The first three hold no operation of the decoder.

    Args:
        model: A detector as `build_detector` makes it, with a decoder or without.
        directory: `saved_models/<name>`; its last part is the name the model is served under.
        faces: How the faces were taken that it was trained on; kept beside the model, so that
            `predict` takes them alike.
        calibration: How scores are corrected, in the graph, and read; kept beside the model. As
            the network gives them if not given.
        card: What else the model card should tell: sections of name and value.
        version: A whole number from 1 that is still free; the next free one if not given.

    Returns:
        The folder of the new version.

    Raises:
        OSError: If the folder cannot be written, or the result does not run.
        ValueError: If the name cannot be part of a URL, the version is taken or below 1, the
            face size is not the model's, or the model gives no number.
    """
    directory = Path(directory)
    size = model.input.shape[1]
    has_decoder = "reconstruction" in model.output
    _check_name(directory.name)
    if faces.face_size != size:
        raise ValueError(
            f"Expected faces of the model's size, {size} px; got face_size={faces.face_size}. "
            "Give the FaceOptions that the training data was prepared with."
        )
    version = _choose_version(directory, version)
    target = directory / str(version)

    partial = directory / f"{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_saved_model(model, partial, calibration or Calibration())
        write_warmup(partial / WARMUP_FILE, directory.name, size, has_decoder=has_decoder)
        save_options(partial / ALIGNMENT_FILE, faces=faces)
        if calibration is not None:
            save_calibration(partial / CALIBRATION_FILE, calibration)
        card_file = partial / "assets.extra" / MODEL_CARD
        write_model_card(
            card_file,
            name=directory.name,
            version=version,
            image_size=size,
            has_decoder=has_decoder,
            faces=faces,
            calibration=calibration,
            facts=card or {},
        )
        _check_runs(partial)
        partial.rename(target)
        if target == next(iter(find_versions(directory).values())):
            shutil.copyfile(target / "assets.extra" / MODEL_CARD, directory / MODEL_CARD)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


class _Weights(tf.Module):
    """What a SavedModel restores: the variables, each once.

    It must not hold the Keras model, which gives the tracker a copy of each variable: every
    weight would be stored twice, and TensorFlow Serving would find neither (keras 19274).
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        self.weights = [variable.value for variable in model.variables]


def _write_saved_model(model: keras.Model, directory: Path, calibration: Calibration) -> None:
    signatures = _signatures(model, calibration)
    tf.saved_model.save(_Weights(model), str(directory), signatures=signatures)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(directory))
    updater.replace_method_name(signature_key=CLASSIFY, method_name=CLASSIFY_METHOD, tags="serve")
    updater.save()
    # It is the fingerprint of the graph before that change. TensorFlow has no public way to
    # write it anew (2.21.0), and loads a model without one as it does those of before 2.12.
    (directory / "fingerprint.pb").unlink()


def _signatures(model: keras.Model, calibration: Calibration) -> dict:
    size = model.input.shape[1]
    # Models that end at one output: what the other needs is then not in the graph at all.
    classifier = classifier_of(model)
    face_input = tf.TensorSpec([None, size, size, 3], tf.uint8, name="faces")

    def decode_face(image_bytes):
        image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
        image.set_shape([None, None, 3])
        return tf.image.resize(image, [size, size], antialias=True)

    def score(image):
        raw = classifier(image, training=False)[:, 0]
        if calibration.temperature == 1:
            return raw
        kept = tf.clip_by_value(raw, SMALLEST, 1 - SMALLEST)
        return tf.sigmoid(tf.math.log(kept / (1 - kept)) / calibration.temperature)

    def score_encoded(image_bytes):
        image_spec = tf.TensorSpec([size, size, 3], tf.float32)
        return score(tf.map_fn(decode_face, image_bytes, fn_output_signature=image_spec))

    def pixels(faces):
        # TensorFlow Serving does not hold a request to the height and width of the signature.
        return tf.cast(tf.ensure_shape(faces, face_input.shape), tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def score_bytes(image_bytes):
        return {"scores": score_encoded(image_bytes)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(inputs):
        features = tf.io.parse_example(
            inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        )
        fake = score_encoded(features["image/encoded"])
        classes = tf.tile(tf.constant([CLASSES]), [tf.shape(fake)[0], 1])
        return {"classes": classes, "scores": tf.stack([1 - fake, fake], axis=1)}

    @tf.function(input_signature=[face_input])
    def score_faces(faces):
        return {"scores": score(pixels(faces))}

    signatures = {SCORE_BYTES: score_bytes, CLASSIFY: classify, SCORE_FACES: score_faces}
    if "reconstruction" not in model.output:
        return signatures
    reconstructor = keras.Model(model.input, model.output["reconstruction"])

    @tf.function(input_signature=[face_input])
    def reconstruct(faces):
        image = pixels(faces)
        reconstruction = reconstructor(image, training=False)
        error = tf.reduce_mean(tf.square(reconstruction - (image / 127.5 - 1)), axis=[1, 2, 3])
        return {"reconstruction": reconstruction, "error": error}

    return signatures | {RECONSTRUCT: reconstruct}


def _check_runs(directory: Path) -> None:
    with SavedModelEngine(directory) as engine:
        for signature, outputs in engine.replay_warmup():
            for name, values in outputs.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(
                        f"Expected finite numbers from {name!r} of {signature!r} for a grey face; "
                        f"got {values.ravel()[0]}. The weights are perhaps NaN: look at the "
                        "losses of the training."
                    )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            "Expected a model name of letters, digits, '.', '_' and '-', since it becomes part "
            f"of a URL; got {name!r}. Try `detector`."
        )


def _choose_version(directory: Path, version: int | None) -> int:
    taken = []
    with contextlib.suppress(FileNotFoundError):
        taken = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]
    if version is None:
        return max(taken, default=0) + 1
    if version < 1 or version in taken:
        raise ValueError(
            f"Expected a version from 1 that {directory} does not have yet; got {version}, and it "
            f"has {sorted(taken)}. Leave it out for {max(taken, default=0) + 1}."
        )
    return version


def _read_run(run: Path) -> dict[str, dict]:
    """Read what a run folder tells for the card; a part that is not there is left out."""
    if not run.is_dir():
        return {}
    groups = json.loads((run / OPTIONS).read_text(encoding="utf-8"))
    facts = {f"Options: {name}": group for name, group in groups.items() if name != "faces"}
    history = read_history(run)
    if history:
        best = best_epoch(history)
        facts[f"Figures of the best epoch, {best + 1} of {len(history)}"] = history[best]
    return facts
