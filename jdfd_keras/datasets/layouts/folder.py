"""Folders of real/ and fake/ videos: your own, and UADFV.

Your own:
    real/anna.mp4    fake/anna_bob.mp4    unlabelled/...
or  train/real/anna.mp4    train/fake/...    val/real/...    test/real/...

UADFV, as its archive unpacks; it has no published split:
    real/0000.mp4 ... real/0048.mp4
    fake/0000_fake.mp4 ... fake/0048_fake.mp4    the same footage with another face

Reference:
    Yang, Li, Lyu: "Exposing Deep Fakes Using Inconsistent Head Poses" (2019), UADFV.
"""

import re

from jdfd_keras.datasets.videos import (
    CLASSES,
    IMAGE_SUFFIXES,
    LABEL_NAMES,
    SPLITS,
    DatasetFiles,
    Listing,
    Video,
    has_suffix,
    layout_error,
)
from jdfd_keras.io.console import plural

UADFV_PAIRS = 49
LABELS = {name: label for label, name in LABEL_NAMES.items()}


def list_folder(root: DatasetFiles, name: str = "") -> Listing:
    """List your own dataset: `real/` and `fake/`, optionally in `train/`, `val/` and `test/`.

    A folder in `fake/` names the manipulation. The sources of a fake are the real videos with
    names that occur in its name: `fake/anna_bob.mp4` shows `real/anna.mp4` and `real/bob.mp4`, and
    `fake/0000_fake.mp4` shows `real/0000.mp4`. Files with the same name, without the suffix,
    share their source. Images in a subfolder, such as the frames of one video, take its name:
    `real/anna/0001.png` shows `anna`. GIF and APNG files are videos. Hidden files and folders are
    ignored. Videos in `unlabelled/` have no class.

    Args:
        root: The folder.
        name: Name of the dataset, the first part of its video ids; the folder's name if not
            given. In datasets with the same name, equal source names mean the same footage.

    Returns:
        The videos; `unrecognized` are those outside these folders.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> files = ("fake/anna_bob.mp4", "real/anna.mp4", "real/bob.mp4")
        >>> list_folder(DatasetFiles(LocalStore("."), "mine", files)).videos[0].source_ids
        ('anna', 'bob')
    """
    entries, unrecognized = [], []
    for path in root.media():
        segments = path.split("/")
        split = segments.pop(0) if segments[0] in SPLITS else ""
        if len(segments) > 1 and segments[0] in LABELS:
            entries.append((path, segments[1:], split, LABELS[segments[0]]))
        else:
            unrecognized.append(path)
    _check_entries(root, entries)
    real_names = {_source_name(segments) for _, segments, _, label in entries if label == 0}
    videos = [
        Video(
            video_id=f"{name or root.name}/{path.rsplit('.', 1)[0]}",
            path=path,
            label=label,
            manipulation=(segments[0] if len(segments) > 1 else "fake") if label == 1 else "",
            compression="",
            source_ids=_find_sources(segments, real_names),
            split=split,
        )
        for path, segments, split, label in entries
    ]
    return Listing(videos, [], unrecognized)


def list_uadfv(root: DatasetFiles) -> Listing:
    """List UADFV, without splits.

    Args:
        root: The folder that contains real/ and fake/.

    Returns:
        The videos; `missing` are those of the 49 pairs that do not exist.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> listing = list_uadfv(DatasetFiles(LocalStore("."), "UADFV", ("real/0000.mp4",)))
        >>> listing.videos[0].source_ids, len(listing.missing)
        (('0000',), 97)
    """
    numbers = [f"{number:04d}" for number in range(UADFV_PAIRS)]
    expected = {f"real/{number}.mp4": number for number in numbers}
    expected |= {f"fake/{number}_fake.mp4": number for number in numbers}
    media = root.media()
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
        for path in media
        if path in expected
    ]
    if not videos:
        raise layout_error(root, "UADFV", ["real/ (0000.mp4)", "fake/ (0000_fake.mp4)"])
    unrecognized = [path for path in media if path not in expected]
    return Listing(videos, sorted(expected.keys() - set(media)), unrecognized)


def _check_entries(root: DatasetFiles, entries: list[tuple[str, list[str], str, int]]) -> None:
    """Check that there are videos of both classes, and that all or none have a split."""
    labels = [label for *_, label in entries]
    if not labels:
        folders = [f"{name}/" for name in CLASSES]
        raise layout_error(
            root, "videos of both classes", [*folders, *(f"train/{folder}" for folder in folders)]
        )
    for name, label in CLASSES.items():
        if label not in labels:
            raise ValueError(
                f"Expected videos of both classes in {root.store.location}, in real/ and fake/ or "
                f"in train/real/, train/fake/ and so on; got {plural(len(labels), 'file')} and no "
                f"{name} one. Add {name} videos or images to {name}/."
            )
    num_without = [split for _, _, split, _ in entries].count("")
    if 0 < num_without < len(entries):
        raise ValueError(
            f"Expected all videos of {root.store.location} in train/, val/ and test/, or none; got "
            f"{len(entries) - num_without} in them and {num_without} in real/ and fake/ next to "
            "them. Move one of both groups to another folder."
        )


def _source_name(segments: list[str]) -> str:
    """Return the name of the footage: the file's, or the folder's if the file is one frame."""
    is_frame = len(segments) > 1 and has_suffix(segments[-1], IMAGE_SUFFIXES)
    return segments[-2] if is_frame else segments[-1].rsplit(".", 1)[0]


def _find_sources(segments: list[str], real_names: set[str]) -> tuple[str, ...]:
    """Return the real videos that a file, or else its folder of frames, names; itself if none."""
    name = _source_name(segments)
    for text in (segments[-1].rsplit(".", 1)[0], name):
        words = re.split(r"([_\-. ])", text)
        whole_words = {
            "".join(words[start:stop])
            for start in range(0, len(words), 2)
            for stop in range(start + 1, len(words) + 1, 2)
        }
        if found := whole_words & real_names:
            return tuple(sorted(found))
    return (name,)
