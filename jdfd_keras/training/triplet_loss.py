"""Triplet loss, which brings the embeddings of faces of one class close together.

It chooses its triplets among the faces of a batch.
"""

from typing import Any, cast

import keras

MARGIN = 0.2
MINING = ("all", "semi-hard")


@keras.saving.register_keras_serializable(package="jdfd_keras")
class TripletLoss(keras.losses.Loss):
    """Triplet loss over the faces of a batch, by their squared distances.

    A triplet is an anchor, a positive of the same class and a negative of the other class. Its loss
    is max(0, d(anchor, positive) - d(anchor, negative) + margin). The loss of a batch is the mean
    over its chosen triplets; real and fake faces are anchors alike. A batch without a triplet, such
    as one of a single class, has the loss 0. Time and memory grow with the cube of the batch size:
    64 faces have 262,144 values.

    Args:
        margin: Squared distance by which negatives must be further away than positives.
        mining: "all" triplets, whose mean is the expected loss of triplets drawn at random; or
            "semi-hard" ones, whose negative is further away than the positive, by less than the
            margin.
        reduction: As for other losses of Keras.
        name: Name of the loss.

    Raises:
        ValueError: If the margin is not above 0, or there is no such mining.

    Reference:
        Schroff, Kalenichenko, Philbin: "FaceNet" (2015), https://arxiv.org/abs/1503.03832, sections
        3.1 (loss, margin 0.2) and 3.2 (semi-hard negatives, within a batch). Feng et al. (2020),
        https://arxiv.org/abs/2009.05934, use it for fakes. Their margin and choice of triplets
        could not be checked against published code: the defaults are FaceNet's margin and all
        triplets.
    """

    def __init__(
        self,
        margin: float = MARGIN,
        mining: str = "all",
        reduction: str = "mean_with_sample_weight",
        name: str = "triplet_loss",
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        if not margin > 0:
            raise ValueError(f"Expected a margin above 0; got {margin:g}. Try {MARGIN:g}.")
        if mining not in MINING:
            raise ValueError(
                f"Expected the mining {' or '.join(MINING)}; got {mining!r}. Try {MINING[0]!r}."
            )
        self.margin, self.mining = margin, mining

    def call(self, y_true, y_pred):
        """Compute float32[n], each anchor's part of the mean times n.

        Args:
            y_true: float[n, 1], 1 for fake and 0 for real.
            y_pred: float32[n, d], embeddings.
        """
        ops: Any = keras.ops  # its functions may return None, by its stubs
        label = ops.reshape(y_true, (-1,))
        distance = _squared_distances(y_pred)
        # Axes of triplets: anchor, positive, negative.
        excess = distance[:, :, None] - distance[:, None, :]
        is_same = label[:, None] == label[None, :]
        is_positive = ops.logical_and(is_same, ops.logical_not(_identity(is_same)))
        is_chosen = ops.logical_and(is_positive[:, :, None], ops.logical_not(is_same)[:, None, :])
        if self.mining == "semi-hard":
            is_within = ops.logical_and(excess < 0, excess > -self.margin)
            is_chosen = ops.logical_and(is_chosen, is_within)
        weight = ops.cast(is_chosen, distance.dtype)
        losses = ops.sum(ops.relu(excess + self.margin) * weight, axis=(1, 2))
        count = ops.maximum(ops.sum(weight), 1.0)
        return losses * ops.cast(ops.shape(label)[0], distance.dtype) / count

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as for other losses of Keras."""
        config = cast(dict[str, Any], super().get_config())
        return config | {"margin": self.margin, "mining": self.mining}


def _squared_distances(x: Any) -> Any:
    """Compute the squared distances between vectors, float[n, d], as float[n, n]."""
    ops: Any = keras.ops
    squares = ops.sum(ops.square(x), axis=1)
    products = ops.matmul(x, ops.transpose(x))
    return ops.relu(squares[:, None] + squares[None, :] - 2.0 * products)


def _identity(square: Any) -> Any:
    """Return the diagonal of a square array, bool[n, n]."""
    ops: Any = keras.ops
    index = ops.arange(ops.shape(square)[0])
    return index[:, None] == index[None, :]
