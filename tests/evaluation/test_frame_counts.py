"""Video AUC by number of frames, against frames chosen by hand and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.evaluation.frame_counts import measure_frame_counts
from jdfd_keras.evaluation.metrics import measure
from jdfd_keras.evaluation.scores import Scores


def make_faces(lengths, seed=0):
    """Return faces in random order: of each video every second frame, with one or two tracks."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"video{number}", number % 2, 2 * frame, track, rng.uniform(0.1 * (number % 2), 0.95))
        for number, length in enumerate(lengths)
        for frame in range(length)
        for track in range(1 + (frame + number) % 2)
    ]
    rng.shuffle(rows)
    return [(str(v), int(y), int(f), int(t), float(s)) for v, y, f, t, s in rows]


def make_scores(faces):
    names = ("video_id", "label", "frame_index", "track_id", "score")
    return Scores.from_faces(**dict(zip(names, zip(*faces, strict=True), strict=True)))


def middle_frames(frames, count):
    """Return the frames at the middle of `count` equal spans, all of them if there are fewer."""
    if len(frames) <= count:
        return frames
    return [frames[int((span + 0.5) * len(frames) / count)] for span in range(count)]


def expect_auc(faces, count, aggregate):
    """Compute the AUC video by video, in plain Python."""
    label, score = [], []
    for name in sorted({face[0] for face in faces}):
        own = [face for face in faces if face[0] == name]
        chosen = middle_frames(sorted({face[2] for face in own}), count)
        label.append(own[0][1])
        score.append(aggregate([face[4] for face in own if face[2] in chosen]))
    return roc_auc_score(label, score)


@pytest.mark.parametrize(("aggregation", "aggregate"), [("mean", np.mean), ("max", max)])
def test_the_auc_is_that_of_evenly_chosen_frames(aggregation, aggregate):
    lengths = [3, 9, 20, 1, 8, 33, 4, 17, 5, 12]
    faces = make_faces(lengths)
    found = measure_frame_counts(make_scores(faces), aggregation)
    assert [one.num_frames for one in found] == [1, 4, 8, 16, 32]
    for one in found:
        assert one.auc.value == pytest.approx(expect_auc(faces, one.num_frames, aggregate))
        assert one.num_videos == sum(length >= one.num_frames for length in lengths)
        assert one.auc.low is None
    assert len({one.auc.value for one in found}) > 2


def test_the_intervals_are_those_of_the_same_bootstrap():
    faces = make_faces([5] * 30)
    (one, four) = measure_frame_counts(make_scores(faces), n_resamples=100, seed=3)
    middle = [face for face in faces if face[2] == 4]
    by_video = {}
    for name, label, *_, score in middle:
        by_video.setdefault(name, (label, []))[1].append(score)
    order = list(dict.fromkeys(face[0] for face in faces))
    label = np.array([by_video[name][0] for name in order], bool)
    score = np.array([np.mean(by_video[name][1]) for name in order])
    assert one.auc == measure(label, score, threshold=0.5, n_resamples=100, seed=3).auc
    assert four.auc.low < four.auc.value < four.auc.high


def test_images_and_one_class_have_no_counts():
    assert measure_frame_counts(make_scores(make_faces([1, 1, 1]))) == ()
    real = [face for face in make_faces([6, 6]) if not face[1]]
    assert measure_frame_counts(make_scores(real)) == ()


def test_several_tracks_in_one_frame_count_as_one_frame():
    faces = [("a", 0, 0, 0, 0.1), ("a", 0, 0, 1, 0.2), ("b", 1, 7, 0, 0.9), ("b", 1, 7, 1, 0.8)]
    assert measure_frame_counts(make_scores(faces)) == ()
