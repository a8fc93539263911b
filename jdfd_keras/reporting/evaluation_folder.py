"""A report to the folder that people open: tables, pictures, one page.

    <out>/report.html          all of it in one file, without a network
    <out>/report.md            the same as text
    <out>/report.json          the same for programs
    <out>/scores.parquet       one row per face, from which all can be computed again
    <out>/roc.png, .svg        and other curves; faces and errors, where a model is at hand

Takes scores and the report; knows nothing of models or TensorFlow.
"""

import json
from pathlib import Path

from jdfd_keras.evaluation.eval_data import SEEN
from jdfd_keras.evaluation.reliability import measure_reliability, weigh_by_video
from jdfd_keras.evaluation.report import find_calibration
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.evaluation.scores_file import digest_scores, write_scores
from jdfd_keras.reporting.charts import plot_histograms, plot_reliability
from jdfd_keras.reporting.curves import Curve, plot_det, plot_precision_recall, plot_roc
from jdfd_keras.reporting.markdown import write_page
from jdfd_keras.reporting.render_report import render_markdown
from jdfd_keras.reporting.report_text import title_of

SCORES = "scores.parquet"
REPORT = "report.json"
ROC, DET, PRECISION_RECALL = "roc", "det", "precision-recall"
HISTOGRAM, RELIABILITY = "scores", "reliability"
FACES, ERRORS = "faces", "errors"
PICTURES = (ROC, DET, PRECISION_RECALL, HISTOGRAM, RELIABILITY, FACES, ERRORS)


def check_folder(out: Path, *tables: str | Path | None) -> None:
    """See that a report can be written to a folder, before anything is measured.

    Args:
        out: The folder; need not be there yet.
        tables: Scores that are read, which the report's own would take the place of.

    Raises:
        OSError: If there is a file of its name.
        ValueError: If one of the tables is its own scores.parquet, or it is a calibration's.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(
            f"Expected a folder for the report; got the file {out}. Choose another --out."
        )
    if (out / Path(SEEN).name).is_file():
        raise ValueError(
            f"Expected another folder than that of a calibration; got {out}, whose scores and "
            "pictures would be replaced. Choose another --out."
        )
    for table in tables:
        if table is not None and Path(table).resolve() == (out / SCORES).resolve():
            raise ValueError(
                f"Expected another folder than that of the scores; got {out}, whose {SCORES} and "
                "pictures would be replaced. Choose another --out."
            )


def clear_folder(out: Path) -> None:
    """Remove what an evaluation before this one left, so that nothing of it is mixed in."""
    for name in PICTURES:
        for suffix in (".png", ".svg"):
            (out / name).with_suffix(suffix).unlink(missing_ok=True)
    for name in (REPORT, "report.md", "report.html", SCORES):
        (out / name).unlink(missing_ok=True)


def write_folder(out: Path, scores: Scores, report: dict) -> None:
    """Write everything but the pictures of faces, which are there already if there are any.

    Args:
        out: A folder that is there; files of these names are replaced. report.json comes last:
            where it is, the folder is whole.
        scores: One row per face.
        report: What `build_report` gave of them.
    """
    error = report["reconstruction"]
    told = {
        "protocol": report["protocol"],
        "excluded": report["excluded"],
        "mean_face_mse": error and error["mean_face_mse"],
        "digest": digest_scores(scores),
    }
    write_scores(out / SCORES, scores, told)
    _draw(out, scores, report["protocol"])
    pictures = [name for name in PICTURES if (out / f"{name}.png").is_file()]
    text = render_markdown(report, pictures)
    (out / "report.md").write_text(text, encoding="utf-8")
    write_page(out / "report.html", text)
    unfinished = out / f"unfinished-{REPORT}"
    unfinished.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(out / REPORT)


def _draw(out: Path, scores: Scores, protocol: dict) -> None:
    label = scores.videos.label
    videos = score_videos(scores, protocol["aggregation"])
    title = title_of(protocol)
    plot_histograms(
        out / HISTOGRAM,
        label,
        videos,
        title=f"Scores of the videos: {title}",
        threshold=protocol["threshold"],
        uncertain=_find_band(protocol),
    )
    levels = {
        "faces": measure_reliability(scores.label, scores.score, weigh_by_video(scores)),
        "videos": measure_reliability(label, videos),
    }
    plot_reliability(out / RELIABILITY, levels, title=title)
    if label.all() or not label.any():
        return
    curves = [
        Curve(f"{len(scores):,} faces", scores.label, scores.score),
        Curve(f"{len(label):,} videos", label, videos),
    ]
    for name, plot in ((ROC, plot_roc), (DET, plot_det), (PRECISION_RECALL, plot_precision_recall)):
        plot(out / name, curves, title=title)


def _find_band(protocol: dict) -> tuple[float, float] | None:
    calibration = find_calibration(protocol, protocol["threshold"])
    return calibration and (calibration.uncertain_from, calibration.uncertain_to)
