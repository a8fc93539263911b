"""Whether two faces are of one person: a quick look, and a long one.

Takes a frame and the landmarks of a face; gives a small patch, or a descriptor. Knows nothing
of tracks.

One person from a frame to the next: what is remembered of them, and how they are found again.

Takes a frame and how the person looked in one just before or after; gives the face, or nothing.
Knows nothing of other people, of whole frames or of files.
"""

import functools
from dataclasses import dataclass, field

import cv2
import numpy as np

from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import Box, find_near, overlap
from jdfd_keras.faces.landmarks import (
    enclose,
    find_landmarks,
    find_turned_landmarks,
    five_points,
    model_file,
)

PATCH_SIZE = 24
TURNED_SIZE = 36  # what holds a patch, however it is turned
CHIP_SIZE = 150  # what the network takes
# Of 60 portraits, patches of different people agreed by 0.65 at most in 99 of 100 pairs, and
# those of one face, moved, blurred and compressed, by 0.76 at least.
SAME_LOOK = 0.7
# Below the network's own 0.6 (99.4 % right on Labeled Faces in the Wild), since two people in one
# track are worse than one person in two: of 780 pairs of portraits the nearest were 0.57 apart.
SAME_PERSON = 0.5


def take_patch(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Take a small grey patch of a face, upright, to tell at a glance whether it is still the same.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.

    Returns:
        float32[24, 24], of mean 0 and variance 1; all zero where the face is outside the frame
        or without contrast.
    """
    five = five_points(landmarks)
    between_eyes = five[1] - five[0]
    reach = np.linalg.norm(between_eyes) * TURNED_SIZE / PATCH_SIZE
    low, high = np.rint([five.mean(axis=0) - reach, five.mean(axis=0) + reach]).astype(int)
    left, top = np.maximum(low, 0)
    right, bottom = np.clip(high, 0, pixels.shape[1::-1])
    if right <= left or bottom <= top:
        return np.zeros((PATCH_SIZE, PATCH_SIZE), np.float32)
    grey = cv2.cvtColor(pixels[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    beyond = (top - low[1], high[1] - bottom, left - low[0], high[0] - right)
    if any(beyond):
        grey = cv2.copyMakeBorder(grey, *(int(side) for side in beyond), cv2.BORDER_REPLICATE)
    small = cv2.resize(grey, (TURNED_SIZE, TURNED_SIZE), interpolation=cv2.INTER_AREA)
    # Turned upright, for the same face may nod to the side.
    roll_deg = np.degrees(np.arctan2(between_eyes[1], between_eyes[0]))
    middle = (TURNED_SIZE - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), float(roll_deg), 1.0)
    turn[:, 2] -= (TURNED_SIZE - PATCH_SIZE) / 2
    patch = cv2.warpAffine(small, turn, (PATCH_SIZE, PATCH_SIZE)).astype(np.float32)
    patch -= patch.mean()
    return patch / max(float(patch.std()), 1e-6)


def looks_same(patch: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two patches of faces a moment apart are surely of one face.

    False says that they may be of two: compare descriptors then.
    """
    return float(np.mean(patch * other)) >= SAME_LOOK


def take_chip(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut a face out as the descriptor wants it: uint8[150, 150, 3], RGB."""
    import dlib

    (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
    rectangle = dlib.rectangle(*(int(edge) for edge in (left, top, right, bottom)))
    points = dlib.points([dlib.point(*(int(x) for x in np.rint(point))) for point in landmarks])
    shape = dlib.full_object_detection(rectangle, points)
    return dlib.get_face_chip(pixels, shape, CHIP_SIZE)


def describe_chip(chip: np.ndarray) -> np.ndarray:
    """Describe who is seen.

    Args:
        chip: uint8[150, 150, 3], RGB, as `take_chip` gives it.

    Returns:
        float64[128]. Descriptors of one person are less than 0.6 apart, as a rule.

    Reference:
        King: "High Quality Face Recognition with Deep Metric Learning" (2017),
        http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html
    """
    return np.array(_describer().compute_face_descriptor(chip))


@functools.cache
def _describer():
    import dlib

    return dlib.face_recognition_model_v1(
        str(model_file("dlib_face_recognition_resnet_model_v1.dat"))
    )


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
