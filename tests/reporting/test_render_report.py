"""The page: sentences that a person may rely on."""

import pytest

from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import Excluded
from jdfd_keras.evaluation.metrics import MEASURED
from jdfd_keras.evaluation.report import build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.markdown import write_page
from jdfd_keras.reporting.render_report import MOST_LISTED, render_markdown
from jdfd_keras.reporting.report_text import format_estimate, format_value, summarize, title_of

PROTOCOL = {
    "model": "run",
    "split": "test",
    "data": {"clips": {}},
    "training": "not known here",
    "leaks": "none found",
}
FACES = {
    "every": 0,
    "frames_per_video": 32,
    "detector": "mtcnn",
    "alignment": "eyes",
    "face_size": 299,
}
# From the top: fake, real, fake, real: 3 of 4 pairs in order, as in every interval undefined.
FOUR = {
    "video_id": ["a", "b", "c", "d"],
    "label": [0, 0, 1, 1],
    "score": [0.25, 0.75, 0.5, 1.0],
    "manipulation": ["", "", "Deepfakes", "Deepfakes"],
}


def make_report(columns=None, *, protocol=None, rounds=0, **changed) -> dict:
    options = EvaluateOptions(rounds=rounds, **changed.pop("options", {}))
    settings = {
        "threshold": 0.5,
        "options": options,
        "protocol": {**PROTOCOL, **(protocol or {})},
        "excluded": [],
    }
    return build_report(Scores.from_faces(**(columns or FOUR)), **{**settings, **changed})


def make_videos(num_real: int, num_fake: int, **changed) -> dict:
    """Reals evenly up to 0.5, fakes evenly from there; a video each."""
    number = num_real + num_fake
    return {
        "video_id": [f"v{row}" for row in range(number)],
        "label": [int(row >= num_real) for row in range(number)],
        "score": [row / number for row in range(number)],
        **changed,
    }


def find_section(page: str, title: str) -> str:
    return page.split(f"## {title}\n\n")[1].split("\n\n## ")[0]


def test_the_page_shows_numbers_and_protocol():
    page = render_markdown(make_report())
    assert page.startswith("# run on clips, split test\n\n**Video AUC 0.750** over 4 videos")
    assert "(2 real, 2 fake, 4 faces)" in page
    assert "| area under the ROC curve (AUC) | 0.750 | 0.750 |" in page
    assert "| reals called fake at 0.5 | 0.500 | 0.500 |" in page
    assert "| split | test |" in page and "| threshold | 0.5 |" in page
    assert "one video is 50.0% of it" in page
    assert page.endswith("|\n")


def test_every_number_has_a_row():
    table = render_markdown(make_report()).split("| real / fake |")[1].split("\n\n")[0]
    assert len(table.splitlines()) == 1 + len(MEASURED)
    assert "1 % of reals are called fake | 0.500 | 0.500 |" in table


def test_an_interval_stands_beside_its_number():
    report = make_report(rounds=50)
    low, high = report["video"]["auc"]["low"], report["video"]["auc"]["high"]
    page = render_markdown(report)
    assert f"(AUC) | 0.750 [{low:.3f}, {high:.3f}] | 0.750 [{low:.3f}, {high:.3f}] |" in page
    assert f"**Video AUC 0.750** (95 % interval {low:.3f} to {high:.3f}) over" in page
    assert "In brackets: 95 %, BCa bootstrap over videos within each class, 50 rounds" in page


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.9123, 0.88, 0.94), "0.912 [0.880, 0.940]"),
        ((0.5, None, None), "0.500"),
        ((None, None, None), "undefined"),
        ((0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
    ],
)
def test_an_estimate_is_written_with_three_decimals(estimate, text):
    assert format_estimate(dict(zip(("value", "low", "high"), estimate, strict=True))) == text


def test_nothing_known_is_undefined():
    assert (format_value(None), format_value(0.0)) == ("undefined", "0.000")


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_undefined_on_the_page_and_never_a_half(label):
    columns = {"video_id": list("abc"), "label": [label] * 3, "score": [0.1, 0.2, 0.9]}
    page = render_markdown(make_report(columns, rounds=20))
    assert f"**All 3 scored videos are {'fake' if label else 'real'}**" in page
    assert "| area under the ROC curve (AUC) | undefined | undefined |" in page
    assert "| equal error rate (EER) | undefined | undefined |" in page
    assert "0.500" not in page
    assert "There are no curves" in find_section(page, "Curves") and "![" not in page
    assert ("The scores hold no fakes." in page) == (not label)
    assert summarize(make_report(columns)).startswith("videos: AUC undefined, EER undefined")


