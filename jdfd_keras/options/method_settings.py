"""Settings of the methods of Table 2: the options that their sources state, and those they lack.

`METHOD_SETTINGS` has the shape of RECIPES. What a source does not state has our default, or the
value of the method that it is built on; docs/methods.md names both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from jdfd_keras.options.data_options import AugmentOptions, PipelineOptions
from jdfd_keras.options.detector_options import (
    METHODS,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
)

# Option groups of a training, by their name in a run's options.json and in `train()`.
TRAINING_GROUPS: dict[str, Any] = {
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "loss": LossOptions,
    "train": TrainOptions,
    "unlabelled": UnlabelledOptions,
    "pipeline": PipelineOptions,
    "augment": AugmentOptions,
}

METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "xception": {
        "model": ModelOptions(method="xception", decoder=False),
        "optimizer": OptimizerOptions(
            optimizer="adam", learning_rate=0.0002, classifier_learning_rate=0.0002, decay_rate=1.0
        ),
        "loss": LossOptions(classification_weight=1.0),
        "train": TrainOptions(epochs=15, batch_size=32),
        "pipeline": PipelineOptions(),
        "augment": AugmentOptions(),
    },
    "capsule": {
        "model": ModelOptions(method="capsule", decoder=False),
        "optimizer": OptimizerOptions(optimizer="adam", learning_rate=0.0005, decay_rate=1.0),
        "loss": LossOptions(classification_weight=1.0),
        "train": TrainOptions(epochs=100, batch_size=100),
        "pipeline": PipelineOptions(),
        "augment": AugmentOptions(),
    },
    "xception-triplet": {
        "model": ModelOptions(method="xception-triplet", decoder=False),
        # The classifier reads a vector of length 1, whose components are small.
        "optimizer": OptimizerOptions(
            optimizer="adam", learning_rate=0.0002, classifier_learning_rate=0.01, decay_rate=1.0
        ),
        "loss": LossOptions(classification_weight=1.0),
        "train": TrainOptions(epochs=15, batch_size=32),
        "pipeline": PipelineOptions(balance=True),
        "augment": AugmentOptions(),
    },
    "xception-regression": {
        "model": ModelOptions(method="xception-regression", decoder=False),
        "optimizer": OptimizerOptions(
            optimizer="adam",
            learning_rate=0.0001,
            classifier_learning_rate=0.0001,
            decay_rate=1.0,
            weight_decay=0.001,
        ),
        "loss": LossOptions(classification_weight=1.0),
        # 100,000 steps in the source: about 10 passes over its 299,039 images.
        "train": TrainOptions(epochs=10, batch_size=30),
        "pipeline": PipelineOptions(balance=True),
        "augment": AugmentOptions(),
    },
    "fwa": {
        "model": ModelOptions(method="fwa", decoder=False),
        "optimizer": OptimizerOptions(
            optimizer="sgd",
            learning_rate=0.001,
            classifier_learning_rate=0.001,
            momentum=0.0,
            decay_rate=0.95,
            decay_epochs=1,
            weight_decay=0.0001,
        ),
        "loss": LossOptions(classification_weight=1.0),
        "train": TrainOptions(epochs=20, batch_size=64),
        "pipeline": PipelineOptions(fakes="warped", labelled_fakes=False),
        "augment": AugmentOptions(colour=True),
    },
    "headpose": {
        "model": ModelOptions(method="headpose", decoder=False),
        "optimizer": OptimizerOptions(),
        "loss": LossOptions(),
        "train": TrainOptions(),
        "pipeline": PipelineOptions(),
        "augment": AugmentOptions(),
    },
}


def _all_but(kind: type, *names: str) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name not in names)


_BASELINE = {
    "model": ("network", "latent_dim", "decoder", "decoder_widths", "attention"),
    "loss": ("reconstruction_weight",),
    "train": ("recipe",),
    "unlabelled": _all_but(UnlabelledOptions),
    "pipeline": ("reconstruct",),
}
# Options that a method does not have, by their group.
_UNUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "jdfd": {},
    "xception": _BASELINE,
    # All of its weights have one rate: its classes are capsules, without a layer of their own.
    "capsule": _BASELINE | {"optimizer": ("classifier_learning_rate",)},
    "xception-triplet": _BASELINE | {"model": (*_BASELINE["model"], "dropout")},
    # Masks are not moved with the faces.
    "xception-regression": _BASELINE | {"augment": ("flip", "affine")},
    "fwa": _BASELINE,
    "headpose": {
        "model": _all_but(ModelOptions, "method", "image_size"),
        "optimizer": _all_but(OptimizerOptions),
        "loss": _all_but(LossOptions),
        "train": _all_but(TrainOptions, "split_table", "seed", "allow_leak", "demonstration"),
        "unlabelled": _all_but(UnlabelledOptions),
        "pipeline": _all_but(PipelineOptions),
        "augment": _all_but(AugmentOptions),
        "runtime": _all_but(TrainRuntime),
    },
}


def list_unused(method: str) -> list[tuple[type, str]]:
    """List the options that a method does not have, as pairs of a group's class and a name.

    Raises:
        ValueError: If there is no such method.

    Example:
        >>> (ModelOptions, "decoder_widths") in list_unused("capsule")
        True
        >>> list_unused("jdfd")
        []
    """
    _check(method)
    kinds = TRAINING_GROUPS | {"runtime": TrainRuntime}
    return [(kinds[group], name) for group, names in _UNUSED[method].items() for name in names]


def resolve_settings(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the option groups of a training with the settings of its method.

    Args:
        groups: Option groups by their name in `train()`; None, or absent, for those of the method.

    Returns:
        All groups of TRAINING_GROUPS. Options that the method does not have are as in its settings.

    Raises:
        ValueError: If there is no such method, or an option that it does not have is neither its
            default nor as in the settings.

    Example:
        >>> groups = resolve_settings({"model": ModelOptions(method="capsule")})
        >>> groups["model"].decoder, groups["train"].batch_size
        (False, 100)
    """
    method = (groups.get("model") or ModelOptions()).method
    _check(method)
    settings = METHOD_SETTINGS.get(method, {})
    complete = {}
    for group, kind in TRAINING_GROUPS.items():
        default = kind()
        setting = settings.get(group, default)
        given = groups.get(group) or setting
        unused = {name: getattr(setting, name) for name in _UNUSED[method].get(group, ())}
        for name, value in unused.items():
            if getattr(given, name) not in (value, getattr(default, name)):
                raise ValueError(
                    f"Expected options that the method {method} has; got {name} "
                    f"{getattr(given, name)!r}, which it does not have. Omit {name}, or use the "
                    "method 'jdfd'."
                )
        complete[group] = replace(given, **unused)
    return complete


def name_flags(options: Iterable[tuple[type, str]]) -> str:
    """Return the flags of options, pairs of a group's class and a name, as text.

    Example:
        >>> name_flags([(ModelOptions, "latent_dim"), (TrainOptions, "epochs")])
        '--latent-dim, --epochs'
    """
    return ", ".join(f"--{name.replace('_', '-')}" for _, name in options)


def _check(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"Expected a method of {', '.join(METHODS)}; got {method!r}. Try 'jdfd'.")
