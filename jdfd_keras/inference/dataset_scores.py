"""Scores of a prepared dataset: a detector in one pass, of which only the results are kept.

Takes batches of faces with their labels; returns FacePredictions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class FacePredictions:
    """Scores and labels of the faces of a dataset, in its order."""

    score: np.ndarray  # float64[n], P(fake)
    label: np.ndarray  # float64[n], of the dataset; 1 is fake
    # float64[n], mean squared error of the reconstruction per pixel and channel, pixels in -1..1;
    # None if it was not computed.
    error: np.ndarray | None = None
    # Error of a decoder that always returns the mean of these faces, which is their variance. A
    # decoder that is not better has only learned the mean face.
    mean_face_mse: float | None = None


def predict_dataset(
    model: "keras.Model", dataset: Iterable, *, reconstruct: bool = False
) -> FacePredictions:
    """Score every face of a dataset in one pass.

    Args:
        model: A detector of `build_detector`, with or without a decoder.
        dataset: Batches of (image, targets), as from `load_faces`; unshuffled if the scores are
            to be matched to faces.
        reconstruct: Run the decoder too, if the model has one, and measure its error.

    Example:
        >>> import jdfd_keras as jk
        >>> faces = jk.load_faces("prepared", split="test", batch_size=8)
        >>> predict_dataset(jk.load_run_model("run").model, faces).score.shape
        (8,)
    """
    if not isinstance(model.output, dict) or "classification" not in model.output:
        raise ValueError(
            f"Expected a model with the output 'classification'; got {model.name!r} with "
            f"{model.output_names}. Pass a model of build_detector."
        )
    from jdfd_keras.model.network import classifier_branch

    reconstruct = reconstruct and "reconstruction" in model.output
    predictor = model if reconstruct else classifier_branch(model)
    size = tuple(model.input_shape[1:])
    scores, labels, errors = [], [], []
    total, squares = np.zeros(size), 0.0  # of the pixels of all faces
    for image, targets in dataset:
        if tuple(image.shape[1:]) != size:
            raise ValueError(
                f"Expected faces of {size}, the input of {model.name!r}; got "
                f"{tuple(image.shape[1:])}. Prepare the dataset with the --face-size of the "
                "training data."
            )
        outputs = predictor.predict_on_batch(image)
        if reconstruct:
            face = np.asarray(targets["reconstruction"], np.float64)
            total, squares = total + face.sum(axis=0), squares + np.square(face).sum()
            errors.append(np.square(outputs["reconstruction"] - face).mean(axis=(1, 2, 3)))
            outputs = outputs["classification"]
        scores.append(np.asarray(outputs, np.float64)[:, 0])
        labels.append(np.asarray(targets["classification"], np.float64)[:, 0])
    if not scores:
        raise ValueError(
            "Expected a dataset with at least one face; got none. Check whether every video of "
            "the split was excluded."
        )
    score, label = np.concatenate(scores), np.concatenate(labels)
    if not reconstruct:
        return FacePredictions(score, label)
    variance = squares / (len(score) * total.size) - np.square(total / len(score)).mean()
    # Identical faces may round below 0.
    return FacePredictions(score, label, np.concatenate(errors), max(0.0, float(variance)))
