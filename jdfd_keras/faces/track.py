"""Tracking: from frames to the faces in each frame with their track ids.

The whole frame is searched at the first frame of a scene. At intervals and at the last frame, what
has changed since is searched, and the whole frame again if that shows another face. In between a
face is searched near its last position. A person first detected by a search is tracked back to the
frame of their entry. Position and appearance assign faces to tracks; if they are ambiguous, the
embedding decides: a returning person keeps the track, and a different person in the same position
starts a new one.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from jdfd_keras.faces.changes import SearchedScene
from jdfd_keras.faces.detect import MAX_PIXELS, Box, FaceDetector, find_in_window, overlap
from jdfd_keras.faces.landmarks import find_landmarks
from jdfd_keras.faces.media import Frame
from jdfd_keras.faces.reid import (
    MAX_EMBEDDING_DISTANCE,
    MAX_GAP_S,
    SAME_BOX_IOU,
    FaceObservation,
    TrackState,
    suppress_overlaps,
)
from jdfd_keras.io.console import plural

# Interval of searches for other faces; shorter while no face is visible or one was lost.
SEARCH_EVERY_S = 3.0
SEARCH_AGAIN_S = 0.5
SEARCH_EVERY_FRAMES = 90  # for files without frame times
# Frames are buffered until the next search; of large frames only as many as have this many bytes of
# pixels. Packed, those of most videos take half of it.
MAX_BUFFER_BYTES = 192 * 2**20
THUMBNAIL_SIZE = (32, 18)
# A lower correlation of the thumbnails of two frames is a cut.
MIN_SCENE_CORRELATION = 0.6


class TrackedFace(NamedTuple):
    """One face in one frame.

    The box is detected, its width averaged over some detections, or predicted from the landmarks
    between two detections. The landmarks are float32[68, 2] in pixels of the frame; of a whole
    image there are none, float32[0, 2].
    """

    track_id: int  # from 0, in the order of detection
    box: Box
    landmarks: np.ndarray


class _BufferedFrame(NamedTuple):
    """A frame and its faces, until all of them have a track."""

    frame: Frame
    observations: dict[TrackState, FaceObservation]

    def contains(self, box: Box) -> bool:
        """Return whether a box is one of the observed faces."""
        return any(overlap(box, other.box) >= SAME_BOX_IOU for other in self.observations.values())


def track_faces(
    frames: Iterable[Frame],
    detector: FaceDetector | None,
    *,
    max_faces: int = 0,
    warn: Callable[[str], None] | None = None,
    find: Callable[..., np.ndarray] = find_landmarks,
) -> Iterator[tuple[Frame, list[TrackedFace]]]:
    """Detect and track the faces of a video.

    A frame whose size differs from the previous one starts a new scene, as a cut does.

    Args:
        frames: Frames of one file in order, all or a sample.
        detector: Face detector; None to take each frame as one face, all of track 0.
        max_faces: Number of faces of a frame that are used, the largest; 0 for all.
        warn: Called after the last frame if a frame has more faces than that.
        find: Function that finds the landmarks, by `landmark_finder`.

    Yields:
        Every frame in order, with its faces in the order of their tracks. It is packed when the
        next one is requested. At most 192 MiB of frames are buffered at a time, or one frame; half
        of it if they are those of a video with 8 bits and subsampled colours.

    Example:
        >>> from jdfd_keras.faces.decode import read_frames
        >>> from jdfd_keras.faces.detect import face_detector
        >>> frames = read_frames("video.mp4", 3)
        >>> for frame, faces in track_faces(frames, face_detector("dlib")):
        ...     print(frame.index, [face.track_id for face in faces])
        1 [0]
        3 [0]
        5 [0]
    """
    if detector is None:
        yield from ((frame, [_take_whole(frame)]) for frame in frames)
        return
    tracker = _Tracker(detector, max_faces, find)
    for batch in _batches(frames, detector.batch_size):
        detections: list[list[Box] | None] = [None] * len(batch)
        if not detector.supports_local_search:
            detections[:] = detector.find([frame.pixels for frame in batch])
        for frame, boxes in zip(batch, detections, strict=True):
            yield from tracker.add(frame, boxes)
    yield from tracker.finish()
    if tracker.crowded and warn:
        verb = "shows" if len(tracker.crowded) == 1 else "show"
        # Between two searches, other faces are not looked for.
        warn(
            f"at least {plural(len(tracker.crowded), 'frame')} {verb} more than "
            f"{plural(max_faces, 'face')}: only the largest are used (--max-faces-per-frame)"
        )


def _take_whole(frame: Frame) -> TrackedFace:
    height, width = frame.pixels.shape[:2]
    return TrackedFace(0, Box(0, 0, width, height, math.nan), np.empty((0, 2), np.float32))


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Group frames of the same size, fewer if they are large."""
    for shape, same_size in itertools.groupby(frames, key=lambda frame: frame.shape):
        count = min(size, math.ceil(MAX_PIXELS / (shape[0] * shape[1])))
        while batch := list(itertools.islice(same_size, count)):
            yield batch


