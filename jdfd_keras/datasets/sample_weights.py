"""Weights of faces in the losses of a training, and checks of options on its faces."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from jdfd_keras.datasets.face_index import FaceIndex
from jdfd_keras.datasets.videos import CLASSES, UNLABELLED
from jdfd_keras.options import AugmentOptions, PipelineOptions

BLENDED = 2  # stands for a blended fake beside the labels 1, 0 and -1


def check_options(
    faces: FaceIndex,
    options: PipelineOptions,
    batch_size: int = 2,
    augment: AugmentOptions | None = None,
) -> None:
    """Check that the faces can be balanced, weighted, paired and augmented as the options require.

    Args:
        faces: The faces.
        options: As for `load_faces`.
        batch_size: Faces per batch of one device.
        augment: As for `load_faces`.

    Raises:
        ValueError: If a class to balance has no face, both ways of balancing are chosen, an odd
            batch would part a real face from its blended fake, or an augmentation would move
            pixels away from their masks.

    Example:
        >>> from jdfd_keras.datasets.face_index import COLUMNS, index_faces
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> faces = index_faces("prepared", read_faces("prepared", columns=COLUMNS))
        >>> check_options(faces, PipelineOptions(balance=True, class_weights=True))
        Traceback (most recent call last):
        ValueError: Expected balance or class_weights; got both, ...
    """
    if options.balance and options.class_weights:
        raise ValueError(
            "Expected balance or class_weights; got both, which would favour the rarer class "
            "twice. Omit one of them."
        )
    if faces.base is not None and batch_size % 2:
        raise ValueError(
            "Expected an even batch_size on each device with blended fakes, each beside its real "
            f"face; got {batch_size}. Try {batch_size + 1}."
        )
    if faces.masks is not None and augment and (augment.flip or augment.affine):
        raise ValueError(
            "Expected neither flip nor affine for faces with masks, which are not moved with them; "
            f"got flip {augment.flip} and affine {augment.affine}. Omit both."
        )
    for name, label in CLASSES.items():
        if (options.balance or options.class_weights) and not (faces.label == label).any():
            raise ValueError(
                f"Expected faces of both classes to balance in "
                f"{Path(faces.shards[0]).parent.parent}; got no {name} face. Omit balance and "
                "class_weights."
            )


def weight_fn(
    faces: FaceIndex, options: PipelineOptions
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]] | None:
    """Create the function from labels to weights; None if all weights are 1.

    Args:
        faces: The faces.
        options: Weights of the classes, and faces that the decoder learns.

    Returns:
        Function of int64[n], labels or BLENDED, which returns the weights of `classification` and
        `reconstruction`, float32[n]. Faces with masks have weights even if all are 1.

    Example:
        >>> from jdfd_keras.datasets.face_index import COLUMNS, index_faces
        >>> from jdfd_keras.datasets.manifest import read_faces
        >>> faces = index_faces("prepared", read_faces("prepared", columns=COLUMNS))
        >>> weigh = weight_fn(faces, PipelineOptions(reconstruct="real"))
        >>> weigh(tf.constant([0, 1], tf.int64))["reconstruction"].numpy().tolist()
        [1.0, 0.0]
    """
    is_equal = options.reconstruct == "all" and not options.class_weights and faces.masks is None
    if is_equal and not (faces.label == UNLABELLED).any():
        return None
    # Indexed by group: real, fake, blended, and unlabelled last, since -1 % 4 is 3.
    counts = [int((faces.label == label).sum()) for label in (0, 1)]
    real, fake = [sum(counts) / (2 * c) if options.class_weights else 1.0 for c in counts]
    learnt = {"all": [1.0] * 4, "real": [1.0, 0.0, 0.0, 0.0], "clean": [1.0, 0.0, 1.0, 0.0]}
    weights = {
        "classification": tf.constant([real, fake, fake, 0.0]),
        "reconstruction": tf.constant(learnt[options.reconstruct]),
    }
    return lambda group: {
        name: tf.gather(values, tf.math.floormod(group, 4)) for name, values in weights.items()
    }
