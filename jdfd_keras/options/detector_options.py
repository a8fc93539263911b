"""Options of the network, its training, evaluation and verdicts."""

from dataclasses import dataclass

from jdfd_keras.options.data_options import FaceOptions, setting

METHODS = (
    *("jdfd", "xception", "capsule", "xception-triplet", "xception-regression", "fwa"),
    "headpose",
)
NETWORKS = ("xception", "xception-pytorch", "meso4", "mesoinception4")


@dataclass(frozen=True)
class ModelOptions:
    """Network; stored in the run folder. `encoder_weights=None` means `"none"`: random weights."""

    method: str = setting(
        "jdfd",
        "jdfd: the Joint DeepFake Detector; others: a method of the paper's Table 2, with the "
        "settings of its source, which other options change",
        choices=METHODS,
        common=True,
    )
    network: str = setting(
        "xception",
        "jdfd: Xception; xception-pytorch: the same with the padding of PyTorch's Xception, for "
        "weights of `import-weights`; meso4 or mesoinception4: MesoNet, a small classifier without "
        "decoder, for comparison",
        choices=NETWORKS,
    )
    image_size: int = setting(299, "width and height of the input in pixels, at least 71")
    latent_dim: int = setting(
        256, "length of the latent vector (the paper's z; its length is not stated)"
    )
    decoder: bool = setting(
        True,
        "decoder that reconstructs the face; without it, the paper's Table 3 baseline",
        common=True,
    )
    decoder_widths: tuple[int, ...] = setting(
        (256, 128, 64, 32),
        "channels of the decoder's deconvolutions except the last; each doubles height and width",
    )
    attention: str = setting(
        "none",
        "attention of the classifier; residual: late encoder features are weighted by the "
        "reconstruction residual",
        choices=("none", "residual"),
    )
    encoder_weights: str | None = setting(
        "imagenet",
        "initial encoder weights: imagenet, none, or a Keras weights file of the network",
        common=True,
    )
    dropout: float = setting(0.0, "dropout rate of the classifier's features")
    batch_norm_momentum: float = setting(
        0.9, "momentum of batch normalisation (Keras' own 0.99 lags on short runs)"
    )


@dataclass(frozen=True)
class LossOptions:
    """Loss; stored in the run folder."""

    classification_weight: float = setting(0.8, "weight of the cross-entropy (the paper's beta 1)")
    reconstruction_weight: float = setting(
        0.2, "weight of the reconstruction error (the paper's beta 2)"
    )
    label_smoothing: float = setting(0.0, "label smoothing, from 0 to below 1")


@dataclass(frozen=True)
class OptimizerOptions:
    """Optimizer; stored in the run folder. Autoencoder and classifier have a learning rate each."""

    optimizer: str = setting(
        "sgd", "optimizer (the paper's is SGD)", choices=("sgd", "adam"), common=True
    )
    learning_rate: float = setting(
        0.005, "learning rate of encoder and decoder (the paper's 0.005)", common=True
    )
    classifier_learning_rate: float = setting(
        0.0004, "learning rate of the classifier (the paper's 0.0004)"
    )
    momentum: float = setting(0.9, "momentum of SGD")
    decay_rate: float = setting(0.2, "factor on both learning rates at every decay; 1: constant")
    decay_epochs: int = setting(5, "epochs between two decays")
    weight_decay: float = setting(0.0, "decoupled weight decay, scaled by the learning rate")
    clip_norm: float = setting(0.0, "maximum norm of the gradient over all weights; 0: no limit")
    accumulate: int = setting(
        1,
        "number of steps to average gradients over before the weights change: a larger batch in "
        "the memory of a small one",
    )
    average: float = setting(
        0.0,
        "momentum, per step, of an exponential moving average of the weights, such as 0.999; the "
        "average is validated and saved as the best model; 0: no average",
    )


@dataclass(frozen=True)
class UnlabelledOptions:
    """Unlabelled faces; stored in the run folder. The paper's section 4.4: labels are hidden."""

    unlabelled: tuple[str, ...] = setting(
        (), "another prepared dataset, of which some training faces train the decoder only"
    )
    unlabelled_share: float = setting(
        0.05,
        "share of its training faces to use, half real and half fake (the paper's 0.05, 0.1, 0.15)",
    )


