"""The settings of the network and of how it is trained."""

from dataclasses import dataclass

from jdfd_keras.options.data_options import setting


@dataclass(frozen=True)
class ModelOptions:
    """The free choices of the network; kept in the run folder."""

    image_size: int = setting(299, "width and height of the input in pixels, at least 71")
    latent_dim: int = setting(256, "length of the latent vector (the paper's z, unstated)")
    decoder: bool = setting(True, "rebuild the face too; without it, the paper's Table 3 baseline")
    decoder_widths: tuple[int, ...] = setting(
        (256, 128, 64, 32),
        "channels of the decoder's deconvolutions but the last, each of which doubles the side",
    )
    encoder_weights: str = setting(
        "imagenet", "start of the encoder: imagenet, none, or a Keras Xception weights file"
    )
    dropout: float = setting(0.0, "share of the classifier's features dropped in training")
    batch_norm_momentum: float = setting(
        0.9, "momentum of batch normalisation (Keras' own 0.99 lags on short runs)"
    )


@dataclass(frozen=True)
class LossOptions:
    """What is made small; kept in the run folder."""

    classification_weight: float = setting(0.8, "weight of the cross-entropy (the paper's beta 1)")
    reconstruction_weight: float = setting(
        0.2, "weight of the reconstruction error (the paper's beta 2)"
    )
    label_smoothing: float = setting(0.0, "draw labels towards one half by this share")


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights are stepped: one rate for the autoencoder, one for the classifier."""

    optimizer: str = setting("sgd", "optimizer (the paper's is SGD)", choices=("sgd", "adam"))
    learning_rate: float = setting(0.005, "step of encoder and decoder (the paper's 0.005)")
    classifier_learning_rate: float = setting(0.0004, "step of the classifier (the paper's 0.0004)")
    momentum: float = setting(0.9, "momentum of SGD")
    decay_rate: float = setting(0.2, "factor on both rates at every decay (1 keeps them)")
    decay_epochs: int = setting(5, "epochs between two decays")
    weight_decay: float = setting(0.0, "share of a weight, times the rate, taken off at each step")
    clip_norm: float = setting(0.0, "longest gradient, over all weights; 0: any")
    accumulate: int = setting(
        1,
        "steps whose gradients are averaged before weights move: the gradient of a batch so many "
        "times as large in the memory of one",
    )
    average: float = setting(
        0.0,
        "momentum, per step, of a moving average of the weights, which is then validated and kept "
        "as the best model, such as 0.999; 0: none",
    )


@dataclass(frozen=True)
class UnlabelledOptions:
    """Foreign faces whose labels are not looked at (the paper's section 4.4); kept in the run."""

    unlabelled: tuple[str, ...] = setting(
        (), "other prepared data sets, of whose training faces some teach the decoder alone"
    )
    unlabelled_share: float = setting(
        0.05, "share of each that is drawn, half real and half fake (the paper's 0.05, 0.1, 0.15)"
    )


@dataclass(frozen=True)
class TrainOptions:
    """How `train` fits; kept in the run folder."""

    epochs: int = setting(20, "passes over the training faces")
    batch_size: int = setting(4, "faces per step, of all devices together (the paper's 4)")
    precision: str = setting(
        "float32",
        "of the arithmetic; weights are float32 always. mixed_bfloat16 suits GPUs since 2020, "
        "mixed_float16 older ones",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    patience: int = setting(0, "stop after so many epochs without a better one; 0: never")
    seed: int = setting(0, "seed of weights, order and augmentation")
    allow_leak: bool = setting(
        False, "train although splits share sources or near-duplicate faces; the run says so"
    )


@dataclass(frozen=True)
class RunOptions:
    """How `train` goes about it; may be others when a run is gone on with."""

    strategy: str = setting(
        "none",
        "devices: one; mirrored: all GPUs of this machine; multiworker: all machines that "
        "TF_CONFIG names",
        choices=("none", "mirrored", "multiworker"),
    )
    checkpoint_minutes: float = setting(
        10.0, "minutes between checkpoints within an epoch; 0: none"
    )
    checkpoint_steps: int = setting(0, "steps between checkpoints within an epoch; 0: by minutes")


@dataclass(frozen=True)
class PlaceOptions:
    """Where the data set of a run lay when it was begun; kept in the run folder."""

    data: str
