"""The names in a folder, read once, and its small text files when asked for."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.data.videos import Video, has_suffix
from jdfd_keras.storage import LocalStore, Store, read_text


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
