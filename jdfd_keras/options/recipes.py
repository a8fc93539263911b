"""Recipes: named settings of a training, as option groups for `train`.

A recipe states every option that it fixes, so that a new default does not change it. It leaves open
what belongs to the data, the repetition or the purpose: the size of the faces, the split table, the
seed, the mark of a demonstration.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jdfd_keras.options.data_options import AugmentOptions, PipelineOptions
from jdfd_keras.options.detector_options import (
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    TrainOptions,
)

# Not part of a recipe.
_OPEN = ("recipe", "image_size", "split_table", "seed", "allow_leak", "demonstration")
_DETECTOR = ModelOptions(
    method="jdfd",
    network="xception",
    latent_dim=256,
    decoder=True,
    decoder_widths=(256, 128, 64, 32),
    attention="none",
    encoder_weights="imagenet",
    dropout=0.0,
    batch_norm_momentum=0.9,
)
_LOSS = LossOptions(
    classification_weight=0.8,
    reconstruction_weight=0.2,
    label_smoothing=0.0,
)

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "model": _DETECTOR,
        "loss": _LOSS,
        "optimizer": OptimizerOptions(
            optimizer="sgd",
            learning_rate=0.005,
            classifier_learning_rate=0.0004,
            momentum=0.9,
            decay_rate=0.2,
            decay_epochs=5,
            weight_decay=0.0,
            clip_norm=0.0,
            accumulate=1,
            average=0.0,
        ),
        "train": TrainOptions(
            recipe="paper", epochs=20, batch_size=4, precision="float32", patience=0
        ),
        "pipeline": PipelineOptions(
            balance=False,
            class_weights=False,
            reconstruct="all",
            cache=False,
            fakes="none",
            labelled_fakes=True,
            val_fakes="auto",
        ),
        "augment": AugmentOptions(
            flip=False,
            affine=False,
            jpeg=False,
            h264=False,
            blur=False,
            scaling=False,
            noise=False,
            colour=False,
        ),
    },
    "robust": {
        "model": _DETECTOR,
        "loss": _LOSS,
        "optimizer": OptimizerOptions(
            optimizer="adam",
            learning_rate=0.0002,
            classifier_learning_rate=0.0002,
            momentum=0.9,  # of SGD, so without effect
            decay_rate=1.0,
            decay_epochs=5,
            weight_decay=0.0,
            clip_norm=0.0,
            accumulate=1,
            average=0.0,
        ),
        "train": TrainOptions(
            recipe="robust", epochs=10, batch_size=32, precision="mixed_bfloat16", patience=0
        ),
        "pipeline": PipelineOptions(
            balance=False,
            class_weights=False,
            reconstruct="clean",
            cache=False,
            fakes="mixed",
            labelled_fakes=True,
            val_fakes="auto",
        ),
        "augment": AugmentOptions(
            flip=True,
            affine=False,
            jpeg=True,
            h264=True,
            blur=True,
            scaling=True,
            noise=True,
            colour=True,
        ),
    },
}


def list_changes(name: str, groups: Mapping[str, Any]) -> list[str]:
    """List the options that differ from a recipe.

    Args:
        name: A recipe.
        groups: The option groups of a training, by the names of `train`; groups that the recipe
            does not have are ignored.

    Returns:
        A text for each option, such as "epochs 10 -> 3".

    Raises:
        ValueError: If there is no such recipe.

    Example:
        >>> from dataclasses import replace
        >>> recipe = RECIPES["robust"]
        >>> train = replace(recipe["train"], epochs=3, seed=1)
        >>> list_changes("robust", recipe | {"train": train})
        ['epochs 10 -> 3']
    """
    if name not in RECIPES:
        raise ValueError(f"Expected a recipe of {', '.join(RECIPES)}; got {name!r}. Try 'robust'.")
    changes = []
    for group, options in RECIPES[name].items():
        used = asdict(groups[group])
        changes += [
            f"{option} {value} -> {used[option]}"
            for option, value in asdict(options).items()
            if option not in _OPEN and used[option] != value
        ]
    return changes
