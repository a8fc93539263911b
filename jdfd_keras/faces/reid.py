"""Re-identification: decides whether two faces are the same person, and follows a single face.

Takes frames, boxes and landmarks; returns appearance patches, embeddings and the state of a track.
`follow_face` finds the face of a track near its position in an adjacent frame. Independent of
other tracks, of searches of the whole frame and of files.
"""

import functools
from dataclasses import dataclass, field

import cv2
import numpy as np

from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import Box, find_near, overlap
from jdfd_keras.faces.landmarks import (
    box_from_landmarks,
    find_landmarks,
    find_rotated_landmarks,
    five_points,
    model_file,
)

PATCH_SIZE = 24
ROTATED_SIZE = 36  # contains a patch at any rotation
CHIP_SIZE = 150  # input of the embedding network
# Of 60 portraits, the correlation of patches was at most 0.65 in 99 of 100 pairs of different
# people, and at least 0.76 for the same face after motion, blur and compression.
MIN_PATCH_CORRELATION = 0.7
# Below the network's own 0.6 (99.4 % accuracy on Labeled Faces in the Wild), since two people in
# one track are worse than one person in two: the smallest of 780 pairs of portraits was 0.57.
MAX_EMBEDDING_DISTANCE = 0.5


def extract_patch(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Extract a small upright grey patch of a face, for a fast comparison of appearance.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.

    Returns:
        float32[24, 24] with mean 0 and variance 1; all zero if the face is outside the frame or
        without contrast.

    Example:
        >>> extract_patch(pixels, landmarks).shape
        (24, 24)
    """
    five = five_points(landmarks)
    between_eyes = five[1] - five[0]
    reach = np.linalg.norm(between_eyes) * ROTATED_SIZE / PATCH_SIZE
    low, high = np.rint([five.mean(axis=0) - reach, five.mean(axis=0) + reach]).astype(int)
    left, top = np.maximum(low, 0)
    right, bottom = np.clip(high, 0, pixels.shape[1::-1])
    if right <= left or bottom <= top:
        return np.zeros((PATCH_SIZE, PATCH_SIZE), np.float32)
    grey = cv2.cvtColor(pixels[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    outside = (top - low[1], high[1] - bottom, left - low[0], high[0] - right)
    if any(outside):
        grey = cv2.copyMakeBorder(grey, *(int(side) for side in outside), cv2.BORDER_REPLICATE)
    small = cv2.resize(grey, (ROTATED_SIZE, ROTATED_SIZE), interpolation=cv2.INTER_AREA)
    # Upright, since the roll of the same face may change.
    roll_deg = np.degrees(np.arctan2(between_eyes[1], between_eyes[0]))
    center = (ROTATED_SIZE - 1) / 2
    rotation = cv2.getRotationMatrix2D((center, center), float(roll_deg), 1.0)
    rotation[:, 2] -= (ROTATED_SIZE - PATCH_SIZE) / 2
    patch = cv2.warpAffine(small, rotation, (PATCH_SIZE, PATCH_SIZE)).astype(np.float32)
    patch -= patch.mean()
    return patch / max(float(patch.std()), 1e-6)


def same_appearance(patch: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two patches, float32[24, 24], of adjacent frames show the same face.

    False means that they may show two people: compare embeddings then.
    """
    return float(np.mean(patch * other)) >= MIN_PATCH_CORRELATION


def extract_chip(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Extract the aligned face that `embed_face` takes.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.

    Returns:
        uint8[150, 150, 3], RGB.
    """
    import dlib

    (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
    rectangle = dlib.rectangle(*(int(edge) for edge in (left, top, right, bottom)))
    points = dlib.points([dlib.point(*(int(x) for x in np.rint(point))) for point in landmarks])
    shape = dlib.full_object_detection(rectangle, points)
    return dlib.get_face_chip(pixels, shape, CHIP_SIZE)


def embed_face(chip: np.ndarray) -> np.ndarray:
    """Compute the embedding of a face.

    Args:
        chip: uint8[150, 150, 3], RGB, from `extract_chip`.

    Returns:
        float64[128]. The distance of two embeddings of one person is usually below 0.6.

    Raises:
        OSError: If the trained file is not installed.

    Example:
        >>> embed_face(extract_chip(pixels, landmarks)).shape
        (128,)

    Reference:
        King: "High Quality Face Recognition with Deep Metric Learning" (2017),
        http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html
    """
    return np.array(_embedder().compute_face_descriptor(chip))


@functools.cache
def _embedder():
    import dlib

    return dlib.face_recognition_model_v1(
        str(model_file("dlib_face_recognition_resnet_model_v1.dat"))
    )


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
# Patches kept per track for the fast comparison.
MAX_PATCHES = 4


@dataclass
class FaceObservation:
    """A face in one frame.

    Attributes:
        time_s: Time of the frame in seconds.
        pixels: The frame, uint8[height, width, 3], RGB; released once the face has a track.
        box: Box of the detector, or predicted from the landmarks.
        landmarks: float32[68, 2] in pixels of the frame.
        num_frames_since_detection: Frames since the box was last detected.
        landmark_box, roll_deg: Box and roll by `landmarks.box_from_landmarks`.
        patch: Patch by `extract_patch`.
        fit: Width and shift of the box relative to the landmark box, in widths of the latter.
        detected_width: Width of the landmark box when the box was last detected.
    """

    time_s: float
    pixels: np.ndarray | None
    box: Box
    landmarks: np.ndarray
    num_frames_since_detection: int = 0
    _embedding: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.landmark_box, self.roll_deg = box_from_landmarks(self.landmarks)
        self.patch = extract_patch(self.pixels, self.landmarks)
        shift = np.subtract(self.box.center, self.landmark_box.center)
        self.fit = np.array([self.box.width, *shift]) / self.landmark_box.width
        self.detected_width = self.landmark_box.width

    def predict_box(self) -> Box:
        """Predict the box of the detector from the landmarks."""
        width, *shift = (self.fit * self.landmark_box.width).tolist()
        return self.landmark_box.resize(width, shift)._replace(score=self.box.score)

    @property
    def embedding(self) -> np.ndarray:
        """Embedding by `embed_face`, float64[128]; computed on first use."""
        if self._embedding is None:
            self._embedding = embed_face(extract_chip(self.pixels, self.landmarks))
        return self._embedding


@dataclass(eq=False)
class TrackState:
    """A track and its appearance.

    Attributes:
        track_id: Id, from 0.
        chip: Chip of the clearest observation, by `extract_chip`; None once it is embedded.
        chip_score: Detector score of that observation.
        patches: Patches of the latest unambiguous observations.
        ambiguous_since_s: Time of the first ambiguous observation since the last search.
    """

    track_id: int
    chip: np.ndarray | None = None
    chip_score: float = -np.inf
    patches: list[np.ndarray] = field(default_factory=list)
    ambiguous_since_s: float | None = None
    _embedding: np.ndarray | None = field(default=None, repr=False)

    @property
    def embedding(self) -> np.ndarray:
        """Embedding of the clearest observation, float64[128]; computed on first use."""
        if self._embedding is None:
            self._embedding, self.chip = embed_face(self.chip), None
        return self._embedding

    def update_chip(self, observation: FaceObservation) -> None:
        """Replace the chip if the observation is much clearer."""
        if observation.box.score > self.chip_score + 0.3:
            self.chip = extract_chip(observation.pixels, observation.landmarks)
            self._embedding = observation._embedding
            self.chip_score = observation.box.score

    def add_patch(self, observation: FaceObservation) -> None:
        """Store the patch of an observation; only the latest few are kept."""
        self.patches = [*self.patches, observation.patch][-MAX_PATCHES:]

    def matches_patch(self, observation: FaceObservation) -> bool:
        """Return whether the patch of an observation is similar to one of the track's."""
        return any(same_appearance(patch, observation.patch) for patch in self.patches)

    def matches_embedding(self, observation: FaceObservation) -> bool:
        """Return whether the embedding of an observation is close to the track's."""
        distance = np.linalg.norm(observation.embedding - self.embedding)
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


def observe_face(frame: Frame, box: Box) -> FaceObservation:
    """Return the observation of a detected face."""
    landmarks = find_landmarks(frame.pixels, box)
    return FaceObservation(frame.time_s, frame.pixels, box, landmarks)


def follow_face(
    track: TrackState, previous: FaceObservation, frame: Frame
) -> FaceObservation | None:
    """Find the face of a track near its position in an adjacent frame, earlier or later.

    Args:
        track: The track.
        previous: Its observation in the adjacent frame.
        frame: The frame to search.

    Returns:
        The observation in `frame`; None if no face there matches the track.

    Example:
        >>> previous = observe_face(frame, Box(179, 83, 266, 170, 1.0))
        >>> track = TrackState(0, patches=[previous.patch])
        >>> follow_face(track, previous, next_frame).box.width
        87
    """
    gap_s = abs(frame.time_s - previous.time_s)
    num_frames = previous.num_frames_since_detection + 1
    if gap_s <= FAST_MAX_GAP_S and num_frames < DETECT_EVERY:
        observation = _observe_at(previous, previous.predict_box(), frame)
        observation.num_frames_since_detection, observation.fit = num_frames, previous.fit
        observation.detected_width = previous.detected_width
        if _moved_little(previous, observation) and track.matches_patch(observation):
            observation.box = observation.predict_box()
            return observation
    reach = min(REACH + REACH_PER_S * gap_s, MAX_REACH)
    observations = [
        _observe_at(previous, _smooth_width(box, previous), frame)
        for box in suppress_overlaps(find_near(frame.pixels, previous.landmark_box, reach))
    ]
    for observation in sorted(observations, key=lambda other: matching_cost(other, previous)):
        if np.isfinite(matching_cost(observation, previous)) and track.matches(observation):
            observation.fit = (observation.fit + previous.fit) / 2
            return observation
    return None


def _smooth_width(box: Box, previous: FaceObservation) -> Box:
    """Average the width of a detected box with the previous one: detectors search in steps."""
    return box.resize((box.width + previous.fit[0] * previous.landmark_box.width) / 2)


def _observe_at(previous: FaceObservation, box: Box, frame: Frame) -> FaceObservation:
    """Return the observation in a box, with the roll of the previous one."""
    landmarks = find_rotated_landmarks(frame.pixels, box, previous.roll_deg)
    return FaceObservation(frame.time_s, frame.pixels, box, landmarks)


def _moved_little(previous: FaceObservation, observation: FaceObservation) -> bool:
    box, previous_box = observation.landmark_box, previous.landmark_box
    shift = np.subtract(box.center, previous_box.center) / previous_box.width
    growth = box.width / previous.detected_width
    is_near = np.hypot(*shift) <= FAST_MAX_SHIFT
    return bool(is_near and 1 / FAST_MAX_GROWTH <= growth <= FAST_MAX_GROWTH)


def matching_cost(observation: FaceObservation, previous: FaceObservation) -> float:
    """Compute the cost of matching two observations of adjacent frames.

    Returns:
        Distance in widths of the face minus the correlation of the patches, at least -1; infinite
        if the position, the size or the time differs too much.

    Example:
        >>> matching_cost(observation, observation)  # the same face at the same position
        -1.0
    """
    gap_s = abs(observation.time_s - previous.time_s)
    box, previous_box = observation.landmark_box, previous.landmark_box
    growth = box.width / previous_box.width
    shift = np.subtract(box.center, previous_box.center) / previous_box.width
    distance = float(np.hypot(*shift))
    reach = min(REACH + REACH_PER_S * gap_s, MAX_REACH) - 1
    is_beyond = distance > reach or not 1 / MAX_GROWTH <= growth <= MAX_GROWTH
    if is_beyond or gap_s > MAX_GAP_S:
        return np.inf
    return distance - float(np.mean(observation.patch * previous.patch))


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
