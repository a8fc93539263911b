"""What a run and its evaluation tell, as sections of a model card.

Takes a run folder and a report of `evaluate`; gives Markdown by title. What was not recorded is
said to be unknown. Imports no TensorFlow.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.datasets.videos import CLASSES, family
from jdfd_keras.io.files import OPTIONS
from jdfd_keras.options import (
    AugmentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.reporting.evaluation_folder import REPORT
from jdfd_keras.reporting.markdown import cell, table
from jdfd_keras.reporting.report_text import (
    FEW,
    count_of,
    format_estimate,
    format_value,
    headline,
    tell_limits,
    tell_setup,
)
from jdfd_keras.serving.export.model_card import words
from jdfd_keras.training.run_folder import MONITOR, best_epoch, read_history, read_seen

FIGURES = "Figures"
NO_FIGURES = (
    "No test figures were given. `jdfd-keras evaluate` measures this model, and "
    "`jdfd-keras export RUN --report DIR` puts what it found here, with intervals."
)
# What the ids of published data sets begin with.
PUBLISHED = {
    "ffpp": "FaceForensics++",
    "celebdf": "Celeb-DF",
    "uadfv": "UADFV",
    "dfdc": "DFDC",
}
NOT_RECORDED = "not recorded"
MEASURED = {"auc": "AUC", "eer": "EER", "accuracy": "accuracy"}
OPTION_GROUPS = {
    "train": TrainOptions,
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "loss": LossOptions,
    "pipeline": PipelineOptions,
    "augment": AugmentOptions,
    "unlabelled": UnlabelledOptions,
}


def tell_run(run: Path) -> dict[str, str]:
    """Tell what a run was trained on and how.

    Args:
        run: A run folder, or a `.keras` file, of which nothing is known.

    Returns:
        Sections of the card; empty for a file.
    """
    if not run.is_dir():
        return {}
    told = json.loads((run / OPTIONS).read_text(encoding="utf-8"))
    return {
        "Data it was trained on": "\n\n".join(_tell_data(run, told)),
        "Training": "\n\n".join(_tell_training(run, told)),
    }


def read_report(folder: Path, digest: str) -> dict:
    """Read what `evaluate` wrote, and see that it is of this model.

    Args:
        folder: The folder with report.json.
        digest: SHA-256 of the model file.

    Raises:
        OSError: If there is no report.
        ValueError: If it is damaged, of another model, or does not tell of which it is.
    """
    path = folder / REPORT
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a folder that `jdfd-keras evaluate` wrote; got {folder}, without {REPORT}. "
            "Give the --out of that command."
        )
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        protocol = report["protocol"]
        found = protocol.get("model_digest") or (protocol["calibration"] or {}).get("model")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {path} as `jdfd-keras evaluate` writes it; got {error!r}. Evaluate again."
        ) from error
    if found != digest:
        raise ValueError(
            f"Expected a report of the model that is exported, with the SHA-256 {digest[:16]}...; "
            f"got {path} of {f'{found[:16]}...' if found else 'a model it does not name'}. "
            "Evaluate this model, and give that report."
        )
    return report


def tell_report(report: dict) -> dict[str, str]:
    """Tell what `evaluate` measured, on what and how.

    Returns:
        Sections of the card.

    Raises:
        ValueError: If the report lacks something: it is of another version.
    """
    try:
        return {
            FIGURES: "\n\n".join(_tell_figures(report)),
            "How it was tested": "\n\n".join(_tell_protocol(report)),
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected a report of this version of jdfd-keras; got one without {error}. Evaluate "
            "again."
        ) from error


def _tell_figures(report: dict) -> Iterator[str]:
    yield headline(report)
    protocol, few = report["protocol"], min(report["video"][f"num_{c}"] for c in CLASSES)
    if 0 < few < FEW:
        yield (
            f"**These are few**: the smaller class has {count_of(few, 'video')}, and others may "
            "give quite another number."
        )
    names = list(protocol["data"])
    whole = "all" if len(names) > 1 else ", ".join(names)
    groups = {whole: report} | report.get("by_data", {})
    yield _measure_table("data set", groups)
    notes = [f"A video's score is the {protocol['aggregation']} of its faces."]
    if protocol["aggregation"] == "track":
        notes = ["A video's score is the highest of the means of its people."]
    if any(report["video"][metric]["low"] is not None for metric in MEASURED):
        notes.insert(0, f"Intervals in brackets: {cell(protocol['intervals'])}.")
        if few < FEW:
            notes.append(
                f"With fewer than {FEW} videos of a class, intervals hold the truth less often "
                "than 95 times of 100."
            )
    yield " ".join(notes)
    if len(report["by_manipulation"]) > 1:
        reals = count_of(report["video"]["num_real"], "real video")
        yield f"By manipulation, each against all {reals}:"
        yield _measure_table("manipulation", report["by_manipulation"])


def _measure_table(title: str, groups: dict[str, dict]) -> str:
    header = (title, "real / fake videos", *(f"video {name}" for name in MEASURED.values()))
    rows = [
        (
            name or "unnamed",
            f"{group['video']['num_real']} / {group['video']['num_fake']}",
            *(format_estimate(group["video"][metric]) for metric in MEASURED),
            format_estimate(group["frame"]["auc"]),
        )
        for name, group in groups.items()
    ]
    return table((*header, "frame AUC"), rows, align="lrrrrr")


def _tell_protocol(report: dict) -> Iterator[str]:
    protocol, coverage = report["protocol"], report["coverage"]
    yield (
        f"Split `{protocol['split']}`, threshold {format_value(protocol['threshold'])}, "
        f"{coverage['num_faces']} faces. {tell_setup(protocol)}"
    )
    reasons = Counter(video["reason"] for video in report["excluded"])
    if reasons:
        listed = "; ".join(f"{cell(reason)}: {count}" for reason, count in reasons.most_common())
        yield (
            f"Left out, without a score: {len(report['excluded'])} of "
            f"{count_of(coverage['num_videos'], 'video')} ({listed})."
        )
    else:
        yield f"Every one of the {count_of(coverage['num_videos'], 'video')} has a score."
    yield f"What these numbers do not say:\n\n{tell_limits(report)}"


def _tell_data(run: Path, told: dict) -> Iterator[str]:
    facts, split = told.get("data", {}), told.get("split", {}).get("split", NOT_RECORDED)
    seen = read_seen(run)
    if facts:
        yield f"Data set: **{cell(facts['name'])}**. Splits: {split}."
    else:
        yield "Which data set it was trained on was not recorded."
    if seen is not None:
        known = Counter(family(video) for video in pc.unique(seen["video_id"]).to_pylist())
        sets = [
            f"{PUBLISHED.get(name, f'`{name}`, no published set')} ({count_of(count, 'video')})"
            for name, count in sorted(known.items())
        ]
        yield f"Where they come from: {', '.join(sets)}."
    rows = []
    for name, title in (("train", "training"), ("val", "validation")):
        counts = [NOT_RECORDED] * 3
        if seen is not None:
            counts = _count_classes(seen.filter(pc.equal(seen["split"].cast("string"), name)))
        rows.append((title, facts.get(f"{name}_faces", NOT_RECORDED), *counts))
    header = ("split", "faces", "real / fake faces", "videos", "real / fake videos")
    yield table(header, rows, align="lrrrr")
    if facts.get("unlabelled_faces"):
        yield (
            f"Of the training faces {facts['unlabelled_faces']} are foreign ones whose labels were "
            "not looked at: they taught the decoder alone."
        )
    leaks = facts.get("leaks", NOT_RECORDED)
    allowed = told.get("train", {}).get("allow_leak") and leaks.startswith("none")
    note = " `allow leak`, below, would have let them pass; there were none." if allowed else ""
    yield f"Leaks: {cell(leaks)}.{note}"


def _count_classes(faces: pa.Table) -> tuple[str, int, str]:
    """Count the faces by class, the videos, and these by class."""
    num_videos = pc.count_distinct(faces["video_id"]).as_py()
    if "label" not in faces.column_names:  # an older run
        return NOT_RECORDED, num_videos, NOT_RECORDED
    classes = [faces.filter(pc.equal(faces["label"], label)) for label in CLASSES.values()]
    num_faces = " / ".join(str(len(one)) for one in classes)
    by_class = " / ".join(str(pc.count_distinct(one["video_id"]).as_py()) for one in classes)
    return num_faces, num_videos, by_class


def _tell_training(run: Path, told: dict) -> Iterator[str]:
    history = read_history(run)
    if history:
        best = best_epoch(history)
        yield (
            f"The weights are those of epoch {best + 1} of {len(history)}, the best by validation "
            f"frame AUC ({history[best][MONITOR]:.3f}). Test data had no part in the choice."
        )
    else:
        yield "How many epochs it was trained for was not recorded."
    rows = []
    for group, kind in OPTION_GROUPS.items():
        helps = {field.name: field.metadata["help"] for field in dataclasses.fields(kind)}
        values = told.get(group, {})
        rows += [(words(n), _write(v), helps.get(n, "")) for n, v in values.items()]
    if rows:
        yield table(("option", "value", "what it is"), rows)


def _write(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
