"""Headpose: a support vector machine on the head poses of faces.

Reads the landmarks of prepared datasets, not their pixels; fits with scikit-learn; scores with
NumPy and SciPy alone. The file of a fitted machine holds plain arrays and no code. Independent of
TensorFlow.

Reference:
    Yang, Li, Lyu: "Exposing Deep Fakes Using Inconsistent Head Poses" (2019),
    https://arxiv.org/abs/1811.00661: standardised features, a radial basis function kernel with
    C = 1 and gamma = 1 / 12, and Platt's probabilities. Our folds for the probabilities keep the
    faces of a video together; theirs mix them.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.spatial.distance import cdist
from scipy.special import expit

from jdfd_keras.datasets.manifest import read_faces, read_videos
from jdfd_keras.datasets.pairs import parse_landmarks
from jdfd_keras.datasets.split_tables import OFFICIAL
from jdfd_keras.datasets.videos import CLASSES
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.head_pose import NUM_FEATURES, compare_head_poses, restore_landmarks
from jdfd_keras.io.files import OPTIONS, atomic_path, load_options
from jdfd_keras.options import FaceOptions

POSE_COLUMNS = ("video_id", "box", "landmarks")  # of the manifest, which the features need
FOLDS = 5  # for the probabilities, as in LIBSVM

_BATCH = 1024  # faces whose kernel is computed together
_SHAPES = {
    "mean": (NUM_FEATURES,),
    "deviation": (NUM_FEATURES,),
    "vectors": (-1, NUM_FEATURES),
    "coefficients": (-1,),
    "numbers": (4,),  # intercept, gamma and the two of the sigmoid
}


class HeadPoses(NamedTuple):
    """Head pose features of the faces of a prepared dataset, in the order of its manifest."""

    features: np.ndarray  # float64[n, 12], of `compare_head_poses`; NaN without a pose
    label: np.ndarray  # int64[n], 1 fake, 0 real, -1 unlabelled
    video_id: np.ndarray  # object[n]


@dataclass(frozen=True, eq=False)
class HeadPoseSvm:
    """A fitted support vector machine; call it with features, float[n, 12], to get P(fake).

    Attributes:
        mean: float64[12], of the features in training.
        deviation: float64[12], standard deviation of these.
        vectors: float64[m, 12], the support vectors, standardised.
        coefficients: float64[m], their dual coefficients; positive for fakes.
        intercept: Of the decision.
        gamma: Of the kernel, exp(-gamma |x - y|^2).
        slope: Of the sigmoid, P(fake) = 1 / (1 + exp(slope * decision + offset)).
        offset: Of the sigmoid.
    """

    mean: np.ndarray
    deviation: np.ndarray
    vectors: np.ndarray
    coefficients: np.ndarray
    intercept: float
    gamma: float
    slope: float
    offset: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Compute P(fake), float64[n]; NaN for features that are NaN."""
        return expit(-(self.slope * self.decide(features) + self.offset))

    def decide(self, features: np.ndarray) -> np.ndarray:
        """Compute the decision, float64[n], above 0 for fakes."""
        scaled = (np.asarray(features, np.float64) - self.mean) / self.deviation
        decision = np.empty(len(scaled))
        for start in range(0, len(scaled), _BATCH):
            rows = slice(start, start + _BATCH)
            kernel = np.exp(-self.gamma * cdist(scaled[rows], self.vectors, "sqeuclidean"))
            decision[rows] = kernel @ self.coefficients + self.intercept
        return decision


def load_head_poses(
    directory: str | Path, *, split: str | None = None, split_table: str = OFFICIAL
) -> HeadPoses:
    """Compute the head pose features of a prepared dataset.

    Args:
        directory: The prepared dataset.
        split: Only this split; all faces if it is None or `all`.
        split_table: Name of the split table, or the path of one.

    Raises:
        OSError: If the folder is not a prepared dataset, or has no such split table.
        ValueError: If none of the faces has landmarks.

    Example:
        >>> poses = load_head_poses("prepared", split="train")
        >>> poses.features.shape, poses.label[:2].tolist()
        ((34, 12), [0, 0])
    """
    table = read_faces(
        directory, split=split, split_table=split_table, columns=[*POSE_COLUMNS, "label"]
    )
    names = np.array(table["video_id"].to_pylist(), object)
    return HeadPoses(measure_head_poses(directory, table), table["label"].to_numpy(), names)


