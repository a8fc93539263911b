"""Who is who in a video: films of two real faces whose places are known."""

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import track as track_module
from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import Box, DlibDetector
from jdfd_keras.faces.track import track_faces


def to_frames(pictures, fps=25):
    return [
        Frame(index, index / fps, np.clip(picture, 0, 255).astype(np.uint8))
        for index, picture in enumerate(pictures)
    ]


class Watched(DlibDetector):
    """dlib's detector that counts its searches of whole frames."""

    def __init__(self):
        self.searches = []

    def find(self, frames, *, thorough=True):
        self.searches += [thorough] * len(frames)
        return super().find(frames, thorough=thorough)


def follow(pictures, fps=25, detector=None):
    """Say for each picture which track is where: a dict from track to x, rounded."""
    return [
        {sighting.track_id: round(sighting.box.center[0]) for sighting in sightings}
        for _, sightings in track_faces(to_frames(pictures, fps), detector or Watched())
    ]


def check_one_person_each(places, truth):
    """See that every track shows one person: `truth` gives name to x for each picture."""
    names = {}
    for seen, expected in zip(places, truth, strict=True):
        for track_id, x in seen.items():
            name = min(expected, key=lambda name: abs(expected[name] - x))
            assert abs(expected[name] - x) < 30
            names.setdefault(track_id, set()).add(name)
    assert all(len(people) == 1 for people in names.values()), names
    return {track_id: people.pop() for track_id, people in names.items()}


def test_a_moving_face_is_one_track_and_seldom_searched_for(collins, wall):
    x = [200 + 40 * np.sin(index / 10) for index in range(70)]
    detector = Watched()
    film = [
        collins.place(wall, at, 120, 70 + 8 * np.sin(index / 7), 8 * np.sin(index / 9))
        for index, at in enumerate(x)
    ]
    places = follow(film, detector=detector)
    assert [list(seen) for seen in places] == [[0]] * 70
    for seen, at in zip(places, x, strict=True):
        assert seen[0] == pytest.approx(at, abs=12)
    # The first frame and the last; there are less than three seconds between them.
    assert len(detector.searches) == 2


def test_followed_landmarks_are_those_of_a_search_of_every_frame(collins, wall):
    film = to_frames(
        [collins.place(wall, 150 + 3 * index, 120, 80 + index / 2) for index in range(20)]
    )
    followed = [sightings[0].landmarks for _, sightings in track_faces(film, Watched())]
    for frame, landmarks in zip(film, followed, strict=True):
        ((_, (alone,)),) = track_faces([frame], Watched())
        eye_distance = np.linalg.norm(alone.landmarks[36] - alone.landmarks[45])
        away = np.linalg.norm(landmarks - alone.landmarks, axis=1).mean()
        assert away < 0.04 * eye_distance


def test_two_people_are_two_tracks_from_the_first_frame_to_the_last(collins, hopper, wall):
    film = [
        hopper.place(collins.place(wall, 100 + index, 120), 300, 120 + index, 80)
        for index in range(12)
    ]
    assert [sorted(seen) for seen in follow(film)] == [[0, 1]] * 12


def test_two_faces_that_cross_keep_their_tracks(collins, hopper, wall):
    num = 40
    x = [{"collins": 80 + 6 * i, "hopper": 320 - 6 * i} for i in range(num)]
    film = [
        hopper.place(collins.place(wall, at["collins"], 120), at["hopper"], 118, 80) for at in x
    ]
    places = follow(film)
    # While they cover one another either may be taken for the place of the other.
    apart = [index for index in range(num) if abs(x[index]["collins"] - x[index]["hopper"]) > 60]
    names = check_one_person_each([places[i] for i in apart], [x[i] for i in apart])
    assert sorted(names.values()) == ["collins", "hopper"]
    assert sorted(places[-1]) == [0, 1]


@pytest.mark.parametrize("pause", [0, 6, 40])
def test_a_face_that_leaves_and_another_that_enters_are_two_tracks(collins, hopper, wall, pause):
    film = [collins.place(wall, 200, 120)] * 8
    film += [wall] * pause
    film += [hopper.place(wall, 200, 120)] * 8
    places = follow(film)
    assert [list(seen) for seen in places[:8]] == [[0]] * 8
    assert places[8 : 8 + pause] == [{}] * pause
    assert [list(seen) for seen in places[-8:]] == [[1]] * 8


