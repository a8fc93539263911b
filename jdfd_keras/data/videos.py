"""What is known of a video before it is opened: the words that all data sets share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")
CLASSES = {"real": 0, "fake": 1}
UNLABELLED = -1
LABEL_NAMES = {label: name for name, label in CLASSES.items()} | {UNLABELLED: "unlabelled"}
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp"])
MEDIA_SUFFIXES = IMAGE_SUFFIXES | frozenset(
    [".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"]
)


@dataclass(frozen=True)
class Video:
    """One video or image of a data set.

    Attributes:
        video_id: Unique across data sets, such as `ffpp/Deepfakes/c23/000_003`. What stands
            before its first `/` names the family of data sets within which source ids speak of
            the same footage.
        path: The file, relative to the root of the data set.
        label: 1 is fake, 0 is real, -1 is unlabelled.
        manipulation: How the fake was made, where the layout tells; "" for real.
        compression: `raw`, `c23`, `c40`, or "" where unknown.
        source_ids: Whose footage is in it.
        split: `train`, `val`, `test`, or "" where the layout leaves it open.
    """

    video_id: str
    path: str
    label: int
    manipulation: str
    compression: str
    source_ids: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Listing:
    """What a layout found in a folder.

    Attributes:
        videos: In the order of their ids.
        missing: Files that the data set has and the folder has not.
        unknown: Videos and images in the folder that the data set does not have.
        people: Video id to those who are seen in it, where people appear in several sources;
            others are told apart by their sources.
        left_out: Ids of videos that are there and not asked for, with the reason.
    """

    videos: list[Video]
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    people: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def has_suffix(path: str, suffixes: frozenset[str] = MEDIA_SUFFIXES) -> bool:
    """Tell a kind of file by the end of its name."""
    return any(path.lower().endswith(suffix) for suffix in suffixes)


def family(video_id: str) -> str:
    """Name the family of data sets of a video."""
    return video_id.split("/", 1)[0]
