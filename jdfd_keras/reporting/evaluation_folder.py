"""Writing an evaluation or a calibration to a folder: tables, figures and one page.

    <out>/report.html          the whole report in one self-contained file
    <out>/report.md            the same as Markdown
    <out>/report.json          the same for programs
    <out>/scores.parquet       one row per face, from which the report can be computed again
    <out>/roc.png, .svg        and other curves; faces and errors, if a model was evaluated

Independent of models and TensorFlow.
"""

from pathlib import Path

from jdfd_keras.datasets.videos import LABEL_NAMES
from jdfd_keras.evaluation.calibrate import CalibrationResult, measure_reliability, weigh_by_video
from jdfd_keras.evaluation.eval_data import CALIBRATION_FACES, FaceExamples
from jdfd_keras.evaluation.evaluate_scores import REPORT, SCORES, check_has_scores, save_report
from jdfd_keras.evaluation.report import Report
from jdfd_keras.evaluation.scores import score_videos
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.reporting.charts import plot_histograms, plot_reliability
from jdfd_keras.reporting.curves import Curve, plot_det, plot_precision_recall, plot_roc
from jdfd_keras.reporting.face_grids import plot_explanations, plot_faces
from jdfd_keras.reporting.markdown import write_page
from jdfd_keras.reporting.render_report import render_markdown
from jdfd_keras.reporting.report_text import title_of

ROC, DET, PRECISION_RECALL = "roc", "det", "precision-recall"
HISTOGRAM, RELIABILITY = "scores", "reliability"
FACES, ERRORS = "faces", "errors"
FIGURES = (ROC, DET, PRECISION_RECALL, HISTOGRAM, RELIABILITY, FACES, ERRORS)


def check_folder(out: str | Path, *tables: str | Path | None) -> None:
    """Check that a report can be written to a folder, before anything is computed.

    Args:
        out: The folder; it may be new.
        tables: Tables of scores that are read and must not be replaced.

    Raises:
        OSError: If `out` is a file.
        ValueError: If `out` is the folder of a calibration, or one of the tables is its
            scores.parquet.

    Example:
        >>> check_folder("report", "ours.csv", "theirs.csv")
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(
            f"Expected a folder for the report; got the file {out}. Choose another --out."
        )
    if (out / Path(CALIBRATION_FACES).name).is_file():
        raise ValueError(
            f"Expected a folder other than that of a calibration; got {out}: its scores and "
            "figures would be replaced. Choose another --out."
        )
    for table in tables:
        if table is not None and Path(table).resolve() == (out / SCORES).resolve():
            raise ValueError(
                f"Expected a folder other than that of the scores; got {out}: its {SCORES} and "
                "figures would be replaced. Choose another --out."
            )


def write_evaluation(report: Report, out: str | Path) -> None:
    """Write a report with its scores, figures and page to a folder.

    Args:
        report: As `evaluate` returns it.
        out: The folder; created if missing. The files of an earlier report are removed first, and
            report.json is written last: where it exists, the folder is complete.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If the report was loaded from JSON, and so has no scores.

    Example:
        >>> write_evaluation(evaluate("run", "prepared"), "report")  # doctest: +SKIP
    """
    check_has_scores(report)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _clear_folder(out)
    write_pages(report, out)
    save_report(report, out)


def write_pages(report: Report, out: Path) -> None:
    """Write the figures and the page of a report, without its data.

    Args:
        report: A report with its scores.
        out: An existing folder. report.html is written last.

    Raises:
        OSError: If a file cannot be written.
    """
    _draw_faces(out, report)
    _draw_scores(out, report)
    figures = [name for name in FIGURES if (out / f"{name}.png").is_file()]
    text = render_markdown(report, figures)
    write_text_atomically(out / "report.md", text)
    write_page(out / "report.html", text)


def _clear_folder(out: Path) -> None:
    for name in FIGURES:
        for suffix in (".png", ".svg"):
            (out / f"{name}{suffix}").unlink(missing_ok=True)
    for name in (REPORT, "report.md", "report.html", SCORES):
        (out / name).unlink(missing_ok=True)


def _draw_faces(out: Path, report: Report) -> None:
    examples, errors = report.examples, report.errors
    if examples is None or errors is None:
        return
    plot_faces(
        out / FACES, examples.image, _captions(examples), reconstructions=examples.reconstruction
    )
    numbered = [f"{n}: {caption}" for n, caption in enumerate(_captions(errors), start=1)]
    plot_explanations(
        out / ERRORS, errors.image, numbered, cam=errors.cam, residual=errors.residual
    )


def _captions(faces: FaceExamples) -> list[str]:
    return [
        f"{LABEL_NAMES[int(label)]}, score {score:.2f}"
        for label, score in zip(faces.label, faces.score, strict=True)
    ]


def _draw_scores(out: Path, report: Report) -> None:
    protocol, scores = report.protocol, report.scores
    label, title = scores.videos.label, title_of(protocol)
    videos = score_videos(scores, protocol.aggregation)
    calibration = protocol.used_calibration
    plot_histograms(
        out / HISTOGRAM,
        label,
        videos,
        title=f"Scores of the videos: {title}",
        threshold=protocol.threshold,
        uncertain=calibration and (calibration.uncertain_from, calibration.uncertain_to),
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


def write_calibration_figures(result: CalibrationResult, folder: str | Path) -> None:
    """Draw the reliability of validation scores and the histogram of calibrated video scores.

    Args:
        result: As `calibrate` returns it.
        folder: An existing folder, such as `<run>/calibration`, for reliability and scores as
            .png and .svg.

    Raises:
        OSError: If a file cannot be written.

    Example:
        >>> result = calibrate("run", "prepared")  # doctest: +SKIP
        >>> write_calibration_figures(result, "run/calibration")  # doctest: +SKIP
    """
    calibration, calibrated = result.calibration, result.calibrated_scores
    plot_reliability(
        Path(folder) / RELIABILITY,
        {
            name: measure_reliability(scores.label, scores.score, weigh_by_video(scores))
            for name, scores in (("before", result.scores), ("after", calibrated))
        },
        title=f"Validation faces of {calibration.data}",
    )
    plot_histograms(
        Path(folder) / HISTOGRAM,
        calibrated.videos.label,
        score_videos(calibrated, "track"),
        title=f"Calibrated scores of the validation videos of {calibration.data}",
        threshold=calibration.threshold,
        uncertain=(calibration.uncertain_from, calibration.uncertain_to),
    )
