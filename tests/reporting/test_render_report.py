"""The page of a report: sections, sentences and escaping."""

from dataclasses import replace

import pytest

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.evaluation.calibrate import CalibrationError, CalibrationResult
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import UNKNOWN, Excluded, Protocol
from jdfd_keras.evaluation.metrics import MEASURED, Estimate
from jdfd_keras.evaluation.report import Report, build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.markdown import write_page
from jdfd_keras.reporting.render_report import MAX_LISTED, render_markdown
from jdfd_keras.reporting.report_text import (
    format_estimate,
    format_value,
    summarize,
    summarize_calibration,
    title_of,
)

PROTOCOL = {
    "model": "run",
    "model_digest": "ab" * 32,
    "split": "test",
    "data": {"clips": None},
    "leakage": "none found",
    "coverage": "all videos of the split in the manifest",
}
FACES = {
    "every": 0,
    "frames_per_video": 32,
    "detector": "mtcnn",
    "alignment": "eyes",
    "face_size": 299,
}
# By descending score fake, real, fake, real: 3 of 4 pairs are in order.
FOUR = {
    "video_id": ["a", "b", "c", "d"],
    "label": [0, 0, 1, 1],
    "score": [0.25, 0.75, 0.5, 1.0],
    "manipulation": ["", "", "Deepfakes", "Deepfakes"],
}


def make_report(columns=None, *, protocol=None, n_resamples=0, **changed) -> Report:
    options = EvaluateOptions(n_resamples=n_resamples, **changed.pop("options", {}))
    settings = {
        "threshold": 0.5,
        "options": options,
        "protocol": Protocol.from_dict({**PROTOCOL, **(protocol or {})}),
        "excluded": [],
    }
    return build_report(Scores.from_faces(**(columns or FOUR)), **{**settings, **changed})


def make_videos(num_real: int, num_fake: int, **changed) -> dict:
    """Return one video per face: real ones evenly below the fakes."""
    number = num_real + num_fake
    return {
        "video_id": [f"v{row}" for row in range(number)],
        "label": [int(row >= num_real) for row in range(number)],
        "score": [row / number for row in range(number)],
        **changed,
    }


def find_section(page: str, title: str) -> str:
    return page.split(f"## {title}\n\n")[1].split("\n\n## ")[0]


def test_the_page_shows_metrics_and_protocol():
    page = render_markdown(make_report())
    assert page.startswith("# run on clips, split test\n\n**Video AUC 0.750** over 4 videos")
    assert "(2 real, 2 fake, 4 faces)" in page
    assert "| area under the ROC curve (AUC) | 0.750 | 0.750 |" in page
    assert "| false positive rate at 0.5 (real called fake) | 0.500 | 0.500 |" in page
    assert "| split | test |" in page and "| threshold | 0.5 |" in page
    assert "one video is 50.0% of it" in page
    assert page.endswith("|\n")


def test_every_metric_has_a_row():
    table = render_markdown(make_report()).split("| real / fake |")[1].split("\n\n")[0]
    assert len(table.splitlines()) == 1 + len(MEASURED)
    assert "at a false positive rate of 1 % | 0.500 | 0.500 |" in table


def test_an_interval_is_shown_with_its_metric():
    report = make_report(n_resamples=50)
    low, high = report.video.auc.low, report.video.auc.high
    page = render_markdown(report)
    assert f"(AUC) | 0.750 [{low:.3f}, {high:.3f}] | 0.750 [{low:.3f}, {high:.3f}] |" in page
    assert f"**Video AUC 0.750** (95 % interval {low:.3f} to {high:.3f}) over" in page
    assert "In brackets: 95 %, BCa bootstrap over videos within each class, 50 resamples" in page


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.9123, 0.88, 0.94), "0.912 [0.880, 0.940]"),
        ((0.5, None, None), "0.500"),
        ((None, None, None), "undefined"),
        ((0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
    ],
)
def test_an_estimate_has_three_decimals(estimate, text):
    assert format_estimate(Estimate(*estimate)) == text


def test_none_is_undefined():
    assert (format_value(None), format_value(0.0)) == ("undefined", "0.000")


