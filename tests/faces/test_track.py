"""Tracks in clips of two real faces at known positions."""

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import track as track_module
from jdfd_keras.faces.detect import Box, DlibDetector, face_detector
from jdfd_keras.faces.media import Frame
from jdfd_keras.faces.reid import FaceObservation
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
    # The first frame; of the last, less than three seconds later, only where the face moved.
    assert len(detector.searches) == 1


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
    assert len(detector.searches) == 2  # the first frame of each scene; the last is the same


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


def test_buffered_frames_are_packed(collins, hopper, wall):
    """A frame of a video takes its decoded picture only, until its faces are cropped."""
    alone = collins.place(wall, 110, 120, 80)
    both = hopper.place(alone, 290, 120, 80)  # is found in the last frame, and tracked back
    images = [np.clip(image, 0, 255).astype(np.uint8) for image in [alone] * 5 + [both] * 7]
    converted = set()  # indices of the frames whose pixels are converted and not released

    class Packed(Frame):
        def __init__(self, index):
            converted.add(index)

            def convert():
                converted.add(index)
                return images[index]

            pixels = images[index]
            super().__init__(
                index, index / 25, pixels, convert=convert, packed_bytes=pixels.nbytes // 2
            )

        def pack(self):
            converted.discard(self.index)
            super().pack()

    most = 0

    def clip():
        nonlocal most
        for index in range(12):
            yield Packed(index)
            most = max(most, len(converted))

    for frame, faces in track_faces(clip(), CountingDetector()):
        assert len(faces) == 1 + (frame.index >= 5)
        assert frame.pixels is images[frame.index]
        most = max(most, len(converted | {frame.index}))
    assert most <= 2  # the frame in use and, at the end of a scene, the last one
    assert not converted


@pytest.mark.parametrize("exposure", [1.0, 0.9])
def test_a_search_of_what_has_changed_finds_what_one_of_the_whole_frame_does(
    collins, hopper, room, exposure, monkeypatch
):
    """A face moves, another appears, and a third one turns to the camera where it was."""
    room = cv2.resize(room, None, fx=2, fy=2)
    noise = np.random.default_rng(5).normal(0, 2, (20, *room.shape))
    clip = []
    for index in range(20):
        upside_down = 180 if index < 9 else 0
        image = collins.place(room, 150 + 5 * index, 140, 80)
        image = hopper.place(image, 620, 330, 70, upside_down)
        image = image if index < 5 else hopper.place(image, 420, 120, 60)
        clip.append((image + noise[index]) * exposure ** (index / 19))
    limited, whole = CountingDetector(), CountingDetector()
    tracks = track(clip, detector=limited)
    monkeypatch.setattr(track_module.SearchedScene, "find_changes", lambda *_: None)
    assert tracks == track(clip, detector=whole)
    assert max(len(seen) for seen in tracks) == 3
    assert len(limited.searches) <= len(whole.searches)


def test_a_face_that_was_lost_is_searched_where_nothing_has_changed(collins, wall, monkeypatch):
    clip = [collins.place(wall, 200, 120)] * 12
    follow = track_module.TrackState.follow

    def lose(track, previous, frame, others=()):
        return None if frame.index >= 4 else follow(track, previous, frame, others)

    monkeypatch.setattr(track_module.TrackState, "follow", lose)
    assert list(track(clip)[-1]) == [0]


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


class ManyBoxes:
    """Finds 200 boxes of different sizes in every frame."""

    batch_size = 1

    def __init__(self, supports_local_search):
        self.supports_local_search = supports_local_search
        sizes = np.random.default_rng(0).permutation(200) + 10
        self.boxes = [
            Box(x, y, x + int(size), y + int(size), 0.5)
            for size, (y, x) in zip(sizes, np.ndindex(10, 20), strict=True)
            for y, x in [(300 * y, 300 * x)]
        ]

    def find(self, frames, *, thorough=True):
        return [self.boxes for _ in frames]


