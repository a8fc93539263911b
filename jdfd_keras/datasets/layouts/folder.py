"""Folders of real/ and fake/ videos and images: your own, and UADFV.

Your own, in any of these forms, in upper or lower case, also below other folders:
    real/anna.mp4        fake/anna_bob.mp4        unlabelled/...
    train/real/...       valid/fake/...           test/0_real/...       test/1_fake/...
    real/train/...       fake/validation/...

UADFV, as its archive unpacks; it has no published split:
    real/0000.mp4 ... real/0048.mp4
    fake/0000_fake.mp4 ... fake/0048_fake.mp4    the same footage with another face

Reference:
    Yang, Li, Lyu: "Exposing Deep Fakes Using Inconsistent Head Poses" (2019), UADFV.
"""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jdfd_keras.datasets.layouts.frame_sources import find_sources
from jdfd_keras.datasets.layouts.frames import (
    SINGLE,
    FrameGroup,
    MediaEntry,
    describe_groups,
    group_frames,
    is_generic,
)
from jdfd_keras.datasets.videos import (
    IMAGE_SUFFIXES,
    LABEL_NAMES,
    UNLABELLED,
    DatasetFiles,
    Listing,
    Video,
    has_suffix,
    layout_error,
)
from jdfd_keras.faces.decode import open_media
from jdfd_keras.faces.media import UnreadableFileError
from jdfd_keras.io.console import Progress
from jdfd_keras.io.storage import LocalStore, local_path
from jdfd_keras.io.workers import count_workers, run_all
from jdfd_keras.options import LimitOptions

UADFV_PAIRS = 49
CLASS_WORDS = {"real": 0, "0_real": 0, "fake": 1, "1_fake": 1, "unlabelled": UNLABELLED}
SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_WORDS |= dict.fromkeys(("val", "valid", "validation"), "val")


class _Location(NamedTuple):
    """What the folders of a file state."""

    split: str
    label: int
    folders: tuple[str, ...]  # below those of class and split


def list_folder(root: DatasetFiles, name: str = "") -> Listing:
    """List your own dataset: folders of classes, optionally within or above folders of splits.

    Images that are frames of one video are found by their names (`layouts.frames`). A folder in
    `fake/` names the manipulation, unless it is the video of its frames. The sources of a fake are
    the real videos with names that occur in its name: `fake/anna_bob.mp4` shows `real/anna.mp4` and
    `real/bob.mp4`, and `fake/0000_fake.mp4` shows `real/0000.mp4`; `id0_id16_0001` was made from
    `id0_0001`, as in Celeb-DF. A video that names none is its own source, so videos with the same
    name share their source. A single image has an unknown source unless its name connects it with
    a real video, or a real image whose name is not a number. GIF and APNG files are videos.
    Files with unknown suffixes are used if they can be decoded.

    Args:
        root: The folder.
        name: Name of the dataset, the first part of its video ids; the folder's name if not
            given. In datasets with the same name, equal source names mean the same footage.

    Returns:
        The videos; `unrecognized` are all other files.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> files = ("fake/anna_bob.mp4", "real/anna.mp4", "real/bob.mp4")
        >>> list_folder(DatasetFiles(LocalStore("."), "mine", files)).videos[0].source_ids
        ('anna', 'bob')
    """
    locations = _locate_all(root)
    kinds = {path: has_suffix(path, IMAGE_SUFFIXES) for path in locations if has_suffix(path)}
    kinds |= probe_files(root, [path for path in locations if path not in kinds])
    entries = [
        MediaEntry(path, where.label, where.split, where.folders, kinds[path])
        for path, where in locations.items()
        if path in kinds
    ]
    _check_entries(root, entries)
    listing = build_listing(entries, name or root.name)
    listing.unrecognized.extend(path for path in root.files if path not in kinds)
    return listing