class _Tracker:
    def __init__(
        self, detector: FaceDetector, max_faces: int, find: Callable[..., np.ndarray]
    ) -> None:
        self.detector, self.max_faces, self.find = detector, max_faces, find
        self.crowded: set[int] = set()  # indices of the frames with more faces
        self.tracks: list[TrackState] = []
        # Frames since the last search, and the latest observation of each track of this scene.
        self.buffer: list[_BufferedFrame] = []
        self.recent: dict[TrackState, FaceObservation] = {}
        self.searched, self.searched_s = SearchedScene(), -np.inf
        self.lost: dict[TrackState, Box] = {}  # last seen there; since the last search
        self.time_s = 0.0
        self.shape: tuple[int, ...] = ()
        self.thumbnail: np.ndarray | None = None

    def add(
        self, frame: Frame, boxes: list[Box] | None
    ) -> Iterator[tuple[Frame, list[TrackedFace]]]:
        """Add a frame; `boxes` are all of its faces if the detector has searched it."""
        is_same_scene = self._is_same_scene(frame)
        if not is_same_scene:
            yield from self.finish()
            self.recent, self.searched = {}, SearchedScene()
        self.time_s = frame.time_s
        current = _BufferedFrame(frame, {})
        self.buffer.append(current)
        if boxes is None:
            self._follow_tracks(current)
        if boxes is not None or not is_same_scene or self._is_search_due(current):
            yield from self._assign_tracks(boxes)
        frame.pack()

    def finish(self) -> Iterator[tuple[Frame, list[TrackedFace]]]:
        """End a scene: search its last frame, if that is not done, and release the buffer."""
        if self.buffer:
            # Earlier searches found almost all; this one finds a newcomer from 80 pixels.
            thorough = bool(self.lost) or not self.buffer[-1].observations
            yield from self._assign_tracks(thorough=thorough)

    def _is_same_scene(self, frame: Frame) -> bool:
        """Return whether positions in the previous frame are comparable to those in this one."""
        previous, pixels = self.thumbnail, frame.pixels
        is_same_size, self.shape = self.shape == pixels.shape, pixels.shape
        step = max(min(pixels.shape[:2]) // (2 * THUMBNAIL_SIZE[1]), 1)
        small = cv2.resize(pixels[::step, ::step], THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA)
        thumbnail = small.mean(axis=2)
        self.thumbnail = thumbnail
        if previous is None or not is_same_size:
            return False
        # The times of image files are NaN: they may be any time apart.
        if not 0 <= frame.time_s - self.time_s <= MAX_GAP_S:
            return False
        if np.array_equal(previous, thumbnail):
            return True
        covariance = np.mean((previous - previous.mean()) * (thumbnail - thumbnail.mean()))
        # A uniform frame matches no other.
        scale = max(previous.std() * thumbnail.std(), 1.0)
        return bool(covariance >= MIN_SCENE_CORRELATION * scale)

    def _is_search_due(self, current: _BufferedFrame) -> bool:
        no_face = bool(self.lost) or not current.observations
        interval_s = SEARCH_AGAIN_S if no_face else SEARCH_EVERY_S
        num_bytes = math.prod(current.frame.shape)
        is_full = (len(self.buffer) + 1) * num_bytes > MAX_BUFFER_BYTES
        is_long = len(self.buffer) >= SEARCH_EVERY_FRAMES
        return is_full or is_long or self.time_s - self.searched_s >= interval_s

    def _follow_tracks(self, current: _BufferedFrame) -> None:
        """Find the faces of all recent tracks near their last positions."""
        self.recent = {
            track: observation
            for track, observation in self.recent.items()
            if self.time_s - observation.time_s <= MAX_GAP_S
        }
        # Those that were hidden come last: what is near them may be a face that hides them.
        for track, previous in sorted(self.recent.items(), key=lambda item: -item[1].time_s):
            others = [observation.box for observation in current.observations.values()]
            observation = track.follow(previous, current.frame, others)
            if observation is not None and not current.contains(observation.box):
                current.observations[track] = observation
        for track, previous in self.recent.items():
            if track not in current.observations:
                self.lost.setdefault(track, previous.box)
        self._select_largest(current, [])
        self.recent |= current.observations

    def _assign_tracks(
        self, boxes: list[Box] | None = None, *, thorough: bool = True
    ) -> Iterator[tuple[Frame, list[TrackedFace]]]:
        """Search the last frame, assign its other faces to tracks, and release the buffer."""
        last = self.buffer[-1]
        self._split_identity_switch(last)
        if boxes is None:
            boxes = self._search(last, thorough)
        boxes = [box for box in suppress_overlaps(boxes) if not last.contains(box)]
        boxes = self._select_largest(last, boxes)
        detections = [FaceObservation(last.frame, box, None, self.find) for box in boxes]
        assigned = self._match_by_position(last, detections)
        last.observations.update(assigned)
        for detection in detections:
            if not any(detection is other for other in assigned.values()):
                last.observations[self._identify(last, detection)] = detection
        for track, observation in last.observations.items():
            track.keep_clearest(observation)
            if self.detector.supports_local_search:
                self._backtrack(track, observation)
        self.searched_s, self.lost = last.frame.time_s, {}
        self.recent |= last.observations
        buffer, self.buffer = self.buffer, []
        for buffered in buffer:
            faces = []
            for track, observation in buffered.observations.items():
                del observation.frame
                faces.append(TrackedFace(track.track_id, observation.box, observation.landmarks))
            yield buffered.frame, sorted(faces, key=lambda face: face.track_id)
            buffered.frame.pack()

    def _search(self, last: _BufferedFrame, thorough: bool) -> list[Box]:
        """Search a frame; the result may lack faces that are observed already.

        The whole frame is searched if a search of what has changed since the last one, and of where
        faces were lost, finds another face.
        """
        pixels, windows = last.frame.pixels, None
        if self.detector.supports_local_search and not self.crowded:
            lost = [box[:4] for box in self.lost.values()]
            windows = self.searched.find_changes(pixels, lost)
        self.searched.add_search(pixels, windows)
        if windows is not None:
            found = (find_in_window(pixels, window, thorough=thorough) for window in windows)
            if all(last.contains(box) for box in itertools.chain.from_iterable(found)):
                return []
        (boxes,) = self.detector.find([pixels], thorough=thorough)
        return boxes

    def _select_largest(self, current: _BufferedFrame, boxes: list[Box]) -> list[Box]:
        """Remove the smallest faces beyond the limit; return the new boxes that are left."""
        followed = [(observation.box, track) for track, observation in current.observations.items()]
        if not self.max_faces or len(followed) + len(boxes) <= self.max_faces:
            return boxes
        self.crowded.add(current.frame.index)
        faces = [*followed, *((box, None) for box in boxes)]
        faces.sort(key=lambda face: -face[0].area)
        for _, track in faces[self.max_faces :]:
            if track is not None:
                del current.observations[track]
                self.recent.pop(track, None)
        return [box for box, track in faces[: self.max_faces] if track is None]

    def _match_by_position(
        self, current: _BufferedFrame, detections: list[FaceObservation]
    ) -> dict[TrackState, FaceObservation]:
        """Match detections to recent tracks that are near and have the same appearance."""
        tracks = [track for track in self.recent if track not in current.observations]
        if not tracks or not detections:
            return {}
        # Takes half of the time in which a process starts, and few videos need it.
        from scipy.optimize import linear_sum_assignment

        cost = np.array([[d.matching_cost(self.recent[t]) for t in tracks] for d in detections])
        return {
            tracks[column]: detections[row]
            for row, column in zip(*linear_sum_assignment(np.minimum(cost, 1e3)), strict=True)
            if np.isfinite(cost[row, column]) and tracks[column].matches(detections[row])
        }

    def _identify(self, current: _BufferedFrame, detection: FaceObservation) -> TrackState:
        """Find the track with the nearest embedding, or start a new track."""
        absent = [track for track in self.tracks if track not in current.observations]
        distances = [
            np.linalg.norm(detection.embedding - track.clearest.embedding) for track in absent
        ]
        if distances and min(distances) < MAX_EMBEDDING_DISTANCE:
            nearest = absent[int(np.argmin(distances))]
            nearest.add_patch(detection)
            return nearest
        self.tracks.append(TrackState(len(self.tracks), detection))
        return self.tracks[-1]

    def _backtrack(self, track: TrackState, observation: FaceObservation) -> None:
        """Find the face of a track in the buffered frames, from the last one back to its entry."""
        for buffered in reversed(self.buffer[:-1]):
            gap_s = observation.time_s - buffered.frame.time_s
            if track in buffered.observations or gap_s > MAX_GAP_S:
                return
            if len(buffered.observations) == self.max_faces > 0:
                self.crowded.add(buffered.frame.index)
                return
            earlier = track.follow(observation, buffered.frame)
            buffered.frame.pack()
            if earlier is not None and not buffered.contains(earlier.box):
                buffered.observations[track] = observation = earlier

    def _split_identity_switch(self, last: _BufferedFrame) -> None:
        """Remove a track from a face that turned into another person's, since it was ambiguous."""
        for track, observation in list(last.observations.items()):
            if track.ambiguous_since_s is not None and not track.matches_embedding(observation):
                for buffered in self.buffer:
                    if buffered.frame.time_s >= track.ambiguous_since_s:
                        buffered.observations.pop(track, None)
                self.recent.pop(track, None)
                track.patches = track.patches[:1]
                self.lost[track] = observation.box
        for track in self.tracks:
            track.ambiguous_since_s = None
