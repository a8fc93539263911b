"""Tracks in clips of two real faces at known positions."""

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import track as track_module
from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import Box, DlibDetector
from jdfd_keras.faces.track import track_faces


def to_frames(images, fps=25):
    return [
        Frame(index, index / fps, np.clip(image, 0, 255).astype(np.uint8))
        for index, image in enumerate(images)
    ]


class CountingDetector(DlibDetector):
    """dlib's detector; records its searches of whole frames."""

    def __init__(self):
        self.searches = []

    def find(self, frames, *, thorough=True):
        self.searches += [thorough] * len(frames)
        return super().find(frames, thorough=thorough)


def track(images, fps=25, detector=None):
    """Return for each frame a dict from track id to the rounded x of its box."""
    return [
        {face.track_id: round(face.box.center[0]) for face in faces}
        for _, faces in track_faces(to_frames(images, fps), detector or CountingDetector())
    ]


def check_one_person_each(tracks, truth):
    """Check that every track is one person; `truth` has name to x for each frame."""
    names = {}
    for seen, expected in zip(tracks, truth, strict=True):
        for track_id, x in seen.items():
            name = min(expected, key=lambda name: abs(expected[name] - x))
            assert abs(expected[name] - x) < 30
            names.setdefault(track_id, set()).add(name)
    assert all(len(found) == 1 for found in names.values()), names
    return {track_id: found.pop() for track_id, found in names.items()}


def test_a_moving_face_is_one_track_with_few_searches(collins, wall):
    x = [200 + 40 * np.sin(index / 10) for index in range(70)]
    detector = CountingDetector()
    clip = [
        collins.place(wall, at, 120, 70 + 8 * np.sin(index / 7), 8 * np.sin(index / 9))
        for index, at in enumerate(x)
    ]
    tracks = track(clip, detector=detector)
    assert [list(seen) for seen in tracks] == [[0]] * 70
    for seen, at in zip(tracks, x, strict=True):
        assert seen[0] == pytest.approx(at, abs=12)
    # The first frame and the last, which are less than three seconds apart.
    assert len(detector.searches) == 2


def test_tracked_landmarks_equal_those_of_a_search_in_every_frame(collins, wall):
    clip = to_frames(
        [collins.place(wall, 150 + 3 * index, 120, 80 + index / 2) for index in range(20)]
    )
    followed = [faces[0].landmarks for _, faces in track_faces(clip, CountingDetector())]
    for frame, landmarks in zip(clip, followed, strict=True):
        ((_, (alone,)),) = track_faces([frame], CountingDetector())
        eye_distance = np.linalg.norm(alone.landmarks[36] - alone.landmarks[45])
        away = np.linalg.norm(landmarks - alone.landmarks, axis=1).mean()
        assert away < 0.04 * eye_distance


def test_two_people_are_two_tracks_from_the_first_frame_to_the_last(collins, hopper, wall):
    clip = [
        hopper.place(collins.place(wall, 100 + index, 120), 300, 120 + index, 80)
        for index in range(12)
    ]
    assert [sorted(seen) for seen in track(clip)] == [[0, 1]] * 12


def test_two_faces_that_cross_keep_their_tracks(collins, hopper, wall):
    num = 40
    x = [{"collins": 80 + 6 * i, "hopper": 320 - 6 * i} for i in range(num)]
    clip = [
        hopper.place(collins.place(wall, at["collins"], 120), at["hopper"], 118, 80) for at in x
    ]
    tracks = track(clip)
    # While they overlap, either may have the position of the other.
    apart = [index for index in range(num) if abs(x[index]["collins"] - x[index]["hopper"]) > 60]
    names = check_one_person_each([tracks[i] for i in apart], [x[i] for i in apart])
    assert sorted(names.values()) == ["collins", "hopper"]
    assert sorted(tracks[-1]) == [0, 1]


@pytest.mark.parametrize("pause", [0, 40])
def test_a_face_that_leaves_and_another_that_enters_are_two_tracks(collins, hopper, wall, pause):
    clip = [collins.place(wall, 200, 120)] * 8
    clip += [wall] * pause
    clip += [hopper.place(wall, 200, 120)] * 8
    tracks = track(clip)
    assert [list(seen) for seen in tracks[:8]] == [[0]] * 8
    assert tracks[8 : 8 + pause] == [{}] * pause
    assert [list(seen) for seen in tracks[-8:]] == [[1]] * 8