@pytest.mark.parametrize("label", [0, 1])
def test_metrics_of_one_class_are_undefined_on_the_page_and_never_a_half(label):
    columns = {"video_id": list("abc"), "label": [label] * 3, "score": [0.1, 0.2, 0.9]}
    page = render_markdown(make_report(columns, n_resamples=20))
    assert f"**All 3 scored videos are {'fake' if label else 'real'}**" in page
    assert "| area under the ROC curve (AUC) | undefined | undefined |" in page
    assert "| equal error rate (EER) | undefined | undefined |" in page
    assert "0.500" not in page
    assert "There are no curves" in find_section(page, "Curves") and "![" not in page
    assert ("There are no fake videos." in page) == (not label)
    assert summarize(make_report(columns)).startswith("videos: AUC undefined, EER undefined")


def test_a_missing_interval_is_explained():
    columns = {"video_id": ["a", "b", "c"], "label": [0, 1, 1], "score": [0.1, 0.2, 0.9]}
    page = render_markdown(make_report(columns, n_resamples=20))
    assert "There is no interval: it needs two videos of each class." in page
    assert "There is no interval: the bootstrap was turned off." in render_markdown(make_report())


def test_an_auc_that_may_be_chance_is_flagged():
    sentence = "does not show that it is better than chance"
    overlapping = make_videos(10, 10, score=[(7 * row % 20) / 20 for row in range(20)])
    assert sentence in render_markdown(make_report(overlapping, n_resamples=100))
    assert sentence not in render_markdown(make_report(make_videos(10, 10), n_resamples=100))


def test_a_perfect_auc_is_not_presented_as_certain():
    page = render_markdown(make_report(make_videos(10, 8), n_resamples=20))
    assert "There is no interval: these videos are separated perfectly" in page
    assert "it rests on 10 real and 8 fake videos" in page
    assert "it rests on" not in render_markdown(make_report())


def test_an_auc_below_a_half_is_flagged():
    inverted = make_videos(10, 10, score=[1 - row / 20 + row % 7 / 70 for row in range(20)])
    inverted["score"][0] = 0.2
    page = render_markdown(make_report(inverted, n_resamples=100))
    assert "**It is worse than chance**: check whether labels or scores are inverted." in page
    assert "does not show" not in page


def test_a_too_narrow_interval_near_one_is_flagged():
    sentence = "the interval of the AUC is too narrow"
    near = make_videos(10, 10)
    near["score"][9], near["score"][10] = near["score"][10], near["score"][9]
    assert sentence in render_markdown(make_report(near, n_resamples=200))
    assert sentence not in render_markdown(make_report(near, n_resamples=0))
    overlapping = make_videos(10, 10, score=[(7 * row % 20) / 20 for row in range(20)])
    assert sentence not in render_markdown(make_report(overlapping, n_resamples=100))


@pytest.mark.parametrize(
    ("num_real", "sentence"),
    [
        (1, "With 1 real video, 1 % and 5 % are less than one video"),
        (19, "With 19 real videos, 1 % and 5 % are less than one video"),
        (20, "With 20 real videos, 1 % is less than one video"),
        (99, "With 99 real videos, 1 % is less than one video"),
        (100, None),
    ],
)
def test_rates_below_one_real_video_are_flagged(num_real, sentence):
    page = render_markdown(make_report(make_videos(num_real, 3)))
    assert sentence in page if sentence else "less than one" not in page


def test_the_aggregation_is_stated():
    assert "A video's score is the mean of its face scores." in render_markdown(make_report())
    page = render_markdown(make_report(options={"aggregation": "track"}))
    assert "A video's score is the highest mean score of its tracks, one for each person." in page


def test_the_summary_states_both_levels_and_excluded_videos():
    # The ROC curve crosses FPR = 1 - TPR at (0.5, 0.5).
    excluded = [Excluded("clips", "e", True, "no face")]
    assert summarize(make_report(excluded=excluded)).splitlines() == [
        "videos: AUC 0.750, EER 0.500, accuracy 0.750 (2 real, 2 fake)",
        "faces: AUC 0.750, EER 0.500, accuracy 0.750 (2 real, 2 fake)",
        "without a score: 1 video; see the report",
    ]
    assert summarize(make_report(excluded=excluded * 2)).endswith("score: 2 videos; see the report")
    assert "without" not in summarize(make_report())


