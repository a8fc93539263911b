"""Export of a trained detector as a SavedModel for TensorFlow Serving.

Takes a Keras model or a run folder; writes `saved_models/<name>/<version>/` with the signatures of
`build_signatures`, alignment, calibration, warm-up requests, a model card, checksums and, on
request, files for other runtimes. Reading of images and calibration are part of the graph.
"""

import functools
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.client.metadata import (
    FILES,
    Calibration,
    ModelMetadata,
    save_calibration,
    write_metadata,
)
from jdfd_keras.client.signatures import (
    ALIGNMENT_FILE,
    CALIBRATION_FILE,
    CLASSES,
    CLASSIFY,
    CLASSIFY_METHOD,
    EXPLAIN,
    FACES,
    METADATA,
    MODEL_CARD,
    RECONSTRUCT,
    SERVING_DEFAULT,
    WARMUP_FILE,
    find_versions,
    write_checksums,
)
from jdfd_keras.inference.backends import load_calibration
from jdfd_keras.inference.explain import make_cam_fn
from jdfd_keras.inference.saved_model import SavedModelEngine, write_warmup
from jdfd_keras.io.files import save_options, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.model.network import digest_weights
from jdfd_keras.options import FaceOptions
from jdfd_keras.reporting.model_card import read_report, write_model_card
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.serving.export.formats import (
    FormatCost,
    check_formats,
    choose_split_table,
    export_formats,
    make_score_fn,
)
from jdfd_keras.serving.export.graph import read_face
from jdfd_keras.training.run_folder import digest_model, load_run_model

# No Python control flow here depends on a tensor, so AutoGraph is not needed.
graph = functools.partial(tf.function, autograph=False)


@dataclass(frozen=True)
class ExportedModel(Result):
    """One exported version of a model.

    Attributes:
        path: Its folder, `saved_models/<name>/<version>`.
        name: The name it is served under.
        version: Its version number.
        digest: SHA-256 of the weights.
        formats: Size and loss of accuracy of each file for another runtime.
    """

    path: Path
    name: str
    version: int
    digest: str
    formats: tuple[FormatCost, ...] = ()


def export_detector(
    model: keras.Model | str | Path,
    directory: str | Path,
    *,
    faces: FaceOptions | None = None,
    calibration: Calibration | None = None,
    card: dict[str, dict] | None = None,
    report: str | Path | None = None,
    version: int | None = None,
    formats: Sequence[str] = (),
    data: str | Path | None = None,
) -> ExportedModel:
    """Export a detector as the next version of a served model.

    The version appears atomically: it is written under another name, loaded as TensorFlow Serving
    loads it, answers its own warm-up requests, and only then renamed. Its signatures are those of
    `build_signatures`.

    Args:
        model: A run folder, of which the best model is exported, a `.keras` file, or a detector
            from `build_detector`, with or without a decoder.
        directory: `saved_models/<name>`; its last component is the name the model is served under.
        faces: Face options of the training data, stored with the model and used by `predict`.
            Required with a `keras.Model`; read from a run.
        calibration: Calibration of the scores, applied in the graph and stored with the model. Read
            from a run if it has one; otherwise scores are not calibrated.
        card: Further sections of the model card: values by name, by title.
        report: Folder of an `evaluate` report of this run; its metrics are put on the card.
        version: An unused number from 1 on; the next free one if not given.
        formats: Further formats: `float16` and `int8` for LiteRT (TensorFlow Lite), `onnx`.
        data: With `formats`: a prepared dataset to calibrate and evaluate them on, by the split
            table of the run if the dataset has it, else by the official one.

    Returns:
        The new version.

    Raises:
        OSError: If the run or report cannot be read, the folder cannot be written, or the exported
            model does not run.
        ValueError: If the name is invalid in a URL, the version exists or is below 1, `faces` is
            missing or has another size than the model, the report is of another model, the model
            returns NaN, or a format cannot be written.

    Example:
        >>> export_detector("run", "new_models/detector").path
        PosixPath('new_models/detector/1')
    """
    directory = Path(directory)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", directory.name):
        raise ValueError(
            "Expected a model name of letters, digits, '.', '_' and '-', since it becomes part "
            f"of a URL; got {directory.name!r}. Try `detector`."
        )
    check_formats(formats, data)
    run, evaluation = None, None
    if isinstance(model, keras.Model):
        detector = model
        if faces is None or report is not None:
            raise ValueError(
                "Expected faces and no report with a keras.Model; got "
                f"faces={faces}, report={report}. Give the run folder instead of its model."
            )
    else:
        run = Path(model)
        trained = load_run_model(run)
        detector, faces = trained.model, faces or trained.faces
        calibration = calibration or load_calibration(run)
        if report is not None:
            evaluation = read_report(report, digest_model(run))
    size, has_decoder = detector.input_shape[1], "reconstruction" in detector.output
    if faces.face_size != size:
        raise ValueError(
            f"Expected faces of the model's size, {size} px; got face_size={faces.face_size}. "
            "Give the FaceOptions that the training data was prepared with."
        )
    version = _choose_version(directory, version)
    target = directory / str(version)
    metadata = ModelMetadata(faces, calibration, directory.name, version, digest_weights(detector))

    partial = directory / f"{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_saved_model(detector, partial, metadata)
        write_warmup(partial / WARMUP_FILE, directory.name, size, has_decoder=has_decoder)
        save_options(partial / ALIGNMENT_FILE, faces=faces)
        if calibration is not None:
            save_calibration(partial / CALIBRATION_FILE, calibration)
        costs, extra = [], {}
        if data is not None:
            assets, table = partial / "assets.extra", choose_split_table(run, data)
            costs = export_formats(detector, assets, formats, calibration, data, table)
            extra["Other formats"] = render_template("formats.md.j2", costs=costs)
        card_file = partial / "assets.extra" / MODEL_CARD
        write_model_card(
            card_file,
            metadata,
            has_decoder=has_decoder,
            run=run,
            report=evaluation,
            card=card,
            extra=extra,
        )
        write_checksums(partial)
        _check_runs(partial)
        card_text = card_file.read_text(encoding="utf-8")
        partial.rename(target)
        if target == next(iter(find_versions(directory).values())):
            write_text_atomically(directory / MODEL_CARD, card_text)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportedModel(target, directory.name, version, metadata.digest, tuple(costs))