def test_a_class_of_one_video_is_said_to_give_no_interval():
    columns = {"video_id": ["a", "b", "c"], "label": [0, 1, 1], "score": [0.1, 0.2, 0.9]}
    page = render_markdown(make_report(columns, rounds=20))
    assert "There is no interval: that takes two videos of each class." in page
    assert "There is no interval: no rounds were asked for." in render_markdown(make_report())


def test_an_auc_that_may_be_a_coins_is_said_to_be():
    said = "does not show that it is better than a coin"
    overlapping = make_videos(10, 10, score=[(7 * row % 20) / 20 for row in range(20)])
    assert said in render_markdown(make_report(overlapping, rounds=100))
    assert said not in render_markdown(make_report(make_videos(10, 10), rounds=100))


def test_a_perfect_auc_is_said_to_be_no_certainty():
    page = render_markdown(make_report(make_videos(10, 8), rounds=20))
    assert "There is no interval: in these videos the classes lie wholly apart" in page
    assert "it rests on 10 real and 8 fake videos" in page
    assert "it rests on" not in render_markdown(make_report())


def test_an_auc_below_a_half_is_said_to_be_worse_than_a_coin():
    turned = make_videos(10, 10, score=[1 - row / 20 + row % 7 / 70 for row in range(20)])
    turned["score"][0] = 0.2
    page = render_markdown(make_report(turned, rounds=100))
    assert "**It is worse than a coin**: are labels or scores turned round?" in page
    assert "does not show" not in page


def test_an_auc_near_to_one_of_few_videos_is_said_to_be_surer_than_it_is():
    said = "the interval of the AUC is too narrow"
    near = make_videos(10, 10)
    near["score"][9], near["score"][10] = near["score"][10], near["score"][9]
    assert said in render_markdown(make_report(near, rounds=200))
    assert said not in render_markdown(make_report(near, rounds=0))
    overlapping = make_videos(10, 10, score=[(7 * row % 20) / 20 for row in range(20)])
    assert said not in render_markdown(make_report(overlapping, rounds=100))


@pytest.mark.parametrize(
    ("num_real", "said"),
    [
        (1, "Of 1 real video, 1 % and 5 % is less than one"),
        (19, "Of 19 real videos, 1 % and 5 % is less than one"),
        (20, "Of 20 real videos, 1 % is less than one"),
        (99, "Of 99 real videos, 1 % is less than one"),
        (100, None),
    ],
)
def test_few_reals_are_said_to_be_too_few_for_small_rates(num_real, said):
    page = render_markdown(make_report(make_videos(num_real, 3)))
    assert said in page if said else "less than one" not in page


def test_how_a_video_is_scored_is_said():
    assert "A video's score is the mean of its faces." in render_markdown(make_report())
    page = render_markdown(make_report(options={"aggregation": "track"}))
    assert "A video's score is the highest of the means of its people." in page


def test_the_summary_says_both_levels_and_what_was_left_out():
    # The ROC curve crosses FPR = 1 - TPR at (0.5, 0.5).
    excluded = [Excluded("clips", "e", True, "no face")]
    assert summarize(make_report(excluded=excluded)).splitlines() == [
        "videos: AUC 0.750, EER 0.500, accuracy 0.750 (2 real, 2 fake)",
        "faces: AUC 0.750, EER 0.500, accuracy 0.750 (2 real, 2 fake)",
        "without a score: 1 video, named in the report",
    ]
    assert summarize(make_report(excluded=excluded * 2)).endswith(
        "score: 2 videos, named in the report"
    )
    assert "without" not in summarize(make_report())


def test_a_comparison_is_told_with_its_interval_and_p():
    report = make_report()
    first = Scores.from_faces(**FOUR)
    second = Scores.from_faces(
        video_id=list("abcde"), label=[0, 0, 1, 1, 1], score=[0.9, 0.1, 0.5, 0.6, 0.7]
    )
    report["comparison"] = {"with": "other|.csv"} | compare_scores(first, second, "mean")
    section = find_section(render_markdown(report), "Comparison")
    found = report["comparison"]["video"]
    low, high = found["difference"]["low"], found["difference"]["high"]
    line = (
        f"videos: AUC 0.750 beside 0.500, difference 0.250 [{low:.3f}, {high:.3f}], "
        f"p = {found['p']:.3g}"
    )
    assert line in section and line in summarize(report)
    assert "other\\|.csv, on 4 videos that both have scored" in section
    assert "since only the other has scored them: 1 video." in section
    assert "only this detector" not in section


