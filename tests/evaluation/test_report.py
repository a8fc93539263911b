"""The report's numbers: the right ones for each group, and nothing that JSON cannot hold."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.evaluation.delong import compare, compare_scores
from jdfd_keras.evaluation.eval_data import Excluded
from jdfd_keras.evaluation.metrics import MEASURED, measure
from jdfd_keras.evaluation.report import build_report, check_options, choose_threshold
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.options import EvaluateOptions

ROUNDS = 20
MANIPULATIONS = ("Deepfakes", "FaceSwap")


def draw_columns(seed=0, data=("ffpp", "celeb"), compressions=("c23", "c40")) -> dict[str, list]:
    """Four reals and three fakes of each manipulation, of three faces, for each kind of video."""
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
    settings = {
        "threshold": 0.5,
        "options": EvaluateOptions(rounds=ROUNDS, seed=3),
        "protocol": {"model": "run", "data": {"clips": {}}},
        "excluded": [],
    }
    scores = Scores.from_faces(**(draw_columns() if columns is None else columns))
    return build_report(scores, **{**settings, **changed})


def expect_block(columns: dict, keep, level: str, threshold: float = 0.5) -> dict:
    """Pick rows by hand and measure them."""
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
    found = measure(label, score, threshold=threshold, video=video, rounds=ROUNDS, seed=3)
    return {
        "num_real": int((~label).sum()),
        "num_fake": int(label.sum()),
        **{name: getattr(found, name)._asdict() for name in MEASURED},
    }


def assert_block(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-12) if name in MEASURED else value)


@pytest.mark.parametrize("level", ["frame", "video"])
def test_each_group_holds_the_numbers_of_its_rows(level):
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


def test_the_report_keeps_its_keys():
    report = make_report(draw_columns(data=("ffpp",), compressions=("c23",)))
    assert set(report) == {
        "protocol",
        "frame",
        "video",
        "by_manipulation",
        "coverage",
        "verdicts",
        "calibration",
        "reconstruction",
        "hardest",
        "excluded",
    }
    assert list(report["by_manipulation"]) == list(MANIPULATIONS)
    for block in (report["frame"], report["by_manipulation"]["Deepfakes"]["video"]):
        assert set(block) == {"num_real", "num_fake", *MEASURED}
        assert all(set(block[name]) == {"value", "low", "high"} for name in MEASURED)
    protocol = report["protocol"]
    assert (protocol["threshold"], protocol["aggregation"]) == (0.5, "mean")
    assert "20 rounds, seed 3" in protocol["intervals"]


def test_groups_are_parted_only_where_there_are_several():
    report = make_report(draw_columns(compressions=("c23",)))
    assert set(report["by_data"]) == {"celeb", "ffpp"} and "by_compression" not in report
    assert set(report["by_data"]["ffpp"]) == {*("frame", "video", "coverage", "by_manipulation")}
    report = make_report(draw_columns(data=("ffpp",)))
    assert set(report["by_compression"]) == {"c23", "c40"} and "by_data" not in report
    report = make_report(draw_columns())
    assert set(report["by_data"]["ffpp"]["by_compression"]["c23"]) == {
        *("frame", "video", "coverage", "by_manipulation")
    }


def test_splits_are_parted_too():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    columns["split"] = ["val" if name.endswith("0") else "test" for name in columns["video_id"]]
    report = make_report(columns)
    is_val = [split == "val" for split in columns["split"]]
    assert_block(
        report["by_split"]["val"]["video"], expect_block(columns, is_val.__getitem__, "video")
    )


def test_a_single_manipulation_is_the_whole():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    columns["manipulation"] = ["Deepfakes" if label else "" for label in columns["label"]]
    report = make_report(columns)
    whole = {level: report[level] for level in ("frame", "video", "coverage")}
    assert report["by_manipulation"] == {"Deepfakes": whole}


def test_fakes_of_no_known_manipulation_are_a_group_of_their_own():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    del columns["manipulation"]
    assert set(make_report(columns)["by_manipulation"]) == {""}


def test_no_name_swallows_the_videos_without_one():
    columns = draw_columns(data=("ffpp",), compressions=("c23",))
    columns["manipulation"] = [
        m.replace("FaceSwap", "").replace("Deepfakes", "unnamed") for m in columns["manipulation"]
    ]
    report = make_report(columns)
    assert {k: v["video"]["num_fake"] for k, v in report["by_manipulation"].items()} == {
        "": 3,
        "unnamed": 3,
    }


@pytest.mark.parametrize("aggregation", ["median", "max", "track"])
def test_videos_are_scored_as_the_options_say(aggregation):
    columns = draw_columns()
    report = make_report(columns, options=EvaluateOptions(rounds=0, aggregation=aggregation))
    function = {"median": np.median, "max": np.max, "track": np.mean}[aggregation]
    faces: dict[str, list] = {}
    for name, score in zip(columns["video_id"], columns["score"], strict=True):
        faces.setdefault(name, []).append(score)
    truth = dict(zip(columns["video_id"], columns["label"], strict=True))
    expected = roc_auc_score([truth[name] for name in faces], [*map(function, faces.values())])
    assert report["video"]["auc"]["value"] == pytest.approx(expected)
    assert report["protocol"]["aggregation"] == aggregation


def test_the_threshold_is_the_one_that_was_given():
    columns = draw_columns()
    report = make_report(columns, threshold=0.3)
    reals = np.array(columns["score"])[np.array(columns["label"]) == 0]
    assert report["frame"]["fpr"]["value"] == pytest.approx((reals >= 0.3).mean())
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


def test_coverage_is_told_of_each_group():
    excluded = [
        Excluded("ffpp", "a", True, "no face", compression="c23", manipulation="Deepfakes"),
        Excluded("ffpp", "b", False, "no face", compression="c23"),
        Excluded("celeb", "c", True, "no face", compression="c40", manipulation="FaceSwap"),
    ]
    report = make_report(excluded=excluded)
    lacking = {
        name: {
            value: group["coverage"]["num_videos"] - group["coverage"]["num_scored"]
            for value, group in report[f"by_{name}"].items()
        }
        for name in ("data", "compression", "manipulation")
    }
    assert lacking == {
        "data": {"ffpp": 2, "celeb": 1},
        "compression": {"c23": 2, "c40": 1},
        "manipulation": {"Deepfakes": 2, "FaceSwap": 2},  # each with the real one
    }
    assert report["by_data"]["ffpp"]["by_manipulation"]["FaceSwap"]["coverage"]["share"] == 14 / 15


def test_verdicts_are_counted_where_the_threshold_is_the_calibrated_one():
    columns = {"video_id": list("abcd"), "label": [0, 0, 1, 1], "score": [0.1, 0.4, 0.5, 0.9]}
    calibration = {"threshold": 0.5, "uncertain_from": 0.3, "uncertain_to": 0.6}
    protocol = {"model": "run", "data": {}, "calibration": calibration}
    assert make_report(columns, protocol=protocol)["verdicts"] == {
        "real": {"real": 1, "uncertain": 1, "fake": 0},
        "fake": {"real": 0, "uncertain": 1, "fake": 1},
    }
    assert make_report(columns, protocol=protocol, threshold=0.4)["verdicts"] is None
    assert make_report(columns)["verdicts"] is None


def test_the_hardest_faces_are_named_worst_first_and_one_of_each_video():
    columns = {
        "video_id": ["r0", "r0", "r1", "f0", "f1"],
        "label": [0, 0, 0, 1, 1],
        "score": [0.9, 0.8, 0.3, 0.7, 0.1],
        "data": ["clips"] * 5,
    }
    found = make_report(columns)["hardest"]
    assert [(f["video_id"], f["frame_index"], f["label"], f["score"]) for f in found] == [
        ("r0", 0, "real", 0.9),
        ("r1", 0, "real", 0.3),
        ("f1", 0, "fake", 0.1),
        ("f0", 0, "fake", 0.7),
    ]
    assert {face["data"] for face in found} == {"clips"}


def test_the_calibration_error_of_faces_lets_each_video_count_the_same():
    # One bin for all: a video of three faces and one of one, at 0.9; half of each are fake.
    columns = {"video_id": ["a", "a", "a", "b"], "label": [1, 1, 1, 0], "score": [0.9] * 4}
    report = make_report(columns)
    assert report["calibration"]["frame_ece"] == pytest.approx(0.4)
    assert report["calibration"]["video_ece"] == pytest.approx(0.4)


def test_the_error_of_the_decoder_is_told_with_what_it_tells():
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
    "only reals": {"video_id": list("abc"), "label": [0] * 3, "score": [0, 0.5, 1]},
    "only fakes": {"video_id": list("abc"), "label": [1] * 3, "score": [0, 0.5, 1]},
    "one video of each": {"video_id": list("ab"), "label": [0, 1], "score": [0.5, 0.5]},
    "one real": {"video_id": list("abc"), "label": [0, 1, 1], "score": [0.1, 0.2, 0.3]},
    "all ties": {"video_id": list("abcd"), "label": [0, 0, 1, 1], "score": [0.5] * 4},
    "perfect": {"video_id": list("abcd"), "label": [0, 0, 1, 1], "score": [0, 0, 1, 1]},
    "a class for each data set": {
        "video_id": list("abcd"),
        "label": [0, 0, 1, 1],
        "score": [0.1, 0.2, 0.3, 0.4],
        "data": ["x", "x", "y", "y"],
    },
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_report_is_ready_for_json_whatever_the_scores(name):
    report = make_report(DEGENERATE[name])
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize("name", ["one face", "one fake", "only reals", "only fakes"])
def test_one_class_alone_is_undefined_and_never_a_half(name):
    report = make_report(DEGENERATE[name])
    for level in ("frame", "video"):
        assert report[level]["auc"] == {"value": None, "low": None, "high": None}
    if "real" in name or name == "one face":
        assert report["by_manipulation"] == {}
    else:
        assert report["by_manipulation"][""]["video"]["auc"]["value"] is None


def test_the_threshold_asked_for_comes_before_the_calibrated_one():
    calibration = Calibration(threshold=0.7)
    assert choose_threshold(EvaluateOptions(threshold=0.0), calibration) == 0
    assert choose_threshold(EvaluateOptions(), calibration) == 0.7
    assert choose_threshold(EvaluateOptions(), None) == 0.5


@pytest.mark.parametrize(
    "changed",
    [
        {"threshold": 1.5},
        {"threshold": -0.1},
        {"batch_size": 0},
        {"seed": -1},
        {"rounds": -1},
        {"rounds": 99},
    ],
)
def test_options_out_of_range_are_refused(changed):
    with pytest.raises(ValueError, match="Expected (a threshold|batch_size|100 rounds)"):
        check_options(EvaluateOptions(**changed))


def take(columns: dict, rows) -> Scores:
    return Scores.from_faces(**{n: [c[row] for row in rows] for n, c in columns.items()})


def test_only_the_videos_of_both_are_compared_and_the_others_named():
    columns, again = draw_columns(0), draw_columns(1)
    names = list(dict.fromkeys(columns["video_id"]))
    here, there = set(names[:-3]), set(names[2:])
    rows = range(len(columns["score"]))
    first = take(columns, [row for row in rows if columns["video_id"][row] in here])
    second = take(again, [row for row in reversed(rows) if again["video_id"][row] in there])
    found = compare_scores(first, second, "mean")
    assert (found["only_first"], sorted(found["only_second"])) == (names[:2], sorted(names[-3:]))
    common = names[2:-3]
    assert found["num_videos"] == len(common)
    means = [
        [
            np.mean([s for s, v in zip(c["score"], c["video_id"], strict=True) if v == name])
            for name in common
        ]
        for c in (columns, again)
    ]
    label = ["real" not in name for name in common]
    expected = compare(label, *means)
    assert found["video"]["auc"] == pytest.approx(roc_auc_score(label, means[0]))
    assert found["video"]["other_auc"] == pytest.approx(roc_auc_score(label, means[1]))
    assert found["video"]["difference"]["low"] == pytest.approx(expected.difference.low)
    assert found["video"]["p"] == pytest.approx(expected.p)
    # Whatever the order of the faces, they are the same ones.
    kept = [row for row in rows if columns["video_id"][row] in set(common)]
    scores = ([c["score"][row] for row in kept] for c in (columns, again))
    video = [common.index(columns["video_id"][row]) for row in kept]
    expected = compare([columns["label"][row] for row in kept], *scores, video)
    assert found["frame"]["difference"]["value"] == pytest.approx(expected.difference.value)
    assert found["frame"]["p"] == pytest.approx(expected.p)
    json.dumps(found, allow_nan=False)


def test_other_faces_of_the_same_videos_are_compared_by_video_only():
    columns = draw_columns()
    rows = range(len(columns["score"]))
    fewer = take(columns, [row for row in rows if columns["frame_index"][row] < 2])
    found = compare_scores(take(columns, rows), fewer, "mean")
    assert found["frame"] is None and found["video"]["p"] is not None
    shifted = take({**columns, "frame_index": [9 - f for f in columns["frame_index"]]}, rows)
    assert compare_scores(take(columns, rows), shifted, "mean")["frame"] is None


def test_one_class_in_common_cannot_be_compared():
    first = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
    second = Scores.from_faces(video_id=["a", "c"], label=[0, 1], score=[0.1, 0.9])
    found = compare_scores(first, second, "mean")
    assert (found["video"], found["frame"], found["num_videos"]) == (None, None, 1)


def test_scores_of_other_videos_cannot_be_compared():
    first = Scores.from_faces(video_id=["ff/a", "ff/b"], label=[0, 1], score=[0.1, 0.9])
    second = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
    with pytest.raises(ValueError, match="none of them in both. One has 'ff/a', the other 'a'"):
        compare_scores(first, second, "mean")


def test_detectors_that_disagree_on_what_is_fake_cannot_be_compared():
    first = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
    second = Scores.from_faces(video_id=["b", "a"], label=[0, 1], score=[0.1, 0.9])
    with pytest.raises(ValueError, match=r"do not on 'a' \(2 videos\). In both, 1 must be fake"):
        compare_scores(first, second, "mean")


def test_a_group_of_which_no_video_has_a_score_is_named_with_what_it_lacks():
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
