"""The settings of every stage: the only home of defaults and of their help.

Frozen dataclasses, flat and JSON-ready. The command line makes its flags from them, stages
take them as arguments, and they are written beside whatever they made. Imports nothing
heavy, so `jdfd-keras --help` answers at once.
"""

import dataclasses
from dataclasses import dataclass


def setting(default, help: str, choices: tuple = ()):
    """Declare one field: its default, its line of help and, where closed, its choices."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class FaceOptions:
    """How faces are taken from a video; kept beside every data set and exported model."""

    detector: str = setting("dlib", "face detector", choices=("dlib", "mtcnn"))
    frames_per_video: int = setting(
        32, "frames looked at per video, spread evenly (the paper takes 300)"
    )
    every: int = setting(
        0, "look at every Nth frame instead; 1 takes all of them, 0 frames_per_video of them"
    )
    tracks: str = setting(
        "largest",
        "people taken: the one who fills most of the video, or all",
        choices=("largest", "all"),
    )
    alignment: str = setting(
        "landmarks68",
        "how crops are laid: upright by the 68 landmarks, as DeepfakeBench does, or the plain box",
        choices=("landmarks68", "deepfakebench", "box"),
    )
    face_size: int = setting(299, "width and height of a face crop in pixels (the paper's 299)")
    margin: float = setting(1.3, "width of the crop over the width of the tight face")


@dataclass(frozen=True)
class FilterOptions:
    """Which faces are left out for their quality; none by default."""

    min_score: float = setting(0.0, "least score of the detector, on its own scale; 0: any")
    min_sharpness: float = setting(0.0, "least sharpness, as the manifest gives it; 0: any")
    min_size: int = setting(0, "least width of the detected face in pixels of the frame; 0: any")
    max_outside: float = setting(1.0, "largest share of a crop outside the frame; 1: any")
    max_yaw: float = setting(90.0, "largest turn of the head in degrees; 90: any")


LAYOUTS = ("folder", "faceforensics", "celebdf", "celebdf-v1", "uadfv", "dfdc")


@dataclass(frozen=True)
class PrepareOptions:
    """What becomes a prepared data set, and how it is stored; kept in it."""

    layout: str = setting("folder", "how the data set lies on disk", choices=LAYOUTS)
    name: str = setting(
        "", "of your own folder: what its ids begin with, its name if not given; one for each set"
    )
    compression: str = setting(
        "all", "which of FaceForensics++'s compressions", choices=("all", "raw", "c23", "c40")
    )
    manipulations: str = setting(
        "",
        "which fakes, such as Deepfakes,FaceSwap; all that are there if not given, but "
        "DeepFakeDetection, which has no official split, only by its name",
    )
    faces_per_shard: int = setting(1024, "faces per TFRecord file, about")
    manifest: str = setting("parquet", "form of both tables", choices=("parquet", "csv"))


@dataclass(frozen=True)
class SplitOptions:
    """Which videos are for training, validation and testing; kept in the data set."""

    split: str = setting(
        "official",
        "official: as published, or by source at random where nothing is; strict: official without "
        "what shares footage with a later split; kfold: by source, one fold to test; paper: 85:15 "
        "over single faces, validation taken of the 85, so that each video lies on both sides",
        choices=("official", "strict", "kfold", "paper"),
    )
    val_share: float = setting(
        0.15, "share for validation where none is published, of sources or people (paper: of faces)"
    )
    test_share: float = setting(
        0.15, "share for testing where none is published, of sources (paper: of faces)"
    )
    folds: int = setting(5, "kfold: number of folds; the one after the test fold is for validation")
    fold: int = setting(0, "kfold: the fold to test on, from 0")
    seed: int = setting(0, "seed of whatever is drawn at random")


@dataclass(frozen=True)
class WorkOptions:
    """How `prepare` goes about it; changes nothing of what it makes."""

    workers: int = setting(0, "processes; 0 takes one for each core")
    max_failed: float = setting(0.1, "largest share of videos without a face that is no failure")
    runner: str = setting(
        "",
        "run on Apache Beam instead: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner; "
        "further flags are Beam's own",
    )


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


@dataclass(frozen=True)
class PipelineOptions:
    """How faces come from a prepared data set; kept in the run folder."""

    balance: bool = setting(False, "draw real and fake faces equally often")
    class_weights: bool = setting(
        False,
        "weigh the rarer class more, as much as it is rarer, instead of drawing it more often",
    )
    reconstruct: str = setting(
        "all",
        "faces that the decoder learns; of real ones alone, its error tells fakes apart",
        choices=("all", "real"),
    )
    cache: bool = setting(False, "keep the encoded faces in memory after the first pass")


@dataclass(frozen=True)
class AugmentOptions:
    """What is done to training faces at random, each to every second face; kept in the run."""

    flip: bool = setting(False, "augment: mirror")
    jpeg: bool = setting(False, "augment: save as JPEG of quality 40 to 100")
    blur: bool = setting(False, "augment: blur, sigma up to 2 pixels")
    scaling: bool = setting(False, "augment: shrink to a quarter at most and enlarge again")
    noise: bool = setting(False, "augment: add noise of up to 10 grey levels")
    colour: bool = setting(False, "augment: other brightness, contrast and saturation")


@dataclass(frozen=True)
class EvaluateOptions:
    """How `evaluate` scores and measures; stated in its report."""

    split: str = setting("test", "split to score", choices=("train", "val", "test"))
    threshold: float | None = setting(
        None,
        "a score at or above it is called fake; if not given that of the run's calibration, "
        "else 0.5",
    )
    aggregation: str = setting(
        "mean",
        "how a video's score is made of those of its faces: their mean, median or max, or track, "
        "the highest of the means of its people, much as predict judges",
        choices=("mean", "median", "max", "track"),
    )
    rounds: int = setting(
        1000, "rounds of the bootstrap behind the intervals, 100 or more; 0: no intervals"
    )
    seed: int = setting(0, "seed of the bootstrap")
    batch_size: int = setting(32, "faces scored at once")
    reconstruction: bool = setting(False, "run the decoder too, and measure its error")
    allow_leak: bool = setting(
        False, "evaluate although training saw sources or near-duplicates; the report says so"
    )


@dataclass(frozen=True)
class CalibrateOptions:
    """What `calibrate` is to reach on validation videos; kept in the run folder."""

    fpr: float = setting(
        0.05,
        "largest share of real videos called fake; the same of fakes called real, beyond which "
        "the verdict is `uncertain`",
    )
    batch_size: int = setting(32, "faces scored at once")
    allow_leak: bool = setting(False, "calibrate although training saw sources or near-duplicates")


EXPERIMENTS = ("cross-dataset", "ablation", "foreign-data", "statistics")


@dataclass(frozen=True)
class ExperimentOptions:
    """How often `experiment` does what it does."""

    seeds: tuple[int, ...] = setting(
        (0,), "seeds of the trainings; of several, tables give mean and standard deviation"
    )


@dataclass(frozen=True)
class ServeOptions:
    """How `serve` listens."""

    host: str = setting("127.0.0.1", "address to listen on; the default is this machine alone")
    port: int = setting(8501, "port of the REST interface; 0 takes a free one")
    max_body_mb: int = setting(64, "largest request body in MiB; a larger one is answered 413")


@dataclass(frozen=True)
class PredictOptions:
    """How `predict` looks at a file."""

    threshold: float | None = setting(
        None,
        "a score at or above it is called fake, below it real; if not given as the model was "
        "calibrated, with `uncertain` between, else 0.5",
    )
    calibration: str = setting(
        "", "with --server: calibration.json of the run or of the exported model"
    )
    frames_per_video: int = setting(
        FaceOptions.frames_per_video, "frames looked at per video, spread evenly"
    )
    every: int = setting(FaceOptions.every, "look at every Nth frame instead; 1 takes all of them")
    tracks: str = setting(
        "all",
        "people judged: all, or the one who fills most of the video",
        choices=("all", "largest"),
    )
    detector: str = setting(
        FaceOptions.detector,
        "with --server: as in training; a model on this machine knows",
        choices=("dlib", "mtcnn"),
    )
    alignment: str = setting(
        FaceOptions.alignment,
        "with --server: as in training; a model on this machine knows",
        choices=("landmarks68", "deepfakebench", "box"),
    )
    margin: float = setting(
        FaceOptions.margin, "with --server: as in training; a model on this machine knows"
    )


@dataclass(frozen=True)
class DemoOptions:
    """How large the demonstration is, and what it is made of."""

    portraits: str = setting("", "folder of photographs; none: one public-domain portrait, varied")
    people: int = setting(
        80, "people, with one real and one fake clip each; fewer if there are fewer photographs"
    )
    frames_per_clip: int = setting(12, "frames of a clip")
    frames_per_video: int = setting(6, "faces taken from a clip")
    face_size: int = setting(96, "width and height of a face crop in pixels")
    epochs: int = setting(5, "passes over the training faces")
    seed: int = setting(0, "seed of the clips, the split and the training")
