"""The report: keys that a program may rely on, and sentences that a person may."""

import json

import pytest

from jdfd_keras.evaluation.page import render_markdown
from jdfd_keras.evaluation.report import (
    Excluded,
    ReconstructionError,
    build_report,
    summarize,
    write_report,
)
from jdfd_keras.evaluation.scores import Scores

METRICS = {"auc", "eer", "ap", "accuracy", "tpr", "fpr"}


def make_report(label=(0, 0, 1, 1), **changed) -> dict:
    scores = Scores(
        video_id=["a", "b", "c", "d"],
        frame_index=[0] * 4,
        label=label,
        manipulation=["Deepfakes" if is_fake else "" for is_fake in label],
        score=[0.25, 0.75, 0.5, 1.0],
    )
    settings = {
        "threshold": 0.5,
        "protocol": {"model": "run", "data": "clips", "split": "test"},
        "excluded": [Excluded("e|f", True, "no face\nin 8 frames")],
        "reconstruction": ReconstructionError(mse=0.05, mean_face_mse=0.2),
    }
    return build_report(scores, **{**settings, **changed})


def test_the_report_keeps_its_keys(tmp_path):
    write_report(tmp_path, make_report(), roc="roc.png")
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {
        "protocol",
        "frame",
        "video",
        "by_manipulation",
        "reconstruction",
        "excluded",
    }
    for block in (report["frame"], report["by_manipulation"]["Deepfakes"]["video"]):
        assert set(block) == METRICS | {"num_real", "num_fake"}
        assert all(set(block[name]) == {"value"} for name in METRICS)
    assert report["video"]["auc"]["value"] == 0.75
    assert report["excluded"] == [
        {"video_id": "e|f", "is_fake": True, "reason": "no face\nin 8 frames"}
    ]
    assert report["reconstruction"] == {"mse": 0.05, "mean_face_mse": 0.2}
    assert report["protocol"]["num_videos"] == {"real": 2, "fake": 2, "excluded": 1}
    assert report["protocol"]["num_faces"] == {"real": 2, "fake": 2}
    assert report["protocol"]["threshold"] == 0.5
    assert report["protocol"]["data"] == "clips"


def test_undefined_is_null_in_json_and_a_word_on_the_page(tmp_path):
    report = make_report(label=(0, 0, 0, 0))
    write_report(tmp_path, report, roc=None)
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["video"]["auc"] == {"value": None}
    assert read["by_manipulation"] == {}
    page = (tmp_path / "report.md").read_text()
    assert "All 4 scored videos are real" in page
    assert "| area under the ROC curve (AUC) | undefined | undefined |" in page
    assert "There is no ROC curve" in page and "![" not in page


def test_the_page_shows_numbers_picture_and_protocol():
    page = render_markdown(make_report(), roc="roc.png")
    assert "**Video AUC 0.750** over 4 videos (2 real, 2 fake)" in page
    assert "| area under the ROC curve (AUC) | 0.750 | 0.750 |" in page
    assert "| reals called fake at 0.5 | 0.500 | 0.500 |" in page
    assert "![ROC curves of faces and of videos](roc.png)" in page
    assert "| split | test |" in page
    assert "one video is 50.0% of it" in page


def test_the_summary_says_both_levels_and_what_was_left_out():
    # From the top: fake (1 of 1), real, fake (2 of 3), real: 3 of 4 pairs in order, AP 5/6; the
    # ROC crosses FPR = 1 - TPR at (0.5, 0.5).
    assert summarize(make_report()).splitlines() == [
        "videos: AUC 0.750, EER 0.500, AP 0.833, accuracy 0.750 (2 real, 2 fake)",
        "faces: AUC 0.750, EER 0.500, AP 0.833, accuracy 0.750 (2 real, 2 fake)",
        "without a score: 1 video, named in the report",
    ]
    only_real = summarize(make_report(label=(0, 0, 0, 0), excluded=[]))
    assert only_real.splitlines()[0].startswith("videos: AUC undefined, EER undefined")
    assert "without" not in only_real


def test_excluded_videos_are_named_with_reason_and_do_not_break_the_table():
    page = render_markdown(make_report(), roc=None)
    assert "Without a score: 1 of 5 videos" in page
    assert "| e\\|f | fake | no face in 8 frames |" in page
    assert "every video of the split has a score" in render_markdown(
        make_report(excluded=[]), roc=None
    )


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
    report = make_report(reconstruction=ReconstructionError(mse, mean_face_mse))
    assert said in render_markdown(report, roc=None)


def test_a_detector_without_decoder_is_said_to_have_none(tmp_path):
    report = make_report(reconstruction=None)
    write_report(tmp_path, report, roc=None, faces="faces.png")
    assert json.loads((tmp_path / "report.json").read_text())["reconstruction"] is None
    page = (tmp_path / "report.md").read_text()
    assert "## Reconstruction\n\nThis detector has no decoder.\n\n![" in page
    assert "(faces.png)" in page and "what the decoder made" not in page
    with_decoder = render_markdown(make_report(), roc=None, faces="faces.png")
    assert "![Faces above what the decoder made of them](faces.png)" in with_decoder
    assert "no decoder" not in with_decoder


@pytest.mark.parametrize(
    ("split", "said"), [("val", "the numbers flatter"), ("train", "memory, not of skill")]
)
def test_a_split_that_training_has_used_is_warned_of(split, said):
    report = make_report(protocol={"model": "run", "data": "clips", "split": split})
    assert said in render_markdown(report, roc=None)
    assert said not in render_markdown(make_report(), roc=None)


def test_faces_taken_otherwise_than_in_training_are_warned_of():
    taken = {"detector": "mtcnn", "face_size": 299}
    protocol = {"face_options": taken, "training_face_options": {**taken, "detector": "dlib"}}
    assert "otherwise than those of the training, in detector:" in render_markdown(
        make_report(protocol=protocol), roc=None
    )
    protocol["training_face_options"] = taken
    assert "otherwise" not in render_markdown(make_report(protocol=protocol), roc=None)


def test_a_decoder_that_gives_nan_is_refused():
    with pytest.raises(ValueError, match="error to be a number; got .*mse=nan"):
        make_report(reconstruction=ReconstructionError(float("nan"), 0.2))
