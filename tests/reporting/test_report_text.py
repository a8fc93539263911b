"""The report: its sections, the notes on doubtful metrics, and escaping."""

from dataclasses import replace

import numpy as np
import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.evaluation.calibrate import CalibrationResult
from jdfd_keras.evaluation.delong import compare_scores
from jdfd_keras.evaluation.eval_data import UNKNOWN, Excluded, Protocol
from jdfd_keras.evaluation.metrics import MEASURED
from jdfd_keras.evaluation.reliability import CalibrationError
from jdfd_keras.evaluation.report import Report, build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.report_text import (
    describe_media,
    render_markdown,
    summarize,
    summarize_calibration,
    title_of,
)
from jdfd_keras.reporting.templating import write_page

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
DATA = {"faces": FACES, "split": {}, "split_table": "official", "filters": {}}
PAPER = {"split": {"strategy": "paper"}, "split_table": "paper"}
OWN = {"split": {"strategy": "own table"}, "split_table": "/data/mine.csv"}
EVERY = {"split": "all", "data": {"clips": DATA | {"split": None, "split_table": ""}}}
LEFT_OUT = {"split": {"strategy": "leave-one-out", "fold": 1}, "split_table": "one-out"}
TRAINING = {
    "data": {
        "name": "ffpp",
        "leakage": "none",
        "digest": "d",
        "train_faces": 4,
        "unlabelled_faces": 0,
        "val_faces": 2,
    },
    "split": {"strategy": "kfold", "fold": 0},
    "train": {"seed": 7, "split_table": "kfold-0-of-5"},
    "unlabelled": {},
    "augment": {},
}
CALIBRATION = {
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
# By descending score fake, real, fake, real: 3 of 4 pairs are in order.
FOUR = {
    "video_id": ["a", "b", "c", "d"],
    "label": [0, 0, 1, 1],
    "score": [0.25, 0.75, 0.5, 1.0],
    "manipulation": ["", "", "Deepfakes", "Deepfakes"],
}


def make_report(
    columns=None, *, protocol=None, n_resamples=0, aggregation="mean", **more
) -> Report:
    return build_report(
        Scores.from_faces(**(columns or FOUR)),
        threshold=0.5,
        options=EvaluateOptions(n_resamples=n_resamples, aggregation=aggregation),
        protocol=Protocol.from_dict(PROTOCOL | (protocol or {})),
        **more,
    )


def render(*args, **changed) -> str:
    return render_markdown(make_report(*args, **changed))


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
    return page.split(f"## {title}\n\n")[1].split("\n\n## ")[0].strip()


def test_the_page_has_the_metrics_and_how_they_were_measured(snapshot):
    report = make_report(
        FOUR | {"data": ["clips"] * 4},
        protocol={
            "data": {"clips": DATA},
            "training": TRAINING,
            "calibration": CALIBRATION,
        },
        excluded=[Excluded("clips", "e|f", True, "no face\nin 8 frames", manipulation="Deepfakes")],
    )
    figures = ("roc", "det", "precision-recall", "scores", "reliability", "faces", "errors")
    page = render_markdown(report, figures)
    assert "(AUC) | 0.750 | 0.750 |" in page  # 3 of 4 pairs
    assert page.split("## Protocol")[0] == snapshot


@pytest.mark.parametrize("mark", [False, True])
def test_a_report_on_a_model_for_demonstration_begins_with_its_mark(mark):
    report = make_report(protocol={"demonstration": mark})
    sentence = "For demonstration only: this model cannot judge real videos."
    page = render_markdown(report)
    assert (page.split("\n\n")[1] == f"**{sentence}**") is mark
    assert page.count(sentence) == mark
    assert (summarize(report).splitlines()[0] == f"note: {sentence}") is mark
    assert report.to_dict()["protocol"]["demonstration"] is mark


def test_every_metric_has_a_row():
    table = render().split("| real / fake |")[1].split("\n\n")[0]
    assert len(table.splitlines()) == 1 + len(MEASURED)


# Tables, and settings of stored scores only.
UNLISTED = {"data", "versions", "scores_digest", "scores_origin"}
UNLISTED |= {"degradation", "is_chosen_on_test"}  # where there is none, and in words


def test_every_setting_of_the_protocol_has_a_row():
    section = find_section(render(), "Protocol")
    names = {line.split(" | ")[0].removeprefix("| ") for line in section.splitlines()[2:]}
    settings = make_report().protocol.to_dict()
    assert {name.replace("_", " ") for name in settings.keys() - UNLISTED} <= names
    assert {"| split | test |", "| threshold | 0.5 |", "| calibration | none |"} <= set(
        section.splitlines()
    )


def test_an_interval_is_shown_with_its_metric():
    report = make_report(n_resamples=50)
    low, high = f"{report.video.auc.low:.3f}", f"{report.video.auc.high:.3f}"
    page = render_markdown(report)
    assert f"(AUC) | 0.750 [{low}, {high}] | 0.750 [{low}, {high}] |" in page
    assert f"**Video AUC 0.750** (95 % interval {low} to {high})" in page
    assert "50 resamples" in find_section("## \n\n" + page, "")


@pytest.mark.parametrize("label", [0, 1])
def test_metrics_of_one_class_are_undefined_on_the_page_and_never_a_half(label):
    columns = {"video_id": list("abc"), "label": [label] * 3, "score": [0.1, 0.2, 0.9]}
    page = render(columns, n_resamples=20)
    assert f"**All 3 scored videos are {'fake' if label else 'real'}**" in page
    assert "(AUC) | undefined | undefined |" in page
    assert "(EER) | undefined | undefined |" in page
    assert "0.500" not in page and "![" not in page
    assert ("no fake videos" in page) == (not label)
    assert summarize(make_report(columns)).startswith("videos: AUC undefined, EER undefined")


INVERTED = make_videos(10, 10, score=[0.2, *(1 - n / 20 + n % 7 / 70 for n in range(1, 20))])
OVERLAPPING = make_videos(10, 10, score=[(7 * row % 20) / 20 for row in range(20)])
ONE_SWAPPED = make_videos(10, 10, score=[*range(9), 10, 9, *range(11, 20)])
ONE_SWAPPED["score"] = [score / 20 for score in ONE_SWAPPED["score"]]
TIED = {**FOUR, "score": [0.5] * 4}
SWAPPED_OF_40 = make_videos(20, 20, score=[n / 40 for n in (*range(19), 20, 19, *range(21, 40))])
RESAMPLED = {"n_resamples": 100}


@pytest.mark.parametrize(
    ("phrase", "given", "otherwise"),
    [
        ("better than chance", {"columns": OVERLAPPING} | RESAMPLED, {"columns": ONE_SWAPPED}),
        ("worse than chance", {"columns": INVERTED} | RESAMPLED, {"columns": OVERLAPPING}),
        (
            "worse than chance",
            {"columns": make_videos(10, 10, score=[1 - row / 20 for row in range(20)])} | RESAMPLED,
            {"columns": TIED} | RESAMPLED,
        ),
        (
            "rests on their number, 10 real and 8 fake videos",
            {"columns": make_videos(10, 8)} | RESAMPLED,
            {"columns": make_videos(10, 8)},
        ),
        ("needs two videos", {"columns": make_videos(1, 2)} | RESAMPLED, RESAMPLED),
        ("intervals were turned off", {}, RESAMPLED),
        ("fewer than 20 videos", {"columns": OVERLAPPING} | RESAMPLED, {"columns": OVERLAPPING}),
        (
            "fewer than 20 videos",
            {"columns": OVERLAPPING} | RESAMPLED,
            {"columns": make_videos(20, 20, score=[n * 7 % 40 / 40 for n in range(40)])}
            | RESAMPLED,
        ),
        ("1 % and 5 % are less", {"columns": make_videos(19, 3)}, {"columns": make_videos(20, 3)}),
        ("1 % is less", {"columns": make_videos(99, 3)}, {"columns": make_videos(100, 3)}),
        ("highest mean score of its tracks", {"aggregation": "track"}, {}),
        ("the maximum of its face scores", {"aggregation": "max"}, {}),
        ("chosen on validation data", {"protocol": {"split": "val"}}, {}),
        ("memorisation", {"protocol": {"split": "train"}}, {}),
        (
            "(detector)",
            {
                "protocol": {
                    "data": {"clips": DATA},
                    "training_faces": FACES | {"detector": "dlib"},
                }
            },
            {"protocol": {"data": {"clips": DATA}, "training_faces": FACES}},
        ),
        (
            "split by single faces",
            {"protocol": {"data": {"clips": DATA | PAPER}}},
            {},
        ),
        (
            "Tested on clips (split table one-out: strategy leave-one-out, fold 1, held out for "
            "testing: FaceSwap):",
            {"protocol": {"data": {"clips": DATA | LEFT_OUT | {"held_out": "FaceSwap"}}}},
            {"protocol": {"data": {"clips": DATA}}},
        ),
        (
            "fakes of clips are of the manipulation FaceSwap, which this split holds out",
            {"protocol": {"data": {"clips": DATA | LEFT_OUT | {"held_out": "FaceSwap"}}}},
            {"protocol": {"data": {"clips": DATA | LEFT_OUT}}},
        ),
        (
            "Tested on clips (official split):",
            {"protocol": {"data": {"clips": DATA}}},
            {"protocol": {"data": {"clips": DATA | OWN}}},
        ),
        (
            "Tested on clips (split table /data/mine.csv):",
            {"protocol": {"data": {"clips": DATA | OWN}}},
            {"protocol": {"data": {"clips": DATA}}},
        ),
        ("Tested on clips (all faces):", {"protocol": EVERY}, {}),
        ("of all faces, whatever their split", {"protocol": EVERY}, {}),
        (
            "(split table strict: strategy strict, seed 3)",
            {
                "protocol": {
                    "training": TRAINING
                    | {
                        "split": {"strategy": "strict", "seed": 3},
                        "train": {"split_table": "strict"},
                    }
                }
            },
            {"protocol": {"training": TRAINING}},
        ),
        (
            "one frame of 5",
            {"protocol": {"data": {"clips": DATA | {"faces": FACES | {"every": 5}}}}},
            {"protocol": {"data": {"clips": DATA}}},
        ),
        ("scores are not calibrated", {}, {"protocol": {"calibration": CALIBRATION}}),
        ("uncalibrated output", {}, {"protocol": {"model_digest": ""}}),
        ("calibrated is unknown", {"protocol": {"model_digest": ""}}, {}),
        (
            "increased on this small set",
            {"protocol": {"calibration": CALIBRATION | {"ece_after": 0.5}}},
            {"protocol": {"calibration": CALIBRATION}},
        ),
        ("pass the datasets", {"protocol": {"coverage": UNKNOWN}}, {}),
        ("every video has a score", {}, {"excluded": [Excluded("clips", "e", True, "no face")]}),
        ("repeats video and score", {"protocol": {"repeated_rows": 1}}, {}),
        ("2 faces have no head pose", {"protocol": {"faces_without_pose": 2}}, {}),
    ],
)
def test_a_note_is_on_the_page_only_where_it_applies(phrase, given, otherwise):
    assert phrase in render(**given)
    assert phrase not in render(**otherwise)


def test_settings_of_a_split_that_do_not_apply_are_no_rows_and_all_faces_have_none():
    given = {"data": {"clips": DATA | LEFT_OUT | {"held_out": "FaceSwap"}}, "training": TRAINING}
    section = find_section(render(protocol=given), "Protocol")
    assert "| data: clips: split: fold | 1 |" in section
    assert "| data: clips: held out | FaceSwap |" in section
    assert "| training: split: fold | 0 |" in section
    section = find_section(render(protocol={"data": {"clips": DATA}}), "Protocol")
    assert "fold |" not in section and "held out" not in section
    section = find_section(render(protocol=EVERY), "Protocol")
    assert "| data: clips: split | none: all faces |" in section
    assert "| data: clips: split table | none: all faces |" in section
    assert "unknown" not in section.split("data: clips: split |")[1].split("\n")[0]


def test_the_summary_states_both_levels_and_excluded_videos(snapshot):
    # The ROC curve crosses FPR = 1 - TPR at (0.5, 0.5).
    excluded = [Excluded("clips", "e", True, "no face")]
    assert summarize(make_report(excluded=excluded)) == snapshot
    assert len(summarize(make_report()).splitlines()) == 2


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
    assert "other\\|.csv, on 4 videos" in section
    assert "only the other" in section and ": 1 video." in section
    assert "only this detector" not in section


def test_a_comparison_on_one_class_is_undefined():
    only_real = Scores.from_faces(video_id=["a", "b"], label=[0, 0], score=[0.1, 0.2])
    comparison = compare_scores(only_real, only_real, name="x.csv")
    report = replace(make_report(), comparison=comparison)
    section = find_section(render_markdown(report), "Comparison")
    assert "AUC is undefined" in section and "Faces cannot" in section
    assert "undefined" in summarize(report).splitlines()[2]


def test_each_group_has_a_table_with_its_strata():
    columns = {
        "video_id": [f"v{row}" for row in range(8)],
        "label": [0, 0, 1, 1] * 2,
        "score": [0.1, 0.1, 0.9, 0.9, 0.2, 0.2, 0.8, 0.8],
        "data": ["x"] * 4 + ["y"] * 4,
        "compression": ["c23", "c40"] * 4,
        "manipulation": ["", "", "Deepfakes", "Deepfakes"] * 2,
    }
    page = render(columns)
    section = find_section(page, "By dataset")
    names = [line.split(" | ")[0][2:] for line in section.splitlines()[2:]]
    assert names == ["x", "x / c23", "x / c40", "y", "y / c23", "y / c40"]
    assert "| x / c40 | 1 / 1 | 0 | 2 | 1.000 | 1.000 | 0.000 |" in section
    assert "all 4 real videos" in find_section(page, "By manipulation")
    assert "By split" not in page


@pytest.mark.parametrize("more", [0, 1])
def test_a_long_list_of_excluded_videos_is_truncated(more):
    excluded = [Excluded("clips", f"video{n:03}", False, "no face") for n in range(50 + more)]
    section = find_section(render(excluded=excluded), "Videos without a score")
    assert section.count("| real | no face |") == 50
    assert f"{50 + more} of {54 + more} videos" in section
    assert ("1 more " in section and "report.json" in section) == bool(more)


@pytest.mark.parametrize(
    ("mse", "mean_face_mse", "sentence"),
    [
        (0.05, 0.2, "explains 75.0% of the variance between faces"),
        (0.2, 0.2, "no better than the mean face"),
        (0.1, 0.0, "no better than the mean face"),
    ],
)
def test_a_decoder_no_better_than_the_mean_face_is_flagged(mse, mean_face_mse, sentence):
    columns = {**FOUR, "reconstruction_error": [mse] * 4}
    section = find_section(render(columns, mean_face_mse=mean_face_mse), "Reconstruction")
    assert sentence in section
    assert "frame AUC of 0.500" in section  # all errors are equal
    assert "## Reconstruction" not in render(columns)


def test_the_calibration_error_is_stated():
    # Four bins of one face each: (|0.25 - 0| + |0.75 - 0| + |0.5 - 1| + 0) / 4.
    stated = (
        "calibration error at equal priors (real and fake have the same total weight): 0.375 of"
    )
    assert stated in render()


def test_the_hardest_faces_are_only_called_errors_if_they_are():
    section = find_section(render(), "Hardest errors")
    assert "1 of 2 real videos is called fake, and 0 of 2 fake videos are not" in section
    assert "| 1 | real | 0.750 | 0.750 | b | 0 |" in section and "| 2 |" not in section
    apart = find_section(render(make_videos(2, 2)), "Hardest errors")
    assert apart == "There are none: all 4 videos are on the correct side of the threshold 0.5."


def test_maps_are_withheld_with_the_reason_unless_the_detector_beats_chance():
    def find_errors(columns):
        return find_section(render_markdown(make_report(columns), ("errors",)), "Hardest errors")

    # 3 of 4 pairs in order; and one swapped pair of 400, with an error of each class at 0.5.
    withheld, shown = find_errors(FOUR), find_errors(SWAPPED_OF_40)
    assert "no class-activation maps" in withheld and "video AUC of 0.750 [0." in withheld
    assert "with class-activation maps" not in withheld
    assert "have one scale, that of the bar" in shown and "no class-activation" not in shown
    real = make_videos(3, 0, score=[0.9, 0.2, 0.1])
    assert "one class is absent" in find_errors(real)


NASTY = "<script>alert(1)</script> | ![x](missing.png) [y](http://z) \\"


def test_names_cannot_inject_markup(tmp_path):
    columns = {
        **FOUR,
        "manipulation": ["", "", NASTY, NASTY + "2"],
        "data": [NASTY + "3", "x", NASTY + "3", "x"],
    }
    report = make_report(
        columns,
        protocol={
            "model": NASTY,
            "data": {NASTY: DATA | PAPER | {"split_table": NASTY, "held_out": NASTY}},
            "training_faces": FACES | {"face_size": 71},
            "calibration": CALIBRATION | {"data": NASTY},
            "training": TRAINING | {"data": TRAINING["data"] | {"name": NASTY}},
            "leakage": NASTY,
        },
        excluded=[Excluded(NASTY, NASTY, True, NASTY)],
    )
    scores = Scores.from_faces(**columns)
    text = render_markdown(replace(report, comparison=compare_scores(scores, scores, name=NASTY)))
    for line in text.splitlines():
        if line.startswith("|"):
            bare = line.replace("\\\\", "").replace("\\|", "")
            assert bare.count("|") in (3, 4, 5, 6, 7, 8), line
    write_page(tmp_path / "report.html", text)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "<img" not in html and "<a " not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | ![x](missing.png) [y](http://z) \\</td>" in html


def test_a_title_states_model_data_and_split():
    def title(*data: str) -> str:
        return title_of(Protocol(model="run", data=dict.fromkeys(data), leakage="none"))

    assert title_of(Protocol.from_dict(PROTOCOL)) == "run on clips, split test"
    assert title() == "run"
    assert title("a", "b") == "run on a, b"
    for data, expected in (
        ({"split": "all", **EVERY}, "run on clips, all faces"),
        ({"data": {"clips": DATA}}, "run on clips, split test"),
        ({"data": {"clips": DATA | PAPER}}, "run on clips, split test of paper"),
        ({"data": {"clips": DATA | OWN, "b": None}}, "run on clips, b, split test of mine.csv"),
    ):
        assert title_of(Protocol.from_dict(PROTOCOL | data)) == expected
    assert title(*"abcd") == "run on 4 datasets"


def test_the_summary_of_a_calibration_notes_what_is_doubtful(snapshot):
    calibration = Calibration(
        temperature=2.0,
        bias=-0.5,
        uncertain_from=0.25,
        uncertain_to=0.75,
        target_error_rate=0.05,
        data="clips",
        num_real=12,
        num_fake=1,
        num_not_judged=3,
        tracks="largest",
        cllr=0.625,
        min_cllr=0.5,
        auc=0.875,
        auc_low=0.45,
        auc_high=0.98,
        real_scores=tuple(row / 20 for row in range(12)),
        fake_scores=(0.8,),
    )
    verdicts = {
        "real": {"no_evidence": 11, "uncertain": 1, "fake": 0},
        "fake": {"no_evidence": 0, "uncertain": 0, "fake": 1},
    }
    errors = CalibrationError(0.1, 0.2), CalibrationError(0.3, 0.25)
    result = CalibrationResult(calibration, *errors, verdicts, "none", scores=None)
    text = summarize_calibration(result)
    assert text == snapshot
    assert "note: 12 real validation files cannot support 5 %: 7.69 % is used" in text
    assert "note: 1 fake validation file cannot support 5 %: 50 % is used" in text
    assert "does not show that this detector is better than chance" in text
    unattainable = replace(result, calibration=replace(calibration, uncertain_to=UNATTAINABLE))
    assert "no file can be called fake" in summarize_calibration(unattainable)
    scores = {"real_scores": tuple(np.linspace(0, 0.6, 200)), "fake_scores": (0.8,) * 60}
    sure = replace(calibration, **scores, num_real=200, num_fake=60, auc_low=0.8)
    quiet = summarize_calibration(replace(result, calibration=sure, after=errors[0]))
    assert "note" not in quiet
    assert "with more than 10 judged people they cannot be called fake" in quiet


def test_the_cost_of_likelihood_ratios_is_stated():
    fitted = CALIBRATION | {
        "lr_slope": 1.0,
        "num_real": 2,
        "num_fake": 2,
        "real_scores": [0.2, 0.3],
        "fake_scores": [0.6, 0.9],
    }
    report = make_report(protocol={"calibration": fitted})
    # Two files of a class support ratios up to 1 / 0.84.
    cap = -np.log10(1 - 0.025**0.5)
    logits = np.array([np.log10(1 / 3), np.log10(3), 0.0, 7.0])
    ratios = np.clip(logits, -cap, cap) * np.log(10) * np.array([1, 1, -1, -1])
    expected = np.logaddexp(0, ratios).mean() / np.log(2)
    assert report.likelihood is not None
    assert report.likelihood.cllr.value == pytest.approx(expected)
    assert f"Cllr {expected:.3f} bits, at best" in render_markdown(report)
    assert "Cllr" not in render(protocol={"calibration": CALIBRATION})
    assert "Cllr" not in render()


def test_the_facts_about_a_file_are_one_line_without_those_it_does_not_state():
    video = MediaInfo(
        container="mp4",
        codec="h264",
        pixel_format="yuv420p",
        width=720,
        height=576,
        frame_rate=30000 / 1001,
        num_frames=60,
        duration_s=2.002,
        interlaced=True,
        sample_aspect_ratio="64:45",
        orientation="mirrored",
        colour="bt709, limited",
        bit_rate=1_234_567,
        encoder="x264 core 165",
    )
    assert describe_media(video) == (
        "mp4, h264 yuv420p, 720 x 576, pixels 64:45, mirrored, interlaced, 29.97 frames/s, "
        "60 frames, 2.0 s, bt709 limited, 1235 kbit/s, x264 core 165"
    )
    bare = replace(video, sample_aspect_ratio="", orientation="", interlaced=False, colour="")
    assert describe_media(replace(bare, bit_rate=0, encoder="")) == (
        "mp4, h264 yuv420p, 720 x 576, 29.97 frames/s, 60 frames, 2.0 s"
    )
    image = MediaInfo("jpeg", "jpeg", "RGB", 640, 480, num_frames=1, jpeg_quality=90)
    assert describe_media(image) == "jpeg, jpeg RGB, JPEG quality 90, 640 x 480"
    assert describe_media(MediaInfo()) == ""


def test_the_facts_about_a_file_stay_on_one_line_whatever_it_states():
    info = MediaInfo("mp4", encoder="Lavf\n\x1b[31m\u202e60")
    assert describe_media(info) == r"mp4, Lavf\n\x1b[31m\u202e60"
