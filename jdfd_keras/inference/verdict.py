"""Verdict on a file, from the mean score of the faces of each track.

Takes the faces of a video or image and a predictor; returns a Verdict.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jdfd_keras.client.calibration import Calibration, check_threshold
from jdfd_keras.client.domain import FileMeasures
from jdfd_keras.client.likelihood import ErrorRates, LikelihoodRatio
from jdfd_keras.client.metadata import NOT_SEEN, ModelMetadata
from jdfd_keras.client.thresholds import UNATTAINABLE
from jdfd_keras.faces.align import check_same_landmarks
from jdfd_keras.faces.credentials import ContentCredentials
from jdfd_keras.faces.extract import Extraction, Face, check_face_options
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.file_measures import measure_file
from jdfd_keras.inference.tracks import (
    LIMITS,
    EvidenceLimits,
    FaceScore,
    TrackScore,
    choose_top_faces,
    describe_segment,
    score_tracks,
)
from jdfd_keras.io.console import plural
from jdfd_keras.io.origin import Origin
from jdfd_keras.io.results import Result
from jdfd_keras.options import FaceOptions, PredictOptions, PredictRuntime

NO_FACE = "no face"
NO_POSE = "no head pose"  # why Headpose gives a face no score, in Extraction.filtered
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
        >>> verdict.num_people, verdict.score == verdict.most_suspicious_track.score
        (1, True)
    """

    path: str
    sha256: str  # of the bytes that were analysed
    verdict: str  # `fake`, `uncertain`, `no_evidence` or `no face`
    # Highest score of a judged track: one fake face makes a file fake. None without a judged track.
    score: float | None
    # Thresholds for this number of people: scores below the first are `no_evidence`.
    uncertain_from: float
    # Scores at or above it are `fake`; 2 if validation has too few real videos for so many people.
    uncertain_to: float
    num_frames: int  # sampled frames
    duration_s: float  # at least the time of the last face; 0 for an image
    width: int  # of a frame in pixels
    height: int
    tracks: tuple[TrackScore, ...]  # in order of appearance
    faces: tuple[FaceScore, ...]  # in the order of the file
    # Positions in `faces` of the highest scores of each judged track, spread over the file; first
    # the highest of each track, then the second one, each group in decreasing order.
    top_faces: tuple[int, ...]
    warnings: tuple[str, ...]  # sentences about defects of the file and fake segments
    analysed_at: str = ""  # UTC time of the verdict in ISO format, if it was recorded
    file_bytes: int | None = None  # number of these bytes, if it was recorded
    media: MediaInfo = field(default_factory=MediaInfo)  # facts that the file states about itself
    engine: str = ""  # that computed the scores, such as `OpenVINO 2026.4.1, bfloat16`
    num_people: int = 0  # judged tracks
    # None if the model is not calibrated, no track is judged, or the file is beyond the domain:
    # validation says nothing about such files.
    likelihood: LikelihoodRatio | None = None
    error_rates: ErrorRates | None = None  # of the score; None in the same cases
    # Clauses that state why the verdict is uncertain although the score alone is not: a fake
    # segment, too few validation files, a file beyond the domain, no judged track.
    reasons: tuple[str, ...] = ()
    is_beyond_domain: bool = False  # the file or its faces are unlike those of validation
    measures: FileMeasures | None = None  # that were compared with the domain, if there is one
    demonstration: bool = False  # by a model for demonstration only, which cannot judge real videos
    # What the file states about its origin, which changes nothing else; None if it was not read.
    credentials: ContentCredentials | None = None

    @property
    def thresholds(self) -> Calibration:
        """Thresholds of the verdict, for single faces."""
        return Calibration(uncertain_from=self.uncertain_from, uncertain_to=self.uncertain_to)

    @property
    def judged_tracks(self) -> tuple[TrackScore, ...]:
        """Tracks that the verdict is based on."""
        return tuple(track for track in self.tracks if track.is_judged)

    @property
    def judged_faces(self) -> tuple[FaceScore, ...]:
        """Faces that the verdict is based on: those of the judged tracks."""
        judged_ids = {track.track_id for track in self.judged_tracks}
        return tuple(face for face in self.faces if face.track_id in judged_ids)

    @property
    def most_suspicious_track(self) -> TrackScore | None:
        """Judged track with the most suspicious verdict, and among those the highest score.

        None without a judged track. Its verdict is that of the file, unless `reasons` state why
        the file is uncertain.
        """
        return _find_most_suspicious(self.tracks)

    @property
    def suspicion(self) -> tuple[int, float, str]:
        """Sort key of files: by verdict, then by score; the most suspicious is the greatest."""
        score = -1.0 if self.score is None else self.score
        return SUSPICION[self.verdict], score, self.path


