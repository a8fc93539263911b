"""The table of scores: its checks, and how face scores are aggregated."""

import statistics
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.evaluation.metrics import measure_auc
from jdfd_keras.evaluation.scores import AGGREGATIONS, GROUPS, Scores, score_videos

FACES = {
    "video_id": ["ff/original/000", "ff/original/000", "ff/Deepfakes/000_003"],
    "frame_index": [0, 9, 0],
    "label": [0, 0, 1],
    "manipulation": ["", "", "Deepfakes"],
    "score": [0.25, 0.5, 0.875],
}


def make_scores(**changed) -> Scores:
    return Scores.from_faces(**{**FACES, **changed})


def draw_scores(seed: int) -> tuple[Scores, dict[str, list]]:
    """Draw faces of several tracks in shuffled videos, and the same rows as plain lists."""
    rng = np.random.default_rng(seed)
    faces = [
        (f"v{video}", video % 2, frame, track)
        for video in range(12)
        for frame in range(rng.integers(1, 6))
        for track in range(rng.integers(1, 4))
    ]
    order = rng.permutation(len(faces))
    names = ("video_id", "label", "frame_index", "track_id")
    columns = dict(zip(names, map(list, zip(*(faces[i] for i in order), strict=True)), strict=True))
    columns["score"] = (rng.integers(0, 9, len(faces)) / 8).tolist()  # with ties
    return Scores.from_faces(**columns), columns


@pytest.mark.parametrize("wrong", [np.nan, -0.001, 1.001, 1.5, np.inf, -np.inf])
def test_a_score_that_is_not_a_probability_raises_with_the_face(wrong):
    with pytest.raises(ValueError, match=r"frame 9 of 'ff/original/000' \(2 of 3"):
        make_scores(score=[0.25, wrong, wrong])


def test_0_and_1_are_valid_scores():
    assert make_scores(score=[0.0, 1.0, 0.5]).score.tolist() == [0, 1, 0.5]


@pytest.mark.parametrize("wrong", [-1, 2, 0.5, np.nan])
def test_a_label_that_is_neither_real_nor_fake_raises(wrong):
    with pytest.raises(ValueError, match="0 .real. or 1 .fake.; got .* 'ff/Deepfakes/000_003'"):
        make_scores(label=[0, 0, wrong])


def test_two_labels_of_one_video_raise():
    with pytest.raises(ValueError, match="one label .*'000'"):
        make_scores(video_id=["000", "003", "000"], manipulation=[""] * 3)


@pytest.mark.parametrize("name", GROUPS)
def test_values_of_a_video_may_not_differ_between_its_faces(name):
    with pytest.raises(ValueError, match=f"one {name} .*'ff/original"):
        make_scores(**{name: ["a", "b", "a"]})


def test_a_duplicate_face_raises():
    with pytest.raises(ValueError, match="once; got frame 9 of 'ff/original/000'"):
        make_scores(frame_index=[9, 9, 0])


def test_a_missing_track_id_is_suggested_for_duplicate_faces():
    with pytest.raises(ValueError, match="got frame 9 .* a track_id"):
        make_scores(frame_index=[9, 9, 0])
    with pytest.raises(ValueError, match="got frame 9 ") as error:
        make_scores(frame_index=[9, 9, 0], track_id=[0, 0, 0])
    assert "track_id" not in str(error.value)


@pytest.mark.parametrize("wrong", ["a\0", "a\nb", "a\tb", "\x1b[31m", "\x85", "a" * 1001])
def test_a_very_long_name_or_one_with_control_characters_raises_with_its_row(wrong):
    message = "at most 1000 characters without control .*; got '.{1,70}' of length .* in row 3"
    for name in ("video_id", "data"):
        with pytest.raises(ValueError, match=f"Expected a {name} of {message}"):
            make_scores(**{name: ["a", "a", wrong]})
    assert make_scores(video_id=["b", "b", "é" * 1000]).videos.video_id[1] == "é" * 1000


def test_a_duplicate_face_far_away_raises():
    with pytest.raises(ValueError, match="once; got frame 1 of 'a'"):
        Scores.from_faces(
            video_id=["a", "b", "a", "b", "a"],
            label=[0, 1, 0, 1, 0],
            score=[0.1, 0.2, 0.3, 0.4, 0.5],
            frame_index=[1, 1, 0, 0, 1],
        )