def test_a_comparison_of_one_class_is_undefined_in_words():
    report = make_report()
    only_real = Scores.from_faces(video_id=["a", "b"], label=[0, 0], score=[0.1, 0.2])
    report["comparison"] = {"with": "x.csv"} | compare_scores(only_real, only_real, "mean")
    section = find_section(render_markdown(report), "Comparison")
    assert "a difference of AUC is undefined, one class lacks" in section
    assert "Faces cannot be compared" in section
    assert "undefined" in summarize(report).splitlines()[2]


def test_groups_have_a_table_each_and_nest_by_name():
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
    section = find_section(page, "By data set")
    names = [line.split(" | ")[0][2:] for line in section.splitlines()[2:]]
    assert names == ["x", "x / c23", "x / c40", "y", "y / c23", "y / c40"]
    assert "| x / c40 | 1 / 1 | 0 | 2 | 1.000 | 1.000 | 0.000 |" in section
    assert "Each against all 4 real videos." in find_section(page, "By manipulation")
    assert "By split" not in page


def test_excluded_videos_are_named_with_reason_and_do_not_break_the_table():
    excluded = [Excluded("clips", "e|f", True, "no face\nin 8 frames")]
    page = render_markdown(make_report(excluded=excluded))
    section = find_section(page, "Videos without a score")
    assert "Without a score: 1 of 5 videos, so that 80.0% are covered" in section
    assert "| clips | e\\|f | fake | no face in 8 frames |" in section
    assert "They leave out 1 of 5 videos" in page
    assert "every video has a score" in render_markdown(make_report())


@pytest.mark.parametrize("more", [0, 1, 200])
def test_a_long_list_of_excluded_videos_is_cut_and_said_to_be(more):
    excluded = [
        Excluded("clips", f"video{number:03}", False, "no face")
        for number in range(MOST_LISTED + more)
    ]
    section = find_section(
        render_markdown(make_report(excluded=excluded)), "Videos without a score"
    )
    assert section.count("| real | no face |") == MOST_LISTED
    assert (f"{more} more are named in report.json" in section) == bool(more)
    assert ("more are named" in section) == bool(more)


@pytest.mark.parametrize(
    ("mse", "mean_face_mse", "said"),
    [
        (0.05, 0.2, "explains 75.0% of how the faces differ"),
        (0.2, 0.2, "no better than the mean face"),
        (0.3, 0.2, "no better than the mean face"),
        (0.1, 0.0, "no better than the mean face"),
    ],
)
def test_a_decoder_that_only_learned_the_mean_face_is_seen(mse, mean_face_mse, said):
    columns = {**FOUR, "reconstruction_error": [mse] * 4}
    page = render_markdown(make_report(columns, mean_face_mse=mean_face_mse))
    assert said in find_section(page, "Reconstruction")
    assert "frame AUC of 0.500" in page  # of errors that are all the same
    assert "## Reconstruction" not in render_markdown(make_report(columns))


@pytest.mark.parametrize(
    ("split", "said"), [("val", "the numbers flatter"), ("train", "memory, not of skill")]
)
def test_a_split_that_training_has_used_is_warned_of(split, said):
    assert said in render_markdown(make_report(protocol={"split": split}))
    assert said not in render_markdown(make_report())


def test_faces_taken_otherwise_than_in_training_are_warned_of():
    data = {"clips": {"faces": FACES}}
    other = {"data": data, "training_faces": {**FACES, "detector": "dlib"}}
    said = "The faces of clips were taken otherwise than those of the training, in detector:"
    assert said in render_markdown(make_report(protocol=other))
    same = {"data": data, "training_faces": FACES}
    assert "otherwise" not in render_markdown(make_report(protocol=same))
    assert "otherwise" not in render_markdown(make_report(protocol={"data": data}))


def test_how_it_came_about_is_said_in_a_sentence():
    page = render_markdown(make_report())
    assert "What it was trained on is not known here. Leaks: none found." in page
    assert "Tested on" not in page
    protocol = {
        "data": {"clips": {"faces": FACES, "split": {"split": "source"}}},
        "training": {
            "data": {"name": "ffpp"},
            "split": {"split": "official"},
            "train": {"seed": 7},
        },
    }
    page = render_markdown(make_report(protocol=protocol))
    assert (
        "Trained on ffpp (official splits, seed 7). Tested on clips (source splits): up to 32 "
        "frames per video, faces found by mtcnn, laid by eyes, 299 pixels. Leaks: none found."
    ) in page
    every = {"data": {"clips": {"faces": {**FACES, "every": 5}, "split": {"split": "source"}}}}
    assert "one frame of 5" in render_markdown(make_report(protocol=every))