@dataclass(frozen=True)
class Provenance(Origin):
    """Command, model, options and thresholds that verdicts were made with."""

    model: str  # name of the model
    version: int  # of the model; 0 if it was not exported
    digest: str  # SHA-256 of its weights
    where: str  # its path or URL
    faces: FaceOptions
    uncertain_from: float  # scores below it are `no_evidence`, for files with one person
    uncertain_to: float  # scores at or above it are `fake`
    thresholds: str  # their source: `calibrated`, a given `threshold`, or `0.5`, the default
    calibration: Calibration | None = None  # of the model, if it has one
    # How the framing of the faces differs from that of the model's training; "" if it does not.
    framing: str = ""
    engine: Engine = Engine("server")  # that computes the scores
    case: str = ""  # case number, as the user gave it
    examiner: str = ""  # who examines the files, as the user gave it
    evidence: EvidenceLimits = LIMITS  # that a track needs to be judged
    demonstration: bool = False  # the model is for demonstration only
    # Sentences on what the model does not see, and that it is for demonstration only, if it is.
    notes: tuple[str, ...] = (NOT_SEEN,)


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
            is requested: whether the files are face crops is then unknown. If the landmarks of the
            requested detector are not those of the training.

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
    check_same_landmarks(metadata.faces, faces)
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
    calibration: Calibration,
    num_top_faces: int = NUM_TOP_FACES,
    engine: str = "",
    scored: np.ndarray | None = None,
    reconstruct_error: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    demonstration: bool = False,
) -> Verdict:
    """Score the faces of a file and return the verdict.

    The judged track with the highest score decides, by the thresholds for the number of judged
    tracks. A file beyond the domain of the calibration is uncertain, whatever its score.

    Args:
        path: Path of the file.
        extraction: Its faces.
        score: Function from uint8[n, size, size, 3] RGB faces to float64[n] P(fake), such as a
            Predictor. Not called without a face.
        calibration: Calibration of the scores, with the thresholds of the verdict.
        num_top_faces: Most top faces of one track to choose.
        engine: Engine that computes the scores, as text.
        scored: Scores of the first faces, if they were computed while others were extracted.
        reconstruct_error: As for `measure_file`; called only if the calibration has a domain.
        demonstration: Whether the model is for demonstration only.

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
    tracks = score_tracks(extraction.faces, scores, calibration, extraction.num_frames)
    judged_tracks = [track for track in tracks if track.is_judged]
    judged_ids = {track.track_id for track in judged_tracks}
    # A header may state less than what the file holds.
    duration_s = max([extraction.info.duration_s, *(face.time_s for face in extraction.faces)])
    verdict, reasons = _decide(tracks, calibration)
    if verdict == NO_FACE and (count := extraction.filtered.get(NO_POSE)):
        verdict = "uncertain"
        reasons = (
            f"no head pose fits the {plural(count, 'face')} in it, so that none has a score",
        )
    segment_warnings = _warn_of_segments(judged_tracks, verdict)
    measures, beyond = None, ()
    if judged_tracks and calibration.domain:
        judged_faces = [face for face in extraction.faces if face.track_id in judged_ids]
        measures = measure_file(extraction, judged_faces, reconstruct_error)
        measures = calibration.domain.complete(measures)
        beyond = calibration.domain.check(measures)
        verdict = "uncertain" if beyond else verdict
    uncertain_from, uncertain_to = calibration.thresholds(len(judged_tracks))
    highest = max((track.score for track in judged_tracks), default=None)
    worst = _find_most_suspicious(tracks)
    # What validation tells of whole videos is not known of a part of one.
    by_segment = verdict == "uncertain" and worst and worst.is_uncertain_by_segment
    is_measured = highest is not None and not beyond and not by_segment
    return Verdict(
        path=str(path),
        sha256=extraction.sha256,
        verdict=verdict,
        score=highest,
        uncertain_from=uncertain_from,
        uncertain_to=uncertain_to,
        num_frames=extraction.num_frames,
        duration_s=duration_s,
        width=extraction.width,
        height=extraction.height,
        tracks=tracks,
        faces=faces,
        top_faces=choose_top_faces(faces, judged_ids, duration_s, num_top_faces),
        warnings=(*extraction.warnings, *segment_warnings),
        file_bytes=extraction.file_bytes,
        media=extraction.info,
        engine=engine,
        num_people=len(judged_tracks),
        likelihood=(
            calibration.likelihood([track.score for track in judged_tracks])
            if is_measured
            else None
        ),
        error_rates=(
            calibration.error_rates(highest, len(judged_tracks))
            if highest is not None and is_measured
            else None
        ),
        reasons=(*beyond, *reasons),
        is_beyond_domain=bool(beyond),
        measures=measures,
        demonstration=demonstration,
        credentials=extraction.credentials,
    )


def _decide(tracks: Sequence[TrackScore], calibration: Calibration) -> tuple[str, tuple[str, ...]]:
    """Return the verdict by the scores, and the reasons why it is uncertain besides the score."""
    worst = _find_most_suspicious(tracks)
    if worst is None:
        not_judged = tuple(
            f"person {track.track_id} is not judged: {track.not_judged}" for track in tracks
        )
        return ("uncertain" if tracks else NO_FACE), not_judged
    num_people = sum(track.is_judged for track in tracks)
    uncertain_from, uncertain_to = calibration.thresholds(num_people)
    highest = max(track.score for track in tracks if track.is_judged)
    reasons = []
    if uncertain_to == UNATTAINABLE and highest >= uncertain_from:
        rate, num_real = calibration.target_rates[0], len(calibration.real_scores)
        reasons.append(
            f"validation has too few real videos ({num_real}) to call a file with {num_people} "
            f"people fake at an error rate of {100 * rate:.2g} %"
            if num_people > calibration.max_people
            else f"too many of the {num_real} real videos of validation have the highest scores "
            "to call any file fake"
        )
    if worst.verdict == "uncertain":
        reasons += [
            f"{describe_segment(track)}, although the mean of all faces is {track.score:.3f}"
            for track in tracks
            if track.is_uncertain_by_segment
        ]
    return worst.verdict, tuple(reasons)


def _warn_of_segments(judged_tracks: Sequence[TrackScore], verdict: str) -> list[str]:
    """Return a warning of each fake segment that is not the reason of the verdict."""
    return [
        f"{describe_segment(track)}, although the mean of all faces is {track.score:.3f}: only "
        "that segment may be manipulated"
        for track in judged_tracks
        if track.segment and not (verdict == "uncertain" and track.is_uncertain_by_segment)
    ]


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
        (track for track in tracks if track.is_judged),
        key=lambda track: (SUSPICION[track.verdict], track.score),
        default=None,
    )
