"""The folder of an evaluation: which files are written, replaced and left alone."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.evaluation.calibrate import CalibrationResult
from jdfd_keras.evaluation.evaluate import evaluate
from jdfd_keras.evaluation.reliability import CalibrationError
from jdfd_keras.evaluation.report import FaceExamples, load_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_scores, write_scores
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.evaluation_folder import (
    check_folder,
    write_calibration_figures,
    write_evaluation,
)
from jdfd_keras.reporting.report_text import render_markdown, summarize

OPTIONS = EvaluateOptions(n_resamples=100)
CURVES = ("roc", "det", "precision-recall", "scores", "reliability")
TABLES = {"report.html", "report.md", "report.json", "scores.parquet"}


def figures(*names) -> set[str]:
    return {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def names_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def table(tmp_path):
    """Scores of 8 videos of 3 faces, half of them fake."""
    rng = np.random.default_rng(0)
    rows = [
        f"v{video},{video % 2},{rng.uniform(0, 0.6) + 0.4 * (video % 2):.3f}"
        for video in range(8)
        for _ in range(3)
    ]
    path = tmp_path / "other detector.csv"
    path.write_text("\n".join(["video_id,label,score", *rows, ""]))
    return path


def test_the_whole_folder_is_written_and_an_older_report_is_kept_or_removed(tmp_path, table):
    out = tmp_path / "new" / "report"
    out.mkdir(parents=True)
    for name in ("faces.png", "errors.svg", "roc.png", "report.json", "report.html", "mine.txt"):
        (out / name).write_text("old")
    report = evaluate(scores=table, options=OPTIONS)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FileExistsError, match="no existing result at .*report.json"):
        write_evaluation(report, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    write_evaluation(report, out, overwrite=True)
    assert names_in(out) == TABLES | figures(*CURVES) | {"mine.txt"}
    assert json.loads((out / "report.json").read_text()) == {"format_version": 2} | report.to_dict()
    assert load_report(out) == report
    page = (out / "report.md").read_text()
    assert "other detector.csv" in page.splitlines()[0] and "(roc.png)" in page
    assert "faces.png" not in page and "errors.png" not in page
    html = (out / "report.html").read_text()
    assert html.count("<img ") == html.count('src="data:image/') == 5
    expected, again = read_scores(table), read_scores(out / "scores.parquet")
    assert np.array_equal(again.score, expected.score)
    assert np.array_equal(again.video_id, expected.video_id)


@pytest.mark.parametrize("has_decoder", [True, False])
@pytest.mark.slow
def test_faces_of_a_model_are_drawn(tmp_path, table, has_decoder):
    image = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    cam = image[..., 0] / np.float32(255)
    decoded = image / np.float32(127.5) - 1 if has_decoder else None
    label = np.array([False, False, True, True])
    residual = cam if has_decoder else None
    faces = FaceExamples(label, np.linspace(0, 1, 4), image, cam, decoded, residual)
    report = evaluate(scores=table, options=EvaluateOptions(n_resamples=0, threshold=0.7))
    hardest = (report.hardest * 4)[:4]
    report = dataclasses.replace(report, examples=faces, errors=faces, hardest=hardest)
    write_evaluation(report, tmp_path / "out")
    assert names_in(tmp_path / "out") == TABLES | figures(*CURVES, "faces", "errors")
    without = dataclasses.replace(report, hardest=(), errors=None)
    write_evaluation(without, tmp_path / "none")
    assert names_in(tmp_path / "none") == TABLES | figures(*CURVES, "faces")


def test_one_class_has_no_curves_and_old_ones_are_removed(tmp_path):
    (tmp_path / "scores.csv").write_text("video_id,label,score\na,0,0.5\na,0,0.25\nb,0,1\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/roc.png").write_bytes(b"of an earlier evaluation")
    write_evaluation(evaluate(scores=tmp_path / "scores.csv", options=OPTIONS), tmp_path / "out")
    assert names_in(tmp_path / "out") >= TABLES
    assert not names_in(tmp_path / "out") & figures("roc", "det", "precision-recall")


@pytest.mark.slow
def test_scores_are_evaluated_and_written_without_tensorflow(table):
    code = (
        "import sys; from jdfd_keras import EvaluateOptions, evaluate, write_evaluation\n"
        "options = EvaluateOptions(n_resamples=0)\n"
        "write_evaluation(evaluate(scores=sys.argv[1], options=options), sys.argv[2])\n"
        "print([name for name in ('tensorflow', 'keras', 'torch', 'dlib') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, table, table.parent / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_existing_scores_are_not_replaced(tmp_path, table):
    scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.25, 0.75])
    write_scores(tmp_path / "scores.parquet", scores)
    for path, compare in (
        (tmp_path / "scores.parquet", None),
        (table, tmp_path / "scores.parquet"),
    ):
        with pytest.raises(ValueError, match="scores; got .*: its scores.parquet"):
            check_folder(tmp_path, path, compare)
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration/calibration_faces.parquet").touch()
    with pytest.raises(ValueError, match="other than that of a calibration"):
        check_folder(tmp_path / "calibration", table)
    with pytest.raises(OSError, match="report; got the file .*csv"):
        check_folder(table, table)


def test_a_report_without_scores_cannot_be_written(tmp_path, table):
    write_evaluation(evaluate(scores=table, options=OPTIONS), tmp_path / "out")
    with pytest.raises(ValueError, match="scores; got .*report.json"):
        write_evaluation(load_report(tmp_path / "out"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_rows_that_may_be_the_same_face_are_noted(tmp_path):
    rows = ["a,0,0.5", "a,0,0.5", "b,0,0.5", "c,1,0.5", "c,1,0.75", "a,0,0.5"]
    (tmp_path / "scores.csv").write_text("\n".join(["video_id,label,score", *rows, ""]))
    report = evaluate(scores=tmp_path / "scores.csv", options=OPTIONS)
    for text in (summarize(report), render_markdown(report)):
        assert "2 rows repeat" in text


def test_the_figures_of_a_calibration_are_drawn(tmp_path):
    scores = Scores.from_faces(
        video_id=list("abcd"), label=[0, 0, 1, 1], score=[0.1, 0.4, 0.6, 0.9]
    )
    error, verdicts = CalibrationError(0.1, 0.2), {"real": {}, "fake": {}}
    result = CalibrationResult(Calibration(temperature=2.0), error, error, verdicts, "none", scores)
    write_calibration_figures(result, tmp_path)
    assert names_in(tmp_path) == figures("reliability", "scores")
