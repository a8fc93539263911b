"""Options of faces and of datasets: extraction, splits, input pipeline, augmentation, demo."""

import dataclasses
from dataclasses import dataclass
from typing import Any

LAYOUTS = (
    *("folder", "table", "faceforensics", "dfd", "celebdf", "celebdf-v1", "celebdf++"),
    *("uadfv", "dfdc", "deepfakebench", "df40"),
)
CROPPED = ("deepfakebench", "df40")  # of these, layouts of faces that are cropped already
FAKE_KINDS = ("self-blended", "swapped", "re-rendered", "local")  # of blended fakes, if mixed
WARPED = "warped"  # one more kind, which is not among the mixed ones


def setting(default: Any, help: str, choices: tuple[str, ...] = (), common: bool = False) -> Any:
    """Declare one option.

    Args:
        default: Default value.
        help: One line of help.
        choices: All allowed values, if there are only a few.
        common: Whether `--help` shows it; `--help-all` shows every option.

    Example:
        >>> setting(20, "passes over the training faces", common=True).metadata["common"]
        True
    """
    metadata = {"help": help, "choices": choices, "common": common}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class FaceOptions:
    """Face extraction; stored with every prepared dataset and exported model."""

    detector: str = setting(
        "dlib",
        "face detector; mesh: that of dlib with landmarks for commercial use; none: images are "
        "face crops already, to be resized only",
        choices=("dlib", "mtcnn", "mesh", "none"),
        common=True,
    )
    frames_per_video: int = setting(
        32, "frames sampled evenly per video; the paper uses 300", common=True
    )
    every: int = setting(0, "sample every Nth frame instead; 1: all frames, 0: frames_per_video")
    tracks: str = setting(
        "largest",
        "tracks to extract: the person who fills most of the video, or all",
        choices=("largest", "all"),
        common=True,
    )
    alignment: str = setting(
        "landmarks68",
        "alignment of crops: upright by 68 landmarks, as in DeepfakeBench, or the plain box",
        choices=("landmarks68", "deepfakebench", "box"),
    )
    face_size: int = setting(
        299, "width and height of a face crop in pixels; the paper uses 299", common=True
    )
    margin: float = setting(1.3, "width of the crop divided by the width of the tight face")


def default_faces(layout: str) -> FaceOptions:
    """Return the default face options of a layout: published crops are used as they are.

    Example:
        >>> default_faces("deepfakebench").detector
        'none'
    """
    return FaceOptions(detector="none" if layout in CROPPED else "dlib")


@dataclass(frozen=True)
class FilterOptions:
    """Quality filters of faces; none by default."""

    min_score: float = setting(0.0, "minimum detector score, on the detector's scale; 0: any")
    min_sharpness: float = setting(0.0, "minimum sharpness, as in the manifest; 0: any")
    min_size: int = setting(0, "minimum width of the detected face in pixels of the frame; 0: any")
    max_outside: float = setting(1.0, "maximum share of a crop outside the frame; 1: any")
    max_yaw: float = setting(90.0, "maximum yaw of the head in degrees; 90: any")


@dataclass(frozen=True)
class LimitOptions:
    """Limits of one file; a file beyond one is refused. 0: no limit."""

    max_seconds: float = setting(1800.0, "seconds that the analysis of one file may take; 0: any")
    max_pixels: int = setting(200_000_000, "pixels of one frame or image; 0: any")
    max_faces_per_frame: int = setting(64, "faces of one frame, the largest; 0: any")
    max_duration_s: float = setting(0.0, "duration in seconds of a video; 0: any")
    max_memory: float = setting(4.0, "memory in GB of a process that analyses a file; 0: any")


@dataclass(frozen=True)
class PrepareOptions:
    """Selection and storage of a dataset; stored in the prepared dataset."""

    layout: str = setting("folder", "layout of the dataset on disk", choices=LAYOUTS)
    name: str = setting(
        "", "prefix of the video ids of your own folder, unique per dataset; default: its name"
    )
    compression: str = setting(
        "all", "compression of FaceForensics++", choices=("all", "raw", "c23", "c40"), common=True
    )
    manipulations: str = setting(
        "",
        "manipulations, such as Deepfakes,FaceSwap; default: all, except DeepFakeDetection, which "
        "has no official split",
        common=True,
    )
    table: str = setting("", "table of the layout `table`, a CSV file")
    faces_per_shard: int = setting(1024, "approximate number of faces per TFRecord file")


