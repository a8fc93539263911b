"""The model card: purpose, limits, scores, input, training and licences of an exported model.

The words are in the template. Facts that were not recorded are stated as such.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jdfd_keras
from jdfd_keras.client.domain import TITLES, FileMeasures
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.datasets.videos import CLASSES, dataset_namespace
from jdfd_keras.evaluation.report import Report, load_report
from jdfd_keras.io.files import OPTIONS, load_groups, write_text_atomically
from jdfd_keras.options import (
    AugmentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.reporting.templating import render_template
from jdfd_keras.training.run_folder import (
    IMPORTED,
    MONITOR,
    best_epoch,
    read_history,
    read_provenance,
)

NOT_RECORDED = "not recorded"
OPTION_GROUPS = {
    "train": TrainOptions,
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "loss": LossOptions,
    "pipeline": PipelineOptions,
    "augment": AugmentOptions,
    "unlabelled": UnlabelledOptions,
}


def read_report(folder: str | Path, digest: str) -> Report:
    """Read a report and check that it is of this model.

    Args:
        folder: A folder that `write_evaluation` wrote.
        digest: SHA-256 of the model file.

    Raises:
        OSError: If there is no report.
        ValueError: If it is damaged, or of another or an unknown model.

    Example:
        >>> read_report("report", "ab" * 32)
        Traceback (most recent call last):
        ValueError: Expected a report of the exported model, with the SHA-256 abababababababab...
    """
    report = load_report(folder)
    calibration = report.protocol.calibration
    recorded = report.protocol.model_digest or (calibration.model if calibration else "")
    if recorded != digest:
        raise ValueError(
            f"Expected a report of the exported model, with the SHA-256 {digest[:16]}...; got "
            f"{folder} of {f'{recorded[:16]}...' if recorded else 'an unknown model'}. Evaluate "
            "this model, and give that report."
        )
    return report


def write_model_card(
    path: str | Path,
    metadata: ModelMetadata,
    *,
    has_decoder: bool,
    run: str | Path | None = None,
    report: Report | None = None,
    card: Mapping[str, Mapping[str, object]] | None = None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write the model card of one version.

    Args:
        path: The file, replaced if it exists.
        metadata: Name, version and digest of the model, and its face and calibration options.
        has_decoder: Whether the model has a decoder.
        run: The run folder or `.keras` file that the model is from.
        report: Its evaluation.
        card: Further sections: values by name, by title.
        extra: Further sections: Markdown by title.

    Raises:
        OSError: If the run folder has no options.json.
        ValueError: If it is damaged or of another format version.

    Example:
        >>> from jdfd_keras.options import FaceOptions
        >>> metadata = ModelMetadata(FaceOptions(), None, "detector", 1, "ab" * 32)
        >>> write_model_card("CARD.md", metadata, has_decoder=True, run="run")
        >>> Path("CARD.md").read_text().splitlines()[0]
        '# detector, version 1'
    """
    domain = metadata.calibration.domain if metadata.calibration else None
    # Any value: only the ranges of the measures are shown.
    spreads = domain.spreads if domain else ()
    values: dict[str, Any] = {s.measure: 1.0 for s in spreads if s.measure in TITLES}
    text = render_template(
        "model_card.md.j2",
        metadata=metadata,
        has_decoder=has_decoder,
        written=datetime.now().astimezone().date().isoformat(),
        version=jdfd_keras.__version__,
        unattainable=UNATTAINABLE,
        ranges=domain.compare(FileMeasures(**values)) if domain else (),
        has_run=run is not None,
        run=_read_run(Path(run)) if run is not None and Path(run).is_dir() else None,
        report=report,
        reasons=Counter(video.reason for video in report.excluded).most_common() if report else (),
        card=card or {},
        extra=extra or {},
    )
    write_text_atomically(path, text)


def _read_run(run: Path) -> dict[str, Any]:
    """Return the recorded facts of a run folder, for the template."""
    groups = load_groups(run / OPTIONS)
    facts, history = groups.get("data", {}), read_history(run)
    best = best_epoch(history) if history else 0
    table = read_provenance(run)
    faces = None if table is None else table.to_pandas()
    origins, splits = [], []
    if faces is not None:
        origins = sorted(Counter(map(dataset_namespace, faces["video_id"].unique())).items())
    for name, title in (("train", "training"), ("val", "validation")):
        counts = [NOT_RECORDED] * 3
        if faces is not None:
            own = faces[faces["split"] == name]
            by_class = [own[own["label"] == label] for label in CLASSES.values()]
            counts = [
                " / ".join(str(len(rows)) for rows in by_class),
                own["video_id"].nunique(),
                " / ".join(str(rows["video_id"].nunique()) for rows in by_class),
            ]
        splits.append([title, facts.get(f"{name}_faces", NOT_RECORDED), *counts])
    options = []
    for group, kind in OPTION_GROUPS.items():
        helps = {field.name: field.metadata["help"] for field in dataclasses.fields(kind)}
        values = groups.get(group, {}).items()
        options += [(name, value, helps.get(name, "")) for name, value in values]
    return {
        "facts": facts,
        "imported": groups.get(IMPORTED),
        "split": groups.get("split"),
        "split_table": groups.get("train", {}).get("split_table", NOT_RECORDED),
        "allow_leak": groups.get("train", {}).get("allow_leak", False),
        "origins": origins,
        "splits": splits,
        "options": options,
        "averaged": groups.get("averaged"),
        "num_epochs": len(history),
        "best_epoch": best + 1,
        "best_auc": history[best][MONITOR] if history else None,
    }