def test_faces_split_singly_are_warned_of():
    said = "clips was split by single faces, as in the paper"
    singly = {"data": {"clips": {"split": {"split": "paper"}}}}
    assert said in render_markdown(make_report(protocol=singly))
    assert said not in render_markdown(make_report())


def test_calibrated_scores_are_said_to_be_and_others_not():
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
    assert "temperature of 1.5, on 12 real and 13 fake validation videos of clips" in page
    assert "A verdict between 0.25 and 0.75 is `uncertain`." in page
    assert "was 0.250 before and 0.125 after. A verdict" in page
    assert "not a calibrated probability" not in page
    assert "| real videos | 0 | 1 | 1 |" in find_section(page, "Verdicts")
    worse = {**calibration, "ece_after": 0.5}
    assert "It rose: so few" in render_markdown(make_report(protocol={"calibration": worse}))
    unknown = render_markdown(make_report(protocol={"calibration": "not known here"}))
    assert "Whether the scores are calibrated is not known here." in unknown
    assert "not a calibrated probability" not in unknown
    plain = render_markdown(make_report())
    assert "The scores are not calibrated" in plain and "not a calibrated probability" in plain
    # Both bins of one face each: |0.25 - 0|, |0.75 - 0|, |0.5 - 1| and 0 over four.
    assert "Expected calibration error: 0.375 of faces" in plain


def test_pictures_stand_in_their_sections_and_nowhere_without_them():
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


def test_the_hardest_faces_are_listed_and_called_errors_only_where_they_are():
    section = find_section(render_markdown(make_report()), "Hardest errors")
    assert "| 1 | real | 0.750 | b | 0 |" in section and "| 3 | fake | 0.500 | c | 0 |" in section
    apart = render_markdown(make_report(make_videos(2, 2)))
    assert "## Hardest errors" not in apart
    section = find_section(apart, "Nearest to an error")
    assert "No face of these is on the wrong side of 0.5." in section


def test_videos_that_nobody_counted_are_not_said_to_be_all():
    unknown = make_report(protocol={"coverage": "not known here"})
    section = find_section(render_markdown(unknown), "Videos without a score")
    assert section == "Whether there are any is not known here: name the data sets to check."


NASTY = "<script>alert(1)</script> | ![x](missing.png) [y](http://z) \\"


def test_no_name_breaks_the_page_or_obeys(tmp_path):
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
            "training": {NASTY: NASTY, "data": {"name": NASTY}},
            "leaks": NASTY,
        },
        excluded=[Excluded(NASTY, NASTY, True, NASTY)],
    )
    scores = Scores.from_faces(**columns)
    report["comparison"] = {"with": NASTY} | compare_scores(scores, scores, "mean")
    text = render_markdown(report)
    for line in text.splitlines():
        if line.startswith("|"):
            bare = line.replace("\\\\", "").replace("\\|", "")
            assert bare.count("|") in (3, 4, 5, 6, 8), line
    write_page(tmp_path / "report.html", text)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "<img" not in html and "<a " not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | ![x](missing.png) [y](http://z) \\</td>" in html


def test_a_title_names_model_data_and_split():
    assert title_of(PROTOCOL) == "run on clips, split test"
    assert title_of({"model": "scores.csv", "data": {}}) == "scores.csv"
    assert title_of({"model": "run", "data": {"a": {}, "b": {}}}) == "run on a, b"
    many = {"model": "run", "data": dict.fromkeys("abcd", {})}
    assert title_of(many) == "run on 4 data sets"


def test_scores_that_tie_are_not_said_to_lie_apart():
    page = render_markdown(make_report({**FOUR, "score": [0.5] * 4}, rounds=100))
    assert "There is no interval: whichever videos are drawn, it stays the same." in page
    assert "wholly apart" not in page
    turned = render_markdown(make_report({**FOUR, "score": [0.9, 0.8, 0.2, 0.1]}, rounds=100))
    assert "**It is worse than a coin**" in turned and "wholly apart" not in turned


def test_intervals_of_few_videos_are_said_to_be_too_sure():
    said = "With fewer than 20 videos of a class"
    overlapping = [(7 * row % 40) / 40 for row in range(40)]
    few = make_videos(19, 21, score=overlapping)
    assert said in render_markdown(make_report(few, rounds=100))
    enough = make_videos(20, 20, score=overlapping)
    assert said not in render_markdown(make_report(enough, rounds=100))
    assert said not in render_markdown(make_report(few))
