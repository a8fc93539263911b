"""Videos of a dataset before any of them is opened: labels, splits, sources, file names.

Defines the types that all layouts share, and counts faces by split, label and manipulation.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import LocalStore, Store, read_text

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "val", "test")
CLASSES = {"real": 0, "fake": 1}
UNLABELLED = -1
# Starts a source id that files share by their names only, such as a single image and its fake.
LINK = "?"
LABEL_NAMES = {label: name for name, label in CLASSES.items()} | {UNLABELLED: "unlabelled"}
# Names under which people keep images and videos; the content decides what a file is.
IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff"]
    + [".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pnm"]
)
MEDIA_SUFFIXES = IMAGE_SUFFIXES | frozenset(
    [".gif", ".apng"]  # short videos
    + [".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".ogv", ".avi", ".divx"]
    + [".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".f4v"]
    + [".mxf", ".gxf", ".dv", ".wtv", ".dav", ".rm", ".rmvb", ".ogm", ".nut", ".y4m"]
    + [".ivf", ".obu", ".av1", ".h264", ".264", ".h265", ".265", ".hevc"]
)


@dataclass(frozen=True)
class Video(Result):
    """One video or image of a dataset.

    Attributes:
        video_id: Unique across datasets, such as `ffpp/Deepfakes/c23/000_003`. The text before
            the first `/` is its namespace: within one namespace, equal source ids mean the same
            footage.
        path: Path of the file, relative to the root of the dataset; of a video that is stored as
            image files, their folder, or the start of their names.
        label: 1 fake, 0 real, -1 unlabelled.
        manipulation: Name of the manipulation if the layout states it; "" for real videos.
        compression: `raw`, `c23`, `c40`, or "" if not stated.
        source_ids: Ids of the footage that it shows; empty if unknown. An id that begins with LINK
            says which files belong together, but the footage is unknown.
        split: Published split, `train`, `val` or `test`; "" if there is none.
    """

    video_id: str
    path: str
    label: int
    manipulation: str
    compression: str
    source_ids: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Listing(Result):
    """The videos that a layout found in a folder.

    Attributes:
        videos: Sorted by id.
        missing: Files that the lists of the dataset name and the folder lacks.
        unrecognized: Files in the folder that the layout does not use.
        subjects: Video id to the subjects in it, where one subject is in several sources; the
            subjects of other videos are their sources.
        excluded: Video id to reason, of the videos that the layout excluded.
        frames: Video id to its image files in order, of the videos that are stored as images.
        landmarks: Video id to files of landmarks in the order of its `frames`; "" for no file.
        masks: Video id to the mask video that marks its manipulated pixels.
        notes: Sentences on what is uncertain, such as how files were grouped.
    """

    videos: list[Video]
    missing: list[str] = field(default_factory=list)
    unrecognized: list[str] = field(default_factory=list)
    subjects: dict[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    frames: dict[str, tuple[str, ...]] = field(default_factory=dict)
    landmarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FaceCount(Result):
    """Number of videos and faces in one group of faces.

    The fields by which they are not grouped are None; the label is `real`, `fake` or `unlabelled`,
    the others are as in Video.
    """

    num_videos: int
    num_faces: int
    split: str | None = None
    label: str | None = None
    manipulation: str | None = None
    compression: str | None = None


def count_by(
    table: "pa.Table", *columns: str, without_faces: Iterable[Video] = ()
) -> list[FaceCount]:
    """Count the faces and videos of each group of a manifest.

    Args:
        table: One row per face, with the column `video_id` and those to group by.
        *columns: Some of `split`, `label`, `manipulation` and `compression`.
        without_faces: Videos without a face to count too.

    Returns:
        One entry per group that is not empty, sorted by split, class, manipulation and compression.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"video_id": ["a", "a", "b"], "label": [0, 0, 1]})
        >>> [(group.label, group.num_videos, group.num_faces) for group in count_by(table, "label")]
        [('real', 1, 2), ('fake', 1, 1)]
    """
    aggregated = table.group_by(list(columns)).aggregate(
        [("video_id", "count_distinct"), ("video_id", "count")]
    )
    num_videos, num_faces = Counter(), Counter()
    for group in aggregated.to_pylist():
        key = tuple(group[name] for name in columns)
        num_videos[key], num_faces[key] = group["video_id_count_distinct"], group["video_id_count"]
    num_videos.update(tuple(getattr(video, name) for name in columns) for video in without_faces)
    groups = []
    for key, count in num_videos.items():
        values = dict(zip(columns, key, strict=True))
        if "label" in values:
            values["label"] = LABEL_NAMES[values["label"]]
        groups.append(FaceCount(count, num_faces[key], **values))
    rank = [None, *SPLITS, "", *LABEL_NAMES.values()].index
    groups.sort(key=lambda group: (group.manipulation or "", group.compression or ""))
    groups.sort(key=lambda group: (rank(group.split), rank(group.label)))
    return groups


def has_suffix(path: str, suffixes: frozenset[str] = MEDIA_SUFFIXES) -> bool:
    """Return whether a file name ends in one of some suffixes, in upper or lower case.

    Example:
        >>> has_suffix("clips/a.MP4")
        True
    """
    return path.lower().endswith(tuple(suffixes))


def dataset_namespace(video_id: str) -> str:
    """Return the part of a video id within which equal source ids mean the same footage.

    Example:
        >>> dataset_namespace("ffpp/Deepfakes/c23/000_003")
        'ffpp'
    """
    return video_id.split("/", 1)[0]


def qualified_sources(video: Video) -> tuple[str, ...]:
    """Return the sources of a video with their namespace; none if they are unknown.

    Example:
        >>> qualified_sources(Video("ffpp/youtube/c23/000", "000.mp4", 0, "", "c23", ("000",), ""))
        ('ffpp/000',)
    """
    return tuple(f"{dataset_namespace(video.video_id)}/{source}" for source in video.source_ids)


def has_known_source(source_ids: Iterable[str]) -> bool:
    """Return whether the footage of a video is known, by its `source_ids`.

    Example:
        >>> has_known_source(["000"]), has_known_source(["?anna"]), has_known_source([])
        (True, False, False)
    """
    return any(not source.startswith(LINK) for source in source_ids)


@dataclass(frozen=True)
class DatasetFiles:
    """The file names of a dataset: relative to its folder, sorted, hidden ones by themselves."""

    store: Store
    name: str
    files: tuple[str, ...]
    hidden: tuple[str, ...] = ()  # those that begin with a dot, or are in such a folder

    def media(self) -> list[str]:
        """Return the names of the videos and images."""
        return [name for name in self.files if has_suffix(name)]

    def read(self, name: str) -> str:
        """Read a text file; raise ValueError if it is not UTF-8."""
        try:
            return read_text(self.store, name)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Expected text in UTF-8 in {self.store.location}/{name}; got {error}. Download it "
                "again."
            ) from error


def read_dataset_files(store: Store, files: Iterable[str] | None = None) -> DatasetFiles:
    """Read the file names of a dataset, unless they are given.

    Raises:
        OSError: If the folder does not exist.
        ValueError: If the name of a video or image is not UTF-8.

    Example:
        >>> read_dataset_files(LocalStore("videos")).media()[-2:]
        ['real/person06.mp4', 'real/person07.mp4']
    """
    path = store.location
    if isinstance(store, LocalStore):
        if not Path(path).is_dir():
            raise FileNotFoundError(
                f"Expected the folder of a dataset; got {path}, which is not a folder. Check the "
                "path."
            )
        path = str(Path(path).resolve())  # so that `.` has a name
    names = store.list() if files is None else files
    hidden = {name for name in names if re.search(r"(^|/)\.", name)}
    files = sorted(set(names) - hidden)
    for name in files:
        # Bytes of a name that are not UTF-8 become surrogates.
        if has_suffix(name) and re.search("[\ud800-\udfff]", name):
            raise ValueError(
                f"Expected file names in UTF-8 in {path}; got {name!r}. Rename that file."
            )
    name = path.rstrip("/").rsplit("/", 1)[-1]
    return DatasetFiles(store, name, tuple(files), tuple(sorted(hidden)))


def layout_error(root: DatasetFiles, layout: str, folders: Iterable[str]) -> ValueError:
    """Return the error for a folder without the expected folders of a dataset.

    Example:
        >>> raise layout_error(read_dataset_files(LocalStore("run")), "UADFV", ["real", "fake"])
        Traceback (most recent call last):
        ValueError: Expected UADFV in run, with videos in at least one of the folders real, fake...
    """
    entries = sorted({name.split("/")[0] + "/" * ("/" in name) for name in root.files})
    shown = ", ".join(entries[:6]) + (" ..." if len(entries) > 6 else "")
    return ValueError(
        f"Expected {layout} in {root.store.location}, with videos in at least one of the folders "
        f"{', '.join(folders)}; got {shown or 'an empty folder'}. Give the folder that contains "
        "these, or arrange your own videos in the layout `folder`."
    )


def sort_videos(videos: Iterable[Video]) -> list[Video]:
    """Sort videos by their ids; raise ValueError if two of them have the same id.

    Example:
        >>> videos = [Video(name, f"{name}.mp4", 0, "", "", (name,), "") for name in ("b", "a")]
        >>> [video.path for video in sort_videos(videos)]
        ['a.mp4', 'b.mp4']
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


def group_by_source(videos: Sequence[Video]) -> list[list[int]]:
    """Return the indices of videos that share sources, directly or through others.

    Example:
        >>> sources = (("a",), ("b",), ("a", "c"))
        >>> group_by_source([Video("mine/v", "v.mp4", 0, "", "", own, "") for own in sources])
        [[0, 2], [1]]
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: dict[str, int] = {}  # source to the first video that shows it
    edges = [
        (index, first.setdefault(source, index))
        for index, video in enumerate(videos)
        for source in qualified_sources(video)
    ]
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), (len(videos), len(videos)))
    _, labels = connected_components(graph, directed=False)
    groups = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        groups[label].append(index)
    return list(groups.values())
