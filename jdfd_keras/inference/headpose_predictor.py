"""Predictor of Headpose: scores of the faces of a file from their landmarks, without pixels.

Takes the run folder of Headpose; returns a Predictor. A face without a pose gets no score. Imports
no TensorFlow.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.extract import Extraction, Face
from jdfd_keras.inference.backends import Predictor, load_calibration
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.verdict import NO_POSE
from jdfd_keras.io.console import plural
from jdfd_keras.options import EngineOptions, FaceOptions
from jdfd_keras.training.headpose_run import check_has_network, load_headpose_run
from jdfd_keras.training.headpose_svm import HeadPoseSvm, measure_head_pose
from jdfd_keras.training.run_folder import digest_model

NOTE = "Headpose is a support vector machine on landmarks, without a network"


def identify_numpy(run: str | Path, options: EngineOptions) -> Engine:
    """Return the engine of Headpose.

    Raises:
        ValueError: If another engine or a precision is requested.

    Example:
        >>> identify_numpy("headpose_run", EngineOptions()).describe()
        'NumPy 2..., float64'
        >>> identify_numpy("headpose_run", EngineOptions(backend="openvino"))
        Traceback (most recent call last):
        ValueError: Expected no --backend and --precision with the Headpose run headpose_run, ...
    """
    if options != EngineOptions():
        raise ValueError(
            f"Expected no --backend and --precision with the Headpose run {run}, which has no "
            f"network; got {options.backend} and {options.precision}. Omit them."
        )
    return Engine("numpy", np.__version__, "float64", NOTE)


def load_headpose_predictor(path: Path, options: EngineOptions) -> Predictor:
    """Load a run folder of Headpose.

    Args:
        path: The run folder.
        options: Engine; only the default is possible.

    Raises:
        OSError, ValueError: As for `load_headpose_run` and `identify_numpy`.

    Example:
        >>> predictor = load_headpose_predictor(Path("headpose_run"), EngineOptions())
        >>> predictor.explain is None, predictor.metadata.version
        (True, 0)
    """
    engine, calibration = identify_numpy(path, options), load_calibration(path)
    run = load_headpose_run(path)
    faces = run.faces
    if faces.detector == "none":  # of images with stored landmarks; the faces of files are detected
        faces = dataclasses.replace(faces, detector=FaceOptions.detector)

    def refuse_pixels(crops: np.ndarray) -> np.ndarray:
        check_has_network(path)
        raise AssertionError("a run of Headpose has no network")

    return Predictor(
        str(path),
        ModelMetadata(run.faces, calibration, path.stem, 0, digest_model(path), run.demonstration),
        refuse_pixels,
        None,
        engine=engine,
        score_poses=make_score_poses(run.machine, faces, calibration),
    )


def make_score_poses(
    machine: HeadPoseSvm, options: FaceOptions, calibration: Calibration | None = None
) -> Callable[[Extraction], tuple[Extraction, np.ndarray]]:
    """Create the function `score_poses` of a Predictor.

    Args:
        machine: The support vector machine.
        options: Face options of the files, with a detector.
        calibration: Calibration of the scores; by default they are unchanged.

    Returns:
        The function. It raises a ValueError if a file has faces, but none has landmarks.

    Example:
        >>> import jdfd_keras as jk
        >>> run, options = load_headpose_run("headpose_run"), jk.FaceOptions(frames_per_video=4)
        >>> score_poses = make_score_poses(run.machine, options)
        >>> extraction, scores = score_poses(jk.extract_faces("video.mp4", options))
        >>> len(extraction.faces), scores.shape
        (4, (4,))
    """
    correct = (calibration or Calibration()).apply

    def score_poses(extraction: Extraction) -> tuple[Extraction, np.ndarray]:
        faces, size = extraction.faces, (extraction.width, extraction.height)
        if faces and not any(len(face.landmarks) for face in faces):
            raise ValueError(
                "Expected faces with landmarks, whose head poses Headpose compares; got "
                f"{plural(len(faces), 'face')} without any. Try --detector dlib on whole frames."
            )
        features = [measure_head_pose(*_round(face), size, options) for face in faces]
        scores = machine(np.reshape(features, (len(faces), -1))) if faces else np.empty(0)
        has_pose = np.isfinite(scores)
        if missing := int((~has_pose).sum()):
            stated = "has" if missing == 1 else "have"
            warning = (
                f"{missing} of {plural(len(faces), 'face')} {stated} no head pose and no score"
            )
            extraction = dataclasses.replace(
                extraction,
                faces=[face for face, is_kept in zip(faces, has_pose, strict=True) if is_kept],
                filtered=extraction.filtered | {NO_POSE: missing},
                warnings=[*extraction.warnings, warning],
            )
        return extraction, correct(scores[has_pose])

    return score_poses


def _round(face: Face) -> tuple[np.ndarray, Box]:
    """Return landmarks and box as a prepared dataset stores them, to get the same score."""
    landmarks = [round(float(value), 2) for value in face.landmarks.ravel()]
    left, top, right, bottom = (int(edge) for edge in face.box[:4])
    box = Box(left, top, right, bottom, face.box.score)
    return np.array(landmarks, np.float32).reshape(-1, 2), box
