"""Frames in their order in, the faces of each frame out, every one with the person's track.

The whole frame is searched at the first frame of a scene, at its last and at intervals between.
From there on a face is looked for around its last place, which costs a tenth of that; who is
new in a search is followed back to where they entered, so that nobody comes late. Place and
look carry a track from frame to frame. Where either leaves a doubt the face's descriptor
decides, so that two people never share a track and one who comes back gets the old one. Knows
nothing of files or crops.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import MOST_PIXELS, Box, FaceDetector, find_near, overlap
from jdfd_keras.faces.identity import (
    SAME_PERSON,
    describe_chip,
    looks_same,
    take_chip,
    take_patch,
)
from jdfd_keras.faces.landmarks import enclose, find_landmarks, find_turned_landmarks

# Between frames further apart than this, places say nothing.
LONGEST_GAP_S = 1.0
# The whole frame is searched that often, and more often while nobody is seen or one was lost.
SEARCH_EVERY_S = 3.0
SEARCH_AGAIN_S = 0.5
SEARCH_EVERY_FRAMES = 90  # where a file has no times
# Frames are held back until the next search; of large ones, few.
MOST_BYTES_HELD = 192 * 2**20
# A detector looks at every fourth frame of a face that moves little; between them the landmarks
# are found where they were. Trusted for longer, or after more growth, they may run away.
DETECT_EVERY = 4
QUICK_GAP_S = 0.1
QUICK_SHIFT, QUICK_GROWTH = 0.2, 1.06
# Two boxes that overlap more are of one face.
SAME_BOX = 0.4
# Width of the window over that of the face: for standing still, and for every second passed.
REACH, REACH_PER_S, FARTHEST_REACH = 1.7, 2.0, 3.5
# A face changes its width by less between two frames.
LARGEST_GROWTH = 1.6
THUMBNAIL = (32, 18)
# Correlation of two frames' thumbnails below which the scene was cut.
SAME_SCENE = 0.6


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    Attributes:
        track_id: The person's track, counted from 0 in the order in which they were found.
        box: Where it was detected; between two detections, where its landmarks say.
        landmarks: float32[68, 2] in pixels of the frame.
    """

    track_id: int
    box: Box
    landmarks: np.ndarray


@dataclass
class _Look:
    """A face as one frame shows it; the frame itself only until the face is somebody's."""

    time_s: float
    pixels: np.ndarray | None
    box: Box
    landmarks: np.ndarray
    num_frames_since_detection: int = 0
    _descriptor: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.place, self.roll_deg = enclose(self.landmarks)
        self.patch = take_patch(self.pixels, self.landmarks)
        # The detector's square by the landmarks' own: its width, and shift by that width.
        shift = np.subtract(self.box.center, self.place.center)
        self.fit = np.array([self.box.width, *shift]) / self.place.width
        self.detected_width = self.place.width

    def expect_box(self) -> Box:
        """Say where the detector would draw its square, by where the landmarks are."""
        width, *shift = (self.fit * self.place.width).tolist()
        return self.place.resize(width, shift)._replace(score=self.box.score)

    @property
    def descriptor(self) -> np.ndarray:
        if self._descriptor is None:
            self._descriptor = describe_chip(take_chip(self.pixels, self.landmarks))
        return self._descriptor


@dataclass(eq=False)
class _Track:
    """Who a person is: the clearest view of them, as a picture only until it is needed."""

    track_id: int
    chip: np.ndarray | None = None
    chip_score: float = -np.inf
    _descriptor: np.ndarray | None = field(default=None, repr=False)

    @property
    def descriptor(self) -> np.ndarray:
        if self._descriptor is None:
            self._descriptor, self.chip = describe_chip(self.chip), None
        return self._descriptor

    def remember(self, look: _Look) -> None:
        if look.box.score > self.chip_score + 0.3:
            self.chip, self._descriptor = (
                take_chip(look.pixels, look.landmarks),
                look._descriptor,
            )
            self.chip_score = look.box.score

    def is_shown_in(self, look: _Look) -> bool:
        return bool(np.linalg.norm(look.descriptor - self.descriptor) < SAME_PERSON)


@dataclass
class _Moment:
    """A frame that is held back, and who was seen in it."""

    frame: Frame
    looks: dict[_Track, _Look]

    def hides(self, box: Box) -> bool:
        """Tell whether a box is one of a face that is known already."""
        return any(overlap(box, look.box) >= SAME_BOX for look in self.looks.values())