@dataclass(frozen=True)
class SplitOptions:
    """Training, validation and test splits; stored with every split table."""

    strategy: str = setting(
        "official",
        "official: as published, or random by source where no split is published; strict: official "
        "without videos that share footage with a later split; kfold: by source, one fold for "
        "testing; paper: 85:15 over single faces, validation from the 85, so that each video is on "
        "both sides; leave-one-out: official, but one manipulation is for testing only",
        choices=("official", "strict", "kfold", "paper", "leave-one-out"),
        common=True,
    )
    folds: int = setting(
        5, "kfold: number of folds; the one after the test fold is validation", common=True
    )
    fold: int | None = setting(
        None,
        "kfold: test fold, from 0; leave-one-out: index of the manipulation; default: a table for "
        "each of them",
        common=True,
    )
    val_share: float = setting(
        0.15, "validation share where no split is published, of sources or subjects (paper: faces)"
    )
    test_share: float = setting(
        0.15, "test share where no split is published, of sources (paper: faces)"
    )
    seed: int = setting(0, "random seed of the split", common=True)
    base: str = setting(
        "official", "leave-one-out: split that it starts from", choices=("official", "strict")
    )
    compression: str = setting(
        "all",
        "compression such as c23, whose videos alone are used; the tables of all compressions have "
        "the same sources in each split",
        common=True,
    )


@dataclass(frozen=True)
class PrepareRuntime:
    """Runtime; does not change the result."""

    workers: int = setting(0, "number of processes; 0: one per core", common=True)
    max_failed: float = setting(0.1, "maximum share of videos without a face before exit code 1")
    runner: str = setting(
        "",
        "Apache Beam runner: DirectRunner, FlinkRunner, SparkRunner or DataflowRunner; unknown "
        "flags are passed to Beam",
    )


@dataclass(frozen=True)
class PipelineOptions:
    """Input pipeline; stored in the run folder."""

    balance: bool = setting(False, "sample real and fake faces equally often", common=True)
    class_weights: bool = setting(
        False, "weight each class by its inverse frequency instead of sampling it more often"
    )
    reconstruct: str = setting(
        "all",
        "faces that the decoder learns: all; real ones, so that its error separates fakes; or "
        "clean: real faces, and of each blended fake the face before blending",
        choices=("all", "real", "clean"),
    )
    cache: bool = setting(False, "cache encoded faces in memory after the first epoch")
    fakes: str = setting(
        "none",
        "blended fakes, made from the real faces while training: none, mixed (all kinds but "
        f"{WARPED}), or kinds separated by commas, of {', '.join([*FAKE_KINDS, WARPED])}",
        common=True,
    )
    labelled_fakes: bool = setting(
        True, "train on labelled fakes, too, not on blended ones alone; validation uses them anyway"
    )
    val_fakes: str = setting(
        "auto",
        "blended fakes to validate on, beside labelled ones; auto: none if the split has "
        "labelled fakes, otherwise those of training",
    )


def parse_fakes(text: str) -> tuple[str, ...]:
    """Return the kinds of blended fakes that an option names, in the order of FAKE_KINDS.

    Example:
        >>> parse_fakes("swapped,self-blended"), parse_fakes("none"), len(parse_fakes("mixed"))
        (('self-blended', 'swapped'), (), 4)
    """
    if text in ("none", "mixed"):
        return FAKE_KINDS if text == "mixed" else ()
    kinds = (*FAKE_KINDS, WARPED)
    named = [name.strip() for name in text.split(",")]
    if not set(named) <= set(kinds):
        raise ValueError(
            f"Expected fakes none, mixed, or kinds of {', '.join(kinds)}; got {text!r}. Try "
            "mixed, alone, for all kinds."
        )
    return tuple(kind for kind in kinds if kind in named)


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentation, each applied to half of the training faces; stored in the run folder."""

    flip: bool = setting(False, "mirror horizontally")
    jpeg: bool = setting(False, "JPEG compression with quality 40 to 100", common=True)
    h264: bool = setting(False, "H.264 compression with rate factor 23 to 40", common=True)
    blur: bool = setting(False, "Gaussian blur, sigma up to 2 pixels")
    scaling: bool = setting(False, "downscaling to a quarter at most, and upscaling again")
    noise: bool = setting(False, "noise of up to 10 grey levels")
    colour: bool = setting(False, "brightness, contrast and saturation")
    affine: bool = setting(
        False, "rotation by up to 10 degrees, scaling by up to 15 %, shift by up to 5 %"
    )


@dataclass(frozen=True)
class DemoOptions:
    """Demo; the options from `subjects` to `epochs` are of the training."""

    train: bool = setting(
        False,
        "train, evaluate, export and serve a small detector on generated clips, in minutes",
        common=True,
    )
    portraits: str = setting(
        "", "folder of photographs; default: one public-domain portrait, varied", common=True
    )
    subjects: int = setting(
        80,
        "--train: subjects, each with one real and one fake clip; fewer if there are fewer "
        "photographs",
        common=True,
    )
    frames_per_clip: int = setting(12, "--train: frames per clip", common=True)
    frames_per_video: int = setting(6, "--train: frames sampled per clip", common=True)
    face_size: int = setting(96, "--train: width and height of a face crop in pixels", common=True)
    epochs: int = setting(5, "--train: training epochs", common=True)
    seed: int = setting(0, "random seed of clips and training", common=True)
