"""What is known of a video before it is opened: the words that all data sets share.

The names in a folder, read once, and its small text files when asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jdfd_keras.io.storage import LocalStore, Store, read_text

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


@dataclass(frozen=True)
class Tree:
    """A folder of a data set.

    Attributes:
        store: The folder.
        name: Its own name.
        files: Relative names of the files in it, hidden ones left out, sorted.
    """

    store: Store
    name: str
    files: tuple[str, ...]

    def media(self) -> list[str]:
        """List the videos and images."""
        return [name for name in self.files if has_suffix(name)]

    def read(self, name: str) -> str:
        """Read a text file."""
        try:
            return read_text(self.store, name)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Expected text in UTF-8 in {self.store.place}/{name}; got {error}. Download it "
                "again."
            ) from error


def read_tree(store: Store, files: Iterable[str] | None = None) -> Tree:
    """Read the names in a folder.

    Raises:
        OSError: If there is no such folder.
    """
    place = store.place
    if isinstance(store, LocalStore):
        if not Path(place).is_dir():
            raise FileNotFoundError(
                f"Expected the folder of a data set; got {place}, which is no folder. Check the "
                "path."
            )
        place = str(Path(place).resolve())  # `.` has a name too
    names = store.list() if files is None else files
    files = [name for name in names if not any(p.startswith(".") for p in name.split("/"))]
    for name in files:
        if has_suffix(name) and not _is_utf8(name):
            raise ValueError(
                f"Expected names of files in UTF-8 in {place}; got {name!r}. Rename that file."
            )
    return Tree(store, place.rstrip("/").rsplit("/", 1)[-1], tuple(sorted(files)))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse(tree: Tree, layout: str, folders: Iterable[str]) -> ValueError:
    """Say that a folder is not laid out as a data set, and what was looked for."""
    there = sorted({name.split("/")[0] + "/" * ("/" in name) for name in tree.files})
    shown = ", ".join(there[:6]) + (" ..." if len(there) > 6 else "")
    return ValueError(
        f"Expected {layout} in {tree.store.place}, so a video in one of the folders "
        f"{', '.join(folders)}; got {shown or 'an empty folder'}. Give the folder above these, or "
        "lay your own videos out as `folder`."
    )


def sort_videos(videos: Iterable[Video]) -> list[Video]:
    """Put videos in the order of their ids.

    Raises:
        ValueError: If two have one id.
    """
    videos = sorted(videos, key=lambda video: video.video_id)
    for one, other in zip(videos, videos[1:], strict=False):
        if one.video_id == other.video_id:
            paths = " and ".join(sorted([one.path, other.path]))
            raise ValueError(
                f"Expected one file for each video id; got {paths} for {one.video_id}. Rename or "
                "remove one of them."
            )
    return videos
