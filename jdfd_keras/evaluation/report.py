"""Numbers to a report: one file for a program, one for a person.

Takes scores, the protocol, the excluded videos and the reconstruction error; gives the report
as a dict with stable keys and writes report.json and report.md. Knows nothing of models,
data sets on disk or TensorFlow; how the page reads is `page`'s.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.evaluation.metrics import (
    MEASURED,
    Metrics,
    frame_metrics,
    split_by_manipulation,
    video_metrics,
)
from jdfd_keras.evaluation.page import format_value, render_markdown
from jdfd_keras.evaluation.scores import Scores


@dataclass(frozen=True)
class Excluded:
    """A video without a score."""

    video_id: str
    is_fake: bool
    reason: str


@dataclass(frozen=True)
class ReconstructionError:
    """How well the decoder redraws the faces, beside what knowing none of them would give.

    Attributes:
        mse: Mean squared error of the decoder per pixel and channel, pixels in -1..1.
        mean_face_mse: The same for always answering the mean of the evaluated faces, which is
            their variance. A decoder that is no better has only learned the mean face.
    """

    mse: float
    mean_face_mse: float


def build_report(
    scores: Scores,
    *,
    threshold: float,
    protocol: dict,
    excluded: list[Excluded],
    reconstruction: ReconstructionError | None,
) -> dict:
    """Put every number of one evaluation together.

    Args:
        scores: One row per face.
        threshold: A score at or above it is called fake.
        protocol: What was done, JSON-ready; the numbers of faces and videos are added here.
        excluded: Videos that gave no score.
        reconstruction: None where a detector has no decoder.

    Returns:
        A dict ready for JSON. `frame` and `video`: `num_real`, `num_fake` and one object per
        metric with its `value`, null where undefined. `by_manipulation`: the two blocks for
        each manipulation against all reals. `excluded`, `protocol` and `reconstruction`, null
        without a decoder.

    Raises:
        ValueError: If the threshold is not in [0, 1], or the reconstruction error is no number.
    """
    if reconstruction and not math.isfinite(reconstruction.mse + reconstruction.mean_face_mse):
        raise ValueError(
            f"Expected the reconstruction error to be a number; got {reconstruction}. The "
            "training diverged: try a smaller learning rate."
        )

    def both_levels(group: Scores) -> dict:
        return {
            "frame": _block(frame_metrics(group, threshold=threshold)),
            "video": _block(video_metrics(group, threshold=threshold)),
        }

    levels = both_levels(scores)
    counts = {
        "threshold": threshold,
        "aggregation": "mean",
        "eer_rule": "FPR where the ROC curve, joined by straight lines, meets FPR = 1 - TPR",
        "num_faces": {name: levels["frame"][f"num_{name}"] for name in ("real", "fake")},
        "num_videos": {
            **{name: levels["video"][f"num_{name}"] for name in ("real", "fake")},
            "excluded": len(excluded),
        },
    }
    return {
        "protocol": {**protocol, **counts},
        **levels,
        "by_manipulation": {
            name or "unnamed": both_levels(group)
            for name, group in split_by_manipulation(scores).items()
        },
        "reconstruction": reconstruction and dataclasses.asdict(reconstruction),
        "excluded": [dataclasses.asdict(video) for video in excluded],
    }


def write_report(
    directory: str | Path, report: dict, *, roc: str | None, faces: str | None = None
) -> None:
    """Write report.json and report.md.

    Args:
        directory: A folder that is there; files of these names are replaced.
        report: What `build_report` gave.
        roc: Name of the picture of the curves beside the report, None if there is none.
        faces: Name of the picture of faces, and their reconstructions if there are any; None if
            there is no picture.
    """
    directory = Path(directory)
    text = json.dumps(report, indent=2, allow_nan=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    (directory / "report.md").write_text(
        render_markdown(report, roc=roc, faces=faces), encoding="utf-8"
    )


def summarize(report: dict) -> str:
    """Say the main numbers in a few lines, for a terminal.

    Args:
        report: What `build_report` gave.

    Returns:
        One line for the videos, one for the faces and one for what was left out, if any.
    """
    lines = []
    for name, level in (("videos", report["video"]), ("faces", report["frame"])):
        values = ", ".join(
            f"{label} {format_value(level[metric]['value'])}"
            for metric, label in (("auc", "AUC"), ("eer", "EER"), ("ap", "AP"))
        )
        accuracy = format_value(level["accuracy"]["value"])
        lines.append(
            f"{name}: {values}, accuracy {accuracy} "
            f"({level['num_real']} real, {level['num_fake']} fake)"
        )
    if report["excluded"]:
        count = len(report["excluded"])
        noun = "video" if count == 1 else "videos"
        lines.append(f"without a score: {count} {noun}, named in the report")
    return "\n".join(lines)


def _block(metrics: Metrics) -> dict:
    values = {name: {"value": getattr(metrics, name)} for name in MEASURED}
    return {"num_real": metrics.num_real, "num_fake": metrics.num_fake, **values}
