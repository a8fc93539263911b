"""One person from a frame to the next: what is remembered of them, and how they are found again.

Takes a frame and how the person looked in one just before or after; gives the face, or nothing.
Knows nothing of other people, of whole frames or of files.
"""

from dataclasses import dataclass, field

import numpy as np

from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import Box, find_near, overlap
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
# Looks of a person that are kept, to tell them again at a glance.
MOST_PATCHES = 4


@dataclass
class Look:
    """A face as one frame shows it.

    Attributes:
        time_s: The frame's time in seconds.
        pixels: The frame, uint8[height, width, 3], RGB; let go once the face is somebody's.
        box: Where a detector saw it, or would.
        landmarks: float32[68, 2] in pixels of the frame.
        num_frames_since_detection: Frames since a detector saw it.
        place, roll_deg: What the landmarks enclose, and how it is turned.
        patch: As `identity.take_patch` gives it.
        fit: The box by the place: its width, and its shift, as shares of the place's width.
        detected_width: Width of the place when a detector last saw the face.
    """

    time_s: float
    pixels: np.ndarray | None
    box: Box
    landmarks: np.ndarray
    num_frames_since_detection: int = 0
    _descriptor: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.place, self.roll_deg = enclose(self.landmarks)
        self.patch = take_patch(self.pixels, self.landmarks)
        shift = np.subtract(self.box.center, self.place.center)
        self.fit = np.array([self.box.width, *shift]) / self.place.width
        self.detected_width = self.place.width

    def expect_box(self) -> Box:
        """Say where the detector would draw its square, by where the landmarks are."""
        width, *shift = (self.fit * self.place.width).tolist()
        return self.place.resize(width, shift)._replace(score=self.box.score)

    @property
    def descriptor(self) -> np.ndarray:
        """As `identity.describe_chip` gives it."""
        if self._descriptor is None:
            self._descriptor = describe_chip(take_chip(self.pixels, self.landmarks))
        return self._descriptor


@dataclass(eq=False)
class Person:
    """Somebody with a track.

    Attributes:
        track_id: Counted from 0.
        chip: The clearest view, as `identity.take_chip` cuts it, until it is described.
        chip_score: The detector's score of it.
        patches: The latest looks that were sure to be this person's.
        doubted_s: Time of the first look since the last search that was not told at a glance.
    """

    track_id: int
    chip: np.ndarray | None = None
    chip_score: float = -np.inf
    patches: list[np.ndarray] = field(default_factory=list)
    doubted_s: float | None = None
    _descriptor: np.ndarray | None = field(default=None, repr=False)

    @property
    def descriptor(self) -> np.ndarray:
        """As `identity.describe_chip` gives it of the clearest view."""
        if self._descriptor is None:
            self._descriptor, self.chip = describe_chip(self.chip), None
        return self._descriptor

    def remember(self, look: Look) -> None:
        """Keep a view that is clearer by far than the one kept."""
        if look.box.score > self.chip_score + 0.3:
            self.chip, self._descriptor = (
                take_chip(look.pixels, look.landmarks),
                look._descriptor,
            )
            self.chip_score = look.box.score

    def is_shown_in(self, look: Look) -> bool:
        """Ask who it is."""
        return bool(np.linalg.norm(look.descriptor - self.descriptor) < SAME_PERSON)

    def looks_like(self, look: Look) -> bool:
        """Tell at a glance, by how the person looked when it was sure to be them."""
        return any(looks_same(patch, look.patch) for patch in self.patches)

    def keep_patch(self, look: Look) -> None:
        """Keep how the person looks, among the latest few."""
        self.patches = [*self.patches, look.patch][-MOST_PATCHES:]

    def recognize(self, look: Look) -> bool:
        """Tell by a glance, and by a long look where that leaves a doubt."""
        if self.looks_like(look):
            return True
        if not self.is_shown_in(look):
            return False
        self.keep_patch(look)
        self.doubted_s = look.time_s if self.doubted_s is None else self.doubted_s
        return True


def see_face(frame: Frame, box: Box) -> Look:
    """Look at a face that a detector found."""
    landmarks = find_landmarks(frame.pixels, box)
    return Look(frame.time_s, frame.pixels, box, landmarks)


def follow_face(track: Person, before: Look, frame: Frame) -> Look | None:
    """Look for a person around the place where they were in a frame just before or after."""
    gap_s = abs(frame.time_s - before.time_s)
    num_frames = before.num_frames_since_detection + 1
    if gap_s <= QUICK_GAP_S and num_frames < DETECT_EVERY:
        look = _predict(before, before.expect_box(), frame)
        look.num_frames_since_detection, look.fit = num_frames, before.fit
        look.detected_width = before.detected_width
        if _moved_little(before, look) and track.looks_like(look):
            look.box = look.expect_box()
            return look
    reach = min(REACH + REACH_PER_S * gap_s, FARTHEST_REACH)
    looks = [
        _predict(before, _steady(box, before), frame)
        for box in keep_distinct(find_near(frame.pixels, before.place, reach))
    ]
    for look in sorted(looks, key=lambda look: measure_change(look, before)):
        if np.isfinite(measure_change(look, before)) and track.recognize(look):
            look.fit = (look.fit + before.fit) / 2
            return look
    return None


def _steady(box: Box, before: Look) -> Box:
    """Give a detector's square the mean of its width and the one before: they come in steps."""
    return box.resize((box.width + before.fit[0] * before.place.width) / 2)


def _predict(before: Look, box: Box, frame: Frame) -> Look:
    """Find a face's landmarks in a square, turned as it was in a frame just before."""
    landmarks = find_turned_landmarks(frame.pixels, box, before.roll_deg)
    return Look(frame.time_s, frame.pixels, box, landmarks)


def _moved_little(before: Look, look: Look) -> bool:
    shift = np.subtract(look.place.center, before.place.center) / before.place.width
    growth = look.place.width / before.detected_width
    return bool(np.hypot(*shift) <= QUICK_SHIFT and 1 / QUICK_GROWTH <= growth <= QUICK_GROWTH)


def measure_change(look: Look, before: Look) -> float:
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


def keep_distinct(boxes: list[Box]) -> list[Box]:
    """Keep one box a face, the one of the highest score."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(overlap(box, other) < SAME_BOX for other in kept):
            kept.append(box)
    return kept