def list_uadfv(root: DatasetFiles) -> Listing:
    """List UADFV, without splits.

    Args:
        root: The folder that contains real/ and fake/.

    Returns:
        The videos; `missing` are those of the 49 pairs that do not exist, `unrecognized` all other
        files.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> listing = list_uadfv(DatasetFiles(LocalStore("."), "UADFV", ("real/0000.mp4",)))
        >>> listing.videos[0].source_ids, len(listing.missing)
        (('0000',), 97)
    """
    numbers = [f"{number:04d}" for number in range(UADFV_PAIRS)]
    expected = {f"real/{number}.mp4": number for number in numbers}
    expected |= {f"fake/{number}_fake.mp4": number for number in numbers}
    videos = [
        Video(
            video_id=f"uadfv/{path.removesuffix('.mp4')}",
            path=path,
            label=int(path.startswith("fake/")),
            manipulation="FakeApp" if path.startswith("fake/") else "",
            compression="",
            source_ids=(expected[path],),
            split="",
        )
        for path in root.files
        if path in expected
    ]
    if not videos:
        raise layout_error(root, "UADFV", ["real/ (0000.mp4)", "fake/ (0000_fake.mp4)"])
    unrecognized = [path for path in root.files if path not in expected]
    return Listing(videos, sorted(expected.keys() - set(root.files)), unrecognized)


def build_listing(entries: Sequence[MediaEntry], dataset: str) -> Listing:
    """Group the images of a dataset into videos, and find the sources of all videos.

    Args:
        entries: Its files, each once.
        dataset: Its name, the first part of the video ids.

    Returns:
        The videos with their frames, and notes on how they were grouped.

    Raises:
        ValueError: If the frames of one video have several labels, manipulations or compressions.

    Example:
        >>> paths = ["real/a_frame_1.png", "real/a_frame_2.png"]
        >>> entries = [MediaEntry(path, 0, "", (), is_image=True) for path in paths]
        >>> video = build_listing(entries, "mine").videos[0]
        >>> video.video_id, video.source_ids
        ('mine/real/a', ('a',))
    """
    groups = group_frames(entries)
    _check_groups(groups)
    videos, frames = [], {}
    ids, sources = _name_videos(groups, dataset), find_sources(groups)
    for video_id, group, source_ids in zip(ids, groups, sources, strict=True):
        entry = group.entries[0]
        if group.frames:
            frames[video_id] = group.frames
        manipulation = entry.manipulation or _find_manipulation(group)
        videos.append(
            Video(
                video_id=video_id,
                path=group.path,
                label=entry.label,
                manipulation=manipulation if entry.label == 1 else "",
                compression=entry.compression,
                source_ids=source_ids,
                split=entry.split,
            )
        )
    return Listing(videos, frames=frames, notes=describe_groups(groups))


def probe_files(root: DatasetFiles, paths: Sequence[str]) -> dict[str, bool]:
    """Decode a frame of each file, in other processes, to see whether it is an image or a video.

    Returns:
        Path to whether it is an image and not a video, of the files that can be decoded.

    Example:
        >>> root = DatasetFiles(LocalStore("."), "mine", ("face.png", "videos/real/person00.mp4"))
        >>> probe_files(root, [*root.files, "none.txt"])
        {'face.png': True, 'videos/real/person00.mp4': False}
    """
    if not paths:
        return {}
    kinds = {}
    # Copies of files that are not on this machine are deleted when the next file is requested.
    num_workers = count_workers(0, len(paths)) if isinstance(root.store, LocalStore) else 1
    progress = Progress("probing files of unknown suffixes", len(paths), "files")
    try:
        for (name, _), kind in run_all(_probe, _copies(root, paths), num_workers, LimitOptions()):
            if isinstance(kind, bool):  # neither None nor a WorkerCrashed
                kinds[name] = kind
            progress.advance()
    finally:
        progress.close()
    return {path: kinds[path] for path in paths if path in kinds}