def test_who_comes_back_gets_the_old_track(collins, hopper, wall):
    film = [collins.place(wall, 200, 120)] * 5 + [wall] * 30
    film += [hopper.place(wall, 200, 120)] * 5 + [collins.place(wall, 120, 110, 85)] * 5
    assert [list(seen) for seen in follow(film)] == ([[0]] * 5 + [[]] * 30 + [[1]] * 5 + [[0]] * 5)


def test_a_cut_to_somebody_else_in_the_same_place_begins_a_track(collins, hopper, wall):
    other_wall = 220 - wall[::-1, ::-1]
    film = [collins.place(wall, 200, 120)] * 6 + [hopper.place(other_wall, 200, 120)] * 6
    assert [list(seen) for seen in follow(film)] == [[0]] * 6 + [[1]] * 6


def test_a_cut_is_searched_thoroughly_at_once(collins, wall):
    other_wall = 220 - wall[::-1, ::-1]
    detector = Watched()
    film = [collins.place(wall, 200, 120)] * 4 + [collins.place(other_wall, 100, 130)] * 4
    places = follow(film, detector=detector)
    assert [list(seen) for seen in places] == [[0]] * 8
    assert len(detector.searches) == 4  # the first and the last frame of each scene


def test_frames_far_apart_are_told_by_who_is_in_them(collins, hopper, wall):
    film = [(collins if index % 3 else hopper).place(wall, 200, 120) for index in range(6)]
    assert [list(seen) for seen in follow(film, fps=0.2)] == [[0], [1], [1], [0], [1], [1]]


def test_a_newcomer_is_found_while_another_is_followed(collins, hopper, wall):
    alone = collins.place(wall, 100, 120)
    film = [alone] * 10 + [hopper.place(alone, 300, 120, 80)] * 50
    places = follow(film)
    assert all(list(seen) == [0] for seen in places[:10])
    # Found by the search of the last frame, and followed back to the first one.
    assert all(sorted(seen) == [0, 1] for seen in places[10:])


def test_who_enters_and_leaves_between_two_cuts_is_found(collins, hopper, wall):
    alone = collins.place(wall, 100, 120)
    film = [alone] * 4 + [hopper.place(alone, 300, 120, 80)] * 8
    assert [sorted(seen) for seen in follow(film)] == [[0]] * 4 + [[0, 1]] * 8


def test_a_face_that_is_lost_for_some_frames_is_the_same_one(collins, wall):
    shown = collins.place(wall, 200, 120)
    film = [shown] * 5 + [wall] * 3 + [shown] * 5
    assert [list(seen) for seen in follow(film)] == [[0]] * 5 + [[]] * 3 + [[0]] * 5


def test_who_turns_away_for_a_moment_is_followed_from_both_sides(collins, wall):
    shown, hidden = collins.place(wall, 200, 120), collins.place(wall, 200, 120, roll_deg=180)
    film = [shown] * 8 + [hidden] * 4 + [shown] * 20
    places = follow(film)
    assert [list(seen) for seen in places] == [[0]] * 8 + [[]] * 4 + [[0]] * 20


def test_frames_are_held_back_only_so_far(wall, monkeypatch):
    monkeypatch.setattr(track_module, "MOST_BYTES_HELD", 5 * wall.astype(np.uint8).nbytes)
    given = []

    def film():
        for frame in to_frames([wall] * 20):
            given.append(frame.index)
            yield frame

    behind = [given[-1] - frame.index for frame, _ in track_faces(film(), Watched())]
    assert len(behind) == 20
    assert max(behind) == 4


def test_every_frame_comes_out_once_and_in_order(collins, wall):
    film = to_frames([collins.place(wall, 200, 120)] * 3 + [wall] * 30)
    assert [frame.index for frame, _ in track_faces(film, Watched())] == list(range(33))


