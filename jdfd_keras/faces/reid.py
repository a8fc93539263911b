"""Re-identification: whether two faces are the same person, by a patch or an embedding.

`TrackState.follow` finds the face of a track near its position in an adjacent frame.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box, find_near, import_dlib, overlap
from jdfd_keras.faces.landmarks import box_from_landmarks, find_landmarks, five_points, model_file
from jdfd_keras.faces.media import Frame

PATCH_SIZE = 24
ROTATED_SIZE = 36  # contains a patch at any rotation
CHIP_SIZE = 150  # input of the embedding network
# Of 60 portraits, the correlation of patches was at most 0.65 in 99 of 100 pairs of different
# people, and at least 0.76 for the same face after motion, blur and compression.
MIN_PATCH_CORRELATION = 0.7
MAX_PATCHES = 4  # per track
# Below the network's own 0.6 (99.4 % accuracy on Labeled Faces in the Wild), since two people in
# one track are worse than one person in two: the smallest of 780 pairs of portraits was 0.57.
MAX_EMBEDDING_DISTANCE = 0.5
# Between frames further apart than this, positions are not compared.
MAX_GAP_S = 1.0
# A detector runs on every fourth frame of a face that moves little; in between the landmarks are
# predicted from their last position. Over more frames or more growth, they may drift.
DETECT_EVERY = 4
FAST_MAX_GAP_S = 0.1
FAST_MAX_SHIFT, FAST_MAX_GROWTH = 0.2, 1.06
# Two boxes with a larger intersection over union are the same face.
SAME_BOX_IOU = 0.4
# Width of the search window divided by that of the face: without motion, and per second.
REACH, REACH_PER_S, MAX_REACH = 1.7, 2.0, 3.5
# A face changes its width by less between two frames.
MAX_GROWTH = 1.6


def extract_patch(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Extract a small upright grey patch of a face, for a fast comparison of appearance.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.

    Returns:
        float32[24, 24] with mean 0 and variance 1, so that the mean of the product of two patches
        is their correlation; all zero if the face is outside the frame or without contrast.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> landmarks = find_landmarks(photograph, Box(179, 83, 266, 170, 1.0))
        >>> patch = extract_patch(photograph, landmarks)
        >>> bool(np.mean(patch * extract_patch(photograph // 2, landmarks)) > 0.99)
        True
    """
    five = five_points(landmarks)
    between_eyes = five[1] - five[0]
    reach = np.linalg.norm(between_eyes) * ROTATED_SIZE / PATCH_SIZE
    low, high = np.rint([five.mean(axis=0) - reach, five.mean(axis=0) + reach]).astype(int)
    left, top = np.maximum(low, 0).tolist()
    right, bottom = np.clip(high, 0, pixels.shape[1::-1]).tolist()
    if right <= left or bottom <= top:
        return np.zeros((PATCH_SIZE, PATCH_SIZE), np.float32)
    grey = cv2.cvtColor(pixels[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    above, below = top - int(low[1]), int(high[1]) - bottom
    before, after = left - int(low[0]), int(high[0]) - right
    if above or below or before or after:
        grey = cv2.copyMakeBorder(grey, above, below, before, after, cv2.BORDER_REPLICATE)
    small = cv2.resize(grey, (ROTATED_SIZE, ROTATED_SIZE), interpolation=cv2.INTER_AREA)
    # Upright, since the roll of the same face may change.
    roll_deg = np.degrees(np.arctan2(between_eyes[1], between_eyes[0]))
    center = (ROTATED_SIZE - 1) / 2
    rotation = cv2.getRotationMatrix2D((center, center), float(roll_deg), 1.0)
    rotation[:, 2] -= (ROTATED_SIZE - PATCH_SIZE) / 2
    patch = cv2.warpAffine(small, rotation, (PATCH_SIZE, PATCH_SIZE)).astype(np.float32)
    patch -= patch.mean()
    return patch / max(float(patch.std()), 1e-6)


def extract_chip(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Extract the aligned face that `embed_face` takes, uint8[150, 150, 3], RGB.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> landmarks = find_landmarks(photograph, Box(179, 83, 266, 170, 1.0))
        >>> extract_chip(photograph, landmarks).shape
        (150, 150, 3)
    """
    dlib = import_dlib()
    (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
    rectangle = dlib.rectangle(*(int(edge) for edge in (left, top, right, bottom)))
    points = dlib.points([dlib.point(*(int(x) for x in np.rint(point))) for point in landmarks])
    return dlib.get_face_chip(pixels, dlib.full_object_detection(rectangle, points), CHIP_SIZE)


def embed_face(chip: np.ndarray) -> np.ndarray:
    """Compute the embedding of a chip by `extract_chip`.

    Returns:
        float64[128]. The distance of two embeddings of one person is usually below 0.6.

    Example:
        >>> grey = np.full((150, 150, 3), 127, np.uint8)
        >>> embed_face(grey).shape
        (128,)

    Reference:
        King: "High Quality Face Recognition with Deep Metric Learning" (2017),
        http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html
    """
    return np.array(_embedder().compute_face_descriptor(chip))


@functools.cache
def _embedder() -> Any:
    file = model_file("dlib_face_recognition_resnet_model_v1.dat")
    return import_dlib().face_recognition_model_v1(file)


class FaceObservation:
    """A face in one frame: its box, its landmarks and its appearance."""

    def __init__(
        self,
        frame: Frame,
        box: Box,
        roll_deg: float | None = None,
        find: Callable[..., np.ndarray] = find_landmarks,
    ) -> None:
        """Observe the face in a box; give its roll if it is known, and the landmark model."""
        self.time_s, self.frame, self.box, self.find = frame.time_s, frame, box, find
        self.landmarks = find(frame.pixels, box, roll_deg)
        self.landmark_box, self.roll_deg = box_from_landmarks(self.landmarks)
        self.patch = extract_patch(frame.pixels, self.landmarks)
        # Width and shift of the box relative to the landmark box, in widths of the latter.
        shift = np.subtract(box.center, self.landmark_box.center)
        self.fit = np.array([box.width, *shift]) / self.landmark_box.width
        self.num_frames_since_detection = 0
        self.detected_width = self.landmark_box.width  # at the last detection

    @functools.cached_property
    def chip(self) -> np.ndarray:
        """Chip by `extract_chip`; computed on first use, before `frame` is deleted."""
        return extract_chip(self.frame.pixels, self.landmarks)

    @functools.cached_property
    def embedding(self) -> np.ndarray:
        """Embedding by `embed_face`, float64[128]; computed on first use."""
        return embed_face(self.chip)

    def predict_box(self) -> Box:
        """Predict the box of the detector from the landmarks."""
        width, x, y = (self.fit * self.landmark_box.width).tolist()
        return self.landmark_box.resize(width, (x, y))._replace(score=self.box.score)

    def distance(self, previous: "FaceObservation") -> float:
        """Compute the distance from another observation in widths of that face."""
        box, previous_box = self.landmark_box, previous.landmark_box
        shift = np.subtract(box.center, previous_box.center) / previous_box.width
        return float(np.hypot(*shift))

    def matching_cost(self, previous: "FaceObservation") -> float:
        """Compute the cost of matching an observation of an adjacent frame.

        It is the distance in widths of the face minus the correlation of the patches, at least -1;
        infinite if the position, the size or the time differs too much.
        """
        gap_s = abs(self.time_s - previous.time_s)
        growth = self.landmark_box.width / previous.landmark_box.width
        distance = self.distance(previous)
        is_same_size = 1 / MAX_GROWTH <= growth <= MAX_GROWTH
        if distance > _search_reach(gap_s) - 1 or not is_same_size or gap_s > MAX_GAP_S:
            return np.inf
        return distance - float(np.mean(self.patch * previous.patch))


class TrackState:
    """A track and its appearance."""

    def __init__(self, track_id: int, first: FaceObservation) -> None:
        """Start a track, with an id from 0, at its first observation."""
        self.track_id, self.clearest = track_id, first
        self.patches = [first.patch]  # of the latest unambiguous observations
        # Time of the first ambiguous observation since the last search.
        self.ambiguous_since_s: float | None = None

    def keep_clearest(self, observation: FaceObservation) -> None:
        """Keep the chip of an observation if it is the first or much clearer than the last."""
        if observation.box.score > self.clearest.box.score + 0.3:
            self.clearest = observation
        _ = self.clearest.chip

    def add_patch(self, observation: FaceObservation) -> None:
        """Store the patch of an observation; only the latest few are kept."""
        self.patches = [*self.patches, observation.patch][-MAX_PATCHES:]

    def matches_patch(self, observation: FaceObservation) -> bool:
        """Return whether the patch of an observation is similar to one of the track's."""
        correlations = [float(np.mean(patch * observation.patch)) for patch in self.patches]
        return max(correlations) >= MIN_PATCH_CORRELATION

    def matches_embedding(self, observation: FaceObservation) -> bool:
        """Return whether the embedding of an observation is close to the track's."""
        distance = np.linalg.norm(observation.embedding - self.clearest.embedding)
        return bool(distance < MAX_EMBEDDING_DISTANCE)

    def matches(self, observation: FaceObservation) -> bool:
        """Return whether an observation matches by patch or, if that is ambiguous, by embedding."""
        if self.matches_patch(observation):
            return True
        if not self.matches_embedding(observation):
            return False
        self.add_patch(observation)
        if self.ambiguous_since_s is None:
            self.ambiguous_since_s = observation.time_s
        return True

    def follow(
        self, previous: FaceObservation, frame: Frame, others: Sequence[Box] = ()
    ) -> FaceObservation | None:
        """Find the face near its position in an adjacent frame, earlier or later.

        The result is None if no face there matches the track. Those in the boxes `others`, of which
        it is known whose they are, are not compared: embeddings take as long as three frames.
        """
        gap_s = abs(frame.time_s - previous.time_s)
        num_frames = previous.num_frames_since_detection + 1
        if gap_s <= FAST_MAX_GAP_S and num_frames < DETECT_EVERY:
            box, roll_deg = previous.predict_box(), previous.roll_deg
            observation = FaceObservation(frame, box, roll_deg, previous.find)
            observation.num_frames_since_detection, observation.fit = num_frames, previous.fit
            observation.detected_width = previous.detected_width
            growth = observation.landmark_box.width / previous.detected_width
            is_same_size = 1 / FAST_MAX_GROWTH <= growth <= FAST_MAX_GROWTH
            is_near = observation.distance(previous) <= FAST_MAX_SHIFT
            if is_near and is_same_size and self.matches_patch(observation):
                observation.box = observation.predict_box()
                return observation
        boxes = find_near(frame.pixels, previous.landmark_box, _search_reach(gap_s))
        candidates = []
        for box in suppress_overlaps(boxes):
            if any(overlap(box, other) >= SAME_BOX_IOU for other in others):
                continue
            # Averaged with the previous width: detectors search in steps.
            width = (box.width + previous.fit[0] * previous.landmark_box.width) / 2
            box = box.resize(width)
            candidates.append(FaceObservation(frame, box, previous.roll_deg, previous.find))
        for observation in sorted(candidates, key=lambda other: other.matching_cost(previous)):
            if np.isfinite(observation.matching_cost(previous)) and self.matches(observation):
                observation.fit = (observation.fit + previous.fit) / 2
                return observation
        return None


def _search_reach(gap_s: float) -> float:
    return min(REACH + REACH_PER_S * gap_s, MAX_REACH)


def suppress_overlaps(boxes: list[Box]) -> list[Box]:
    """Keep only the box with the highest score of each face (non-maximum suppression).

    Example:
        >>> suppress_overlaps([Box(0, 0, 10, 10, 0.5), Box(1, 0, 11, 10, 0.9)])
        [Box(left=1, top=0, right=11, bottom=10, score=0.9)]
    """
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(overlap(box, other) < SAME_BOX_IOU for other in kept):
            kept.append(box)
    return kept
