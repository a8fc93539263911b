"""Images of an analysed file for a page: its top faces, and its frames with boxes of its people.

Takes verdicts, and reads their files again for the frames; returns TopFaces and FileEvidence.
"""

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.client.errors import ClientError
from jdfd_keras.client.metadata import DEMONSTRATION
from jdfd_keras.faces.decode import open_media
from jdfd_keras.faces.draw import NOTE_COLOUR, DrawnFace, draw_faces, draw_text
from jdfd_keras.faces.media import Frame
from jdfd_keras.faces.overlay import Send, write_overlay
from jdfd_keras.inference.backends import Predictor
from jdfd_keras.inference.tracks import FaceScore
from jdfd_keras.inference.verdict import Provenance, Verdict
from jdfd_keras.io.console import track
from jdfd_keras.io.palette import track_colour
from jdfd_keras.io.workers import WorkerCrashed, count_workers, run_all, run_with_progress
from jdfd_keras.options import LimitOptions
from jdfd_keras.prediction.extraction import hash_path, personalize

# Shorter side of what is shown, in pixels: labels on smaller frames could not be read.
MIN_SIDE, MAX_SIDE, MAX_VIDEO_SIDE = 360, 720, 480
MAX_LONG_SIDE = 8000  # of a wide or tall image, which JPEG could not store otherwise
MAX_VIDEO_FRAMES = 9000  # 5 minutes at 30 frames per second; a longer video has fewer per second
MAX_GAP_S = 1.0  # between two judged faces whose boxes are interpolated
MAX_PEOPLE = 12
MAX_STILLS = 6
JPEG_QUALITY = 88


@dataclass(frozen=True, eq=False)
class TopFaces:
    """Pixels of the top faces of one file, in the order of the verdict's `top_faces`."""

    crops: np.ndarray  # uint8[n, size, size, 3]
    # float32[n, size, size], class-activation maps, at least 0, in one unit.
    cams: np.ndarray | None
    failure: str = ""  # why there are no maps


@dataclass(frozen=True, eq=False)
class Still:
    """One frame with boxes."""

    frame_index: int
    time_s: float
    jpeg: bytes


@dataclass(frozen=True, eq=False)
class FileEvidence:
    """Frames of one file; all are empty if the file could not be read again."""

    people: dict[int, Still] = field(default_factory=dict)  # frame of the highest score by track
    stills: tuple[Still, ...] = ()  # a few of a video, spread over it; the whole image
    video: Path | None = None
    failure: str = ""  # why frames or the video are missing


def explain_top_faces(
    verdicts: list[Verdict],
    read_top_faces: Callable[[str], np.ndarray],
    predictor: Predictor,
    num_faces: int,
) -> dict[str, TopFaces]:
    """Read the top faces of files by path, and compute their maps.

    After a failure, such as a server that became unreachable or a GPU whose memory is used up, no
    further maps are requested.

    Args:
        verdicts: Verdicts on the files.
        read_top_faces: Returns the top faces of a path, as that of a result folder does.
        predictor: Predictor of the verdicts.
        num_faces: Most faces of each person.

    Example:
        >>> import jdfd_keras as jk
        >>> predictions = jk.predict_files(["video.mp4"], model="run", explain=True)
        >>> predictions.top_faces["video.mp4"].cams.shape[0]
        3
    """
    failure = "" if predictor.explain else "the model has no class-activation maps"
    top_faces = {}
    count = len(verdicts)
    for verdict in track(verdicts, "explaining faces", count, "files") if count > 1 else verdicts:
        kept = Counter(verdict.faces[index].track_id for index in verdict.top_faces)
        # Those of all people take turns.
        count_shown = sum(min(of_track, num_faces) for of_track in kept.values())
        crops, cams = read_top_faces(verdict.path)[:count_shown], None
        if len(crops) and predictor.explain and not failure:
            try:
                cams = predictor.explain(crops)
            except (OSError, ValueError) as error:
                is_served = isinstance(error, (ClientError, ConnectionError))
                failed = "could not be reached" if is_served else "could not compute the maps"
                failure = f"the model {failed} ({error})"
        top_faces[verdict.path] = TopFaces(crops, cams, "" if cams is not None else failure)
    return top_faces