def test_a_comparison_is_shown_with_interval_and_p_value():
    first = Scores.from_faces(**FOUR)
    second = Scores.from_faces(
        video_id=list("abcde"), label=[0, 0, 1, 1, 1], score=[0.9, 0.1, 0.5, 0.6, 0.7]
    )
    comparison = compare_scores(first, second, name="other|.csv")
    report = replace(make_report(), comparison=comparison)
    section = find_section(render_markdown(report), "Comparison")
    found = comparison.video
    line = (
        "videos: AUC 0.750 and 0.500, difference 0.250 "
        f"[{found.difference.low:.3f}, {found.difference.high:.3f}], p = {found.p:.3g}"
    )
    assert line in section and line in summarize(report)
    assert "other\\|.csv, on 4 videos that both have scored" in section
    assert "since only the other has scored them: 1 video." in section
    assert "only this detector" not in section


def test_a_comparison_on_one_class_is_undefined():
    only_real = Scores.from_faces(video_id=["a", "b"], label=[0, 0], score=[0.1, 0.2])
    comparison = compare_scores(only_real, only_real, name="x.csv")
    report = replace(make_report(), comparison=comparison)
    section = find_section(render_markdown(report), "Comparison")
    assert "the difference in AUC is undefined, one class is absent" in section
    assert "Faces cannot be compared" in section
    assert "undefined" in summarize(report).splitlines()[2]


def test_each_group_has_a_table_with_its_strata():
    columns = {
        name: [value for value in values for _ in range(2)]
        for name, values in {"label": [0, 1, 0, 1], "score": [0.1, 0.9, 0.2, 0.8]}.items()
    }
    columns |= {
        "video_id": [f"v{row}" for row in range(8)],
        "data": ["x"] * 4 + ["y"] * 4,
        "compression": ["c23", "c40"] * 4,
        "manipulation": ["Deepfakes" if label else "" for label in columns["label"]],
    }
    page = render_markdown(make_report(columns))
    section = find_section(page, "By dataset")
    names = [line.split(" | ")[0][2:] for line in section.splitlines()[2:]]
    assert names == ["x", "x / c23", "x / c40", "y", "y / c23", "y / c40"]
    assert "| x / c40 | 1 / 1 | 0 | 2 | 1.000 | 1.000 | 0.000 |" in section
    assert "Each against all 4 real videos." in find_section(page, "By manipulation")
    assert "By split" not in page


def test_excluded_videos_are_listed_with_the_reason():
    excluded = [Excluded("clips", "e|f", True, "no face\nin 8 frames")]
    page = render_markdown(make_report(excluded=excluded))
    section = find_section(page, "Videos without a score")
    assert "1 of 5 videos have no score (coverage 80.0%)" in section
    assert "| clips | e\\|f | fake | no face in 8 frames |" in section
    assert "They exclude 1 of 5 videos" in page
    assert "every video has a score" in render_markdown(make_report())


@pytest.mark.parametrize("more", [0, 1, 200])
def test_a_long_list_of_excluded_videos_is_truncated(more):
    excluded = [
        Excluded("clips", f"video{number:03}", False, "no face")
        for number in range(MAX_LISTED + more)
    ]
    section = find_section(
        render_markdown(make_report(excluded=excluded)), "Videos without a score"
    )
    assert section.count("| real | no face |") == MAX_LISTED
    assert (f"{more} more are listed in report.json" in section) == bool(more)
    assert ("more are listed" in section) == bool(more)


@pytest.mark.parametrize(
    ("mse", "mean_face_mse", "sentence"),
    [
        (0.05, 0.2, "explains 75.0% of the variance between faces"),
        (0.2, 0.2, "no better than the mean face"),
        (0.3, 0.2, "no better than the mean face"),
        (0.1, 0.0, "no better than the mean face"),
    ],
)
def test_a_decoder_no_better_than_the_mean_face_is_flagged(mse, mean_face_mse, sentence):
    columns = {**FOUR, "reconstruction_error": [mse] * 4}
    page = render_markdown(make_report(columns, mean_face_mse=mean_face_mse))
    assert sentence in find_section(page, "Reconstruction")
    assert "frame AUC of 0.500" in page  # all errors are equal
    assert "## Reconstruction" not in render_markdown(make_report(columns))


@pytest.mark.parametrize(
    ("split", "sentence"),
    [("val", "are too optimistic"), ("train", "memorisation, not generalisation")],
)
def test_a_split_that_training_used_is_flagged(split, sentence):
    assert sentence in render_markdown(make_report(protocol={"split": split}))
    assert sentence not in render_markdown(make_report())


