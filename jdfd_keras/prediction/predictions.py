"""Verdicts and failures of files with their provenance: the JSON of `predict`.

Takes records of single files, however they were made; returns Predictions.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.faces.align import describe_framing
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.io.origin import ENGINES, describe_origin
from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction.evidence import TopFaces
from jdfd_keras.prediction.result_folder import MAX_REPORTED, FailedFile

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

# Backend to the packages that compute its scores.
ENGINES_OF = {"openvino": ("openvino",), "tensorflow": ("tensorflow", "keras"), "server": ()}


@dataclass(frozen=True)
class Predictions(Result):
    """Verdicts on several files, each group in the order of the paths."""

    files: tuple[Verdict, ...]
    failed: tuple[FailedFile, ...]
    paths: tuple[str, ...]  # of all files
    skipped: int  # files below folders without a video or image suffix
    provenance: Provenance
    # Of the most suspicious files by path, if requested.
    top_faces: dict[str, TopFaces] = dataclasses.field(
        default_factory=dict, compare=False, repr=False, metadata={"json": False}
    )
    # Why a requested annotated file could not be written.
    annotation_error: str = dataclasses.field(
        default="", compare=False, repr=False, metadata={"json": False}
    )

    @property
    def records(self) -> tuple[Verdict | FailedFile, ...]:
        """Verdicts and failures in the order of the paths."""
        by_path = {record.path: record for record in (*self.files, *self.failed)}
        return tuple(by_path[path] for path in self.paths)

    @property
    def most_suspicious(self) -> list[Verdict]:
        """Verdicts with a section in a report, the most suspicious first."""
        ordered = sorted(self.files, key=lambda verdict: verdict.suspicion, reverse=True)
        return ordered[:MAX_REPORTED]


def collect_predictions(
    records: Sequence[Verdict | FailedFile], provenance: Provenance, num_skipped: int = 0
) -> Predictions:
    """Return the predictions of files, as those of `predict_files`.

    Args:
        records: Verdicts and failures in the order of the paths.
        provenance: How they were made.
        num_skipped: Files that were not analysed, because of their suffix.

    Example:
        >>> from contextlib import closing
        >>> from jdfd_keras import load_predictor
        >>> with closing(load_predictor("saved_models/detector")) as predictor:
        ...     provenance = describe_provenance(
        ...         predictor, FaceOptions(), Calibration(), PredictOptions()
        ...     )
        >>> collect_predictions([FailedFile("a.txt", "not a video")], provenance).paths
        ('a.txt',)
    """
    ordered = tuple(map(escape_names, records))
    return Predictions(
        files=tuple(record for record in ordered if isinstance(record, Verdict)),
        failed=tuple(record for record in ordered if isinstance(record, FailedFile)),
        paths=tuple(record.path for record in ordered),
        skipped=num_skipped,
        provenance=provenance,
    )


def describe_provenance(
    predictor: Predictor, faces: FaceOptions, calibration: Calibration, options: PredictOptions
) -> Provenance:
    """Return how verdicts were made: with the command, versions and time of now.

    Args:
        predictor: Predictor of the scores.
        faces: Face options of the verdicts.
        calibration: Calibration with their thresholds.
        options: The requested options.

    Example:
        >>> from contextlib import closing
        >>> from jdfd_keras import load_predictor
        >>> with closing(load_predictor("saved_models/detector")) as predictor:
        ...     options = FaceOptions(), Calibration(), PredictOptions(threshold=0.5)
        ...     describe_provenance(predictor, *options).thresholds
        'threshold'
    """
    metadata = predictor.metadata
    source = "calibrated" if metadata.calibration else "0.5"
    origin = describe_origin()
    # A server may have imported TensorFlow for something else than these scores.
    unused = set(ENGINES) - set(ENGINES_OF.get(predictor.engine.backend, ()))
    origin["versions"] = {
        name: version for name, version in origin["versions"].items() if name not in unused
    }
    return Provenance(
        model=metadata.name,
        version=metadata.version,
        digest=metadata.digest,
        where=predictor.name,
        faces=faces,
        uncertain_from=calibration.uncertain_from,
        uncertain_to=calibration.uncertain_to,
        thresholds=source if options.threshold is None else "threshold",
        calibration=metadata.calibration,
        framing=describe_framing(faces, metadata.faces),
        engine=predictor.engine,
        demonstration=metadata.demonstration,
        notes=metadata.notes,
        **origin,
    )


def escape_names(record: Record) -> Record:
    r"""Escape bytes of a file name that are not UTF-8, which no table or page can contain.

    Args:
        record: A dataclass, of whose fields the texts are escaped.

    Example:
        >>> escape_names(FailedFile("\udcff.mp4", "not a video")).path
        '\\udcff.mp4'
    """
    texts = {
        field.name: escape_name(value)
        for field in dataclasses.fields(record)
        if isinstance(value := getattr(record, field.name), str)
    }
    return dataclasses.replace(record, **texts)


def escape_name(text: str) -> str:
    r"""Escape bytes of a file name in a text as `escape_names`.

    Example:
        >>> escape_name("\udcff.mp4")
        '\\udcff.mp4'
    """
    return text.encode("utf-8", "backslashreplace").decode()
