"""Verdicts and failures of files with their provenance: the JSON of `predict`.

Takes records of single files, however they were made; returns Predictions.
"""

import dataclasses
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.faces.align import describe_framing
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.io.origin import ENGINES, describe_origin
from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.prediction.evidence import TopFaces
from jdfd_keras.prediction.kept_records import FailedFile, KeptRecords, escape_name, escape_names
from jdfd_keras.prediction.result_folder import MAX_REPORTED

# Backend to the packages that compute its scores.
ENGINES_OF = {"openvino": ("openvino",), "tensorflow": ("tensorflow", "keras"), "server": ()}


@dataclass(frozen=True)
class Predictions(Result):
    """Verdicts on several files, each group in the order of the paths.

    Those in a result folder are read when they are used.
    """

    files: Sequence[Verdict]
    failed: Sequence[FailedFile]
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

    # All of them, if they are in a result folder.
    kept: KeptRecords | None = dataclasses.field(
        default=None, compare=False, repr=False, metadata={"json": False}
    )

    @property
    def records(self) -> Sequence[Verdict | FailedFile]:
        """Verdicts and failures in the order of the paths."""
        if self.kept is not None:
            return self.kept
        by_path = {record.path: record for record in (*self.files, *self.failed)}
        return tuple(by_path[path] for path in self.paths)

    @property
    def most_suspicious(self) -> list[Verdict]:
        """Verdicts with a section in a report, the most suspicious first."""
        return heapq.nlargest(MAX_REPORTED, self.files, key=lambda verdict: verdict.suspicion)


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


def collect_kept(
    records: KeptRecords,
    is_verdict: Sequence[int],
    names: Iterable[str],
    provenance: Provenance,
    num_skipped: int = 0,
) -> Predictions:
    """Return the predictions of a result folder, of which nothing is read yet.

    Args:
        records: Verdicts and failures in the order of the paths.
        is_verdict: Whether each is a verdict.
        names: Path of each.
        provenance: How they were made.
        num_skipped: Files that were not analysed, because of their suffix.

    Example:
        >>> from jdfd_keras import predict_files
        >>> predictions = predict_files(["video.mp4"], model="saved_models/detector", out="kept")
        >>> predictions.kept
        <1 records of .../kept/verdicts.jsonl>
    """
    return Predictions(
        files=records.select(is_verdict),
        failed=records.select(not flag for flag in is_verdict),
        paths=tuple(map(escape_name, names)),
        skipped=num_skipped,
        provenance=provenance,
        kept=records,
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