def collect_evidence(
    verdicts: Sequence[Verdict],
    provenance: Provenance,
    videos: str | Path | None = None,
    limits: LimitOptions | None = None,
    sources: Mapping[str, Path] | None = None,
) -> Iterator[tuple[Verdict, FileEvidence]]:
    """Draw the people of analysed files on their frames, in other processes, and show the progress.

    Args:
        verdicts: Verdicts on the files, whose paths must still lead to the same bytes.
        provenance: Options of the verdicts.
        videos: Also write each whole video with boxes to this folder (.mp4), of reduced size, with
            boxes between judged faces interpolated; not if it is None.
        limits: Limits of each file; the defaults if not given.
        sources: Where files are now, by their path in the verdict, if that does not lead to them.

    Yields:
        Each verdict with its evidence, in any order.

    Example:
        >>> from jdfd_keras import predict_files
        >>> predictions = predict_files(["video.mp4"], model="saved_models/detector")
        >>> ((_, evidence),) = collect_evidence(predictions.files, predictions.provenance)
        >>> list(evidence.people), len(evidence.stills), evidence.video
        ([0], 6, None)
    """
    limits = limits or LimitOptions()
    folder = None if videos is None else Path(videos)
    collect = functools.partial(
        _collect, provenance=provenance, folder=folder, limits=limits, sources=dict(sources or {})
    )

    def try_again(found: FileEvidence | OSError, verdict: Verdict) -> FileEvidence | OSError:
        """Draw the frames alone if the video with boxes was beyond a limit, or crashed."""
        if folder is None or not isinstance(found, WorkerCrashed):
            return found
        without_video = functools.partial(collect, folder=None)
        ((_, again),) = run_all(without_video, [verdict], 1, limits)
        if not isinstance(again, FileEvidence):
            return again
        failure = f"the video with boxes could not be written: {found}"
        return dataclasses.replace(again, failure=failure)

    if len(verdicts) == 1:
        try:
            found = run_with_progress(collect, verdicts[0], "drawing frames", limits)
        except OSError as error:
            found = error
        yield verdicts[0], _to_evidence(verdicts[0], try_again(found, verdicts[0]))
        return
    num_workers = count_workers(0, len(verdicts))
    drawn = run_all(collect, verdicts, num_workers, limits)
    for verdict, found in track(drawn, "drawing frames", len(verdicts), "files"):
        yield verdict, _to_evidence(verdict, try_again(found, verdict))


def _to_evidence(verdict: Verdict, found: FileEvidence | OSError) -> FileEvidence:
    if isinstance(found, WorkerCrashed):
        return FileEvidence(failure=f"{verdict.path} could not be decoded again: {found}")
    return found if isinstance(found, FileEvidence) else FileEvidence(failure=str(found))


def _collect(
    verdict: Verdict,
    provenance: Provenance,
    folder: Path | None,
    limits: LimitOptions,
    sources: Mapping[str, Path],
    send: Send | None = None,
) -> FileEvidence:
    if not verdict.faces:
        return FileEvidence()
    path = sources.get(verdict.path, Path(verdict.path))
    try:
        people, stills = _draw_stills(path, verdict, provenance, limits)
    except OSError as error:
        return FileEvidence(failure=personalize(str(error), str(path), verdict.path))
    if folder is None or not verdict.duration_s:
        return FileEvidence(people, stills)
    out = folder / f"{verdict.sha256[:16]}-{hash_path(path)}.mp4"
    try:
        _write_video(path, out, verdict, limits, send)
    except OSError as error:
        failure = personalize(str(error), str(path), verdict.path)
        return FileEvidence(people, stills, failure=failure)
    return FileEvidence(people, stills, out)


def _draw_stills(
    path: Path, verdict: Verdict, provenance: Provenance, limits: LimitOptions
) -> tuple[dict[int, Still], tuple[Still, ...]]:
    """Draw the frame of the highest score of each person, and a few of all people."""
    by_frame = defaultdict(list)
    best: dict[int, FaceScore] = {}
    for face in verdict.faces:
        by_frame[face.frame_index].append(face)
        if face.track_id not in best or face.score > best[face.track_id].score:
            best[face.track_id] = face
    shown = sorted(verdict.tracks, key=lambda track: (-track.is_judged, -track.score))
    shown_ids = {track.track_id for track in shown[:MAX_PEOPLE]}
    spread = _choose_spread(sorted(by_frame), MAX_STILLS)
    wanted = {face.frame_index for key, face in best.items() if key in shown_ids} | set(spread)
    people, stills = {}, []
    faces = provenance.faces
    with open_media(path, limits) as media:
        if media.file.sha256 != verdict.sha256:
            raise OSError("the file has changed since it was analysed")
        for frame in media.read(faces.frames_per_video, every=faces.every):
            if frame.index in wanted:
                here = by_frame[frame.index]
                if frame.index in spread:
                    stills.append(_to_still(frame, here, verdict, has_stamp=media.is_video))
                for face in here:
                    if face.track_id in shown_ids and best[face.track_id] is face:
                        people[face.track_id] = _to_still(frame, [face], verdict)
                wanted.discard(frame.index)
            if not wanted:
                break
    return people, tuple(stills)


