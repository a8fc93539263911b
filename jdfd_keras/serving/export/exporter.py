"""A trained detector to a SavedModel that TensorFlow Serving runs.

Takes a Keras model or a run folder; gives `saved_models/<name>/<version>/` with the signatures of
`signatures`, and beside them alignment, calibration, warm-up requests, a model card, checksums and,
where wanted, the same detector for TensorFlow Lite. Knows nothing of HTTP.
"""

import contextlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.client.metadata import Calibration, Description, save_calibration
from jdfd_keras.client.signatures import (
    ALIGNMENT_FILE,
    CALIBRATION_FILE,
    CLASSIFY,
    CLASSIFY_METHOD,
    MODEL_CARD,
    WARMUP_FILE,
    find_versions,
)
from jdfd_keras.inference.model_files import load_calibration, write_checksums
from jdfd_keras.inference.saved_model import SavedModelEngine, write_warmup
from jdfd_keras.io.files import save_options
from jdfd_keras.model.network import digest_weights
from jdfd_keras.options import FaceOptions
from jdfd_keras.serving.export.card_sections import (
    FIGURES,
    NO_FIGURES,
    read_report,
    tell_report,
    tell_run,
)
from jdfd_keras.serving.export.graph import Weights, build_signatures
from jdfd_keras.serving.export.lite import check_lite, export_all_lite, tell_lite
from jdfd_keras.serving.export.model_card import list_values, write_model_card
from jdfd_keras.training.run_folder import digest_model, load_run_model


def export_run(
    run: str | Path,
    directory: str | Path,
    name: str,
    version: int | None = None,
    *,
    report: str | Path | None = None,
    tflite: Sequence[str] = (),
    data: str | Path | None = None,
) -> Path:
    """Export the best model of a run, with its calibration and what the run knows on its card.

    Args:
        run: A run folder or a .keras file.
        directory: Where models lie, such as `saved_models`.
        name: The name to serve it under.
        version: As `export_detector` takes it.
        report: The folder that `evaluate` wrote of this very model, whose figures go on the card.
        tflite: As `export_detector` takes it.
        data: The same.

    Returns:
        The folder of the new version.

    Raises:
        OSError: If the run or the report cannot be read or the export cannot be written.
        ValueError: If the run, the name or the version is not as it should be, the report is of
            another model, or a format lacks what it takes.
    """
    run, directory = Path(run), Path(directory) / name
    _check_name(name)
    check_lite(tflite, data)
    model, faces = load_run_model(run)
    figures = {FIGURES: NO_FIGURES}
    if report is not None:
        figures = tell_report(read_report(Path(report), digest_model(run)))
    calibration = load_calibration(run)
    sections = figures | tell_run(run)
    return _export(model, directory, faces, calibration, sections, version, tflite, data)


def export_detector(
    model: keras.Model,
    directory: str | Path,
    *,
    faces: FaceOptions,
    calibration: Calibration | None = None,
    card: dict[str, dict] | None = None,
    version: int | None = None,
    tflite: Sequence[str] = (),
    data: str | Path | None = None,
) -> Path:
    """Write a detector as the next version of a served model.

    The version appears at once and whole: it is written under another name, loaded as
    TensorFlow Serving loads it, sent its own warm-up requests, and only then renamed. Its
    signatures are those of `build_signatures`.

    Args:
        model: A detector as `build_detector` makes it, with a decoder or without.
        directory: `saved_models/<name>`; its last part is the name the model is served under.
        faces: How the faces were taken that it was trained on; kept beside the model, so that
            `predict` takes them alike.
        calibration: How scores are corrected, in the graph, and read; kept beside the model. As
            the network gives them if not given.
        card: What the model card should tell of its making: sections of name and value.
        version: A whole number from 1 that is still free; the next free one if not given.
        tflite: Of `lite.KINDS`, those that are written for TensorFlow Lite too.
        data: With these: a prepared data set, to fit and to measure them on.

    Returns:
        The folder of the new version.

    Raises:
        OSError: If the folder cannot be written, or the result does not run.
        ValueError: If the name cannot be part of a URL, the version is taken or below 1, the
            face size is not the model's, the model gives no number, or a format lacks what it
            takes.
    """
    directory = Path(directory)
    _check_name(directory.name)
    check_lite(tflite, data)
    sections = {title: list_values(values) for title, values in (card or {}).items()}
    return _export(model, directory, faces, calibration, sections, version, tflite, data)


def _export(
    model: keras.Model,
    directory: Path,
    faces: FaceOptions,
    calibration: Calibration | None,
    sections: dict[str, str],
    version: int | None,
    tflite: Sequence[str],
    data: str | Path | None,
) -> Path:
    size = model.input.shape[1]
    has_decoder = "reconstruction" in model.output
    if faces.face_size != size:
        raise ValueError(
            f"Expected faces of the model's size, {size} px; got face_size={faces.face_size}. "
            "Give the FaceOptions that the training data was prepared with."
        )
    version = _choose_version(directory, version)
    target = directory / str(version)
    description = Description(faces, calibration, directory.name, version, digest_weights(model))

    partial = directory / f"{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_saved_model(model, partial, description)
        write_warmup(partial / WARMUP_FILE, directory.name, size, has_decoder=has_decoder)
        save_options(partial / ALIGNMENT_FILE, faces=faces)
        if calibration is not None:
            save_calibration(partial / CALIBRATION_FILE, calibration)
        if tflite:
            costs = export_all_lite(model, partial / "assets.extra", tflite, calibration, data)
            sections = sections | tell_lite(costs)
        card_file = partial / "assets.extra" / MODEL_CARD
        write_model_card(card_file, description, has_decoder=has_decoder, sections=sections)
        write_checksums(partial)
        _check_runs(partial)
        partial.rename(target)
        if target == next(iter(find_versions(directory).values())):
            shutil.copyfile(target / "assets.extra" / MODEL_CARD, directory / MODEL_CARD)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_saved_model(model: keras.Model, directory: Path, description: Description) -> None:
    signatures = build_signatures(model, description)
    tf.saved_model.save(Weights(model), str(directory), signatures=signatures)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(directory))
    updater.replace_method_name(signature_key=CLASSIFY, method_name=CLASSIFY_METHOD, tags="serve")
    updater.save()
    # It is the fingerprint of the graph before that change. TensorFlow has no public way to
    # write it anew (2.21.0), and loads a model without one as it does those of before 2.12.
    (directory / "fingerprint.pb").unlink()


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