def test_a_returning_person_keeps_the_track(collins, hopper, wall):
    clip = [collins.place(wall, 200, 120)] * 5 + [wall] * 30
    clip += [hopper.place(wall, 200, 120)] * 5 + [collins.place(wall, 120, 110, 85)] * 5
    assert [list(seen) for seen in track(clip)] == ([[0]] * 5 + [[]] * 30 + [[1]] * 5 + [[0]] * 5)


def test_a_cut_to_another_person_in_the_same_position_starts_a_track(collins, hopper, wall):
    other_wall = 220 - wall[::-1, ::-1]
    clip = [collins.place(wall, 200, 120)] * 6 + [hopper.place(other_wall, 200, 120)] * 6
    assert [list(seen) for seen in track(clip)] == [[0]] * 6 + [[1]] * 6


def test_both_sides_of_a_cut_are_searched(collins, wall):
    other_wall = 220 - wall[::-1, ::-1]
    detector = CountingDetector()
    clip = [collins.place(wall, 200, 120)] * 4 + [collins.place(other_wall, 100, 130)] * 4
    tracks = track(clip, detector=detector)
    assert [list(seen) for seen in tracks] == [[0]] * 8
    assert len(detector.searches) == 4  # the first and the last frame of each scene


def test_frames_far_apart_are_matched_by_embedding(collins, hopper, wall):
    clip = [(collins if index % 3 else hopper).place(wall, 200, 120) for index in range(6)]
    assert [list(seen) for seen in track(clip, fps=0.2)] == [[0], [1], [1], [0], [1], [1]]


def test_a_newcomer_is_found_while_another_face_is_tracked(collins, hopper, wall):
    alone = collins.place(wall, 100, 120)
    clip = [alone] * 10 + [hopper.place(alone, 300, 120, 80)] * 50
    tracks = track(clip)
    assert all(list(seen) == [0] for seen in tracks[:10])
    # Found by the search of the last frame, and tracked back to the first one.
    assert all(sorted(seen) == [0, 1] for seen in tracks[10:])


def test_a_person_who_enters_between_two_searches_is_found(collins, hopper, wall):
    alone = collins.place(wall, 100, 120)
    clip = [alone] * 4 + [hopper.place(alone, 300, 120, 80)] * 8
    assert [sorted(seen) for seen in track(clip)] == [[0]] * 4 + [[0, 1]] * 8


def test_a_face_that_is_lost_for_some_frames_keeps_its_track(collins, wall):
    shown = collins.place(wall, 200, 120)
    clip = [shown] * 5 + [wall] * 3 + [shown] * 5
    assert [list(seen) for seen in track(clip)] == [[0]] * 5 + [[]] * 3 + [[0]] * 5


def test_a_face_that_disappears_for_some_frames_is_tracked_on_both_sides(collins, wall):
    shown, hidden = collins.place(wall, 200, 120), collins.place(wall, 200, 120, roll_deg=180)
    clip = [shown] * 8 + [hidden] * 4 + [shown] * 20
    tracks = track(clip)
    assert [list(seen) for seen in tracks] == [[0]] * 8 + [[]] * 4 + [[0]] * 20


def test_the_frame_buffer_is_limited(wall, monkeypatch):
    monkeypatch.setattr(track_module, "MAX_BUFFER_BYTES", 5 * wall.astype(np.uint8).nbytes)
    read = []

    def clip():
        for frame in to_frames([wall] * 20):
            read.append(frame.index)
            yield frame

    behind = [read[-1] - frame.index for frame, _ in track_faces(clip(), CountingDetector())]
    assert len(behind) == 20
    assert max(behind) == 4


def test_every_frame_is_yielded_once_and_in_order(collins, wall):
    clip = to_frames([collins.place(wall, 200, 120)] * 3 + [wall] * 30)
    assert [frame.index for frame, _ in track_faces(clip, CountingDetector())] == list(range(33))