@dataclass(frozen=True)
class TrainOptions:
    """Training; stored in the run folder."""

    recipe: str = setting(
        "",
        "settings to start from, which other options change: those of the paper, or robust, for "
        "fakes that the training data lacks",
        choices=("paper", "robust"),
        common=True,
    )
    epochs: int = setting(20, "passes over the training faces", common=True)
    batch_size: int = setting(4, "faces per step, over all devices (the paper's 4)", common=True)
    precision: str = setting(
        "auto",
        "precision of the computation; weights are always float32. auto: mixed_bfloat16 on a CPU "
        "that has instructions for it, else float32; mixed_bfloat16 suits GPUs since 2020, "
        "mixed_float16 older ones",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    patience: int = setting(
        0, "epochs without improvement before training stops; 0: no early stopping"
    )
    split_table: str = setting(
        "official", "split table of the dataset, its name or the path of a CSV file", common=True
    )
    seed: int = setting(0, "random seed of weights, order and augmentation", common=True)
    allow_leak: bool = setting(
        False,
        "train in spite of leakage between the splits, which the run folder then states",
        common=True,
    )
    demonstration: bool = setting(
        False,
        "mark the model as one for demonstration only: its exports and all of their results state "
        "so",
    )


@dataclass(frozen=True)
class TrainRuntime:
    """Runtime; may change when a run is resumed."""

    strategy: str = setting(
        "none",
        "devices: one (none), all GPUs of this machine (mirrored), or all machines of TF_CONFIG "
        "(multiworker)",
        choices=("none", "mirrored", "multiworker"),
        common=True,
    )
    checkpoint_minutes: float = setting(
        10.0, "minutes between checkpoints within an epoch; 0: none"
    )
    checkpoint_steps: int = setting(
        0, "steps between checkpoints within an epoch; 0: checkpoint_minutes applies"
    )
    keep_optimizer: bool = setting(
        False, "keep weights and optimizer state in the checkpoint of a finished run"
    )


@dataclass(frozen=True)
class DataLocation:
    """Location of the prepared dataset when the run was started; stored in the run folder."""

    data: str


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluation; stored in the report."""

    split: str = setting(
        "test",
        "split to evaluate; all: every face, whatever its split",
        choices=("train", "val", "test", "all"),
        common=True,
    )
    split_table: str = setting(
        "official", "split table of the datasets, its name or the path of a CSV file", common=True
    )
    threshold: float | None = setting(
        None,
        "lowest score that is called fake; default: the calibrated threshold, else 0.5",
        common=True,
    )
    aggregation: str = setting(
        "mean",
        "how face scores are aggregated into a video score: mean, median or max of all faces, or "
        "track: the highest mean of its tracks, similar to predict",
        choices=("mean", "median", "max", "track"),
        common=True,
    )
    n_resamples: int = setting(
        1000, "bootstrap resamples of the intervals, at least 100; 0: no intervals"
    )
    seed: int = setting(0, "random seed of the bootstrap")
    batch_size: int = setting(32, "faces per batch", common=True)
    reconstruction: bool = setting(False, "run the decoder as well and measure its error")
    degrade: str = setting(
        "",
        "degradation of the face crops before they are scored, with its strength, such as jpeg=30",
    )
    allow_leak: bool = setting(
        False,
        "evaluate in spite of leakage from the training data, which the report then states",
        common=True,
    )


@dataclass(frozen=True)
class CalibrateOptions:
    """Target error rates; stored in the run folder."""

    fpr: float = setting(
        0.05,
        "highest expected share of real files called fake, and of fake files called "
        "`no_evidence`; between the two thresholds the verdict is `uncertain`",
        common=True,
    )
    batch_size: int = setting(32, "faces per batch", common=True)
    split_table: str = setting(
        "official", "split table of the datasets, its name or the path of a CSV file", common=True
    )
    allow_leak: bool = setting(
        False, "calibrate in spite of leakage from the training data", common=True
    )


BACKENDS = ("auto", "tensorflow", "openvino")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")


@dataclass(frozen=True)
class EngineOptions:
    """Engine that computes the scores; the engine used is stated in every result."""

    backend: str = setting(
        "auto",
        "tensorflow, or the faster openvino, which exported models have; auto: openvino if its "
        "files belong to the model and the processor computes in the precision, else tensorflow",
        choices=BACKENDS,
        common=True,
    )
    precision: str = setting(
        "auto",
        "precision of openvino; auto: int8 if the model has it and its export accepted it, else "
        "bfloat16; scores of bfloat16 differ by about 0.01 from those of float32",
        choices=PRECISIONS,
    )


@dataclass(frozen=True)
class PredictOptions:
    """Verdict."""

    threshold: float | None = setting(
        None,
        "lowest score that is called fake; lower scores are no evidence; default: the calibrated "
        "thresholds, between which the verdict is `uncertain`, else 0.5",
        common=True,
    )
    frames_per_video: int = setting(
        FaceOptions.frames_per_video, "sampled frames per video, spread evenly", common=True
    )
    every: int = setting(
        FaceOptions.every, "sample every Nth frame instead; 1: all frames", common=True
    )
    tracks: str = setting(
        "all",
        "tracks to analyse: all, or the person who fills most of the video",
        choices=("all", "largest"),
        common=True,
    )
    detector: str | None = setting(
        None,
        "face detector; none: images are face crops already, to be resized only; default: that of "
        "the model's training faces",
        choices=("dlib", "mtcnn", "mesh", "none"),
        common=True,
    )


@dataclass(frozen=True)
class PredictRuntime:
    """Runtime; changes no verdict."""

    workers: int = setting(
        0, "processes that extract faces; 0: one per core, at most one per file", common=True
    )
    explain: int = setting(
        3, "top faces of each person that a report shows and explains", common=True
    )