def test_two_tracks_of_a_frame_and_one_frame_of_two_videos_are_not_duplicates():
    assert len(make_scores(frame_index=[9, 9, 0], track_id=[0, 1, 0])) == 3
    assert len(make_scores(frame_index=[0, 1, 0])) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"score": [0.25, 0.5]},
        {"score": [[0.25], [0.5], [0.75]]},
        {"score": 0.5},
        {"label": [0, 0]},
        {"frame_index": [0, 1]},
        {"track_id": [0]},
        {"manipulation": ["Deepfakes"]},
        {"manipulation": "Deepfakes"},
        {"reconstruction_error": [[0.1], [0.2], [0.3]]},
        {"data": pa.array(["a", "a"])},
    ],
)
def test_columns_of_different_length_or_shape_raise(changed):
    with pytest.raises(ValueError, match="one value per face.*shape"):
        make_scores(**changed)


def test_an_empty_table_raises():
    with pytest.raises(ValueError, match="face; got none"):
        Scores.from_faces(video_id=[], label=[], score=[])


def test_a_face_without_video_raises():
    # All of them would else be one video.
    with pytest.raises(ValueError, match="video_id .* empty .* row 3"):
        make_scores(video_id=["ff/original/000", "ff/original/000", ""])
    with pytest.raises(ValueError, match="video_id .* empty .* row 3"):
        make_scores(video_id=pa.array(["ff/original/000", "ff/original/000", None]))


def test_a_misspelt_group_raises():
    with pytest.raises(ValueError, match="among data, split, .*; got manipulaton"):
        make_scores(manipulaton=["", "", "Deepfakes"])


def test_missing_frame_indices_are_counted_up_within_each_video():
    scores = Scores.from_faces(
        video_id=["b", "a", "b", "c", "a", "b"], label=[1, 0, 1, 0, 0, 1], score=[0.5] * 6
    )
    assert scores.frame_index.tolist() == [0, 0, 1, 0, 1, 2]
    assert scores.track_id.tolist() == [0] * 6
    assert scores.reconstruction_error is None


def test_videos_are_ordered_by_their_first_face():
    scores = Scores.from_faces(
        video_id=["b", "a", "b", "c"],
        label=[1, 0, 1, 0],
        score=[0.5, 0.25, 1.0, 0.0],
        data=["x", "y", "x", "x"],
    )
    videos = scores.videos
    assert videos.video_id.tolist() == ["b", "a", "c"]
    assert videos.label.tolist() == [True, False, False]
    assert videos.data.tolist() == ["x", "y", "x"]
    assert videos.split.tolist() == ["", "", ""]
    assert scores.video.tolist() == [0, 1, 0, 2]
    assert scores.video_id.tolist() == ["b", "a", "b", "c"]
    assert scores.label.tolist() == [True, False, True, False]
    assert score_videos(scores).tolist() == [0.75, 0.25, 0.0]


@pytest.mark.parametrize(
    "encode",
    [
        lambda words: pa.array(words).dictionary_encode(),
        lambda words: pa.DictionaryArray.from_arrays(
            [["zz", "b", "a"].index(word) for word in words], ["zz", "b", "a"]
        ),
        lambda words: pa.chunked_array([words[:1], words[1:]]),
        lambda words: pa.chunked_array(
            [pa.array(words[:2]).dictionary_encode(), pa.array(words[2:]).dictionary_encode()]
        ),
        lambda words: pa.array(words, pa.large_string()),
        np.array,
        tuple,
    ],
)
def test_names_may_have_any_encoding(encode):
    words = ["b", "a", "b", "a", "a"]
    scores = Scores.from_faces(
        video_id=encode(words), label=[1, 0, 1, 0, 0], score=[0.5] * 5, compression=encode(words)
    )
    assert scores.videos.video_id.tolist() == ["b", "a"]
    assert scores.videos.compression.tolist() == ["b", "a"]
    assert scores.video.tolist() == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("label", [[False, True], np.array([0, 1], np.uint8), [0.0, 1.0]])
def test_labels_may_have_any_numeric_type(label):
    scores = Scores.from_faces(video_id=["a", "b"], label=label, score=[0, 1])
    assert scores.label.tolist() == [False, True]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_aggregation_equals_a_plain_loop_over_faces(aggregation):
    scores, columns = draw_scores(0)
    videos: dict[str, dict[int, list[float]]] = {}
    for name, track, score in zip(
        columns["video_id"], columns["track_id"], columns["score"], strict=True
    ):
        videos.setdefault(name, {}).setdefault(track, []).append(score)
    expected = []
    for tracks in videos.values():
        faces = [score for track in tracks.values() for score in track]
        expected.append(
            {
                "mean": statistics.fmean(faces),
                "median": statistics.median(faces),
                "max": max(faces),
                "track": max(statistics.fmean(track) for track in tracks.values()),
            }[aggregation]
        )
    assert scores.videos.video_id.tolist() == list(videos)
    assert score_videos(scores, aggregation) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("aggregation", ["mean", "median", "track"])
