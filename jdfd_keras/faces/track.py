"""Frames in their order in, the faces of each frame out, every one with the person's track.

The whole frame is searched at the first frame of a scene, at its last and at intervals between.
From there on a face is looked for around its last place, which costs a tenth of that; who is
new in a search is followed back to where they entered, so that nobody comes late. Place and
look carry a track from frame to frame. Where either leaves a doubt the face's descriptor
decides, so that two people never share a track and one who comes back gets the old one. Knows
nothing of files or crops.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from jdfd_keras.faces.decode import Frame
from jdfd_keras.faces.detect import MOST_PIXELS, Box, FaceDetector, overlap
from jdfd_keras.faces.reid import (
    LONGEST_GAP_S,
    SAME_BOX,
    SAME_PERSON,
    Look,
    Person,
    follow_face,
    keep_distinct,
    measure_change,
    see_face,
)

# The whole frame is searched that often, and more often while nobody is seen or one was lost.
SEARCH_EVERY_S = 3.0
SEARCH_AGAIN_S = 0.5
SEARCH_EVERY_FRAMES = 90  # where a file has no times
# Frames are held back until the next search; of large ones, few.
MOST_BYTES_HELD = 192 * 2**20
THUMBNAIL = (32, 18)
# Correlation of two frames' thumbnails below which the scene was cut.
SAME_SCENE = 0.6


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    Attributes:
        track_id: The person's track, counted from 0 in the order in which they were found.
        box: Where it was detected, its width evened out over some detections; between two of
            them, where its landmarks say.
        landmarks: float32[68, 2] in pixels of the frame.
    """

    track_id: int
    box: Box
    landmarks: np.ndarray


@dataclass
class _Moment:
    """A frame that is held back, and who was seen in it."""

    frame: Frame
    looks: dict[Person, Look]

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
        self.tracks: list[Person] = []
        # Frames since the last search, and who was seen last in this scene.
        self.held: list[_Moment] = []
        self.recent: dict[Person, Look] = {}
        self.searched_s = -np.inf
        self.has_lost = False
        self.time_s = 0.0
        self.thumbnail: np.ndarray | None = None

    def take(self, frame: Frame, boxes: list[Box] | None) -> Iterator[tuple[Frame, list[Sighting]]]:
        """Take one frame; `boxes` are all of its faces, where they are known already."""
        is_steady = self._is_steady(frame)
        if not is_steady:
            yield from self.close()
            self.recent = {}
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
        if np.array_equal(before, self.thumbnail):
            return True
        spread = before.std() * self.thumbnail.std()
        agreement = np.mean((before - before.mean()) * (self.thumbnail - self.thumbnail.mean()))
        return bool(agreement >= SAME_SCENE * max(spread, 1.0))  # a flat frame agrees with none

    def _is_due(self, moment: _Moment) -> bool:
        every_s = SEARCH_AGAIN_S if self.has_lost or not moment.looks else SEARCH_EVERY_S
        num_bytes = moment.frame.pixels.nbytes
        return (
            self.time_s - self.searched_s >= every_s
            or len(self.held) >= SEARCH_EVERY_FRAMES
            or (len(self.held) + 1) * num_bytes > MOST_BYTES_HELD
        )

    def _follow_all(self, moment: _Moment) -> None:
        """Look for everybody who was seen a moment ago."""
        self.recent = {
            track: look
            for track, look in self.recent.items()
            if self.time_s - look.time_s <= LONGEST_GAP_S
        }
        for track, before in self.recent.items():
            look = follow_face(track, before, moment.frame)
            if look is not None and not moment.hides(look.box):
                moment.looks[track] = look
        self.has_lost |= len(moment.looks) < len(self.recent)
        self.recent |= moment.looks

    def _settle(self, boxes: list[Box]) -> Iterator[tuple[Frame, list[Sighting]]]:
        """Find out whose the other faces of the last frame held are; then let the frames go."""
        moment = self.held[-1]
        self._part_strangers(moment)
        looks = [
            see_face(moment.frame, box) for box in keep_distinct(boxes) if not moment.hides(box)
        ]
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
        self.recent |= moment.looks
        held, self.held = self.held, []
        for moment in held:
            sightings = []
            for track, look in sorted(moment.looks.items(), key=lambda item: item[0].track_id):
                look.pixels = None
                sightings.append(Sighting(track.track_id, look.box, look.landmarks))
            yield moment.frame, sightings

    def _match_by_place(self, moment: _Moment, looks: list[Look]) -> dict[Person, Look]:
        """Find who was near a face a moment ago and looked the same."""
        tracks = [track for track in self.recent if track not in moment.looks]
        if not tracks or not looks:
            return {}
        cost = np.array(
            [[measure_change(look, self.recent[track]) for track in tracks] for look in looks]
        )
        return {
            tracks[column]: looks[row]
            for row, column in zip(*linear_sum_assignment(np.minimum(cost, 1e3)), strict=True)
            if np.isfinite(cost[row, column]) and tracks[column].recognize(looks[row])
        }

    def _identify(self, moment: _Moment, look: Look) -> Person:
        """Find a person's track by their descriptor, or begin one."""
        absent = [track for track in self.tracks if track not in moment.looks]
        distances = [np.linalg.norm(look.descriptor - track.descriptor) for track in absent]
        if distances and min(distances) < SAME_PERSON:
            found = absent[int(np.argmin(distances))]
            found.keep_patch(look)
            return found
        self.tracks.append(Person(len(self.tracks), patches=[look.patch]))
        return self.tracks[-1]

    def _follow_back(self, track: Person, look: Look) -> None:
        """Look for a person in the frames held, from the last one back to where they entered."""
        for moment in reversed(self.held[:-1]):
            if track in moment.looks or look.time_s - moment.frame.time_s > LONGEST_GAP_S:
                return
            earlier = follow_face(track, look, moment.frame)
            if earlier is not None and not moment.hides(earlier.box):
                moment.looks[track] = look = earlier

    def _part_strangers(self, moment: _Moment) -> None:
        """Take a track off a face that grew into another person's, back to the first doubt."""
        for track, look in list(moment.looks.items()):
            if track.doubted_s is not None and not track.is_shown_in(look):
                for earlier in self.held:
                    if earlier.frame.time_s >= track.doubted_s:
                        earlier.looks.pop(track, None)
                self.recent.pop(track, None)
                track.patches = track.patches[:1]
        for track in self.tracks:
            track.doubted_s = None