def test_faces_extracted_with_other_options_are_flagged():
    data = {"clips": {"faces": FACES}}
    other = {"data": data, "training_faces": {**FACES, "detector": "dlib"}}
    sentence = "extracted with other options than those of the training (detector)"
    assert sentence in render_markdown(make_report(protocol=other))
    same = {"data": data, "training_faces": FACES}
    assert "other options" not in render_markdown(make_report(protocol=same))
    assert "other options" not in render_markdown(make_report(protocol={"data": data}))


def trained_on(name):
    facts = {"digest": "d", "train_faces": 4, "unlabelled_faces": 0, "val_faces": 2}
    return {
        "data": {"name": name, "leakage": "none", **facts},
        "split": {"split": "official"},
        "train": {"seed": 7},
        "unlabelled": {},
        "augment": {},
    }


def test_training_and_test_data_are_stated():
    page = render_markdown(make_report())
    assert "The training data is unknown. Leakage: none found." in page
    assert "Tested on" not in page
    protocol = {
        "data": {"clips": {"faces": FACES, "split": {"split": "source"}}},
        "training": trained_on("ffpp"),
    }
    page = render_markdown(make_report(protocol=protocol))
    assert (
        "Trained on ffpp (official splits, seed 7). Tested on clips (source splits): up to 32 "
        "frames per video, faces detected by mtcnn, aligned with eyes, 299 pixels. Leakage: none "
        "found."
    ) in page
    every = {"data": {"clips": {"faces": {**FACES, "every": 5}, "split": {"split": "source"}}}}
    assert "one frame of 5" in render_markdown(make_report(protocol=every))


def test_a_split_by_single_faces_is_flagged():
    sentence = "clips was split by single faces, as in the paper"
    singly = {"data": {"clips": {"split": {"split": "paper"}}}}
    assert sentence in render_markdown(make_report(protocol=singly))
    assert sentence not in render_markdown(make_report())


def test_calibration_is_described():
    calibration = {
        "temperature": 1.5,
        "threshold": 0.5,
        "num_real": 12,
        "num_fake": 13,
        "data": "clips",
        "uncertain_from": 0.25,
        "uncertain_to": 0.75,
        "ece_before": 0.25,
        "ece_after": 0.125,
    }
    page = render_markdown(make_report(protocol={"calibration": calibration}))
    assert "temperature of 1.5, fitted on 12 real and 13 fake validation videos of clips" in page
    assert "A score between 0.25 and 0.75 is `uncertain`." in page
    assert "was 0.250 before and 0.125 after. A score" in page
    assert "uncalibrated output" not in page
    assert "| real videos | 0 | 1 | 1 |" in find_section(page, "Verdicts")
    worse = {**calibration, "ece_after": 0.5}
    assert "It increased on this small set" in render_markdown(
        make_report(protocol={"calibration": worse})
    )
    unknown = render_markdown(make_report(protocol={"model_digest": ""}))
    assert "Whether the scores are calibrated is unknown." in unknown
    assert "uncalibrated output" not in unknown
    plain = render_markdown(make_report())
    assert "The scores are not calibrated" in plain and "uncalibrated output" in plain
    # Four bins of one face each: (|0.25 - 0| + |0.75 - 0| + |0.5 - 1| + 0) / 4.
    assert "Expected calibration error: 0.375 of faces" in plain


def test_figures_are_in_their_sections():
    names = ("roc", "det", "precision-recall", "scores", "reliability", "faces", "errors")
    page = render_markdown(make_report(), names)
    for section, shown in {
        "Curves": names[:3],
        "Scores": names[3:5],
        "Faces": ["faces"],
        "Hardest errors": ["errors"],
    }.items():
        assert [f"]({name}.png)" in find_section(page, section) for name in shown] == [True] * len(
            shown
        )
    plain = render_markdown(make_report())
    assert "![" not in plain and "## Faces" not in plain


def test_the_hardest_faces_are_only_called_errors_if_they_are():
    section = find_section(render_markdown(make_report()), "Hardest errors")
    assert "| 1 | real | 0.750 | b | 0 |" in section and "| 3 | fake | 0.500 | c | 0 |" in section
    apart = render_markdown(make_report(make_videos(2, 2)))
    assert "## Hardest errors" not in apart
    section = find_section(apart, "Closest to an error")
    assert "All of these faces are on the correct side of 0.5." in section