def test_video_scores_that_differ_by_the_rounding_of_floats_are_ties(aggregation):
    scores = Scores.from_faces(
        video_id=["a", "a", "b", "b"], label=[0, 0, 1, 1], score=[0.2, 0.4, 0.3, 0.3]
    )
    assert (0.2 + 0.4) / 2 != 0.3
    assert score_videos(scores, aggregation).tolist() == [0.3, 0.3]


@pytest.mark.parametrize(("digits", "count"), [(1, 2), (2, 3), (1, 7), (4, 16), (8, 32)])
def test_the_auc_of_videos_is_that_of_exact_fractions(digits, count):
    """Also where means lie exactly between two multiples of 1e-12, as of 32 scores of 8 digits."""
    rng = np.random.default_rng(digits)
    base = 10**digits
    differing = 0
    for _ in range(30):
        # Scores in tenths, say, whose sums are equal for many videos but in another order.
        sums = rng.integers(count * base // 4, count * base // 4 + 3, 14)
        faces = []
        for total in sums:
            row = rng.multinomial(total, np.full(count, 1 / count))
            faces.append(np.minimum(row, base))
        exact = [Fraction(int(row.sum()), base * count) for row in faces]
        label = np.arange(len(faces)) % 2 == 1
        pairs = [(fake, real) for fake in np.flatnonzero(label) for real in np.flatnonzero(~label)]
        wins = sum(
            Fraction(int(exact[fake] > exact[real])) + Fraction(int(exact[fake] == exact[real]), 2)
            for fake, real in pairs
        )
        scores = Scores.from_faces(
            video_id=np.repeat([f"v{index}" for index in range(len(faces))], count),
            label=np.repeat(label, count),
            score=np.concatenate(faces) / base,
        )
        plain = np.array([sum((row / base).tolist()) / count for row in faces])
        differing += measure_auc(label, plain) != pytest.approx(float(wins / len(pairs)), abs=1e-9)
        measured = measure_auc(label, score_videos(scores))
        assert measured == pytest.approx(float(wins / len(pairs)), abs=1e-12)
    assert differing, "the test would pass without rounding"


def test_only_the_aggregation_track_finds_one_fake_person_of_two():
    scores = Scores.from_faces(
        video_id=["a"] * 4,
        label=[1] * 4,
        score=[0.0, 0.1, 0.9, 0.7],
        frame_index=[0, 1, 0, 1],
        track_id=[0, 0, 1, 1],
    )
    assert score_videos(scores, "track").tolist() == [pytest.approx(0.8)]
    assert score_videos(scores, "mean").tolist() == [pytest.approx(0.425)]


def test_an_unknown_aggregation_raises_with_the_known_ones():
    with pytest.raises(ValueError, match="among mean, median, max, track; got 'min'"):
        score_videos(make_scores(), "min")


def test_one_file_name_in_two_manipulations_is_two_videos():
    names = ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"]
    scores = Scores.from_faces(
        video_id=[f"ffpp/{name}/c23/000_003" for name in names],
        label=[1] * 4,
        score=[0.1, 0.2, 0.3, 0.4],
        manipulation=names,
    )
    assert scores.videos.manipulation.tolist() == names
    assert score_videos(scores).tolist() == [0.1, 0.2, 0.3, 0.4]


def test_selected_videos_keep_all_their_faces_in_order():
    scores, columns = draw_scores(0)
    wanted = {"v1", "v2", "v7"}
    chosen = scores.select(np.isin(scores.videos.video_id, list(wanted)))
    rows = [row for row, name in enumerate(columns["video_id"]) if name in wanted]
    assert chosen.video_id.tolist() == [columns["video_id"][row] for row in rows]
    for name in ("frame_index", "track_id", "score", "label"):
        assert getattr(chosen, name).tolist() == [columns[name][row] for row in rows]
    assert len(chosen.videos) == 3 and chosen.video.max() == 2


def test_selected_videos_keep_their_reconstruction_errors():
    scores = make_scores(reconstruction_error=[0.1, 0.2, 0.3])
    assert scores.select(np.array([False, True])).reconstruction_error.tolist() == [0.3]
    assert scores.select(np.array([True, True])).reconstruction_error.tolist() == [0.1, 0.2, 0.3]
