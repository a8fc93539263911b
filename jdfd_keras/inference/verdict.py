"""Verdict on a file, from the mean score of the faces of each track.

Takes the faces of a video or image and a predictor; returns a Verdict, and phrases about it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jdfd_keras.client.calibration import Calibration, check_threshold
from jdfd_keras.client.likelihood import ErrorRates, LikelihoodRatio
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.extract import Extraction, Face, check_face_options
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.tracks import FaceScore, TrackScore, choose_top_faces, score_tracks
from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions, PredictOptions, PredictRuntime

NO_FACE = "no face"
VERDICTS = ("fake", "uncertain", "no_evidence", NO_FACE)  # the most suspicious first
SUSPICION = {verdict: -index for index, verdict in enumerate(VERDICTS)}
SCORING_BATCH = 256  # crops held in memory: 70 MB at 299 px
NUM_TOP_FACES = PredictRuntime.explain


@dataclass(frozen=True)
class Verdict(Result):
    """Verdict on one file, and the evidence for it.

    Example:
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> verdict.verdict == verdict.most_suspicious_track.verdict
        True
    """

    path: str
    sha256: str  # of the bytes that were analysed
    verdict: str  # `fake`, `uncertain`, `real` or `no face`
    # Score of the most suspicious reliable track: one fake face makes a file fake. None without a
    # face.
    score: float | None
    uncertain_from: float  # scores below it are real
    uncertain_to: float  # scores at or above it are fake; in between they are uncertain
    num_frames: int  # sampled frames
    duration_s: float  # at least the time of the last face; 0 for an image
    width: int  # of a frame in pixels
    height: int
    tracks: tuple[TrackScore, ...]  # in order of appearance
    faces: tuple[FaceScore, ...]  # in the order of the file
    # Positions in `faces` of the highest scores of reliable tracks, in decreasing order, those of
    # one track spread over the file.
    top_faces: tuple[int, ...]
    warnings: tuple[str, ...]  # sentences about defects of the file and fake segments
    analysed_at: str = ""  # UTC time of the verdict in ISO format, if it was recorded
    file_bytes: int | None = None  # number of these bytes, if it was recorded
    media: MediaInfo = field(default_factory=MediaInfo)  # facts that the file states about itself
    engine: str = ""  # that computed the scores, such as `OpenVINO 2026.4.1, bfloat16`
    num_people: int = 0  # judged tracks
    likelihood: LikelihoodRatio | None = None  # None if the model is not calibrated
    error_rates: ErrorRates | None = None  # of the score; None if the model is not calibrated
    # Sentences: why the verdict is uncertain although the score alone is not, such as faces that
    # are unlike those of validation.
    reasons: tuple[str, ...] = ()

    @property
    def thresholds(self) -> Calibration:
        """Thresholds of the verdict, for single faces."""
        return Calibration(uncertain_from=self.uncertain_from, uncertain_to=self.uncertain_to)

    @property
    def reliable_tracks(self) -> tuple[TrackScore, ...]:
        """Tracks that the verdict is based on."""
        return tuple(track for track in self.tracks if track.is_reliable)

    @property
    def reliable_faces(self) -> tuple[FaceScore, ...]:
        """Faces that the verdict is based on: those of the reliable tracks."""
        reliable_ids = {track.track_id for track in self.reliable_tracks}
        return tuple(face for face in self.faces if face.track_id in reliable_ids)

    @property
    def most_suspicious_track(self) -> TrackScore | None:
        """Track that determines the verdict; None without a face."""
        return _find_most_suspicious(self.tracks)

    @property
    def suspicion(self) -> tuple[int, float, str]:
        """Sort key of files: by verdict, then by score; the most suspicious is the greatest."""
        score = -1.0 if self.score is None else self.score
        return SUSPICION[self.verdict], score, self.path


@dataclass(frozen=True)
class Provenance(Result):
    """Model, options and thresholds that verdicts were made with."""

    model: str  # name of the model
    version: int  # of the model; 0 if it was not exported
    digest: str  # SHA-256 of its weights
    where: str  # its path or URL
    jdfd_keras: str  # version of this package
    faces: FaceOptions
    uncertain_from: float  # scores below it are real
    uncertain_to: float  # scores at or above it are fake
    thresholds: str  # their source: `calibrated`, a given `threshold`, or `0.5`, the default
    calibration: Calibration | None = None  # of the model, if it has one
    # How the framing of the faces differs from that of the model's training; "" if it does not.
    framing: str = ""
    engine: Engine = Engine("server")  # that computes the scores


def verdict_text(verdict: str) -> str:
    """Return a verdict in words.

    Example:
        >>> verdict_text("no_evidence")
        'no evidence of manipulation'
    """
    return "no evidence of manipulation" if verdict == "no_evidence" else verdict


def choose_faces(metadata: ModelMetadata, options: PredictOptions) -> FaceOptions:
    """Return the face options of the model with the requested detector, frames and tracks.

    Raises:
        ValueError: If the model was trained on images that were taken as they are, and no detector
            is requested: whether the files are face crops is then unknown.

    Example:
        >>> metadata = ModelMetadata(FaceOptions(face_size=71), None, "detector", 1, "ab")
        >>> choose_faces(metadata, PredictOptions(frames_per_video=8)).frames_per_video
        8
    """
    if metadata.faces.detector == "none" and options.detector is None:
        raise ValueError(
            f"Expected a detector, since the model {metadata.name} was trained on images of faces "
            "that were taken as they are, and a whole frame is no face; got none. Pass --detector "
            "none for face crops, or --detector dlib to find faces, whose framing is another one."
        )
    requested = {name: getattr(options, name) for name in ("frames_per_video", "every", "tracks")}
    if options.detector is not None:
        requested["detector"] = options.detector
    faces = dataclasses.replace(metadata.faces, **requested)
    check_face_options(faces)
    return faces


def decision_thresholds(metadata: ModelMetadata, options: PredictOptions) -> Calibration:
    """Return the thresholds of verdicts: the requested one, else the calibration, else 0.5.

    Only the thresholds are used: a predictor calibrates its own scores.

    Example:
        >>> metadata = ModelMetadata(FaceOptions(face_size=71), None, "detector", 1, "ab")
        >>> decision_thresholds(metadata, PredictOptions(threshold=0.7)).uncertain_to
        0.7
    """
    calibration = metadata.calibration or Calibration()
    if options.threshold is None:
        return calibration
    check_threshold(options.threshold)
    return calibration.with_threshold(options.threshold)


def judge(
    path: str | Path,
    extraction: Extraction,
    score: Callable[[np.ndarray], np.ndarray],
    thresholds: Calibration,
    num_top_faces: int = NUM_TOP_FACES,
    engine: str = "",
    scored: np.ndarray | None = None,
) -> Verdict:
    """Score the faces of a file and return the verdict.

    Args:
        path: Path of the file.
        extraction: Its faces.
        score: Function from uint8[n, size, size, 3] RGB faces to float64[n] P(fake), such as a
            Predictor. Not called without a face.
        thresholds: Scores from which a track is uncertain, and fake.
        num_top_faces: Most top faces to choose.
        engine: Engine that computes the scores, as text.
        scored: Scores of the first faces, if they were computed while others were extracted.

    Example:
        >>> import jdfd_keras as jk
        >>> found = jk.extract_faces("video.mp4", FaceOptions(frames_per_video=4, face_size=71))
        >>> judge("video.mp4", found, lambda crops: np.full(len(crops), 0.9), Calibration()).verdict
        'fake'
    """
    known = np.empty(0) if scored is None else scored
    remaining = _score_faces(extraction.faces[len(known) :], score)
    scores = np.concatenate([known, remaining])
    if scores.shape != (len(extraction.faces),) or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f"Expected {len(extraction.faces)} scores from 0 to 1 for the faces of {path}; got "
            f"{scores.tolist()}. There is no verdict: check the model or its server."
        )
    faces = tuple(map(_to_face_score, extraction.faces, scores.tolist()))
    tracks = score_tracks(extraction.faces, scores, thresholds)
    reliable_ids = {track.track_id for track in tracks if track.is_reliable}
    worst = _find_most_suspicious(tracks)
    # A header may state less than what the file holds.
    duration_s = max([extraction.info.duration_s, *(face.time_s for face in extraction.faces)])
    segment_warnings = [
        f"track {track.track_id} is real on average, but fake from {track.segment.start_s:.1f} to "
        f"{track.segment.end_s:.1f} s (score {track.segment.score:.3f}): only that segment may be "
        "manipulated"
        for track in tracks
        if track.is_reliable and track.segment
    ]
    return Verdict(
        path=str(path),
        sha256=extraction.sha256,
        verdict=worst.verdict if worst else NO_FACE,
        score=worst.score if worst else None,
        uncertain_from=thresholds.uncertain_from,
        uncertain_to=thresholds.uncertain_to,
        num_frames=extraction.num_frames,
        duration_s=duration_s,
        width=extraction.width,
        height=extraction.height,
        tracks=tracks,
        faces=faces,
        top_faces=choose_top_faces(faces, reliable_ids, duration_s, num_top_faces),
        warnings=(*extraction.warnings, *segment_warnings),
        file_bytes=extraction.file_bytes,
        media=extraction.info,
        engine=engine,
    )


def _score_faces(faces: Sequence[Face], score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    scores = [np.empty(0)]
    for start in range(0, len(faces), SCORING_BATCH):
        crops = np.stack([face.crop for face in faces[start : start + SCORING_BATCH]])
        scores.append(np.asarray(score(crops), np.float64))
    return np.concatenate(scores)


def _to_face_score(face: Face, score: float) -> FaceScore:
    left, top, right, bottom = (int(edge) for edge in face.box[:4])
    box = (left, top, right, bottom)
    return FaceScore(int(face.frame_index), float(face.time_s), face.track_id, box, score)


def _find_most_suspicious(tracks: Sequence[TrackScore]) -> TrackScore | None:
    return max(
        (track for track in tracks if track.is_reliable),
        key=lambda track: (SUSPICION[track.verdict], track.score),
        default=None,
    )


def describe_verdict(verdict: Verdict) -> str:
    """Return the verdict with its score, or with the fake segment that makes it uncertain.

    Example:
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> describe_verdict(dataclasses.replace(verdict, verdict="fake", score=0.9712))
        'Fake, score 0.971'
    """
    if verdict.verdict == NO_FACE:
        return "No face"
    worst = verdict.most_suspicious_track
    if worst and worst.is_uncertain_by_segment:
        return f"Uncertain, because {describe_segment(worst)}"
    return f"{verdict.verdict.capitalize()}, score {verdict.score:.3f}"


def describe_segment(track: TrackScore) -> str:
    """Return the score and the times of the fake segment of a track, which has one.

    Example:
        >>> from jdfd_keras.inference.tracks import Segment
        >>> track = TrackScore(0, 12, 0.9, True, 0.0, 8.0, 0.3, "uncertain", Segment(4, 6, 0.9))
        >>> describe_segment(track)
        'track 0 scores 0.900 from 4.0 to 6.0 s'
    """
    assert track.segment is not None
    score, start_s, end_s = track.segment.score, track.segment.start_s, track.segment.end_s
    return f"track {track.track_id} scores {score:.3f} from {start_s:.1f} to {end_s:.1f} s"


def low_confidence_note(track: TrackScore) -> str:
    """Return a note behind the name of a track that may not be a face; "" if it is reliable.

    Example:
        >>> low_confidence_note(TrackScore(1, 12, 0.1, False, 0.0, 8.0, 0.3, "real"))
        ', possibly not a face'
    """
    return "" if track.is_reliable else ", possibly not a face"


def describe_thresholds(verdict: Verdict) -> str:
    """Return the scores at which real ends and fake begins.

    Example:
        >>> import jdfd_keras as jk
        >>> verdict = jk.predict_file("video.mp4", jk.load_predictor("saved_models/detector"))
        >>> verdict = dataclasses.replace(verdict, uncertain_from=0.3, uncertain_to=0.8)
        >>> describe_thresholds(verdict)
        'real below 0.3, fake from 0.8'
    """
    low, high = verdict.uncertain_from, verdict.uncertain_to
    return f"fake from {high:.3g}" if low == high else f"real below {low:.3g}, fake from {high:.3g}"