def track_faces(
    frames: Iterable[Frame], detector: FaceDetector
) -> Iterator[tuple[Frame, list[Sighting]]]:
    """Find and follow the faces of a video.

    Args:
        frames: Frames of one file in their order; all of them or a choice.
        detector: What finds faces in whole frames.

    Yields:
        Every frame in its order with its faces, in the order of their tracks. At most 192 MiB
        of frames are held at a time, or one.

    Raises:
        OSError: If a trained file is not installed.
    """
    tracker = _Tracker(detector)
    for batch in _batches(frames, detector.batch_size):
        found = (
            [None] * len(batch)
            if detector.follows
            else detector.find([frame.pixels for frame in batch])
        )
        for frame, boxes in zip(batch, found, strict=True):
            yield from tracker.take(frame, boxes)
    yield from tracker.close()


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Group frames of one size, fewer where they are large."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and batch[0].pixels.shape != frame.pixels.shape:
            yield batch
            batch = []
        batch.append(frame)
        if len(batch) >= min(size, MOST_PIXELS / frame.pixels[..., 0].size):
            yield batch
            batch = []
    if batch:
        yield batch


class _Tracker:
    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.tracks: list[_Track] = []
        # Frames since the last search, and who was seen last in this scene.
        self.held: list[_Moment] = []
        self.recent: dict[_Track, _Look] = {}
        self.live: set[_Track] = set()
        self.searched_s = -np.inf
        self.has_lost = False
        self.time_s = 0.0
        self.thumbnail: np.ndarray | None = None

    def take(self, frame: Frame, boxes: list[Box] | None) -> Iterator[tuple[Frame, list[Sighting]]]:
        """Take one frame; `boxes` are all of its faces, where they are known already."""
        is_steady = self._is_steady(frame)
        if not is_steady:
            yield from self.close()
            self.recent, self.live = {}, set()
        self.time_s = frame.time_s
        moment = _Moment(frame, {})
        self.held.append(moment)
        if boxes is None:
            self._follow_all(moment)
            if not is_steady or self._is_due(moment):
                yield from self._search(thorough=True)
        else:
            yield from self._settle(boxes)

    def close(self) -> Iterator[tuple[Frame, list[Sighting]]]:
        """End a scene: search its last frame, if it was not, and let all of them go."""
        if self.held:
            # Nearly all was found by the searches before; a newcomer of 80 pixels is seen by this.
            yield from self._search(thorough=self.has_lost or not self.held[-1].looks)

    def _search(self, *, thorough: bool) -> Iterator[tuple[Frame, list[Sighting]]]:
        pixels = self.held[-1].frame.pixels
        yield from self._settle(self.detector.find([pixels], thorough=thorough)[0])

    def _is_steady(self, frame: Frame) -> bool:
        """Tell whether places in the frame before say something about this one."""
        before, pixels = self.thumbnail, frame.pixels
        step = max(min(pixels.shape[:2]) // (2 * THUMBNAIL[1]), 1)
        thumbnail = cv2.resize(pixels[::step, ::step], THUMBNAIL, interpolation=cv2.INTER_AREA)
        self.thumbnail = thumbnail.mean(axis=2)
        if before is None or not 0 <= frame.time_s - self.time_s <= LONGEST_GAP_S:
            return False
        ours, others = self.thumbnail - self.thumbnail.mean(), before - before.mean()
        # A little added, so that two frames without any contrast are one scene.
        agreement = (np.sum(ours * others) + 1) / (np.sqrt(np.sum(ours**2) * np.sum(others**2)) + 1)
        return agreement >= SAME_SCENE

    def _is_due(self, moment: _Moment) -> bool:
        every_s = SEARCH_AGAIN_S if self.has_lost or not moment.looks else SEARCH_EVERY_S
        num_bytes = moment.frame.pixels.nbytes
        return (
            self.time_s - self.searched_s >= every_s
            or len(self.held) >= SEARCH_EVERY_FRAMES
            or (len(self.held) + 1) * num_bytes > MOST_BYTES_HELD
        )

    def _follow_all(self, moment: _Moment) -> None:
        """Look for everybody who was in the frame before."""
        for track in sorted(self.live, key=lambda track: track.track_id):
            look = _follow(track, self.recent[track], moment.frame)
            if look is not None and not moment.hides(look.box):
                moment.looks[track] = look
        self.has_lost |= len(moment.looks) < len(self.live)
        self.live = set(moment.looks)
        self.recent |= moment.looks

    def _settle(self, boxes: list[Box]) -> Iterator[tuple[Frame, list[Sighting]]]:
        """Find out whose the other faces of the last frame held are; then let the frames go."""
        moment = self.held[-1]
        looks = [_look(moment.frame, box) for box in _distinct(boxes) if not moment.hides(box)]
        for track, look in self._match_by_place(moment, looks).items():
            moment.looks[track] = look
        for look in looks:
            if not any(look is known for known in moment.looks.values()):
                moment.looks[self._identify(moment, look)] = look
        for track, look in moment.looks.items():
            track.remember(look)
            if self.detector.follows:
                self._follow_back(track, look)
        self.searched_s, self.has_lost = moment.frame.time_s, False
        self.live = set(moment.looks)
        self.recent |= moment.looks
        held, self.held = self.held, []
        for moment in held:
            sightings = []
            for track, look in sorted(moment.looks.items(), key=lambda item: item[0].track_id):
                look.pixels = None
                sightings.append(Sighting(track.track_id, look.box, look.landmarks))
            yield moment.frame, sightings

    def _match_by_place(self, moment: _Moment, looks: list[_Look]) -> dict[_Track, _Look]:
        """Find who was near a face a moment ago and looked the same."""
        tracks = [track for track in self.recent if track not in moment.looks]
        if not tracks or not looks:
            return {}
        cost = np.array(
            [[_distance(look, self.recent[track]) for track in tracks] for look in looks]
        )
        return {
            tracks[column]: looks[row]
            for row, column in zip(*linear_sum_assignment(np.minimum(cost, 1e3)), strict=True)
            if np.isfinite(cost[row, column])
            and _is_same(tracks[column], self.recent[tracks[column]], looks[row])
        }

    def _identify(self, moment: _Moment, look: _Look) -> _Track:
        """Find a person's track by their descriptor, or begin one."""
        absent = [track for track in self.tracks if track not in moment.looks]
        distances = [np.linalg.norm(look.descriptor - track.descriptor) for track in absent]
        if distances and min(distances) < SAME_PERSON:
            return absent[int(np.argmin(distances))]
        self.tracks.append(_Track(len(self.tracks)))
        return self.tracks[-1]

    def _follow_back(self, track: _Track, look: _Look) -> None:
        """Look for a person in the frames held, from the last one back to where they entered."""
        for moment in reversed(self.held[:-1]):
            if track in moment.looks:
                return
            look = _follow(track, look, moment.frame)
            if look is None or moment.hides(look.box):
                return
            moment.looks[track] = look


def _look(frame: Frame, box: Box) -> _Look:
    landmarks = find_landmarks(frame.pixels, box)
    return _Look(frame.time_s, frame.pixels, box, landmarks)


def _follow(track: _Track, before: _Look, frame: Frame) -> _Look | None:
    """Look for a person around the place where they were in a frame just before or after."""
    gap_s = abs(frame.time_s - before.time_s)
    num_frames = before.num_frames_since_detection + 1
    if gap_s <= QUICK_GAP_S and num_frames < DETECT_EVERY:
        look = _predict(before, before.expect_box(), frame)
        look.num_frames_since_detection, look.fit = num_frames, before.fit
        look.detected_width = before.detected_width
        if _moved_little(before, look) and looks_same(before.patch, look.patch):
            look.box = look.expect_box()
            return look
    reach = min(REACH + REACH_PER_S * gap_s, FARTHEST_REACH)
    looks = [
        _predict(before, _steady(box, before), frame)
        for box in _distinct(find_near(frame.pixels, before.place, reach))
    ]
    for look in sorted(looks, key=lambda look: _distance(look, before)):
        if np.isfinite(_distance(look, before)) and _is_same(track, before, look):
            look.fit = (look.fit + before.fit) / 2
            return look
    return None


def _steady(box: Box, before: _Look) -> Box:
    """Draw a detector's square half as wide as the one before: its widths come in steps."""
    return box.resize((box.width + before.fit[0] * before.place.width) / 2)


def _predict(before: _Look, box: Box, frame: Frame) -> _Look:
    """Find a face's landmarks in a square, turned as it was in a frame just before."""
    landmarks = find_turned_landmarks(frame.pixels, box, before.roll_deg)
    return _Look(frame.time_s, frame.pixels, box, landmarks)


def _moved_little(before: _Look, look: _Look) -> bool:
    shift = np.subtract(look.place.center, before.place.center) / before.place.width
    growth = look.place.width / before.detected_width
    return bool(np.hypot(*shift) <= QUICK_SHIFT and 1 / QUICK_GROWTH <= growth <= QUICK_GROWTH)


def _is_same(track: _Track, before: _Look, look: _Look) -> bool:
    return looks_same(before.patch, look.patch) or track.is_shown_in(look)


def _distance(look: _Look, before: _Look) -> float:
    """Say how far a face is from where it was and how it looked; infinite if too far."""
    gap_s = abs(look.time_s - before.time_s)
    ours, place = look.place, before.place
    growth = ours.width / place.width
    away = float(np.hypot(*(np.subtract(ours.center, place.center) / place.width)))
    reach = min(REACH + REACH_PER_S * gap_s, FARTHEST_REACH) - 1
    is_beyond = away > reach or not 1 / LARGEST_GROWTH <= growth <= LARGEST_GROWTH
    if is_beyond or gap_s > LONGEST_GAP_S:
        return np.inf
    return away - float(np.mean(look.patch * before.patch))


def _distinct(boxes: list[Box]) -> list[Box]:
    """Keep one box a face, the one of the highest score."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(overlap(box, other) < SAME_BOX for other in kept):
            kept.append(box)
    return kept
