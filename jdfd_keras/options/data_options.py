"""One field of a dataclass of options.

The settings of how faces are found and chosen.

The settings of data sets: how they are made, split, and read.
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
