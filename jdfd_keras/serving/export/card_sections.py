"""A run and its evaluation as sections of a model card.

Takes a run folder and a `Report`; returns Markdown by title. Facts that were not recorded are
stated as such. Imports no TensorFlow.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.datasets.videos import CLASSES, FaceCount, count_by, dataset_namespace
from jdfd_keras.evaluation.evaluate_scores import load_report
from jdfd_keras.evaluation.report import Report, StratumMetrics
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import OPTIONS, load_groups
from jdfd_keras.options import (
    AugmentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.reporting.markdown import cell, table
from jdfd_keras.reporting.report_text import (
    FEW_VIDEOS,
    LOW_COVERAGE,
    describe_aggregation,
    describe_limits,
    describe_setup,
    format_estimate,
    format_value,
    headline,
)
from jdfd_keras.serving.export.model_card import words
from jdfd_keras.training.run_folder import MONITOR, best_epoch, read_history, read_provenance

FIGURES = "Figures"
NO_FIGURES = (
    "No test figures were given. `jdfd-keras evaluate` measures this model, and "
    "`jdfd-keras export RUN --report DIR` adds its results here, with intervals."
)
# Published datasets by the beginning of their video ids.
PUBLISHED = {
    "ffpp": "FaceForensics++",
    "celebdf": "Celeb-DF",
    "uadfv": "UADFV",
    "dfdc": "DFDC",
}
NOT_RECORDED = "not recorded"
METRICS = {"auc": "AUC", "eer": "EER", "accuracy": "accuracy"}
OPTION_GROUPS = {
    "train": TrainOptions,
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "loss": LossOptions,
    "pipeline": PipelineOptions,
    "augment": AugmentOptions,
    "unlabelled": UnlabelledOptions,
}


def describe_run(run: str | Path) -> dict[str, str]:
    """Describe the data and the training of a run.

    Args:
        run: Run folder or `.keras` file.

    Returns:
        Sections of the card by title; none for a file.

    Raises:
        OSError: If the run folder has no options.json.
        ValueError: If it is damaged or of another format version.

    Example:
        >>> list(describe_run("run"))  # doctest: +SKIP
        ['Training data', 'Training']
    """
    run = Path(run)
    if not run.is_dir():
        return {}
    options = load_groups(run / OPTIONS)
    return {
        "Training data": "\n\n".join(_describe_data(run, options)),
        "Training": "\n\n".join(_describe_training(run, options)),
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
        >>> read_report("report", digest_model("run"))  # doctest: +SKIP
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


def describe_report(report: Report) -> dict[str, str]:
    """Describe the metrics of a model and how they were measured.

    Args:
        report: As `evaluate` returns it.

    Returns:
        Sections of the card by title.

    Example:
        >>> list(describe_report(report))  # doctest: +SKIP
        ['Figures', 'Evaluation']
    """
    return {
        FIGURES: "\n\n".join(_describe_metrics(report)),
        "Evaluation": "\n\n".join(_describe_evaluation(report)),
    }


def _describe_metrics(report: Report) -> Iterator[str]:
    yield headline(report)
    protocol, fewest = report.protocol, min(report.video.num_real, report.video.num_fake)
    if 0 < fewest < FEW_VIDEOS:
        yield (
            f"**These are few videos**: the smaller class has {plural(fewest, 'video')}, and "
            "other videos may lead to a very different result."
        )
    names = list(protocol.data)
    whole = "all" if len(names) > 1 else ", ".join(names)
    yield _metrics_table("dataset", {whole: report, **report.by_data})
    notes = [describe_aggregation(protocol)]
    if any(getattr(report.video, metric).low is not None for metric in METRICS):
        notes.insert(0, f"Intervals in brackets: {cell(protocol.intervals)}.")
        if fewest < FEW_VIDEOS:
            notes.append(LOW_COVERAGE)
    yield " ".join(notes)
    if len(report.by_manipulation) > 1:
        yield f"By manipulation, each against all {plural(report.video.num_real, 'real video')}:"
        yield _metrics_table("manipulation", report.by_manipulation)


def _metrics_table(title: str, strata: Mapping[str, StratumMetrics]) -> str:
    header = (title, "real / fake videos", *(f"video {name}" for name in METRICS.values()))
    rows = [
        (
            name or "not stated",
            f"{stratum.video.num_real} / {stratum.video.num_fake}",
            *(format_estimate(getattr(stratum.video, metric)) for metric in METRICS),
            format_estimate(stratum.frame.auc),
        )
        for name, stratum in strata.items()
    ]
    return table((*header, "frame AUC"), rows, align="lrrrrr")


def _describe_evaluation(report: Report) -> Iterator[str]:
    protocol, coverage = report.protocol, report.coverage
    yield (
        f"Split `{protocol.split}`, threshold {format_value(protocol.threshold)}, "
        f"{plural(coverage.num_faces, 'face')}. {describe_setup(protocol)}"
    )
    reasons = Counter(video.reason for video in report.excluded)
    if reasons:
        listed = "; ".join(f"{cell(reason)}: {count}" for reason, count in reasons.most_common())
        yield (
            f"Excluded, without a score: {len(report.excluded)} of "
            f"{plural(coverage.num_videos, 'video')} ({listed})."
        )
    else:
        yield f"All {plural(coverage.num_videos, 'video')} have a score."
    yield f"Limits of these metrics:\n\n{describe_limits(report)}"


def _describe_data(run: Path, options: Mapping[str, Any]) -> Iterator[str]:
    facts = options.get("data", {})
    split = options.get("split", {}).get("split", NOT_RECORDED)
    provenance = read_provenance(run)
    if facts:
        yield f"Dataset: **{cell(facts['name'])}**. Splits: {split}."
    else:
        yield "The training dataset was not recorded."
    if provenance is not None:
        counts = Counter(
            dataset_namespace(video) for video in pc.unique(provenance["video_id"]).to_pylist()
        )
        origins = [
            f"{PUBLISHED.get(name, f'`{name}`, not a published dataset')} "
            f"({plural(count, 'video')})"
            for name, count in sorted(counts.items())
        ]
        yield f"Origin of the videos: {', '.join(origins)}."
    rows = []
    for name, title in (("train", "training"), ("val", "validation")):
        counts = [NOT_RECORDED] * 3
        if provenance is not None:
            is_split = pc.equal(provenance["split"].cast("string"), name)
            counts = _count_classes(provenance.filter(is_split))
        rows.append((title, facts.get(f"{name}_faces", NOT_RECORDED), *counts))
    header = ("split", "faces", "real / fake faces", "videos", "real / fake videos")
    yield table(header, rows, align="lrrrr")
    if facts.get("unlabelled_faces"):
        yield (
            f"{facts['unlabelled_faces']} of the training faces were used without their labels: "
            "they trained the decoder only."
        )
    leakage = facts.get("leakage", NOT_RECORDED)
    allowed = options.get("train", {}).get("allow_leak") and leakage.startswith("none")
    note = " The option `allow leak`, below, had no effect: there was none." if allowed else ""
    yield f"Leakage: {cell(leakage)}.{note}"


def _count_classes(faces: pa.Table) -> tuple[str, int, str]:
    """Count faces by class, all videos, and videos by class."""
    groups = {group.label: group for group in count_by(faces, "label")}
    counts = [groups.get(name, FaceCount(num_videos=0, num_faces=0)) for name in CLASSES]
    return (
        " / ".join(str(count.num_faces) for count in counts),
        pc.count_distinct(faces["video_id"]).as_py(),
        " / ".join(str(count.num_videos) for count in counts),
    )


def _describe_training(run: Path, options: Mapping[str, Any]) -> Iterator[str]:
    history = read_history(run)
    if history:
        best = best_epoch(history)
        yield (
            f"The weights are those of epoch {best + 1} of {len(history)}, the best by validation "
            f"frame AUC ({history[best][MONITOR]:.3f}). Test data was not used for this choice."
        )
    else:
        yield "The number of training epochs was not recorded."
    rows = []
    for group, kind in OPTION_GROUPS.items():
        helps = {field.name: field.metadata["help"] for field in dataclasses.fields(kind)}
        values = options.get(group, {})
        rows += [(words(n), _format_option(v), helps.get(n, "")) for n, v in values.items()]
    if rows:
        yield table(("option", "value", "meaning"), rows)


def _format_option(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
