"""Reports: correct metrics for each stratum, and only values that JSON can hold."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.evaluation.delong import compare, compare_scores
from jdfd_keras.evaluation.eval_data import Excluded, Protocol
from jdfd_keras.evaluation.metrics import MEASURED, measure
from jdfd_keras.evaluation.report import Report, build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.options import EvaluateOptions

N_RESAMPLES = 20
MANIPULATIONS = ("Deepfakes", "FaceSwap")
GROUP_KEYS = ("by_data", "by_split", "by_compression", "by_manipulation")


def draw_columns(seed=0, data=("ffpp", "celeb"), compressions=("c23", "c40")) -> dict[str, list]:
    """Four real videos and three fakes per manipulation, of three faces, for each kind of video."""
    rng = np.random.default_rng(seed)
    rows = [
        (
            f"{name}/{manipulation or 'real'}/{compression}/{number}",
            int(bool(manipulation)),
            frame,
            round(float(np.clip(rng.normal(0.4 + 0.2 * bool(manipulation), 0.2), 0, 1)), 2),
            name,
            compression,
            manipulation,
        )
        for name in data
        for compression in compressions
        for manipulation in ("", *MANIPULATIONS)
        for number in range(3 if manipulation else 4)
        for frame in range(3)
    ]
    names = ("video_id", "label", "frame_index", "score", "data", "compression", "manipulation")
    return {n: list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)}


def make_report(columns: dict | None = None, **changed) -> dict:
    """Build a report as JSON holds it."""
    settings = {
        "threshold": 0.5,
        "options": EvaluateOptions(n_resamples=N_RESAMPLES, seed=3),
        "protocol": Protocol(model="run", data={"clips": None}, leakage="none"),
        "excluded": [],
    }
    scores = Scores.from_faces(**(draw_columns() if columns is None else columns))
    return build_report(scores, **{**settings, **changed}).to_dict()


def expect_block(columns: dict, keep, level: str, threshold: float = 0.5) -> dict:
    """Select rows by hand and measure them."""
    rows = [row for row in range(len(columns["score"])) if keep(row)]
    label = np.array([columns["label"][row] for row in rows], bool)
    score = np.array([columns["score"][row] for row in rows])
    names = [columns["video_id"][row] for row in rows]
    order = list(dict.fromkeys(names))
    video = np.array([order.index(name) for name in names])
    if level == "video":
        score = np.array([score[video == position].mean() for position in range(len(order))])
        label = np.array([label[video == position][0] for position in range(len(order))])
        video = None
    found = measure(label, score, threshold=threshold, video=video, n_resamples=N_RESAMPLES, seed=3)
    return {
        "num_real": int((~label).sum()),
        "num_fake": int(label.sum()),
        **{name: getattr(found, name).to_dict() for name in MEASURED},
    }


def assert_block(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-12) if name in MEASURED else value)


@pytest.mark.parametrize("level", ["frame", "video"])
def test_each_stratum_has_the_metrics_of_its_rows(level):
    columns = draw_columns()
    report = make_report(columns)
    data, compression, manipulation = (
        columns[name] for name in ("data", "compression", "manipulation")
    )
    assert_block(report[level], expect_block(columns, lambda row: True, level))
    assert_block(
        report["by_manipulation"]["FaceSwap"][level],
        expect_block(columns, lambda row: manipulation[row] in ("", "FaceSwap"), level),
    )
    assert_block(
        report["by_data"]["celeb"][level],
        expect_block(columns, lambda row: data[row] == "celeb", level),
    )
    assert_block(
        report["by_compression"]["c40"][level],
        expect_block(columns, lambda row: compression[row] == "c40", level),
    )
    assert_block(
        report["by_data"]["ffpp"]["by_compression"]["c23"]["by_manipulation"]["Deepfakes"][level],
        expect_block(
            columns,
            lambda row: (
                data[row] == "ffpp"
                and compression[row] == "c23"
                and manipulation[row] in ("", "Deepfakes")
            ),
            level,
        ),
    )


def test_the_report_has_stable_keys():
    report = make_report(draw_columns(data=("ffpp",), compressions=("c23",)))
    assert set(report) == {
        "protocol",
        "frame",
        "video",
        *GROUP_KEYS,
        "coverage",
        "verdicts",
        "calibration",
        "frame_counts",
        "likelihood",
        "reconstruction",
        "hardest",
        "excluded",
        "comparison",
    }
    assert list(report["by_manipulation"]) == list(MANIPULATIONS)
    for block in (report["frame"], report["by_manipulation"]["Deepfakes"]["video"]):
        assert set(block) == {"num_real", "num_fake", *MEASURED}
        assert all(set(block[name]) == {"value", "low", "high"} for name in MEASURED)
    protocol = report["protocol"]
    assert (protocol["threshold"], protocol["aggregation"]) == (0.5, "mean")
    assert "20 resamples, seed 3" in protocol["intervals"]


def name_strata(report: dict) -> set[str]:
    return {key for key in GROUP_KEYS if report[key]}


def test_scores_are_stratified_only_by_groups_with_several_values():
    report = make_report(draw_columns(compressions=("c23",)))
    assert set(report["by_data"]) == {"celeb", "ffpp"} and report["by_compression"] == {}
    assert name_strata(report["by_data"]["ffpp"]) == {"by_manipulation"}
    report = make_report(draw_columns(data=("ffpp",)))
    assert set(report["by_compression"]) == {"c23", "c40"} and report["by_data"] == {}
    report = make_report(draw_columns())
    assert name_strata(report["by_data"]["ffpp"]["by_compression"]["c23"]) == {"by_manipulation"}


def test_scores_are_stratified_by_split():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    columns["split"] = ["val" if name.endswith("0") else "test" for name in columns["video_id"]]
    report = make_report(columns)
    is_val = [split == "val" for split in columns["split"]]
    assert_block(
        report["by_split"]["val"]["video"], expect_block(columns, is_val.__getitem__, "video")
    )


def test_a_single_manipulation_has_the_metrics_of_the_whole():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    columns["manipulation"] = ["Deepfakes" if label else "" for label in columns["label"]]
    report = make_report(columns)
    whole = {level: report[level] for level in ("frame", "video", "coverage")}
    assert report["by_manipulation"] == {"Deepfakes": whole | dict.fromkeys(GROUP_KEYS, {})}


def test_fakes_without_a_stated_manipulation_are_one_stratum():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    del columns["manipulation"]
    assert set(make_report(columns)["by_manipulation"]) == {""}


def test_a_manipulation_named_like_the_placeholder_stays_separate():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    columns["manipulation"] = [
        m.replace("FaceSwap", "").replace("Deepfakes", "not stated")
        for m in columns["manipulation"]
    ]
    report = make_report(columns)
    assert {k: v["video"]["num_fake"] for k, v in report["by_manipulation"].items()} == {
        "": 3,
        "not stated": 3,
    }


@pytest.mark.parametrize("aggregation", ["median", "max", "track"])
def test_face_scores_are_aggregated_as_the_options_state(aggregation):
    columns = draw_columns()
    report = make_report(columns, options=EvaluateOptions(n_resamples=0, aggregation=aggregation))
    function = {"median": np.median, "max": np.max, "track": np.mean}[aggregation]
    faces: dict[str, list] = {}
    for name, score in zip(columns["video_id"], columns["score"], strict=True):
        faces.setdefault(name, []).append(score)
    truth = dict(zip(columns["video_id"], columns["label"], strict=True))
    expected = roc_auc_score([truth[name] for name in faces], [*map(function, faces.values())])
    assert report["video"]["auc"]["value"] == pytest.approx(expected)
    assert report["protocol"]["aggregation"] == aggregation


def test_the_given_threshold_is_used():
    columns = draw_columns()
    report = make_report(columns, threshold=0.3)
    real_scores = np.array(columns["score"])[np.array(columns["label"]) == 0]
    assert report["frame"]["fpr"]["value"] == pytest.approx((real_scores >= 0.3).mean())
    assert report["protocol"]["threshold"] == 0.3


def test_coverage_counts_the_videos_without_a_score():
    excluded = [Excluded("ffpp", f"v{number}", True, "no face") for number in range(5)]
    report = make_report(draw_columns(data=("ffpp",), compressions=("c23",)), excluded=excluded)
    assert report["coverage"] == {
        "num_faces": 30,
        "num_scored": 10,
        "num_videos": 15,
        "share": pytest.approx(2 / 3),
    }
    assert report["excluded"][0] == {
        "data": "ffpp",
        "video_id": "v0",
        "is_fake": True,
        "reason": "no face",
        "split": "",
        "compression": "",
        "manipulation": "",
    }
    assert make_report()["coverage"]["share"] == 1


def test_each_stratum_states_its_coverage():
    excluded = [
        Excluded("ffpp", "a", True, "no face", compression="c23", manipulation="Deepfakes"),
        Excluded("ffpp", "b", False, "no face", compression="c23"),
        Excluded("celeb", "c", True, "no face", compression="c40", manipulation="FaceSwap"),
    ]
    report = make_report(excluded=excluded)
    without_score = {
        name: {
            value: group["coverage"]["num_videos"] - group["coverage"]["num_scored"]
            for value, group in report[f"by_{name}"].items()
        }
        for name in ("data", "compression", "manipulation")
    }
    assert without_score == {
        "data": {"ffpp": 2, "celeb": 1},
        "compression": {"c23": 2, "c40": 1},
        "manipulation": {"Deepfakes": 2, "FaceSwap": 2},  # each includes the real video
    }
    assert report["by_data"]["ffpp"]["by_manipulation"]["FaceSwap"]["coverage"]["share"] == 14 / 15


def test_verdicts_are_counted_only_at_the_calibrated_threshold():
    columns = {"video_id": list("abcd"), "label": [0, 0, 1, 1], "score": [0.1, 0.4, 0.5, 0.9]}
    calibration = Calibration(threshold=0.5, uncertain_from=0.3, uncertain_to=0.6)
    protocol = Protocol(model="run", data={}, leakage="none", calibration=calibration)
    assert make_report(columns, protocol=protocol)["verdicts"] == {
        "real": {"no_evidence": 1, "uncertain": 1, "fake": 0},
        "fake": {"no_evidence": 0, "uncertain": 1, "fake": 1},
    }
    assert make_report(columns, protocol=protocol, threshold=0.4)["verdicts"] is None
    assert make_report(columns)["verdicts"] is None


def test_the_hardest_errors_are_listed_worst_first_and_one_face_per_video():
    columns = {
        "video_id": ["r0", "r0", "r1", "r2", "f0", "f1", "f2", "f2"],
        "label": [0, 0, 0, 0, 1, 1, 1, 1],
        # r1 and f0 are right, and f2 is wrong although one of its faces is right.
        "score": [0.9, 0.8, 0.3, 0.95, 0.7, 0.1, 0.8, 0.15],
        "data": ["clips"] * 8,
    }
    found = make_report(columns)["hardest"]
    keys = ("video_id", "frame_index", "label", "score", "video_score")
    assert [tuple(face[key] for key in keys) for face in found] == [
        ("r2", 0, "real", 0.95, 0.95),
        ("r0", 0, "real", 0.9, 0.85),
        ("f1", 0, "fake", 0.1, 0.1),
        ("f2", 1, "fake", 0.15, 0.475),
    ]
    assert {face["data"] for face in found} == {"clips"}
    assert [face["video_id"] for face in make_report(columns, threshold=0.9)["hardest"]] == [
        *("r2", "f1", "f2", "f0"),
    ]


def test_the_calibration_error_of_faces_has_equal_weight_for_each_video():
    # All in one bin at 0.9: a fake video of three faces and a real one of one face.
    columns = {"video_id": ["a", "a", "a", "b"], "label": [1, 1, 1, 0], "score": [0.9] * 4}
    report = make_report(columns)
    assert report["calibration"]["frame_ece"] == pytest.approx(0.4)
    assert report["calibration"]["video_ece"] == pytest.approx(0.4)


def test_the_error_of_the_decoder_is_reported_with_its_auc():
    columns = draw_columns()
    columns["reconstruction_error"] = np.random.default_rng(0).random(len(columns["score"]))
    found = make_report(columns, mean_face_mse=0.75)["reconstruction"]
    assert found["mse"] == pytest.approx(np.mean(columns["reconstruction_error"]))
    assert found["mean_face_mse"] == 0.75
    expected = roc_auc_score(columns["label"], columns["reconstruction_error"])
    assert found["frame_auc"] == pytest.approx(expected)
    assert make_report(columns)["reconstruction"] is None
    only_real = {"video_id": ["a"], "label": [0], "score": [0.5], "reconstruction_error": [0.25]}
    assert make_report(only_real, mean_face_mse=0.5)["reconstruction"] == {
        "mse": 0.25,
        "mean_face_mse": 0.5,
        "frame_auc": None,
    }


DEGENERATE = {
    "one face": {"video_id": ["a"], "label": [0], "score": [0.5]},
    "one fake": {"video_id": ["a", "a"], "label": [1, 1], "score": [0.5, 0.75]},
    "only real": {"video_id": list("abc"), "label": [0] * 3, "score": [0, 0.5, 1]},
    "only fake": {"video_id": list("abc"), "label": [1] * 3, "score": [0, 0.5, 1]},
    "one video of each": {"video_id": list("ab"), "label": [0, 1], "score": [0.5, 0.5]},
    "one real": {"video_id": list("abc"), "label": [0, 1, 1], "score": [0.1, 0.2, 0.3]},
    "all ties": {"video_id": list("abcd"), "label": [0, 0, 1, 1], "score": [0.5] * 4},
    "perfect": {"video_id": list("abcd"), "label": [0, 0, 1, 1], "score": [0, 0, 1, 1]},
    "a class for each dataset": {
        "video_id": list("abcd"),
        "label": [0, 0, 1, 1],
        "score": [0.1, 0.2, 0.3, 0.4],
        "data": ["x", "x", "y", "y"],
    },
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_report_survives_json_whatever_the_scores(name):
    report = make_report(DEGENERATE[name])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert Report.from_dict(report).to_dict() == report


@pytest.mark.parametrize("name", ["one face", "one fake", "only real", "only fake"])
def test_metrics_of_one_class_are_undefined_and_never_a_half(name):
    report = make_report(DEGENERATE[name])
    for level in ("frame", "video"):
        assert report[level]["auc"] == {"value": None, "low": None, "high": None}
    if "real" in name or name == "one face":
        assert report["by_manipulation"] == {}
    else:
        assert report["by_manipulation"][""]["video"]["auc"]["value"] is None


def take(columns: dict, rows) -> Scores:
    return Scores.from_faces(**{n: [c[row] for row in rows] for n, c in columns.items()})


def test_only_common_videos_are_compared_and_the_others_are_listed():
    columns, again = draw_columns(0), draw_columns(1)
    names = list(dict.fromkeys(columns["video_id"]))
    here, there = set(names[:-3]), set(names[2:])
    rows = range(len(columns["score"]))
    first = take(columns, [row for row in rows if columns["video_id"][row] in here])
    second = take(again, [row for row in reversed(rows) if again["video_id"][row] in there])
    found = compare_scores(first, second, "mean")
    assert list(found.only_first) == names[:2]
    assert sorted(found.only_second) == sorted(names[-3:])
    common = names[2:-3]
    assert found.num_videos == len(common)
    means = [
        [
            np.mean([s for s, v in zip(c["score"], c["video_id"], strict=True) if v == name])
            for name in common
        ]
        for c in (columns, again)
    ]
    label = ["real" not in name for name in common]
    expected = compare(label, *means)
    assert found.video.auc == pytest.approx(roc_auc_score(label, means[0]))
    assert found.video.other_auc == pytest.approx(roc_auc_score(label, means[1]))
    assert found.video.difference.low == pytest.approx(expected.difference.low)
    assert found.video.p == pytest.approx(expected.p)
    # The faces are the same ones in another order.
    kept = [row for row in rows if columns["video_id"][row] in set(common)]
    scores = ([c["score"][row] for row in kept] for c in (columns, again))
    video = [common.index(columns["video_id"][row]) for row in kept]
    expected = compare([columns["label"][row] for row in kept], *scores, video)
    assert found.frame.difference.value == pytest.approx(expected.difference.value)
    assert found.frame.p == pytest.approx(expected.p)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


def test_tables_with_different_faces_are_compared_by_video_only():
    columns = draw_columns()
    rows = range(len(columns["score"]))
    fewer = take(columns, [row for row in rows if columns["frame_index"][row] < 2])
    found = compare_scores(take(columns, rows), fewer, "mean")
    assert found.frame is None and found.video.p is not None
    shifted = take({**columns, "frame_index": [9 - f for f in columns["frame_index"]]}, rows)
    assert compare_scores(take(columns, rows), shifted, "mean").frame is None


def test_a_comparison_on_one_class_is_undefined():
    first = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
    second = Scores.from_faces(video_id=["a", "c"], label=[0, 1], score=[0.1, 0.9])
    found = compare_scores(first, second, "mean")
    assert (found.video, found.frame, found.num_videos) == (None, None, 1)


def test_scores_of_different_videos_raise():
    first = Scores.from_faces(video_id=["ff/a", "ff/b"], label=[0, 1], score=[0.1, 0.9])
    second = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
    with pytest.raises(ValueError, match="2 and 2 videos.*'ff/a',.* 'a'"):
        compare_scores(first, second, "mean")


def test_tables_with_different_labels_raise():
    first = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
    second = Scores.from_faces(video_id=["b", "a"], label=[0, 1], score=[0.1, 0.9])
    with pytest.raises(ValueError, match=r"labels .*differ for 'a' \(2 videos\)"):
        compare_scores(first, second, "mean")


def test_a_stratum_without_any_score_is_listed_with_its_coverage():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    lost = Excluded("ffpp", "x", True, "no face", compression="c40", manipulation="Face2Face")
    report = make_report(columns, excluded=[lost])
    group = report["by_manipulation"]["Face2Face"]
    assert (group["video"]["num_real"], group["video"]["num_fake"]) == (4, 0)
    assert group["coverage"]["num_videos"] - group["coverage"]["num_scored"] == 1
    group = report["by_compression"]["c40"]
    assert group["coverage"] == {"num_faces": 0, "num_scored": 0, "num_videos": 1, "share": 0}
    assert group["video"]["auc"] == {"value": None, "low": None, "high": None}
    json.dumps(report, allow_nan=False)