def _copies(root: DatasetFiles, paths: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for name in paths:
        with local_path(root.store, name) as path:
            yield name, path


def _probe(item: tuple[str, Path]) -> bool | None:
    """Return whether a file is an image; None if it cannot be decoded."""
    try:
        with open_media(item[1], LimitOptions()) as media:
            next(media.read(1))
            return not media.is_video
    except (UnreadableFileError, FileNotFoundError, StopIteration):
        return None


def _locate_all(root: DatasetFiles) -> dict[str, _Location]:
    """Return the split, the class and the further folders of all files that have a class."""
    heads = defaultdict(dict)  # folders above those of class and split to locations
    for path in root.files:
        folders = path.split("/")[:-1]
        for start in range(len(folders)):
            if location := _parse_folders(folders[start:]):
                heads["/".join(folders[:start])][path] = location
                break
    if len(heads) > 1 and "" not in heads:
        raise ValueError(
            f"Expected one folder of classes in {root.store.location}; got {len(heads)}: "
            f"{', '.join(sorted(heads)[:6])}. Give one of them, or list the files in a table for "
            "`prepare table`."
        )
    return heads[min(heads)] if heads else {}


def _parse_folders(folders: Sequence[str]) -> _Location | None:
    """Return what folders state, if they begin with a class, or a split and a class."""
    words = [folder.lower() for folder in folders[:2]]
    for class_index in range(len(words)):
        other = words[1 - class_index] if len(words) > 1 else ""
        if words[class_index] in CLASS_WORDS and (class_index == 0 or other in SPLIT_WORDS):
            split = SPLIT_WORDS.get(other, "")
            rest = tuple(folders[2 if split else 1 :])
            return _Location(split, CLASS_WORDS[words[class_index]], rest)
    return None


def _check_entries(root: DatasetFiles, entries: Sequence[MediaEntry]) -> None:
    """Check that there are videos or images, and that all or none have a split."""
    if not entries:
        folders = ["real/", "fake/", "train/real/", "train/fake/"]
        raise layout_error(root, "videos or images", folders)
    num_without = sum(not entry.split for entry in entries)
    if 0 < num_without < len(entries):
        raise ValueError(
            f"Expected all videos of {root.store.location} in train/, val/ and test/, or none; got "
            f"{len(entries) - num_without} in them and {num_without} in real/ and fake/ next to "
            "them. Move one of both groups to another folder."
        )


def _check_groups(groups: Sequence[FrameGroup]) -> None:
    mixed = []
    for group in groups:
        first = {}  # label, manipulation and compression to a file
        for entry in group.entries:
            facts = LABEL_NAMES[entry.label], entry.manipulation, entry.compression
            first.setdefault(facts, entry.origin or entry.path)
        if len(first) > 1:
            stated = (
                f"{', '.join(dict.fromkeys(filter(None, facts)))} in {at}"
                for facts, at in first.items()
            )
            mixed.append(f"{group.path} ({'; '.join(stated)})")
    if mixed:
        raise ValueError(
            "Expected one label, manipulation and compression for all frames of a video; got "
            f"{len(mixed)} with several, such as {'; '.join(mixed[:5])}. Correct them, or give "
            "each image a source_id of its own if they are not frames of one video."
        )


def _name_videos(groups: Sequence[FrameGroup], dataset: str) -> list[str]:
    """Return ids: path without suffix, with what distinguishes videos for which that is equal."""
    names = [
        posixpath.splitext(group.path)[0]
        if group.rule == SINGLE and not group.frames
        else group.path
        for group in groups
    ]
    counts = Counter(names)
    of_groups = Counter(group.path for group in groups if group.rule != SINGLE)
    for index, group in enumerate(groups):
        if counts[names[index]] > 1 and group.rule == SINGLE:
            names[index] = group.path
        elif of_groups[group.path] > 1:
            entry = group.entries[0]
            parts = [group.path, group.rule, entry.split, "+".join(entry.sources)]
            names[index] = "/".join(filter(None, parts))
    return [f"{dataset}/{name}" for name in names]


def _find_manipulation(group: FrameGroup) -> str:
    folders = [folder for folder in group.entries[0].folders if not is_generic(folder)]
    if folders and group.name == folders[-1] and group.rule != SINGLE:
        folders.pop()  # the folder is the video
    return folders[0] if folders else "fake"
