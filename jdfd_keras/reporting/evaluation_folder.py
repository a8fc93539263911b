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
from jdfd_keras.evaluation.calibrate import CalibrationResult
from jdfd_keras.evaluation.eval_data import CALIBRATION_FACES
from jdfd_keras.evaluation.reliability import measure_reliability
from jdfd_keras.evaluation.report import (
    REPORT,
    SCORES,
    FaceExamples,
    Report,
    check_has_scores,
    save_report,
)
from jdfd_keras.evaluation.scores import score_videos
from jdfd_keras.io.files import check_no_result, write_text_atomically
from jdfd_keras.reporting.charts import draw_histograms, draw_reliability
from jdfd_keras.reporting.curves import Curve, draw_det, draw_precision_recall, draw_roc
from jdfd_keras.reporting.face_grids import plot_faces
from jdfd_keras.reporting.report_text import render_markdown, title_of
from jdfd_keras.reporting.style import save_figure
from jdfd_keras.reporting.templating import write_page

FIGURES = ("roc", "det", "precision-recall", "scores", "reliability", "faces", "errors")
RESULTS = (REPORT, "report.md", "report.html", SCORES)


def check_folder(out: str | Path, *tables: str | Path | None, overwrite: bool = False) -> None:
    """Check that a report can be written to a folder, before anything is computed.

    Args:
        out: The folder; it may be new.
        tables: Tables of scores that are read and must not be replaced.
        overwrite: Whether an earlier report in the folder may be replaced.

    Raises:
        OSError: If `out` is a file, or has a report that must not be replaced.
        ValueError: If `out` is the folder of a calibration, or one of the tables is its
            scores.parquet.

    Example:
        >>> check_folder("report", "report/scores.parquet")
        Traceback (most recent call last):
        ValueError: Expected a folder other than that of the scores; got report: ...
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
    check_no_result(*(out / name for name in RESULTS), overwrite=overwrite)


def write_evaluation(report: Report, out: str | Path, *, overwrite: bool = False) -> None:
    """Write a report with its scores, figures and page to a folder.

    Args:
        report: As `evaluate` returns it.
        out: The folder; created if missing. report.json is written last: where it exists, the
            folder is complete.
        overwrite: Replace an earlier report, whose files are removed first.

    Raises:
        OSError: If a file cannot be written, or an earlier report must not be replaced.
        ValueError: If the report was loaded from JSON, and so has no scores.

    Example:
        >>> from jdfd_keras.evaluation.evaluate import evaluate
        >>> write_evaluation(evaluate(scores="report/scores.parquet"), "report-of-scores")
        >>> sorted(path.name for path in Path("report-of-scores").glob("r*"))
        ['reliability.png', 'reliability.svg', 'report.html', 'report.json', 'report.md', ...]
    """
    check_has_scores(report)
    out = Path(out)
    check_no_result(*(out / name for name in RESULTS), overwrite=overwrite)
    out.mkdir(parents=True, exist_ok=True)
    figures = [f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")]
    for name in (*RESULTS, *figures):
        (out / name).unlink(missing_ok=True)
    write_pages(report, out)
    save_report(report, out)


def write_pages(report: Report, out: Path) -> None:
    """Write the figures and the page of a report, without its data.

    Args:
        report: A report with its scores.
        out: An existing folder. report.html is written last.

    Example:
        >>> from jdfd_keras.evaluation.evaluate import evaluate
        >>> write_pages(evaluate(scores="report/scores.parquet"), Path("report"))
        >>> "![ROC curves" in Path("report/report.md").read_text()
        True
    """
    if report.examples:
        _draw_examples(report.examples, out)
    if report.errors and report.hardest:
        _draw_errors(report.errors, out, has_cam=not report.no_maps)
    _draw_scores(report, out)
    figures = [name for name in FIGURES if (out / f"{name}.png").is_file()]
    text = render_markdown(report, figures)
    write_text_atomically(out / "report.md", text)
    write_page(out / "report.html", text)


def _draw_examples(examples: FaceExamples, out: Path) -> None:
    maps = {"reconstruction": examples.reconstruction, "residual": examples.residual}
    plot_faces(out / "faces", list(examples.image), _captions(examples), **maps)


def _draw_errors(errors: FaceExamples, out: Path, *, has_cam: bool) -> None:
    numbered = [f"{number}: {caption}" for number, caption in enumerate(_captions(errors), start=1)]
    maps = {"cam": errors.cam if has_cam else None, "residual": errors.residual}
    plot_faces(out / "errors", list(errors.image), numbered, **maps)


def _captions(faces: FaceExamples) -> list[str]:
    return [
        f"{LABEL_NAMES[int(label)]}, score {score:.2f}"
        for label, score in zip(faces.label, faces.score, strict=True)
    ]


def _draw_scores(report: Report, out: Path) -> None:
    protocol, scores = report.protocol, check_has_scores(report)
    label, title = scores.videos.label, title_of(protocol)
    videos = score_videos(scores, protocol.aggregation)
    calibration = protocol.used_calibration
    histograms = draw_histograms(
        label,
        videos,
        title=f"Scores of the videos: {title}",
        threshold=protocol.threshold,
        uncertain=(calibration.uncertain_from, calibration.uncertain_to) if calibration else None,
    )
    save_figure(histograms, out / "scores")
    levels = {
        "faces": measure_reliability(scores.label, scores.score, scores.video),
        "videos": measure_reliability(label, videos),
    }
    save_figure(draw_reliability(levels, title=title), out / "reliability")
    if label.all() or not label.any():
        return
    curves = [
        Curve(f"{len(scores):,} faces", scores.label, scores.score),
        Curve(f"{len(label):,} videos", label, videos),
    ]
    save_figure(draw_roc(curves, title=title), out / "roc")
    save_figure(draw_det(curves, title=title), out / "det")
    save_figure(draw_precision_recall(curves, title=title), out / "precision-recall")


def write_calibration_figures(result: CalibrationResult, folder: str | Path) -> None:
    """Draw the reliability of validation scores and the histogram of calibrated video scores.

    Args:
        result: As `calibrate` returns it.
        folder: An existing folder, such as `<run>/calibration`, for reliability and scores as
            .png and .svg.

    Example:
        >>> from jdfd_keras.evaluation.calibrate import calibrate
        >>> result = calibrate("run", "prepared", overwrite=True)
        >>> write_calibration_figures(result, "run/calibration")
        >>> sorted(path.name for path in Path("run/calibration").glob("*.png"))
        ['reliability.png', 'scores.png']
    """
    calibration, calibrated, folder = result.calibration, result.calibrated_scores, Path(folder)
    reliabilities = {
        name: measure_reliability(scores.label, scores.score, scores.video)
        for name, scores in (("before", result.scores), ("after", calibrated))
    }
    title = f"Validation faces of {calibration.data}"
    save_figure(draw_reliability(reliabilities, title=title), folder / "reliability")
    histograms = draw_histograms(
        calibrated.videos.label,
        score_videos(calibrated, "track"),
        title=f"Calibrated scores of the validation videos of {calibration.data}",
        threshold=calibration.threshold,
        uncertain=(calibration.uncertain_from, calibration.uncertain_to),
    )
    save_figure(histograms, folder / "scores")
