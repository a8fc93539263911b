"""Faces to scores: one pass of a detector over a data set.

Takes a keras.Model and batches; gives a score and a label per face and the error of the decoder,
if there is one, over all of them, in memory that does not grow with the faces but for the scores
themselves. Knows nothing of files or names.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import keras
import numpy as np

from jdfd_keras.evaluation.report import ReconstructionError


@dataclass(frozen=True, eq=False)
class ScoredFaces:
    """What one pass over a data set gave, in its order.

    Attributes:
        score: float64[n], P(fake).
        label: float64[n], as the data set has it, 1 is fake.
        reconstruction: Error of the decoder over all faces; None without a decoder.
        pictures: Position to float32[2, size, size, 3] on the scale of -1..1: the face and its
            reconstruction, for the positions asked for; without a decoder float32[1, ...], the
            face alone.
    """

    score: np.ndarray
    label: np.ndarray
    reconstruction: ReconstructionError | None
    pictures: dict[int, np.ndarray]


def score_dataset(
    model: keras.Model, dataset: Iterable, *, show: Collection[int] = ()
) -> ScoredFaces:
    """Score every face of a data set in one pass.

    Args:
        model: A detector as `build_detector` makes it, with a decoder or without.
        dataset: Batches of (image, targets) as `load_faces` gives them, not shuffled if the
            scores are to be matched to anything.
        show: Positions of the faces whose pictures are wanted.

    Returns:
        Scores and labels in the order of the data set; reconstructions are summed up and let
        go.

    Raises:
        ValueError: If the model has no output `classification`, the faces have another size than
            the model takes, or there are none.
    """
    if not isinstance(model.output, dict) or "classification" not in model.output:
        raise ValueError(
            f"Expected a model with the output 'classification'; got {model.name!r} with "
            f"{model.output_names}. Give one that build_detector made."
        )
    has_decoder = "reconstruction" in model.output
    scores, labels, error, pictures = [], [], _ErrorSums(), {}
    position = 0
    for image, targets in dataset:
        _check_size(model, image)
        outputs = model.predict_on_batch(image)
        scores.append(np.asarray(outputs["classification"], np.float64)[:, 0])
        labels.append(np.asarray(targets["classification"], np.float64)[:, 0])
        shown = [np.asarray(targets["reconstruction"])]  # the faces themselves
        if has_decoder:
            shown.append(np.asarray(outputs["reconstruction"]))
            error.add(*shown)
        for picture in zip(*shown, strict=True):
            if position in show:
                pictures[position] = np.stack(picture)
            position += 1
    if not scores:
        raise ValueError(
            "Expected a data set with at least one face; got none. Was every video of the "
            "split excluded?"
        )
    return ScoredFaces(
        np.concatenate(scores),
        np.concatenate(labels),
        error.result() if has_decoder else None,
        pictures,
    )


class _ErrorSums:
    """Squared errors summed face by face: of the decoder, and of the mean face."""

    def __init__(self):
        self.num_faces = 0
        self.squared_error = 0.0
        self.squared_face = 0.0
        self.face_sum = 0.0  # float64[size, size, 3] after the first batch

    def add(self, face: np.ndarray, reconstruction: np.ndarray) -> None:
        face = face.astype(np.float64)
        self.num_faces += len(face)
        self.squared_error += np.square(reconstruction - face).sum()
        self.squared_face += np.square(face).sum()
        self.face_sum = self.face_sum + face.sum(axis=0)

    def result(self) -> ReconstructionError:
        num_values = self.num_faces * self.face_sum.size
        mean_face = self.face_sum / self.num_faces
        variance = self.squared_face / num_values - np.square(mean_face).mean()
        return ReconstructionError(
            mse=float(self.squared_error / num_values),
            mean_face_mse=max(0.0, float(variance)),  # faces all alike may round below 0
        )


def _check_size(model: keras.Model, image) -> None:
    expected = tuple(model.input_shape[1:])
    if tuple(image.shape[1:]) != expected:
        raise ValueError(
            f"Expected faces of {expected}, which is what {model.name!r} takes; the data set has "
            f"{tuple(image.shape[1:])}. Prepare it with the --face-size of the training data."
        )