def test_unknown_coverage_is_stated():
    unknown = make_report(protocol={"coverage": UNKNOWN})
    section = find_section(render_markdown(unknown), "Videos without a score")
    assert section == "Unknown: pass the datasets to list them."


NASTY = "<script>alert(1)</script> | ![x](missing.png) [y](http://z) \\"


def test_names_cannot_inject_markup(tmp_path):
    columns = {
        **FOUR,
        "manipulation": ["", "", NASTY, NASTY + "2"],
        "data": [NASTY + "3", "x", NASTY + "3", "x"],
    }
    calibration = {
        "temperature": 1.5,
        "threshold": 0.5,
        "num_real": 1,
        "num_fake": 1,
        "data": NASTY,
        "uncertain_from": 0.25,
        "uncertain_to": 0.75,
    }
    report = make_report(
        columns,
        protocol={
            "model": NASTY,
            "data": {NASTY: {"split": {"split": "paper"}, "faces": FACES}},
            "training_faces": {**FACES, "face_size": 71},
            "calibration": calibration,
            "training": trained_on(NASTY),
            "leakage": NASTY,
        },
        excluded=[Excluded(NASTY, NASTY, True, NASTY)],
    )
    scores = Scores.from_faces(**columns)
    report = replace(report, comparison=compare_scores(scores, scores, name=NASTY))
    text = render_markdown(report)
    for line in text.splitlines():
        if line.startswith("|"):
            bare = line.replace("\\\\", "").replace("\\|", "")
            assert bare.count("|") in (3, 4, 5, 6, 8), line
    write_page(tmp_path / "report.html", text)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "<img" not in html and "<a " not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | ![x](missing.png) [y](http://z) \\</td>" in html


def test_a_title_states_model_data_and_split():
    assert title_of(Protocol.from_dict(PROTOCOL)) == "run on clips, split test"

    def title(*data: str) -> str:
        return title_of(Protocol(model="run", data=dict.fromkeys(data), leakage="none"))

    assert title() == "run"
    assert title("a", "b") == "run on a, b"
    assert title(*"abcd") == "run on 4 datasets"


def test_tied_scores_are_not_called_separable():
    page = render_markdown(make_report({**FOUR, "score": [0.5] * 4}, n_resamples=100))
    assert "There is no interval: every resample has the same AUC." in page
    assert "separated perfectly" not in page
    inverted = render_markdown(
        make_report({**FOUR, "score": [0.9, 0.8, 0.2, 0.1]}, n_resamples=100)
    )
    assert "**It is worse than chance**" in inverted and "separated perfectly" not in inverted


def test_intervals_of_few_videos_are_flagged():
    sentence = "With fewer than 20 videos of a class"
    overlapping = [(7 * row % 40) / 40 for row in range(40)]
    few = make_videos(19, 21, score=overlapping)
    assert sentence in render_markdown(make_report(few, n_resamples=100))
    enough = make_videos(20, 20, score=overlapping)
    assert sentence not in render_markdown(make_report(enough, n_resamples=100))
    assert sentence not in render_markdown(make_report(few))


def test_the_summary_of_a_calibration_notes_what_is_doubtful():
    calibration = Calibration(2.0, 0.5, 0.25, 0.75, 0.05, "clips", num_real=12, num_fake=1)
    verdicts = {
        "real": {"real": 11, "uncertain": 1, "fake": 0},
        "fake": {"real": 0, "uncertain": 0, "fake": 1},
    }
    errors = CalibrationError(0.1, 0.2), CalibrationError(0.3, 0.25)
    result = CalibrationResult(calibration, *errors, verdicts, "none")
    first, *lines = summarize_calibration(result).splitlines()
    assert first == "validation: 12 real and 1 fake video of clips"
    assert lines[:3] == [
        "temperature 2: calibration error of faces 0.100 -> 0.300, of videos 0.200 -> 0.250",
        "threshold 0.5 for a false positive rate of at most 0.05",
        "uncertain from 0.25 to 0.75; real videos: 11 real, 1 uncertain, 0 fake; "
        "fake videos: 0 real, 0 uncertain, 1 fake",
    ]
    assert "the threshold is set by a single video" in lines[3]
    assert "calibration increased the calibration error" in lines[4]
    uninformative = replace(result, calibration=replace(calibration, temperature=20.0))
    assert "no temperature is high enough" in summarize_calibration(uninformative)
