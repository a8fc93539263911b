"""Scores of Headpose on evaluation data, from the landmarks in their manifests.

Takes a run of Headpose and loaded datasets; returns scores of the faces that have a pose. Imports
no TensorFlow.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jdfd_keras.datasets.split_tables import OFFICIAL
from jdfd_keras.datasets.videos import UNLABELLED
from jdfd_keras.evaluation.eval_data import EvalSet
from jdfd_keras.inference.dataset_scores import FacePredictions
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.training.headpose_run import HeadPoseRun
from jdfd_keras.training.headpose_svm import load_head_poses


class PoseScores(NamedTuple):
    """Scores of the faces of datasets that have a head pose."""

    sets: list[EvalSet]  # the datasets, whose rows are these faces only
    predictions: FacePredictions  # of these faces
    has_pose: np.ndarray  # bool[n], of all faces, in the order of the rows of all datasets


def score_head_poses(run: HeadPoseRun, sets: Sequence[EvalSet]) -> PoseScores:
    """Score the faces of prepared datasets that have a head pose.

    Args:
        run: A trained Headpose.
        sets: The datasets, as `load_eval_sets` loads them.

    Raises:
        ValueError: If no face of a dataset has a pose.

    Example:
        >>> from jdfd_keras.evaluation.eval_data import load_eval_sets
        >>> from jdfd_keras.training.headpose_run import load_headpose_run
        >>> sets = load_eval_sets(["prepared"], "test")
        >>> score_head_poses(load_headpose_run("headpose_run"), sets).predictions.score.shape
        (8,)
    """
    scored, scores = [], []
    for one in sets:
        table_name = one.split_table.name if one.split_table else OFFICIAL
        poses = load_head_poses(one.directory, split=one.split, split_table=table_name)
        score = run.machine(poses.features[poses.label != UNLABELLED])
        scores.append(score)
        rows = one.rows.filter(pa.array(np.isfinite(score)))
        scored.append(dataclasses.replace(one, rows=rows))
    all_scores = np.concatenate(scores)
    has_pose = np.isfinite(all_scores)
    label = np.concatenate([one.rows["label"].to_numpy() for one in scored])
    return PoseScores(scored, FacePredictions(all_scores[has_pose], label), has_pose)


def check_pose_options(path: Path, options: EvaluateOptions) -> None:
    """Check that an evaluation of Headpose requests nothing that needs pixels.

    Raises:
        ValueError: If it does.

    Example:
        >>> check_pose_options(Path("headpose_run"), EvaluateOptions(degrade="jpeg=30"))
        Traceback (most recent call last):
        ValueError: Expected no --degrade and no --reconstruction with the Headpose run ...
    """
    if options.degrade or options.reconstruction:
        flag = "--reconstruction" if options.reconstruction else f"--degrade {options.degrade}"
        raise ValueError(
            f"Expected no --degrade and no --reconstruction with the Headpose run {path}, which "
            f"scores landmarks and has no network; got {flag}. Omit it."
        )