def _choose_spread(frames: Sequence[int], count: int) -> list[int]:
    """Return up to a number of frames, spread evenly over those given, with both ends."""
    if len(frames) <= count:
        return list(frames)
    return [frames[round(index * (len(frames) - 1) / (count - 1))] for index in range(count)]


def _write_video(
    path: Path, out: Path, verdict: Verdict, limits: LimitOptions, send: Send | None
) -> None:
    """Write the video with the boxes of the judged faces, and of those between them."""
    between = _Between(verdict.faces)
    every = max(-(-verdict.media.num_frames // MAX_VIDEO_FRAMES), 1)

    def draw(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
        for frame in frames:
            here = between.at(frame.time_s)
            yield _draw(frame, here, verdict, MAX_VIDEO_SIDE, has_stamp=True)

    sha256 = verdict.sha256
    write_overlay(path, out, draw, every=every, limits=limits, sha256=sha256, send=send)


class _Between:
    """Faces of each track at any time: interpolated between two that are near each other."""

    def __init__(self, faces: Sequence[FaceScore]) -> None:
        by_track = defaultdict(list)
        for face in faces:
            by_track[face.track_id].append(face)
        self._tracks = [
            (of_track, np.array([face.time_s for face in of_track]))
            for of_track in by_track.values()
        ]

    def at(self, time_s: float) -> list[FaceScore]:
        """Return the faces at a time, each with the score of the nearest judged face."""
        found = []
        for faces, times_s in self._tracks:
            after = int(np.searchsorted(times_s, time_s - 1e-6))
            if after < len(faces) and abs(times_s[after] - time_s) < 1e-3:
                found.append(faces[after])
            elif 0 < after < len(faces) and times_s[after] - times_s[after - 1] <= MAX_GAP_S:
                first, last = faces[after - 1], faces[after]
                share = (time_s - first.time_s) / (last.time_s - first.time_s)
                box = np.rint((1 - share) * np.array(first.box) + share * np.array(last.box))
                nearest = first if share < 0.5 else last
                left, top, right, bottom = box.astype(int).tolist()
                found.append(
                    FaceScore(-1, time_s, first.track_id, (left, top, right, bottom), nearest.score)
                )
        return found


def _draw(
    frame: Frame,
    faces: Sequence[FaceScore],
    verdict: Verdict,
    max_side: int,
    *,
    has_stamp: bool,
) -> np.ndarray:
    """Draw faces on a frame of a size at which labels can be read, below a mark of the model."""
    height, width = frame.shape[:2]
    side = min(height, width)
    scale = min(min(max(side, MIN_SIDE), max_side) / side, MAX_LONG_SIDE / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = frame.pixels if scale == 1 else cv2.resize(frame.pixels, size, interpolation=method)
    drawn, judged_ids = [], {track.track_id for track in verdict.judged_tracks}
    for face in faces:
        left, top, right, bottom = (round(edge * scale) for edge in face.box)
        stated = f"{face.score:.2f}" if face.track_id in judged_ids else "not judged"
        label = f"person {face.track_id}: {stated}"
        colour = track_colour(face.track_id)
        drawn.append(DrawnFace((left, top, right, bottom), label, colour))
    image = draw_faces(Frame(frame.index, frame.time_s, pixels), drawn, has_stamp=has_stamp)
    if not verdict.demonstration:
        return image
    strip = draw_text([DEMONSTRATION], image.shape[1], image.shape[0], NOTE_COLOUR)
    return np.concatenate([strip, image])


def _to_still(
    frame: Frame, faces: Sequence[FaceScore], verdict: Verdict, *, has_stamp: bool = False
) -> Still:
    image = _draw(frame, faces, verdict, MAX_SIDE, has_stamp=has_stamp)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    return Still(frame.index, frame.time_s, jpeg)