def measure_head_poses(directory: str | Path, table: pa.Table) -> np.ndarray:
    """Compute the head pose features of faces of a prepared dataset.

    Args:
        directory: The prepared dataset.
        table: Rows of its manifest, with the columns POSE_COLUMNS.

    Returns:
        float64[n, 12]; NaN for a face without landmarks, or with landmarks that no pose fits.

    Raises:
        ValueError: If there are faces, and none of them has a pose.

    Example:
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> measure_head_poses("prepared", read_faces("prepared", columns=POSE_COLUMNS)).shape
        (58, 12)
    """
    options = load_options(Path(directory) / OPTIONS, "faces", FaceOptions)
    sizes = {video.video_id: (video.width, video.height) for video in read_videos(directory)}
    landmarks = parse_landmarks(table["landmarks"])
    features = np.full((len(table), NUM_FEATURES), np.nan)
    names, boxes = table["video_id"].to_pylist(), table["box"].to_pylist()
    for row in np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2))).tolist():
        left, top, right, bottom = boxes[row]
        box = Box(left, top, right, bottom, 0.0)
        features[row] = measure_head_pose(landmarks[row], box, sizes[names[row]], options)
    if len(table) and np.isnan(features).any(axis=1).all():
        raise ValueError(
            f"Expected faces with landmarks in {directory}, for their head poses; got none among "
            f"{len(table)}. Prepare it with a face detector."
        )
    return features


def measure_head_pose(
    landmarks: np.ndarray, box: Box, size: tuple[int, int], options: FaceOptions
) -> np.ndarray:
    """Compute the head pose features of one face.

    Args:
        landmarks: float[68, 2] in pixels of its crop; float[0, 2] if they are unknown.
        box: Its box in pixels of the frame.
        size: Width and height of the frame.
        options: That the crop was made with.

    Returns:
        float64[12]; NaN if no pose fits the face, or its landmarks are unknown.

    Example:
        >>> box, options = Box(0, 0, 99, 99, 1.0), FaceOptions()
        >>> measure_head_pose(np.empty((0, 2)), box, (640, 480), options)[:2]
        array([nan, nan])
    """
    if not len(landmarks):
        return np.full(NUM_FEATURES, np.nan)
    try:
        return compare_head_poses(restore_landmarks(landmarks, box, options), size)
    except ValueError:
        return np.full(NUM_FEATURES, np.nan)


