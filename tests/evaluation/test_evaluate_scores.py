"""A table of scores to the folder of a report: the same as `evaluate` writes, and no TensorFlow."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.evaluation import evaluate_scores as module
from jdfd_keras.evaluation.eval_data import Excluded
from jdfd_keras.evaluation.evaluate_scores import evaluate_scores
from jdfd_keras.evaluation.report import build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_scores, read_told, write_scores
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.evaluation_folder import write_folder
from jdfd_keras.reporting.render_report import render_markdown
from jdfd_keras.reporting.report_text import summarize

OPTIONS = EvaluateOptions(rounds=100)
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


@pytest.fixture
def undrawn(monkeypatch):
    """Nothing is drawn or written: quick, where only the numbers are in question."""
    monkeypatch.setattr(module, "write_folder", lambda *_: None)


def test_the_whole_folder_is_written_and_nothing_of_an_older_one_left(tmp_path, table):
    out = tmp_path / "new" / "report"
    out.mkdir(parents=True)
    for name in ("faces.png", "errors.svg", "roc.png", "report.json", "report.html", "mine.txt"):
        (out / name).write_text("old")
    report = evaluate_scores(table, out, OPTIONS)
    assert {path.name for path in out.iterdir()} == WHOLE | {"mine.txt"}
    assert json.loads((out / "report.json").read_text()) == report
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
    assert report["frame"]["auc"]["value"] == pytest.approx(auc)
    assert report["protocol"]["model"] == "other detector.csv"


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
def test_poor_scores_give_a_report_too(tmp_path, rows):
    write_table(tmp_path / "scores.csv", rows)
    report = evaluate_scores(tmp_path / "scores.csv", tmp_path / "out", OPTIONS)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "report.md", "report.json", "scores.parquet"} <= names
    has_both = len({row[1] for row in rows}) == 2
    assert ("roc.png" in names) == has_both
    assert report["video"]["auc"]["value"] == (0.5 if has_both else None)


def test_it_takes_no_tensorflow(table):
    code = (
        "import sys; from jdfd_keras import EvaluateOptions, evaluate_scores\n"
        "evaluate_scores(sys.argv[1], sys.argv[2], EvaluateOptions(rounds=0))\n"
        "print([name for name in ('tensorflow', 'keras', 'torch', 'dlib') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, table, table.parent / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_table_of_another_report_is_not_written_over(tmp_path, table):
    scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.25, 0.75])
    write_scores(tmp_path / "scores.parquet", scores)
    for path, compare in (
        (tmp_path / "scores.parquet", None),
        (table, tmp_path / "scores.parquet"),
    ):
        with pytest.raises(ValueError, match="another folder than that of the scores"):
            evaluate_scores(path, tmp_path, OPTIONS, compare=compare)
    assert read_scores(tmp_path / "scores.parquet").score.tolist() == [0.25, 0.75]
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration/seen.parquet").touch()
    with pytest.raises(ValueError, match="another folder than that of a calibration"):
        evaluate_scores(table, tmp_path / "calibration", OPTIONS)
    with pytest.raises(OSError, match="a folder for the report; got the file"):
        evaluate_scores(table, table, OPTIONS)


def test_a_report_computed_again_knows_what_the_first_one_knew(tmp_path, monkeypatch):
    monkeypatch.setattr("jdfd_keras.reporting.evaluation_folder._draw", lambda *_: None)
    scores = Scores.from_faces(
        video_id=list("abcd"), label=[0, 0, 1, 1], score=[0.1, 0.6, 0.4, 0.9]
    )
    calibration = Calibration(temperature=2.0, threshold=0.5, uncertain_from=0.3, uncertain_to=0.5)
    excluded = [Excluded("clips", "e", True, "no face", "test", "c23", "Deepfakes")]
    protocol = {
        "model": "run",
        "split": "test",
        "data": {"clips": {}},
        "training": "not known here",
        "leaks": "none found",
        "calibration": asdict(calibration),
    }
    told = {"protocol": protocol, "excluded": excluded, "options": OPTIONS}
    first = build_report(scores, threshold=0.5, **told)
    (tmp_path / "first").mkdir()
    write_folder(tmp_path / "first", scores, first)
    table = tmp_path / "first/scores.parquet"
    assert evaluate_scores(table, tmp_path / "again", OPTIONS) == first
    assert first["verdicts"]["fake"] == {"real": 0, "uncertain": 1, "fake": 1}
    changed = replace(scores, score=np.array([0.2, 0.6, 0.4, 0.9]))
    write_scores(tmp_path / "changed.parquet", changed, read_told(table))
    other = evaluate_scores(tmp_path / "changed.parquet", tmp_path / "other", OPTIONS)
    assert other["protocol"]["calibration"] == "not known here" and other["excluded"] == []
    own = evaluate_scores(table, tmp_path / "own", EvaluateOptions(rounds=0, threshold=0.7))
    assert own["protocol"]["threshold"] == 0.7 and own["verdicts"] is None
    assert own["coverage"]["num_videos"] == 5


def test_options_are_obeyed(tmp_path, table, undrawn):
    options = EvaluateOptions(rounds=0, threshold=0.25, aggregation="max")
    report = evaluate_scores(table, tmp_path / "out", options)
    protocol = report["protocol"]
    assert (protocol["threshold"], protocol["aggregation"]) == (0.25, "max")
    highest: dict[str, float] = {}
    for name, label, score in draw_rows():
        if not label:
            highest[name] = max(highest.get(name, 0), score)
    expected = np.mean([score >= 0.25 for score in highest.values()])
    assert report["video"]["fpr"] == {"value": expected, "low": None, "high": None}
    assert evaluate_scores(table, tmp_path / "out")["protocol"]["threshold"] == 0.5


def test_data_sets_named_in_the_table_are_named_in_the_report(tmp_path, undrawn):
    path = tmp_path / "scores.csv"
    path.write_text("video_id,label,score,data\na,0,0.5,x\nb,1,0.5,x\nc,1,0.5,\n")
    report = evaluate_scores(path, tmp_path / "out", OPTIONS)
    assert report["protocol"]["data"] == {"x": {}}
    assert set(report["by_data"]) == {"", "x"}


def test_another_detector_is_compared(tmp_path, table, undrawn):
    other = tmp_path / "baseline.csv"
    write_table(other, [(name, label, 1 - score) for name, label, score in draw_rows()][3:])
    report = evaluate_scores(table, tmp_path / "out", OPTIONS, compare=other)
    found = report["comparison"]
    assert (found["with"], found["num_videos"], found["only_first"]) == ("baseline.csv", 7, ["v0"])
    assert found["video"]["other_auc"] == pytest.approx(1 - found["video"]["auc"])
    assert "comparison" not in evaluate_scores(table, tmp_path / "out", OPTIONS)


@pytest.mark.parametrize(
    ("rows", "changed", "error", "said"),
    [
        ([("a", 0, 1.5)], {}, ValueError, "got 1.5 for frame 0"),
        ([("a", 0, 0.5)], {"options": EvaluateOptions(threshold=2)}, ValueError, "got 2"),
        (
            [("a", 0, 0.5)],
            {"options": EvaluateOptions(rounds=-1)},
            ValueError,
            "100 rounds or more, or 0",
        ),
        ([("a", 0, 0.5)], {"options": EvaluateOptions(aggregation="min")}, ValueError, "'min'"),
        ([("a", 0, 0.5)], {"compare": "nowhere.csv"}, OSError, "nowhere.csv"),
        ([("z", 0, 0.5)], {"compare": "table"}, ValueError, "none of them in both"),
        ([("v1", 0, 0.5)], {"compare": "table"}, ValueError, "agree on what is fake"),
        ([("a", 0, 0.5)], {"data": ["nowhere"]}, OSError, "nowhere"),
    ],
)
def test_bad_input_writes_nothing_and_leaves_an_older_report(
    tmp_path, table, rows, changed, error, said
):
    write_table(tmp_path / "scores.csv", rows)
    if changed.get("compare") == "table":
        changed = {"compare": table}
    with pytest.raises(error, match=said):
        evaluate_scores(tmp_path / "scores.csv", tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("old")
    with pytest.raises(error, match=said):
        evaluate_scores(tmp_path / "scores.csv", tmp_path / "old", **changed)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["report.json"]


def test_a_missing_table_is_an_error_of_files(tmp_path):
    with pytest.raises(OSError, match="where there is no file"):
        evaluate_scores(tmp_path / "scores.csv", tmp_path / "out")


def list_rows(prepared_set, split: str) -> list[tuple]:
    return [
        (video.video_id, video.label, 0.25 + 0.5 * video.label)
        for video in read_videos(prepared_set)
        if video.split == split
    ]


def test_videos_of_a_data_set_that_have_no_score_are_named(tmp_path, prepared_set, undrawn):
    rows = list_rows(prepared_set, "val")
    write_table(tmp_path / "scores.csv", rows[1:])
    options = EvaluateOptions(rounds=0, split="val")
    report = evaluate_scores(
        tmp_path / "scores.csv", tmp_path / "out", options, data=[prepared_set]
    )
    assert report["excluded"] == [
        {
            "data": "prepared",
            "video_id": rows[0][0],
            "is_fake": bool(rows[0][1]),
            "reason": "no face of it has a score",
            "split": "val",
            "compression": "",
            "manipulation": rows[0][1] * "fake",
        }
    ]
    assert report["coverage"]["num_scored"] == len(rows) - 1 == 3
    assert report["coverage"]["share"] == pytest.approx(3 / 4)
    assert report["protocol"]["split"] == "val"
    # What the data set knows of its videos is known of the scores.
    assert list(report["by_manipulation"]) == ["fake"]
    # How faces were taken for scores from elsewhere is not.
    assert report["protocol"]["data"] == {"prepared": {}}


def test_a_video_without_a_face_is_named_with_its_reason(tmp_path, prepared_set, undrawn):
    (without,) = [video for video in read_videos(prepared_set) if not video.num_faces]
    rows = [row for row in list_rows(prepared_set, without.split) if row[0] != without.video_id]
    write_table(tmp_path / "scores.csv", rows)
    options = EvaluateOptions(rounds=0, split=without.split)
    report = evaluate_scores(
        tmp_path / "scores.csv", tmp_path / "out", options, data=[prepared_set]
    )
    (excluded,) = report["excluded"]
    assert (excluded["video_id"], excluded["reason"]) == (without.video_id, without.reason)
    assert without.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [*rows, ("nobody", 0, 0.5)], "got 1 that are not there, such as 'nobody'"),
        (
            lambda rows: [(name, 1 - label, score) for name, label, score in rows],
            "other ones for 4 videos, such as .* 1 must be fake",
        ),
    ],
)
def test_scores_that_are_not_of_the_data_set_are_refused(tmp_path, prepared_set, change, said):
    write_table(tmp_path / "scores.csv", change(list_rows(prepared_set, "val")))
    options = EvaluateOptions(split="val")
    with pytest.raises(ValueError, match=said) as error:
        evaluate_scores(tmp_path / "scores.csv", tmp_path / "out", options, data=[prepared_set])
    assert f"the val split of {prepared_set}" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_scores_of_another_split_are_refused(tmp_path, prepared_set):
    write_table(tmp_path / "scores.csv", list_rows(prepared_set, "val"))
    with pytest.raises(ValueError, match="the test split of .* got 4 that are not there"):
        evaluate_scores(tmp_path / "scores.csv", tmp_path / "out", data=[prepared_set])


def test_rows_that_may_be_there_twice_are_pointed_out(tmp_path, undrawn):
    rows = [("a", 0, 0.5), ("a", 0, 0.5), ("b", 0, 0.5), ("c", 1, 0.5), ("c", 1, 0.75)]
    write_table(tmp_path / "scores.csv", [*rows, rows[0]])
    report = evaluate_scores(tmp_path / "scores.csv", tmp_path / "out", OPTIONS)
    assert report["protocol"]["repeated_rows"] == 2
    assert "note: 2 rows repeat video and score of another" in summarize(report)
    assert "- 2 rows repeat video and score of another" in render_markdown(report)
    # With frames it is known that they are not.
    lines = [f"{v},{label},{score},{frame}" for frame, (v, label, score) in enumerate(rows)]
    (tmp_path / "scores.csv").write_text(
        "\n".join(["video_id,label,score,frame_index", *lines, ""])
    )
    report = evaluate_scores(tmp_path / "scores.csv", tmp_path / "out", OPTIONS)
    assert "repeated_rows" not in report["protocol"] and "repeat" not in summarize(report)