@pytest.mark.parametrize("supports_local_search", [False, True])
def test_only_the_largest_of_many_faces_are_used(monkeypatch, supports_local_search):
    observed, warned = [], []

    class Spy(FaceObservation):
        def __init__(self, frame, box, *rest):
            observed.append(box)
            super().__init__(frame, box, *rest)

    monkeypatch.setattr(track_module, "FaceObservation", Spy)
    noise = np.random.default_rng(1).integers(0, 256, (150, 300, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (6000, 3000), interpolation=cv2.INTER_NEAREST)
    detector = ManyBoxes(supports_local_search)
    frames = [Frame(index, 10.0 * index, pixels) for index in range(3)]
    found = list(track_faces(frames, detector, max_faces=7, warn=warned.append))
    largest = sorted(detector.boxes, key=lambda box: -box.width)[:7]
    for _, faces in found:
        assert sorted(face.box for face in faces) == sorted(largest)
    assert len(observed) == 21  # landmarks of the others are not computed
    (sentence,) = warned
    assert sentence.startswith("at least 3 frames show more than 7 faces")
    assert "--max-faces-per-frame" in sentence


def test_up_to_the_limit_all_faces_are_used_without_a_word(collins, hopper, wall):
    warned = []
    both = hopper.place(collins.place(wall, 100, 120), 300, 120, 80)
    for limit in (0, 2):
        frames = to_frames([both] * 4)
        found = track_faces(frames, CountingDetector(), max_faces=limit, warn=warned.append)
        assert [len(faces) for _, faces in found] == [2] * 4
    assert warned == []


def test_a_larger_newcomer_replaces_a_tracked_face_at_the_limit(collins, hopper, room):
    warned = []
    alone = collins.place(room, 100, 120, 60)
    clip = to_frames([alone] * 4 + [hopper.place(alone, 290, 120, 100)] * 8)
    found = list(track_faces(clip, CountingDetector(), max_faces=1, warn=warned.append))
    assert all(len(faces) == 1 for _, faces in found)
    assert found[0][1][0].box.center[0] == pytest.approx(100, abs=12)
    assert found[-1][1][0].box.center[0] == pytest.approx(290, abs=12)
    assert len(warned) == 1


def test_a_returning_face_counts_among_the_faces_of_the_limit(collins, hopper, room):
    room = cv2.resize(room, None, fx=2, fy=2)  # so large that no change is a cut
    gone = hopper.place(room, 600, 240, 60)
    clip = [collins.place(room, 200, 240, 90)] * 6 + [gone] * 15
    clip += [collins.place(gone, 200, 240, 90)] * 6
    found = list(track_faces(to_frames(clip), CountingDetector(), max_faces=1))
    assert max(len(faces) for _, faces in found) == 1
    x = [round(faces[0].box.center[0]) for _, faces in found if faces]
    assert (x[0], x[-1]) == pytest.approx((200, 200), abs=12)  # the larger one
    assert max(x) == pytest.approx(600, abs=12)


@pytest.mark.slow
def test_a_crowd_is_limited_in_each_of_its_frames(astronaut):
    """One hundred real faces, which are tracked from frame to frame."""
    head = cv2.resize(astronaut[40:240, 120:320], (110, 110), interpolation=cv2.INTER_AREA)
    crowd, warned = np.tile(head, (10, 10, 1)), []
    frames = [Frame(index, index / 25, np.roll(crowd, index, axis=1)) for index in range(4)]
    unlimited = list(track_faces(frames[:1], DlibDetector()))
    assert len(unlimited[0][1]) > 90
    found = list(track_faces(frames, DlibDetector(), max_faces=20, warn=warned.append))
    assert [len(faces) for _, faces in found] == [20] * 4
    (sentence,) = warned
    assert "more than 20 faces" in sentence


@pytest.mark.parametrize("gap_s", [0.04, 30])
@pytest.mark.slow
def test_a_frame_of_another_size_starts_a_scene_and_people_keep_their_tracks(
    collins, hopper, wall, gap_s
):
    upright = cv2.resize(wall, (240, 400))
    clip = [hopper.place(collins.place(wall, 110, 120), 300, 120, 80)] * 4
    # The phone is turned: each person is where the other one was.
    clip += [collins.place(hopper.place(upright, 110, 120, 80), 120, 300)] * 4
    clip += [cv2.resize(clip[0], None, fx=2, fy=2)] * 4
    detector = CountingDetector()
    frames = [
        Frame(index, index * gap_s, np.clip(image, 0, 255).astype(np.uint8))
        for index, image in enumerate(clip)
    ]
    found = [faces for _, faces in track_faces(frames, detector)]
    collins_at = [(110, 120)] * 4 + [(120, 300)] * 4 + [(220, 240)] * 4
    hopper_at = [(300, 120)] * 4 + [(110, 120)] * 4 + [(600, 240)] * 4
    names = ["collins", "hopper"] if found[0][0].box.center[0] < 200 else ["hopper", "collins"]
    for faces, *places in zip(found, collins_at, hopper_at, strict=True):
        assert [face.track_id for face in faces] == [0, 1]
        expected = dict(zip(["collins", "hopper"], places, strict=True))
        for face, name in zip(faces, names, strict=True):
            assert face.box.center == pytest.approx(expected[name], abs=25)


@pytest.mark.parametrize("name", ["dlib", "mtcnn"])
def test_frames_of_alternating_sizes_are_tracked_with_each_detector(collins, wall, name):
    image = collins.place(wall, 200, 120, 90)
    large = cv2.resize(image, None, fx=1.5, fy=1.5)
    images = [image, large, large, image, image[:, 100:320]]
    found = track(images, detector=face_detector(name))
    assert [list(seen) for seen in found] == [[0]] * 5


@pytest.mark.parametrize("name", ["dlib", "mtcnn"])
def test_frames_of_absurd_sizes_have_no_face(name):
    shapes = [(1, 1), (1, 1), (2, 2), (1, 2000), (3000, 1), (1, 7), (3, 3000), (12, 12), (1, 1)]
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (*shape, 3)) for shape in shapes]
    assert track(images, detector=face_detector(name)) == [{}] * len(shapes)