@pytest.fixture(scope="module")
def room():
    """float32[240, 400, 3], a background with texture: a face more or less is no cut."""
    rng = np.random.default_rng(5)
    coarse, fine = rng.uniform(20, 220, (5, 8, 3)), rng.uniform(-30, 30, (60, 100, 3))
    return sum(
        cv2.resize(cells.astype(np.float32), (400, 240), interpolation=cv2.INTER_CUBIC)
        for cells in (coarse, fine)
    )


@pytest.mark.parametrize("every", [2, 3, 5, 10])
def test_a_face_that_flickers_is_found_wherever_it_shows(collins, room, every):
    shown = [index % every != every - 1 for index in range(24)]
    film = [collins.place(room, 200, 120) if is_shown else room for is_shown in shown]
    assert [list(seen) for seen in follow(film)] == [[0] if is_shown else [] for is_shown in shown]


def test_black_frames_between_are_no_end(collins, room):
    film = [collins.place(room, 200, 120) if index % 5 else 0 * room for index in range(20)]
    assert [list(seen) for seen in follow(film)] == [
        [0] if index % 5 else [] for index in range(20)
    ]


@pytest.mark.parametrize("length", [0, 1, 8])
def test_a_face_that_dissolves_into_another_is_two_tracks(collins, hopper, room, length):
    first, second = collins.place(room, 200, 120, 80), hopper.place(room, 200, 120, 80)
    shares = [0] * 10 + [(index + 1) / (length + 1) for index in range(length)] + [1] * 20
    places = follow([(1 - share) * first + share * second for share in shares])
    assert [list(seen) for seen in places[:10]] == [[0]] * 10
    assert [list(seen) for seen in places[-20:]] == [[1]] * 20


def test_a_small_face_is_found_and_followed(collins, wall):
    film = [collins.place(wall, 150 + index, 120, 44) for index in range(10)]
    places = follow(film)
    assert [list(seen) for seen in places] == [[0]] * 10


def test_without_a_face_there_is_no_track(wall):
    detector = Watched()
    assert follow([wall] * 50, detector=detector) == [{}] * 50
    # Every half second, and the last frame.
    assert len(detector.searches) <= 6


def test_times_that_stand_still_do_not_stop_the_searches(collins, hopper, wall):
    alone = collins.place(wall, 100, 120)
    film = to_frames([alone] * 3 + [hopper.place(alone, 300, 120, 80)] * 70)
    frames = [Frame(frame.index, 0.0, frame.pixels) for frame in film]
    seen = [len(sightings) for _, sightings in track_faces(frames, Watched())]
    assert seen == [1] * 3 + [2] * 70


def test_a_detector_that_does_not_follow_is_given_batches(wall, collins):
    class Slow:
        batch_size = 4
        follows = False
        given = []

        def find(self, frames, *, thorough=True):
            self.given.append(len(frames))
            return [[Box(165, 85, 235, 155, 0.99)] for _ in frames]

    slow = Slow()
    pictures = [collins.place(wall, 200, 120)] * 10
    assert [list(seen) for seen in follow(pictures, detector=slow)] == [[0]] * 10
    assert slow.given == [4, 4, 2]


def test_large_frames_come_in_small_batches(monkeypatch, wall):
    class Slow:
        batch_size = 8
        follows = False
        given = []

        def find(self, frames, *, thorough=True):
            self.given.append(len(frames))
            return [[] for _ in frames]

    monkeypatch.setattr(track_module, "MOST_PIXELS", 2 * wall[..., 0].size)
    slow = Slow()
    follow([wall] * 5, detector=slow)
    assert slow.given == [2, 2, 1]


def test_boxes_without_a_person_behind_them_are_not_joined(wall, collins):
    """A look that is no match in place, look or descriptor begins its own track."""

    class Two:
        batch_size = 2
        follows = False

        def find(self, frames, *, thorough=True):
            return [[Box(65, 85, 135, 155, 0.99), Box(265, 85, 335, 155, 0.98)] for _ in frames]

    pictures = [collins.place(wall, 100, 120)] * 4
    assert all(sorted(seen) == [0, 1] for seen in follow(pictures, detector=Two()))