def build_signatures(model: keras.Model, metadata: ModelMetadata) -> dict[str, Callable]:
    """Build the signatures; n is the batch size, S the image size, scores are P(fake) in [0, 1].

    `serving_default`: `image_bytes` string[n], encoded JPEG, PNG, BMP or WebP faces of any size,
        to `scores` float32[n] and `valid` bool[n].
    `classify`: `inputs` string[n], serialized tf.Example with `image/encoded`, to `classes`
        string[n, 2] = real, fake and `scores` float32[n, 2].
    `faces`: `faces` uint8[n, S, S, 3] RGB to `scores` float32[n].
    `explain`: the same input to `cam` float32[n, height, width], evidence for fake, in [0, 1], in
        the cells of the last features with spatial axes; see `explain_faces`.
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
        image, valid = tf.map_fn(
            lambda one: read_face(one, size),
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


def _make_metadata_fn(metadata: ModelMetadata) -> Callable:
    texts = write_metadata(metadata)

    @graph(input_signature=[tf.TensorSpec([None], tf.string, name="names")])
    def read(names):
        contents = tf.fill(tf.shape(names), "")
        for name in FILES:
            contents = tf.where(names == name, texts[name], contents)
        return {"contents": contents}

    return read


def _write_saved_model(model: keras.Model, directory: Path, metadata: ModelMetadata) -> None:
    signatures = build_signatures(model, metadata)
    # Not the Keras model, which tracks a copy of each variable: every weight would be stored twice,
    # and TensorFlow Serving would find neither (keras 19274).
    root: Any = tf.Module()
    root.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(root, str(directory), signatures=signatures)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(directory))
    updater.replace_method_name(signature_key=CLASSIFY, method_name=CLASSIFY_METHOD, tags="serve")
    updater.save()
    # It is the fingerprint of the graph before that change. TensorFlow has no public function to
    # write a new one (2.21.0), and accepts a model without one, as from before 2.12.
    (directory / "fingerprint.pb").unlink()


def _check_runs(directory: Path) -> None:
    with SavedModelEngine(directory) as engine:
        for signature, outputs in engine.replay_warmup():
            for name, values in outputs.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(
                        f"Expected finite numbers from {name!r} of {signature!r} for a gray face; "
                        f"got {values.ravel()[0]}. The weights may be NaN: check the training "
                        "losses."
                    )


def _choose_version(directory: Path, version: int | None) -> int:
    used = sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())
    next_version = used[-1] + 1 if used else 1
    if version is not None and (version < 1 or version in used):
        raise ValueError(
            f"Expected an unused version from 1 on; got {version}, and {directory} has "
            f"{used}. Omit it to use {next_version}."
        )
    return next_version if version is None else version
