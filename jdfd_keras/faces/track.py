"""Frames in their order in, the faces of each frame out, every one with the person's track.

A face once found is looked for around its last place, which costs a tenth of the whole frame.
The whole frame is searched where nothing is known yet, after a cut, where a face was lost and
at regular intervals for newcomers. Place and look carry a track from frame to frame; where
either leaves a doubt, the face's descriptor decides, so that two people never share a track
and one who comes back gets the old one. Knows nothing of files or crops.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from jdfd_keras.faces.align import FRONTAL_FACE, fit_similarity
from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import MOST_PIXELS, Box, FaceDetector, find_near, overlap
from jdfd_keras.faces.identity import (
    SAME_PERSON,
    describe_chip,
    looks_same,
    take_chip,
    take_patch,
)
from jdfd_keras.faces.landmarks import find_landmarks, five_points

# Between frames further apart than this, places say nothing.
LONGEST_GAP_S = 1.0
# A thorough search for newcomers: that often, and more often while nobody is seen.
SEARCH_EVERY_S = 2.0
SEARCH_EVERY_S_WHEN_EMPTY = 0.5
SEARCH_EVERY_FRAMES = 60  # where a file has no times
# Two boxes that overlap more are of one face.
SAME_BOX = 0.4
# Width of the window over that of the face: for standing still, and for every second passed.
REACH, REACH_PER_S, FARTHEST_REACH = 1.7, 2.0, 3.5
# A face changes its width by less between two frames.
LARGEST_GROWTH = 1.6
# Width of dlib's box over that of the tight face, whose middle it shares: mean of 120 portraits,
# of which single boxes differ by 8 %, since dlib searches at steps of a fifth.
BOX_WIDTH = 0.82
THUMBNAIL = (32, 18)
# Correlation of two frames' thumbnails below which the scene was cut.
SAME_SCENE = 0.6


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    Attributes:
        track_id: The person's track, counted from 0 in the order of appearance.
        box: Where it was detected.
        landmarks: float32[68, 2] in pixels of the frame.
    """

    track_id: int
    box: Box
    landmarks: np.ndarray


@dataclass
class _Look:
    """A face of the present frame before it is known whose it is."""

    box: Box
    landmarks: np.ndarray
    patch: np.ndarray
    pixels: np.ndarray
    _descriptor: np.ndarray | None = None

    @property
    def place(self) -> Box:
        """The box as the landmarks say it: steadier than the detector's, which comes in steps."""
        five = five_points(self.landmarks)
        a, b = fit_similarity(FRONTAL_FACE, five)[:, 0]
        half = max(BOX_WIDTH * np.hypot(a, b) / 2, 1.0)
        low, high = np.rint([five.mean(axis=0) - half, five.mean(axis=0) + half]).astype(int)
        return Box(*low.tolist(), *high.tolist(), self.box.score)

    @property
    def descriptor(self) -> np.ndarray:
        if self._descriptor is None:
            self._descriptor = describe_chip(take_chip(self.pixels, self.landmarks))
        return self._descriptor


@dataclass
class _Track:
    """What is remembered of a person; the chip only until it is needed."""

    track_id: int
    place: Box = None
    patch: np.ndarray = None
    time_s: float = 0.0
    is_near: bool = False
    chip: np.ndarray | None = None
    chip_score: float = -np.inf
    _descriptor: np.ndarray | None = field(default=None, repr=False)

    @property
    def descriptor(self) -> np.ndarray:
        if self._descriptor is None:
            self._descriptor, self.chip = describe_chip(self.chip), None
        return self._descriptor

    def see(self, look: _Look, time_s: float) -> None:
        self.place, self.patch, self.time_s, self.is_near = look.place, look.patch, time_s, True
        # The clearest view by far says best who it is.
        if look.box.score > self.chip_score + 0.3:
            self.chip, self._descriptor = take_chip(look.pixels, look.landmarks), look._descriptor
            self.chip_score = look.box.score