def fit_headpose_svm(poses: HeadPoses, *, seed: int = 0) -> HeadPoseSvm:
    """Fit the support vector machine and the sigmoid of its probabilities.

    Faces without a label or without a pose are not used. The time grows with the square of the
    number of faces.

    Args:
        poses: Of the training faces.
        seed: Of the assignment of videos to folds.

    Raises:
        ValueError: If a class has fewer than two faces.

    Example:
        >>> machine = fit_headpose_svm(load_head_poses("prepared", split="train"))
        >>> machine(load_head_poses("prepared", split="test").features).shape
        (8,)
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    is_used = np.isfinite(poses.features).all(axis=1) & np.isin(poses.label, [*CLASSES.values()])
    features, label = poses.features[is_used], poses.label[is_used]
    counts = {name: int((label == value).sum()) for name, value in CLASSES.items()}
    if min(counts.values()) < 2:
        raise ValueError(
            "Expected two or more real and two or more fake faces with landmarks; got "
            f"{counts['real']} real and {counts['fake']} fake. Add videos, or split the dataset "
            "otherwise."
        )
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)  # as scikit-learn's StandardScaler
    scaled = (features - mean) / deviation
    fold = _assign_folds(label, poses.video_id[is_used], seed)
    splits = [
        (np.flatnonzero(fold != number), np.flatnonzero(fold == number))
        for number in range(fold.max() + 1)
    ]
    svm = SVC(kernel="rbf", C=1.0, gamma="auto", cache_size=1000)
    # LIBSVM's own probabilities (probability=True) are deprecated in scikit-learn 1.9.
    settings: dict[str, Any] = {"method": "sigmoid", "cv": splits, "ensemble": False}
    fitted: Any = CalibratedClassifierCV(svm, **settings).fit(scaled, label)
    (calibrated,) = fitted.calibrated_classifiers_
    machine, sigmoid = calibrated.estimator, calibrated.calibrators[0]
    return HeadPoseSvm(
        mean=mean,
        deviation=deviation,
        vectors=machine.support_vectors_,
        coefficients=machine.dual_coef_[0],
        intercept=float(machine.intercept_[0]),
        gamma=1 / NUM_FEATURES,
        slope=float(sigmoid.a_),
        offset=float(sigmoid.b_),
    )


def _assign_folds(label: np.ndarray, video_id: np.ndarray, seed: int) -> np.ndarray:
    """Assign faces to folds by video, int64[n]; each class is in each fold.

    The faces of a class of a single video are assigned one by one.
    """
    rng = np.random.default_rng(seed)
    owners, count = [], FOLDS
    for value in CLASSES.values():
        own = np.flatnonzero(label == value)
        owner = np.unique(video_id[own].astype(str), return_inverse=True)[1]
        if owner.max() == 0:
            owner = np.arange(len(own))
        owners.append((own, owner))
        count = min(count, int(owner.max()) + 1)
    fold = np.empty(len(label), np.int64)
    for own, owner in owners:
        fold[own] = (rng.permutation(int(owner.max()) + 1) % count)[owner]
    return fold


def save_headpose_svm(machine: HeadPoseSvm, path: str | Path) -> None:
    """Write a machine as a file of safetensors, from which its scores are exactly the same.

    Example:
        >>> machine = fit_headpose_svm(load_head_poses("prepared", split="train"))
        >>> save_headpose_svm(machine, "headpose.safetensors")
        >>> load_headpose_svm("headpose.safetensors").gamma == machine.gamma
        True
    """
    from safetensors.numpy import save_file

    arrays = {name: getattr(machine, name) for name in list(_SHAPES)[:-1]}
    numbers = [getattr(machine, one.name) for one in fields(machine)[-4:]]
    arrays["numbers"] = np.array(numbers, np.float64)
    with atomic_path(path) as unfinished:
        save_file({k: np.ascontiguousarray(v, np.float64) for k, v in arrays.items()}, unfinished)


def load_headpose_svm(path: str | Path) -> HeadPoseSvm:
    """Read a machine that `save_headpose_svm` wrote.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, or of another kind.

    Example:
        >>> machine = fit_headpose_svm(load_head_poses("prepared", split="train"))
        >>> save_headpose_svm(machine, "headpose.safetensors")
        >>> len(load_headpose_svm("headpose.safetensors").mean)
        12
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        arrays = {name: arrays[name].reshape(shape) for name, shape in _SHAPES.items()}
        is_valid = all(a.dtype == np.float64 and np.isfinite(a).all() for a in arrays.values())
        if not is_valid or len(arrays["vectors"]) != len(arrays["coefficients"]):
            raise ValueError("arrays of another kind or length, or numbers that are not finite")
        if not (arrays["deviation"] > 0).all() or not arrays["numbers"][1] > 0:
            raise ValueError("a deviation or a gamma that is not above 0")
    # The last two are raised for types that NumPy does not have (safetensors 0.8.0).
    except (KeyError, SafetensorError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"Expected a support vector machine of head poses in {path}; got '{error}'. The file "
            "is damaged or of another kind: fit the machine again."
        ) from error
    intercept, gamma, slope, offset = arrays.pop("numbers").tolist()
    return HeadPoseSvm(**arrays, intercept=intercept, gamma=gamma, slope=slope, offset=offset)
