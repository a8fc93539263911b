"""Faces to scores: one pass of a detector over a data set.

Takes a keras.Model and batches; gives a score and a label per face, and the error of the decoder
where that is asked for, in memory that does not grow with the faces but for these numbers. Knows
nothing of files or names.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from jdfd_keras.model.network import classifier_of


@dataclass(frozen=True, eq=False)
class ScoredFaces:
    """What one pass over a data set gave, in its order.

    Attributes:
        score: float64[n], P(fake).
        label: float64[n], as the data set has it, 1 is fake.
        error: float64[n], mean squared error of the reconstruction per pixel and channel, pixels
            in -1..1; None where it was not computed.
        mean_face_mse: The error of always answering the mean of these faces, which is their
            variance. A decoder that is no better has only learned the mean face.
    """

    score: np.ndarray
    label: np.ndarray
    error: np.ndarray | None = None
    mean_face_mse: float | None = None


def score_dataset(
    model: keras.Model, dataset: Iterable, *, reconstruct: bool = False
) -> ScoredFaces:
    """Score every face of a data set in one pass.

    Args:
        model: A detector as `build_detector` makes it, with a decoder or without.
        dataset: Batches of (image, targets) as `load_faces` gives them, not shuffled if the
            scores are to be matched to anything.
        reconstruct: Run the decoder too, if there is one, and measure it; else it is not computed.

    Returns:
        Scores and labels in the order of the data set.

    Raises:
        ValueError: If the model has no output `classification`, the faces have another size than
            the model takes, or there are none.
    """
    if not isinstance(model.output, dict) or "classification" not in model.output:
        raise ValueError(
            f"Expected a model with the output 'classification'; got {model.name!r} with "
            f"{model.output_names}. Give one that build_detector made."
        )
    reconstruct = reconstruct and "reconstruction" in model.output
    scorer = model if reconstruct else classifier_of(model)
    scores, labels, errors, variance = [], [], [], _Variance()
    for image, targets in dataset:
        _check_size(model, image)
        outputs = scorer.predict_on_batch(image)
        if reconstruct:
            face = np.asarray(targets["reconstruction"], np.float64)
            variance.add(face)
            errors.append(np.square(outputs["reconstruction"] - face).mean(axis=(1, 2, 3)))
            outputs = outputs["classification"]
        scores.append(np.asarray(outputs, np.float64)[:, 0])
        labels.append(np.asarray(targets["classification"], np.float64)[:, 0])
    if not scores:
        raise ValueError(
            "Expected a data set with at least one face; got none. Was every video of the "
            "split excluded?"
        )
    error = (np.concatenate(errors), variance.result()) if reconstruct else (None, None)
    return ScoredFaces(np.concatenate(scores), np.concatenate(labels), *error)


class _Variance:
    """Mean square distance of faces from their mean face, summed up face by face."""

    def __init__(self):
        self.num_faces = 0
        self.squares = 0.0
        self.sum = 0.0  # float64[size, size, 3] after the first batch

    def add(self, face: np.ndarray) -> None:
        self.num_faces += len(face)
        self.squares += np.square(face).sum()
        self.sum = self.sum + face.sum(axis=0)

    def result(self) -> float:
        mean = self.sum / self.num_faces
        variance = self.squares / (self.num_faces * mean.size) - np.square(mean).mean()
        return max(0.0, float(variance))  # faces all alike may round below 0


def _check_size(model: keras.Model, image) -> None:
    expected = tuple(model.input_shape[1:])
    if tuple(image.shape[1:]) != expected:
        raise ValueError(
            f"Expected faces of {expected}, which is what {model.name!r} takes; the data set has "
            f"{tuple(image.shape[1:])}. Prepare it with the --face-size of the training data."
        )
