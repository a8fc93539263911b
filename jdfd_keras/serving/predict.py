"""A verdict on a user's own file: faces taken, scored, averaged over each person.

Takes a video or image and a scorer; gives a Verdict.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.evaluation.calibration import Calibration, read_calibration
from jdfd_keras.evaluation.metrics import check_threshold
from jdfd_keras.faces.extract import Face, check_face_options, extract_faces
from jdfd_keras.options import FaceOptions, PredictOptions
from jdfd_keras.serving.scorers import local_scorer, remote_scorer

# Mean score of dlib below which a track is likely to be no face; MTCNN's begin at 0.8.
SURE = 0.2
FACES_AT_ONCE = 256  # crops held in memory: 70 MB at 299 px


@dataclass(frozen=True)
class FaceScore:
    """One scored face.

    Attributes:
        frame_index: The frame's position in the file, from 0.
        time_s: Its presentation time in seconds.
        track_id: Whose face it is, from 0.
        box: left, top, right, bottom in pixels of the frame.
        score: P(fake).
    """

    frame_index: int
    time_s: float
    track_id: int
    box: tuple[int, int, int, int]
    score: float


@dataclass(frozen=True)
class TrackScore:
    """One scored person of a file.

    Attributes:
        track_id: What the person's faces carry.
        num_faces: Faces behind the score.
        confidence: Mean score of the detector, on its own scale; near 0 it may be no face.
        score: Mean P(fake) of them.
        verdict: `fake`, `real` or `uncertain`.
    """

    track_id: int
    num_faces: int
    confidence: float
    score: float
    verdict: str


@dataclass(frozen=True)
class Verdict:
    """What one file got, and what it rests on.

    Attributes:
        path: The file.
        score: That of its most suspicious track: one fake face makes a fake. Tracks of which
            the detector was not sure count only where there are no others.
        verdict: `fake`, `real` or `uncertain`.
        uncertain_from: Below it, a verdict is real.
        uncertain_to: From it on, a verdict is fake; in between it is uncertain.
        tracks: The people, in the order of appearance.
        faces: The faces, in the order of the file.
        warnings: What was wrong with the file, though it could be judged.
    """

    path: str
    score: float
    verdict: str
    uncertain_from: float
    uncertain_to: float
    tracks: tuple[TrackScore, ...]
    faces: tuple[FaceScore, ...]
    warnings: tuple[str, ...]


def predict_files(
    paths: Sequence[str | Path],
    options: PredictOptions | None = None,
    *,
    model: str | Path | None = None,
    server: str | None = None,
) -> dict:
    """Give a verdict on each of several files; one that has none does not stop the others.

    Args:
        paths: Videos and images.
        options: Threshold or calibration, frames and people.
        model: A model on this machine, as `local_scorer` takes it; either this or `server`.
        server: The URL of a served model, as `remote_scorer` takes it.

    Returns:
        `files`: the fields of a Verdict for each file that has one, in order; `failed`: path and
        error of each other file, which also goes to stderr at once. Ready for JSON.

    Raises:
        OSError: If the model or the server is not there.
        ValueError: If not exactly one of both is given, it is of another kind, or a calibration is
            given for a model that has its own.
    """
    options = options or PredictOptions()
    if (model is None) == (server is None):
        raise ValueError(
            f"Expected a model or a server to score with; got model={model!r} and "
            f"server={server!r}. Give one of them."
        )
    if model is not None and options.calibration:
        raise ValueError(
            f"Expected no calibration with a model on this machine, which has its own; got "
            f"{options.calibration}. Leave --calibration out."
        )
    given = _read_calibration(options)
    if server is None:
        scorer = local_scorer(model)
    else:
        faces = FaceOptions(
            detector=options.detector, alignment=options.alignment, margin=options.margin
        )
        scorer = remote_scorer(server, faces)
    faces = dataclasses.replace(
        scorer.faces,
        frames_per_video=options.frames_per_video,
        every=options.every,
        tracks=options.tracks,
    )
    check_face_options(faces)
    verdicts, failed = [], []
    for path in paths:
        try:
            verdict = predict_file(path, scorer, faces, given or scorer.calibration)
        except (OSError, ValueError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed.append({"path": str(path), "error": str(error)})
        else:
            verdicts.append(dataclasses.asdict(verdict))
    return {"files": verdicts, "failed": failed}


def summarize(result: dict) -> str:
    """Put what `predict_files` gave into lines: one a file, and one a person where there are more.

    Failures stand without their reasons.
    """
    lines = []
    for verdict in result["files"]:
        lines.append(
            f"{verdict['path']}: {verdict['verdict']}, score {verdict['score']:.3f} "
            f"({_count_faces(len(verdict['faces']))}, {_describe_bounds(verdict)})"
        )
        if len(verdict["tracks"]) > 1:
            lines += [
                f"  track {track['track_id']}: {track['verdict']}, score {track['score']:.3f} "
                f"({_count_faces(track['num_faces'])}"
                f"{'' if track['confidence'] >= SURE else ', perhaps no face'})"
                for track in verdict["tracks"]
            ]
        lines += [f"  warning: {warning}" for warning in verdict["warnings"]]
    return "\n".join([*lines, *(f"{failure['path']}: no verdict" for failure in result["failed"])])


def predict_file(
    path: str | Path,
    score: Callable[[np.ndarray], np.ndarray],
    faces: FaceOptions,
    calibration: Calibration | None = None,
) -> Verdict:
    """Give a verdict on a video or image.

    Args:
        path: The file.
        score: From uint8[n, size, size, 3] RGB faces to float64[n], P(fake); a Scorer, or any
            function.
        faces: How to take the faces: those that the model was trained with.
        calibration: Where fake and real begin; of it only that is used, since the scorer
            corrects its scores itself. Fake from 0.5 on if not given.

    Returns:
        The verdict with every face it rests on.

    Raises:
        OSError: If the file is no video or image, or the scorer cannot be asked.
        ValueError: If no face is found, or a score is not a number from 0 to 1: such a file has
            no verdict.
    """
    extraction = extract_faces(path, faces)
    found = extraction.faces
    if not found:
        raise ValueError(
            f"Expected a face in {path}; got none in the {extraction.num_frames} frames "
            f"looked at. Without a face there is no score. Look at more frames "
            "with --frames-per-video."
        )
    scores = np.concatenate(
        [
            np.asarray(score(np.stack([face.crop for face in part])), np.float64)
            for part in _parts_of(found, FACES_AT_ONCE)
        ]
    )
    if scores.shape != (len(found),) or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f"Expected {len(found)} scores from 0 to 1 for the faces of {path}; got "
            f"{scores.tolist()}. The model or its server is at fault: no verdict is given."
        )
    calibration = calibration or Calibration()
    tracks = _score_tracks(found, scores, calibration)
    sure = [track for track in tracks if track.confidence >= SURE]
    worst = max(sure or tracks, key=lambda track: track.score)
    return Verdict(
        path=str(path),
        score=worst.score,
        verdict=worst.verdict,
        uncertain_from=calibration.uncertain_from,
        uncertain_to=calibration.uncertain_to,
        tracks=tracks,
        faces=tuple(
            FaceScore(
                frame_index=face.frame_index,
                time_s=face.time_s,
                track_id=face.track_id,
                box=tuple(int(edge) for edge in face.box[:4]),
                score=float(score),
            )
            for face, score in zip(found, scores, strict=True)
        ),
        warnings=tuple(extraction.warnings),
    )


def _parts_of(faces: Sequence[Face], size: int) -> Iterator[Sequence[Face]]:
    return (faces[start : start + size] for start in range(0, len(faces), size))


def _score_tracks(
    faces: Sequence[Face], scores: np.ndarray, calibration: Calibration
) -> tuple[TrackScore, ...]:
    owner = np.array([face.track_id for face in faces])
    tracks = []
    for track_id in np.unique(owner).tolist():
        own = scores[owner == track_id]
        score = float(own.mean())
        verdict = calibration.judge(score)
        confidence = float(np.mean([face.box[4] for face in faces if face.track_id == track_id]))
        tracks.append(TrackScore(track_id, len(own), confidence, score, verdict))
    return tuple(tracks)


def _read_calibration(options: PredictOptions) -> Calibration | None:
    if options.threshold is not None:
        if options.calibration:
            raise ValueError(
                f"Expected a threshold or a calibration; got {options.threshold:g} and "
                f"{options.calibration}. Give one of them."
            )
        check_threshold(options.threshold)
        return Calibration().at(options.threshold)
    return read_calibration(options.calibration) if options.calibration else None


def _describe_bounds(verdict: dict) -> str:
    low, high = verdict["uncertain_from"], verdict["uncertain_to"]
    return f"fake from {high:.3g}" if low == high else f"real below {low:.3g}, fake from {high:.3g}"


def _count_faces(count: int) -> str:
    return f"{count} face{'' if count == 1 else 's'}"
