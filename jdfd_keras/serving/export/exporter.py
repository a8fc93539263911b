"""Export of a trained detector as a SavedModel for TensorFlow Serving.

Takes a Keras model or a run folder; writes `saved_models/<name>/<version>/` with the signatures of
`build_signatures`, alignment, calibration, warm-up requests, a model card, checksums and, on
request, files for other runtimes. Reading of images and calibration are part of the graph.
"""

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from jdfd_keras.client.calibration import Calibration, save_calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.client.signatures import (
    ALIGNMENT_FILE,
    CALIBRATION_FILE,
    MODEL_CARD,
    WARMUP_FILE,
    write_checksums,
)
from jdfd_keras.faces.align import check_same_landmarks
from jdfd_keras.inference.backends import load_calibration
from jdfd_keras.inference.saved_model import SavedModelEngine, write_warmup
from jdfd_keras.io.disk_space import reraise_disk_full
from jdfd_keras.io.files import OPTIONS, atomic_path, load_options, save_options
from jdfd_keras.io.results import Result
from jdfd_keras.model.network import digest_weights
from jdfd_keras.options import FaceOptions
from jdfd_keras.reporting.model_card import read_report, write_model_card
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.serving.export.formats import (
    FILES,
    FormatCost,
    check_formats,
    choose_split_table,
    export_formats,
)
from jdfd_keras.serving.export.int8 import Int8Result, write_int8
from jdfd_keras.serving.export.int8_loss import load_compared_sets
from jdfd_keras.serving.export.openvino_export import (
    check_parity,
    write_engine_file,
    write_openvino,
)
from jdfd_keras.serving.export.serving_graph import write_saved_model
from jdfd_keras.training.run_folder import digest_model, load_run_model, was_imported


@dataclass(frozen=True)
class ExportedModel(Result):
    """One exported version of a model.

    Attributes:
        path: Its folder, `saved_models/<name>/<version>`.
        name: The name it is served under.
        version: Its version number.
        digest: SHA-256 of the weights.
        formats: Size and loss of accuracy of each file for another runtime.
        int8: Size and loss of accuracy of OpenVINO's int8 network, if it was exported.
    """

    path: Path
    name: str
    version: int
    digest: str
    formats: tuple[FormatCost, ...] = ()
    int8: Int8Result | None = None


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
    foreign: str | Path | None = None,
    allow_loss: bool = False,
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
        formats: Further formats: `float16` and `int8` for LiteRT (TensorFlow Lite), `onnx`, and
            `openvino-int8`, the fastest on CPUs.
        data: With `formats`: a prepared dataset to calibrate and evaluate them on, by the split
            table of the run if the dataset has it, else by the official one.
        foreign: With `openvino-int8`: a prepared dataset from elsewhere; all of it is evaluated.
        allow_loss: Write `openvino-int8` even if it loses too much; it is used on request only.

    Returns:
        The new version.

    Raises:
        OSError: If the run or report cannot be read, the folder cannot be written, or the exported
            model does not run.
        ValueError: If the name is invalid in a URL, the version exists or is below 1, `faces` is
            missing or has another size than the model, other landmarks align the faces of `data` or
            `foreign`, the report is of another model, the model returns NaN, OpenVINO scores
            otherwise than TensorFlow, a format cannot be written, or `openvino-int8` loses too
            much.

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
    check_formats(formats, data, foreign, allow_loss=allow_loss)
    run, evaluation, demonstration = None, None, False
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
        demonstration = trained.demonstration
        calibration = calibration or load_calibration(run)
        if report is not None:
            evaluation = read_report(report, digest_model(run))
    size, has_decoder = detector.input_shape[1], "reconstruction" in detector.output
    if faces.face_size != size:
        raise ValueError(
            f"Expected faces of the model's size, {size} px; got face_size={faces.face_size}. "
            "Give the FaceOptions that the training data was prepared with."
        )
    for other in filter(None, (data, foreign)):
        if run is None or not was_imported(run):
            check_same_landmarks(faces, load_options(Path(other) / OPTIONS, "faces", FaceOptions))
    compared = None
    if data is not None and foreign is not None:
        compared = load_compared_sets(data, foreign, choose_split_table(run, data))
    if calibration is not None:
        # The exported model may be public; the command has paths of this machine.
        calibration = dataclasses.replace(calibration, command="")
    version = _choose_version(directory, version)
    target = directory / str(version)
    digest = digest_weights(detector)
    metadata = ModelMetadata(faces, calibration, directory.name, version, digest, demonstration)

    is_newest = version > max(_list_versions(directory), default=0)
    partial = directory / f"{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with _removing(partial), reraise_disk_full(str(target), "nothing is left of this export"):
        write_saved_model(detector, partial, metadata)
        write_openvino(detector, partial, metadata)
        write_warmup(partial / WARMUP_FILE, directory.name, size, has_decoder=has_decoder)
        save_options(partial / ALIGNMENT_FILE, faces=faces)
        if calibration is not None:
            save_calibration(partial / CALIBRATION_FILE, calibration)
        costs, int8, extra = [], None, {}
        if data is not None and (others := [name for name in formats if name in FILES]):
            assets, table = partial / "assets.extra", choose_split_table(run, data)
            costs = export_formats(detector, assets, others, calibration, data, table)
            extra["Other formats"] = render_template("formats.md.j2", costs=costs)
        if compared is not None:
            int8 = write_int8(partial, compared, allow_loss=allow_loss)
            extra["OpenVINO in int8"] = render_template("int8.md.j2", int8=int8)
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
        write_engine_file(partial, metadata, int8)
        write_checksums(partial)
        _check_runs(partial, size)
        with contextlib.ExitStack() as stack:
            if is_newest:
                card_copy = stack.enter_context(atomic_path(directory / MODEL_CARD))
                shutil.copyfile(card_file, card_copy)
            partial.rename(target)  # last of all that needs space
    return ExportedModel(target, directory.name, version, metadata.digest, tuple(costs), int8)


@contextlib.contextmanager
def _removing(folder: Path) -> Iterator[None]:
    """Remove a folder at the end of the block, if it still exists."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_runs(directory: Path, size: int) -> None:
    with SavedModelEngine(directory) as engine:
        for signature, outputs in engine.replay_warmup():
            for name, values in outputs.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(
                        f"Expected finite numbers from {name!r} of {signature!r} for a gray face; "
                        f"got {values.ravel()[0]}. The weights may be NaN: check the training "
                        "losses."
                    )
        check_parity(engine, directory, size)


def _choose_version(directory: Path, version: int | None) -> int:
    used = _list_versions(directory)
    next_version = used[-1] + 1 if used else 1
    if version is not None and (version < 1 or version in used):
        raise ValueError(
            f"Expected an unused version from 1 on; got {version}, and {directory} has "
            f"{used}. Omit it to use {next_version}."
        )
    return next_version if version is None else version


def _list_versions(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())
