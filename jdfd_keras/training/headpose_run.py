"""Training of Headpose, and its run folder, which has a support vector machine and no network.

<run>/headpose.safetensors     the support vector machine, instead of `best.keras`
<run>/history.csv              one row: results on the validation split, and faces without a pose

The other files are those of `run_folder`. Imports no TensorFlow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.io.console import plural, print_message
from jdfd_keras.io.files import OPTIONS, load_groups, load_options
from jdfd_keras.options import FaceOptions, TrainOptions
from jdfd_keras.training.run_folder import MONITOR, read_history, write_history

if TYPE_CHECKING:  # SciPy and pandas take half a second, which every prediction would wait for
    from jdfd_keras.training.headpose_svm import HeadPoses, HeadPoseSvm

HEADPOSE = "headpose.safetensors"
METHOD = "headpose"


@dataclass(frozen=True, eq=False)
class HeadPoseRun:
    """A trained Headpose."""

    machine: "HeadPoseSvm"
    faces: FaceOptions  # of the faces that it was trained on
    demonstration: bool = False  # trained for demonstration only


def is_headpose_run(path: str | Path) -> bool:
    """Return whether a path is the run folder of Headpose.

    Example:
        >>> is_headpose_run("run")
        False
    """
    options = Path(path) / OPTIONS
    if not options.is_file():
        return False
    model = load_groups(options).get("model")
    return isinstance(model, dict) and model.get("method") == METHOD


def check_has_network(path: str | Path) -> None:
    """Check that a run is not one of Headpose, for what needs a network.

    Raises:
        ValueError: If it is one.

    Example:
        >>> check_has_network("run")
    """
    if is_headpose_run(path):
        raise ValueError(
            f"Expected a run with a network; got {path}. Headpose is a support vector machine "
            "without a network, so it has no SavedModel to export or to serve, no scores of "
            "crops and no class-activation maps. Use it with `jdfd-keras evaluate`, `calibrate` "
            "and `predict`."
        )


def train_headpose(
    data: Path, out: Path, options: TrainOptions, *, init: Callable[[], None]
) -> list[dict[str, float]]:
    """Fit Headpose to the training split and measure it on the validation split.

    A finished run is left unchanged.

    Args:
        data: Prepared dataset.
        out: Run folder.
        options: Split table; seed of the folds.
        init: Creates the run folder with its options, or checks that it has the same. Called when
            the machine is fitted, so that data without landmarks leave no folder behind.

    Returns:
        The history, which has one row.

    Raises:
        ValueError: If a split lacks faces of a class with a pose.

    Example:
        >>> from jdfd_keras.io.files import save_options
        >>> from jdfd_keras.options import ModelOptions
        >>> def init():
        ...     Path("heads").mkdir()
        ...     options = {"faces": FaceOptions(), "model": ModelOptions(method="headpose")}
        ...     save_options("heads/options.json", train=TrainOptions(), **options)
        >>> history = train_headpose(Path("prepared"), Path("heads"), TrainOptions(), init=init)
        >>> 0 <= history[0]["val_classification_frame_auc"] <= 1, is_headpose_run("heads")
        (True, True)
    """
    from jdfd_keras.training.headpose_svm import (
        fit_headpose_svm,
        load_head_poses,
        save_headpose_svm,
    )

    history = read_history(out)
    if history and (out / HEADPOSE).is_file():
        init()
        return history
    poses = {
        split: load_head_poses(data, split=split, split_table=options.split_table)
        for split in ("train", "val")
    }
    missing = {split: _count_missing(one) for split, one in poses.items()}
    for split, name in (("train", "training"), ("val", "validation")):
        if missing[split]:
            print_message(
                f"no head pose for {missing[split]} of {_count_labelled(poses[split])} {name} "
                "faces: they are not used"
            )
    count = _count_labelled(poses["train"]) - missing["train"]
    print_message(f"fitting a support vector machine to {plural(count, 'face')}")
    machine = fit_headpose_svm(poses["train"], seed=options.seed)
    if machine.slope > 0:
        print_message(
            "the head poses of these faces do not tell fakes from real ones: P(fake) falls as the "
            "decision rises (Platt's sigmoid, fitted on held-out folds)"
        )
    row = {"epoch": 1.0} | _validate(machine, poses["val"], data)
    row |= {f"{split}_faces_without_pose": float(n) for split, n in missing.items()}
    init()
    save_headpose_svm(machine, out / HEADPOSE)
    write_history(out, [row])
    return [row]


def _count_labelled(poses: "HeadPoses") -> int:
    return int((poses.label != UNLABELLED).sum())


def _is_missing(poses: "HeadPoses") -> np.ndarray:
    return np.asarray(np.isnan(poses.features).any(axis=1))


def _count_missing(poses: "HeadPoses") -> int:
    """Count the labelled faces without a pose."""
    return int((_is_missing(poses) & (poses.label != UNLABELLED)).sum())


def _validate(machine: "HeadPoseSvm", poses: "HeadPoses", data: Path) -> dict[str, float]:
    from sklearn.metrics import log_loss, roc_auc_score

    is_used = (poses.label != UNLABELLED) & ~_is_missing(poses)
    label, score = poses.label[is_used], machine(poses.features[is_used])
    counts = {name: int((label == value).sum()) for name, value in CLASSES.items()}
    if not all(counts.values()):
        raise ValueError(
            f"Expected real and fake faces with a head pose in the val split of {data}; got "
            f"{counts['real']} real and {counts['fake']} fake. Add videos, or split it otherwise "
            "with `jdfd-keras split`."
        )
    loss = log_loss(label, score, labels=[*CLASSES.values()])
    return {MONITOR: float(roc_auc_score(label, score)), "val_loss": float(loss)}


def load_headpose_run(path: str | Path) -> HeadPoseRun:
    """Load a trained Headpose from its run folder.

    Raises:
        OSError: If its training is not finished.
        ValueError: If a file of it is damaged.

    Example:
        >>> load_headpose_run("headpose_run").faces.face_size
        71
    """
    from jdfd_keras.training.headpose_svm import load_headpose_svm

    path = Path(path)
    if not (path / HEADPOSE).is_file():
        raise FileNotFoundError(
            f"Expected a run folder with {HEADPOSE}; got {path}, which has none: its training is "
            "not finished. Run the same `jdfd-keras train` again."
        )
    options = path / OPTIONS
    return HeadPoseRun(
        load_headpose_svm(path / HEADPOSE),
        load_options(options, "faces", FaceOptions),
        load_options(options, "train", TrainOptions).demonstration,
    )