def track_faces(
    frames: Iterable[Frame], detector: FaceDetector
) -> Iterator[tuple[Frame, list[Sighting]]]:
    """Find and follow the faces of a video.

    Args:
        frames: Frames of one file in their order; all of them or a choice.
        detector: What finds faces in whole frames.

    Yields:
        Every frame with its faces, in the order of their tracks; a frame is let go before more
        than the detector's batch of others is taken.

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
            yield frame, tracker.update(frame, boxes)


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
        self.time_s = 0.0
        self.thumbnail: np.ndarray | None = None
        self.searched_s = -np.inf
        self.frames_since_search = 0

    def update(self, frame: Frame, boxes: list[Box] | None) -> list[Sighting]:
        """Take one frame; `boxes` are all of its faces, where they are known already."""
        is_steady = self._is_steady(frame)
        for track in self.tracks:
            track.is_near &= is_steady and frame.time_s - track.time_s <= LONGEST_GAP_S
        if not is_steady:
            self.searched_s = -np.inf
        if boxes is None:
            boxes = self._look_for_boxes(frame)
        looks = [self._look(frame, box) for box in boxes]
        owners = self._match_by_place(looks, frame.time_s)
        self._match_by_identity(looks, owners)
        self.time_s = frame.time_s
        sightings = []
        for look, owner in zip(looks, owners, strict=True):
            if owner is not None:
                owner.see(look, frame.time_s)
                sightings.append(Sighting(owner.track_id, look.box, look.landmarks))
        return sorted(sightings, key=lambda sighting: sighting.track_id)

    def _is_steady(self, frame: Frame) -> bool:
        """Tell whether places in the frame before say something about this one."""
        before, pixels = self.thumbnail, frame.pixels
        step = max(min(pixels.shape[:2]) // (4 * THUMBNAIL[1]), 1)
        thumbnail = cv2.resize(pixels[::step, ::step], THUMBNAIL, interpolation=cv2.INTER_AREA)
        self.thumbnail = thumbnail.mean(axis=2)
        if before is None or not 0 <= frame.time_s - self.time_s <= LONGEST_GAP_S:
            return False
        ours, others = self.thumbnail - self.thumbnail.mean(), before - before.mean()
        # A little added, so that two frames without any contrast are one scene.
        agreement = (np.sum(ours * others) + 1) / (np.sqrt(np.sum(ours**2) * np.sum(others**2)) + 1)
        return agreement >= SAME_SCENE

    def _look_for_boxes(self, frame: Frame) -> list[Box]:
        near = [track for track in self.tracks if track.is_near]
        boxes: list[Box] = []
        for track in near:
            reach = REACH + REACH_PER_S * (frame.time_s - track.time_s)
            boxes += find_near(frame.pixels, track.place, min(reach, FARTHEST_REACH))
        boxes = _distinct(boxes)
        followed = sum(track.time_s == self.time_s for track in near)
        self.frames_since_search += 1
        every_s = SEARCH_EVERY_S if near else SEARCH_EVERY_S_WHEN_EMPTY
        is_due = (
            frame.time_s - self.searched_s >= every_s
            or self.frames_since_search >= SEARCH_EVERY_FRAMES
        )
        if is_due or len(boxes) < max(followed, 1):
            if is_due:
                self.searched_s, self.frames_since_search = frame.time_s, 0
            # What was followed comes first: its boxes are cut at the same scale every time.
            boxes = _distinct(boxes, self.detector.find([frame.pixels], thorough=is_due)[0])
        return boxes

    @staticmethod
    def _look(frame: Frame, box: Box) -> _Look:
        landmarks = find_landmarks(frame.pixels, box)
        return _Look(box, landmarks, take_patch(frame.pixels, landmarks), frame.pixels)

    def _match_by_place(self, looks: list[_Look], time_s: float) -> list[_Track | None]:
        """Give each look the track that was near it and looks the same, where there is one."""
        owners: list[_Track | None] = [None] * len(looks)
        near = [track for track in self.tracks if track.is_near]
        if not near or not looks:
            return owners
        cost = np.array([[_distance(look, track, time_s) for track in near] for look in looks])
        for row, column in zip(*linear_sum_assignment(np.minimum(cost, 1e3)), strict=True):
            look, track = looks[row], near[column]
            if np.isfinite(cost[row, column]) and (
                looks_same(look.patch, track.patch) or _is_same_person(look, track)
            ):
                owners[row] = track
        return owners

    def _match_by_identity(self, looks: list[_Look], owners: list[_Track | None]) -> None:
        """Find the others' tracks by who they are; a face that is nobody's begins a new one."""
        for index in sorted(range(len(looks)), key=lambda index: -looks[index].box.score):
            look = looks[index]
            if owners[index] is not None or look.box.score < 0:
                continue
            absent = [track for track in self.tracks if not any(track is own for own in owners)]
            distances = [np.linalg.norm(look.descriptor - t.descriptor) for t in absent]
            if distances and min(distances) < SAME_PERSON:
                owners[index] = absent[int(np.argmin(distances))]
            else:
                owners[index] = _Track(len(self.tracks))
                self.tracks.append(owners[index])


def _distinct(*ranks: list[Box]) -> list[Box]:
    """Keep one box a face: of an earlier list first, then the one of the higher score."""
    kept: list[Box] = []
    for boxes in ranks:
        for box in sorted(boxes, key=lambda box: -box.score):
            if all(overlap(box, other) < SAME_BOX for other in kept):
                kept.append(box)
    return kept


def _distance(look: _Look, track: _Track, time_s: float) -> float:
    """Say how far a look is from where a track was and how it looked; infinite if too far."""
    growth = look.place.width / track.place.width
    shift = np.subtract(look.place.center, track.place.center) / track.place.width
    away = float(np.hypot(*shift))
    reach = min(REACH + REACH_PER_S * (time_s - track.time_s), FARTHEST_REACH) - 1
    if away > reach or not 1 / LARGEST_GROWTH <= growth <= LARGEST_GROWTH:
        return np.inf
    return away - float(np.mean(look.patch * track.patch))


def _is_same_person(look: _Look, track: _Track) -> bool:
    return bool(np.linalg.norm(look.descriptor - track.descriptor) < SAME_PERSON)
