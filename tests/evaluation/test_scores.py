"""The table of scores: what it refuses, how videos are made of faces, and its file."""

import numpy as np
import pytest

from jdfd_keras.evaluation.scores import COLUMNS, Scores, read_scores, to_videos, write_scores


def make_scores(**changed) -> Scores:
    columns = {
        "video_id": ["ff/original/000", "ff/original/000", "ff/Deepfakes/000_003"],
        "frame_index": [0, 9, 0],
        "label": [0, 0, 1],
        "manipulation": ["", "", "Deepfakes"],
        "score": [0.25, 0.5, 0.875],
    }
    return Scores(**{**columns, **changed})


@pytest.mark.parametrize("wrong", [np.nan, -0.001, 1.001, np.inf])
def test_a_score_that_is_no_probability_is_refused_and_named(wrong):
    with pytest.raises(ValueError, match=r"got .* for frame 9 of 'ff/original/000' \(2 of 3"):
        make_scores(score=[0.25, wrong, wrong])


def test_the_ends_of_the_range_are_scores():
    assert make_scores(score=[0.0, 1.0, 0.5]).score.tolist() == [0, 1, 0.5]


def test_two_labels_of_one_video_are_refused():
    with pytest.raises(ValueError, match="one label per video_id; got real and fake for '000'"):
        make_scores(video_id=["000", "003", "000"])


@pytest.mark.parametrize("wrong", [-1, 2, 0.5, np.nan])
def test_a_label_that_is_neither_real_nor_fake_is_refused(wrong):
    with pytest.raises(ValueError, match="0 .real. or 1 .fake.; got .* 'ff/Deepfakes/000_003'"):
        make_scores(label=[0, 0, wrong])


def test_a_face_given_twice_is_refused():
    with pytest.raises(ValueError, match="once; got frame 9 of 'ff/original/000' more than once"):
        make_scores(frame_index=[9, 9, 0])


def test_the_same_frame_of_two_videos_is_no_duplicate():
    assert len(make_scores(frame_index=[0, 1, 0])) == 3


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one value per face"):
        make_scores(score=[0.25, 0.5])


def test_a_column_of_a_models_output_is_refused_unflattened():
    with pytest.raises(ValueError, match="one value per face"):
        make_scores(score=[[0.25], [0.5], [0.75]])


def test_a_video_scores_the_mean_of_its_faces():
    videos = to_videos(make_scores())
    assert videos.video_id.tolist() == ["ff/Deepfakes/000_003", "ff/original/000"]
    assert videos.score.tolist() == [0.875, 0.375]
    assert videos.label.tolist() == [True, False]
    assert videos.manipulation.tolist() == ["Deepfakes", ""]
    assert videos.num_faces.tolist() == [1, 2]


def test_faces_of_a_video_need_not_lie_together():
    videos = to_videos(
        Scores(["b", "a", "b", "a"], [0, 0, 1, 1], [1, 0, 1, 0], [""] * 4, [0.5, 0, 1, 0.5])
    )
    assert dict(zip(videos.video_id.tolist(), videos.score.tolist(), strict=True)) == {
        "a": 0.25,
        "b": 0.75,
    }


def test_one_folder_name_under_two_manipulations_is_two_videos():
    names = ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"]
    videos = to_videos(
        Scores(
            [f"ffpp/{name}/c23/000_003" for name in names],
            [0] * 4,
            [1] * 4,
            names,
            [0.1, 0.2, 0.3, 0.4],
        )
    )
    assert videos.manipulation.tolist() == names
    assert videos.score.tolist() == [0.1, 0.2, 0.3, 0.4]


def test_scores_come_back_from_csv_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    scores = Scores(
        [f'odd, "name" | {index % 4} é' for index in range(40)],
        range(40),
        [index % 2 for index in range(40)],
        ["", "Deepfakes"] * 20,
        rng.random(40),
    )
    write_scores(tmp_path / "scores.csv", scores)
    back = read_scores(tmp_path / "scores.csv")
    for column in COLUMNS:
        assert np.array_equal(getattr(back, column), getattr(scores, column)), column


def test_the_csv_has_the_published_columns(tmp_path):
    write_scores(tmp_path / "scores.csv", make_scores())
    assert (tmp_path / "scores.csv").read_text().splitlines()[:2] == [
        "video_id,frame_index,label,manipulation,score,track_id",
        "ff/original/000,0,0,,0.25,0",
    ]


def test_two_people_of_a_frame_are_two_faces(tmp_path):
    scores = make_scores(frame_index=[9, 9, 0], track_id=[0, 1, 0])
    write_scores(tmp_path / "scores.csv", scores)
    assert read_scores(tmp_path / "scores.csv").track_id.tolist() == [0, 1, 0]


def test_a_csv_without_tracks_is_of_one_person_a_video(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(f"{','.join(COLUMNS)}\na,1,0,,0.5\na,2,0,,0.5\n")
    assert read_scores(path).track_id.tolist() == [0, 0]


def test_a_csv_without_a_column_is_refused_and_the_column_named(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("video_id,label,score\na,0,0.5\n")
    with pytest.raises(ValueError, match="frame_index, manipulation is not there"):
        read_scores(path)


@pytest.mark.parametrize("line", ["a,0,0,,high", "a,0", "a,first,0,,0.5", "a,0,fake,,0.5"])
def test_a_broken_line_of_a_csv_is_named(tmp_path, line):
    path = tmp_path / "scores.csv"
    path.write_text(f"{','.join(COLUMNS)}\na,1,0,,0.5\n{line}\n")
    with pytest.raises(ValueError, match=r"in line 3 of .*scores.csv"):
        read_scores(path)