@pytest.fixture(scope="module")
def room():
    """float32[240, 400, 3], a textured background: another face in front of it is not a cut."""
    rng = np.random.default_rng(5)
    coarse, fine = rng.uniform(20, 220, (5, 8, 3)), rng.uniform(-30, 30, (60, 100, 3))
    return sum(
        cv2.resize(cells.astype(np.float32), (400, 240), interpolation=cv2.INTER_CUBIC)
        for cells in (coarse, fine)
    )


@pytest.mark.parametrize("every", [2, 5])
def test_a_flickering_face_is_found_in_every_frame_that_shows_it(collins, room, every):
    shown = [index % every != every - 1 for index in range(24)]
    clip = [collins.place(room, 200, 120) if is_shown else room for is_shown in shown]
    assert [list(seen) for seen in track(clip)] == [[0] if is_shown else [] for is_shown in shown]


def test_black_frames_do_not_end_a_track(collins, room):
    clip = [collins.place(room, 200, 120) if index % 5 else 0 * room for index in range(20)]
    assert [list(seen) for seen in track(clip)] == [[0] if index % 5 else [] for index in range(20)]


@pytest.mark.parametrize("length", [0, 8])
def test_a_face_that_dissolves_into_another_is_two_tracks(collins, hopper, room, length):
    first, second = collins.place(room, 200, 120, 80), hopper.place(room, 200, 120, 80)
    shares = [0] * 10 + [(index + 1) / (length + 1) for index in range(length)] + [1] * 20
    tracks = track([(1 - share) * first + share * second for share in shares])
    assert [list(seen) for seen in tracks[:10]] == [[0]] * 10
    assert [list(seen) for seen in tracks[-20:]] == [[1]] * 20


def test_a_small_face_is_found_and_tracked(collins, wall):
    clip = [collins.place(wall, 150 + index, 120, 44) for index in range(10)]
    tracks = track(clip)
    assert [list(seen) for seen in tracks] == [[0]] * 10


def test_a_clip_without_a_face_has_no_track(wall):
    detector = CountingDetector()
    assert track([wall] * 50, detector=detector) == [{}] * 50
    # Every half second, and the last frame.
    assert len(detector.searches) <= 6


def test_constant_frame_times_do_not_stop_the_searches(collins, hopper, wall):
    alone = collins.place(wall, 100, 120)
    clip = to_frames([alone] * 3 + [hopper.place(alone, 300, 120, 80)] * 70)
    frames = [Frame(frame.index, 0.0, frame.pixels) for frame in clip]
    seen = [len(faces) for _, faces in track_faces(frames, CountingDetector())]
    assert seen == [1] * 3 + [2] * 70


def test_a_detector_without_local_search_gets_batches(wall, collins):
    class Slow:
        batch_size = 4
        supports_local_search = False
        batches = []

        def find(self, frames, *, thorough=True):
            self.batches.append(len(frames))
            return [[Box(165, 85, 235, 155, 0.99)] for _ in frames]

    slow = Slow()
    images = [collins.place(wall, 200, 120)] * 10
    assert [list(seen) for seen in track(images, detector=slow)] == [[0]] * 10
    assert slow.batches == [4, 4, 2]


def test_large_frames_are_in_small_batches(monkeypatch, wall):
    class Slow:
        batch_size = 8
        supports_local_search = False
        batches = []

        def find(self, frames, *, thorough=True):
            self.batches.append(len(frames))
            return [[] for _ in frames]

    monkeypatch.setattr(track_module, "MAX_PIXELS", 2 * wall[..., 0].size)
    slow = Slow()
    track([wall] * 5, detector=slow)
    assert slow.batches == [2, 2, 1]


def test_two_boxes_in_a_frame_are_two_tracks(wall, collins):
    """A face that matches no track by position, appearance or embedding starts a new one."""

    class Two:
        batch_size = 2
        supports_local_search = False

        def find(self, frames, *, thorough=True):
            return [[Box(65, 85, 135, 155, 0.99), Box(265, 85, 335, 155, 0.98)] for _ in frames]

    images = [collins.place(wall, 100, 120)] * 4
    assert all(sorted(seen) == [0, 1] for seen in track(images, detector=Two()))
