"""Evaluation of a table of scores, without TensorFlow."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.evaluation.eval_data import Excluded, Protocol
from jdfd_keras.evaluation.evaluate import evaluate
from jdfd_keras.evaluation.evaluate_scores import evaluate_scores, load_report, save_report
from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.evaluation.report import ScoresMetadata, build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_metadata, read_scores, write_scores
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.evaluation_folder import check_folder, write_evaluation
from jdfd_keras.reporting.render_report import render_markdown
from jdfd_keras.reporting.report_text import summarize

OPTIONS = EvaluateOptions(n_resamples=100)
WHOLE = {
    "report.html",
    "report.md",
    "report.json",
    "scores.parquet",
    *(
        f"{name}{suffix}"
        for name in ("roc", "det", "precision-recall", "scores", "reliability")
        for suffix in (".png", ".svg")
    ),
}


def write_table(path, rows) -> None:
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(["video_id,label,score", *lines, ""]))


def draw_rows(num_videos: int = 8, faces: int = 3) -> list[tuple]:
    rng = np.random.default_rng(0)
    return [
        (f"v{video}", video % 2, round(float(rng.uniform(0, 0.6) + 0.4 * (video % 2)), 3))
        for video in range(num_videos)
        for _ in range(faces)
    ]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "other detector.csv"
    write_table(path, draw_rows())
    return path


def test_the_whole_folder_is_written_and_an_older_report_is_removed(tmp_path, table):
    out = tmp_path / "new" / "report"
    out.mkdir(parents=True)
    for name in ("faces.png", "errors.svg", "roc.png", "report.json", "report.html", "mine.txt"):
        (out / name).write_text("old")
    report = evaluate_scores(table, OPTIONS)
    write_evaluation(report, out)
    assert {path.name for path in out.iterdir()} == WHOLE | {"mine.txt"}
    assert json.loads((out / "report.json").read_text()) == report.to_dict()
    assert load_report(out) == report
    page = (out / "report.md").read_text()
    assert page.startswith("# other detector.csv\n") and "(roc.png)" in page
    assert "faces.png" not in page and "errors.png" not in page
    html = (out / "report.html").read_text()
    assert html.count("<img ") == html.count('src="data:image/') == 5
    expected = read_scores(table)
    again = read_scores(out / "scores.parquet")
    assert np.array_equal(again.score, expected.score)
    assert np.array_equal(again.video_id, expected.video_id)
    assert np.array_equal(again.frame_index, expected.frame_index)
    rows = draw_rows()
    auc = roc_auc_score([row[1] for row in rows], [row[2] for row in rows])
    assert report.frame.auc.value == pytest.approx(auc)
    assert report.protocol.model == "other detector.csv"


@pytest.mark.parametrize(
    "rows",
    [
        [("a", 0, 0.5), ("a", 0, 0.25), ("b", 0, 1)],
        [("a", 1, 0.5)],
        [(f"v{number}", number % 2, 0.5) for number in range(6)],
    ],
    ids=["one class", "one face", "ties"],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_degenerate_scores_give_a_report(tmp_path, rows):
    write_table(tmp_path / "scores.csv", rows)
    report = evaluate_scores(tmp_path / "scores.csv", OPTIONS)
    write_evaluation(report, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "report.md", "report.json", "scores.parquet"} <= names
    has_both = len({row[1] for row in rows}) == 2
    assert ("roc.png" in names) == has_both
    assert report.video.auc.value == (0.5 if has_both else None)


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
        with pytest.raises(ValueError, match="a folder other than that of the scores"):
            check_folder(tmp_path, path, compare)
    assert read_scores(tmp_path / "scores.parquet").score.tolist() == [0.25, 0.75]
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration/calibration_faces.parquet").touch()
    with pytest.raises(ValueError, match="a folder other than that of a calibration"):
        check_folder(tmp_path / "calibration", table)
    with pytest.raises(OSError, match="a folder for the report; got the file"):
        check_folder(table, table)


def test_a_saved_report_can_be_computed_again_from_its_scores(tmp_path):
    scores = Scores.from_faces(
        video_id=list("abcd"), label=[0, 0, 1, 1], score=[0.1, 0.6, 0.4, 0.9]
    )
    calibration = Calibration(temperature=2.0, threshold=0.5, uncertain_from=0.3, uncertain_to=0.5)
    excluded = [Excluded("clips", "e", True, "no face", "test", "c23", "Deepfakes")]
    protocol = Protocol(
        model="run",
        model_digest="ab" * 32,
        split="test",
        data={"clips": None},
        leakage="none found",
        calibration=calibration,
    )
    first = build_report(
        scores, threshold=0.5, protocol=protocol, excluded=excluded, options=OPTIONS
    )
    save_report(first, tmp_path)
    table = tmp_path / "scores.parquet"
    assert evaluate_scores(table, OPTIONS) == first
    assert first.verdicts["fake"] == {"real": 0, "uncertain": 1, "fake": 1}
    changed = replace(scores, score=np.array([0.2, 0.6, 0.4, 0.9]))
    metadata = read_metadata(table, ScoresMetadata)
    write_scores(tmp_path / "changed.parquet", changed, metadata)
    other = evaluate_scores(tmp_path / "changed.parquet", OPTIONS)
    assert (other.protocol.model_digest, other.protocol.calibration) == ("", None)
    assert other.excluded == ()
    own = evaluate_scores(table, EvaluateOptions(n_resamples=0, threshold=0.7))
    assert own.protocol.threshold == 0.7 and own.verdicts is None
    assert own.coverage.num_videos == 5


def test_a_report_without_scores_cannot_be_written(tmp_path, table):
    write_evaluation(evaluate_scores(table, OPTIONS), tmp_path / "out")
    with pytest.raises(ValueError, match="a report with its scores"):
        write_evaluation(load_report(tmp_path / "out"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_either_a_model_or_scores_are_evaluated(table):
    for model in (None, "run"):
        with pytest.raises(ValueError, match="a model or a table of scores; got"):
            evaluate(model, scores=table if model else None)
    assert evaluate(scores=table, options=OPTIONS) == evaluate_scores(table, OPTIONS)


def test_options_are_used(table):
    options = EvaluateOptions(n_resamples=0, threshold=0.25, aggregation="max")
    report = evaluate_scores(table, options)
    assert (report.protocol.threshold, report.protocol.aggregation) == (0.25, "max")
    highest: dict[str, float] = {}
    for name, label, score in draw_rows():
        if not label:
            highest[name] = max(highest.get(name, 0), score)
    expected = np.mean([score >= 0.25 for score in highest.values()])
    assert report.video.fpr == Estimate(expected)
    assert evaluate_scores(table).protocol.threshold == 0.5


def test_datasets_of_the_table_are_in_the_report(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("video_id,label,score,data\na,0,0.5,x\nb,1,0.5,x\nc,1,0.5,\n")
    report = evaluate_scores(path, OPTIONS)
    assert report.protocol.data == {"x": None}
    assert set(report.by_data) == {"", "x"}


def test_another_detector_is_compared(tmp_path, table):
    other = tmp_path / "baseline.csv"
    write_table(other, [(name, label, 1 - score) for name, label, score in draw_rows()][3:])
    found = evaluate_scores(table, OPTIONS, compare=other).comparison
    assert (found.compared_with, found.num_videos) == ("baseline.csv", 7)
    assert found.only_first == ("v0",)
    assert found.video.other_auc == pytest.approx(1 - found.video.auc)
    assert evaluate_scores(table, OPTIONS).comparison is None


@pytest.mark.parametrize(
    ("rows", "changed", "error", "message"),
    [
        ([("a", 0, 1.5)], {}, ValueError, "got 1.5 for frame 0"),
        ([("a", 0, 0.5)], {"options": EvaluateOptions(threshold=2)}, ValueError, "got 2"),
        (
            [("a", 0, 0.5)],
            {"options": EvaluateOptions(n_resamples=-1)},
            ValueError,
            "n_resamples of 100 or more, or 0",
        ),
        ([("a", 0, 0.5)], {"options": EvaluateOptions(aggregation="min")}, ValueError, "'min'"),
        ([("a", 0, 0.5)], {"compare": "nowhere.csv"}, OSError, "nowhere.csv"),
        ([("z", 0, 0.5)], {"compare": "table"}, ValueError, "none of them in both"),
        ([("v1", 0, 0.5)], {"compare": "table"}, ValueError, "same labels in both tables"),
        ([("a", 0, 0.5)], {"data": ["nowhere"]}, OSError, "nowhere"),
    ],
)
def test_bad_input_raises(tmp_path, table, rows, changed, error, message):
    write_table(tmp_path / "scores.csv", rows)
    if changed.get("compare") == "table":
        changed = {"compare": table}
    with pytest.raises(error, match=message):
        evaluate_scores(tmp_path / "scores.csv", **changed)


def test_a_missing_table_raises_an_os_error(tmp_path):
    with pytest.raises(OSError, match="which does not exist"):
        evaluate_scores(tmp_path / "scores.csv")


def list_rows(prepared_set, split: str) -> list[tuple]:
    return [
        (video.video_id, video.label, 0.25 + 0.5 * video.label)
        for video in read_videos(prepared_set)
        if video.split == split
    ]


def test_videos_without_a_score_are_listed(tmp_path, prepared_set):
    rows = list_rows(prepared_set, "val")
    write_table(tmp_path / "scores.csv", rows[1:])
    options = EvaluateOptions(n_resamples=0, split="val")
    report = evaluate_scores(tmp_path / "scores.csv", options, data=[prepared_set])
    assert report.excluded == (
        Excluded(
            data="prepared",
            video_id=rows[0][0],
            is_fake=bool(rows[0][1]),
            reason="none of its faces has a score",
            split="val",
            compression="",
            manipulation=rows[0][1] * "fake",
        ),
    )
    assert report.coverage.num_scored == len(rows) - 1 == 3
    assert report.coverage.share == pytest.approx(3 / 4)
    assert report.protocol.split == "val"
    # The groups of the videos come from the dataset.
    assert list(report.by_manipulation) == ["fake"]
    # How faces were extracted for scores of another detector is unknown.
    assert report.protocol.data == {"prepared": None}


def test_a_video_without_a_face_is_listed_with_the_reason(tmp_path, prepared_set):
    (without,) = [video for video in read_videos(prepared_set) if not video.num_faces]
    rows = [row for row in list_rows(prepared_set, without.split) if row[0] != without.video_id]
    write_table(tmp_path / "scores.csv", rows)
    options = EvaluateOptions(n_resamples=0, split=without.split)
    report = evaluate_scores(tmp_path / "scores.csv", options, data=[prepared_set])
    (excluded,) = report.excluded
    assert (excluded.video_id, excluded.reason) == (without.video_id, without.reason)
    assert without.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, ("nobody", 0, 0.5)], "got 1 of other videos, such as 'nobody'"),
        (
            lambda rows: [(name, 1 - label, score) for name, label, score in rows],
            "other labels for 4 videos, such as .* Write 1 for fake",
        ),
    ],
)
def test_scores_of_another_data_set_raise(tmp_path, prepared_set, change, message):
    write_table(tmp_path / "scores.csv", change(list_rows(prepared_set, "val")))
    options = EvaluateOptions(split="val")
    with pytest.raises(ValueError, match=message) as error:
        evaluate_scores(tmp_path / "scores.csv", options, data=[prepared_set])
    assert f"the val split of {prepared_set}" in str(error.value)


def test_scores_of_another_split_raise(tmp_path, prepared_set):
    write_table(tmp_path / "scores.csv", list_rows(prepared_set, "val"))
    with pytest.raises(ValueError, match="the test split of .* got 4 of other videos"):
        evaluate_scores(tmp_path / "scores.csv", data=[prepared_set])


def test_possibly_duplicate_rows_are_reported(tmp_path):
    rows = [("a", 0, 0.5), ("a", 0, 0.5), ("b", 0, 0.5), ("c", 1, 0.5), ("c", 1, 0.75)]
    write_table(tmp_path / "scores.csv", [*rows, rows[0]])
    report = evaluate_scores(tmp_path / "scores.csv", OPTIONS)
    assert report.protocol.repeated_rows == 2
    assert "note: 2 rows repeat video and score of another row" in summarize(report)
    assert "- 2 rows repeat video and score of another row" in render_markdown(report)
    # Frame indices show that they are different faces.
    lines = [f"{v},{label},{score},{frame}" for frame, (v, label, score) in enumerate(rows)]
    (tmp_path / "scores.csv").write_text(
        "\n".join(["video_id,label,score,frame_index", *lines, ""])
    )
    report = evaluate_scores(tmp_path / "scores.csv", OPTIONS)
    assert report.protocol.repeated_rows == 0 and "repeat" not in summarize(report)
