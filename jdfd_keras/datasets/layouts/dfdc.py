"""The DeepFake Detection Challenge dataset: folders of videos, each with a metadata.json.

    dfdc_train_part_0/metadata.json    {"a.mp4": {"label": "FAKE", "split": "train",
    dfdc_train_part_0/a.mp4                       "original": "b.mp4"}, ...}

Reference:
    Dolhansky et al.: "The DeepFake Detection Challenge (DFDC) Dataset" (2020),
    https://arxiv.org/abs/2006.07397
"""

import dataclasses
import json
from typing import Any

from jdfd_keras.datasets.videos import UNLABELLED, DatasetFiles, Listing, Video, layout_error
from jdfd_keras.io.console import plural

METADATA = "metadata.json"
LABELS = {"label": {"REAL": 0, "FAKE": 1}, "is_fake": {"0": 0, "1": 1}}  # test videos: the latter
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def list_dfdc(root: DatasetFiles) -> Listing:
    """List DFDC from the metadata.json of each of its folders.

    The published folders are all for training. If no video has another split, splits are not
    assigned. The source of a fake is its original. A video without a label in the metadata is
    unlabelled.

    Args:
        root: The folder that contains the published folders, or one of these.

    Returns:
        The videos; `missing` are those in the metadata that do not exist, `unrecognized` the
        files that no metadata has.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> with open("metadata.json", "w") as file:
        ...     _ = file.write('{"a.mp4": {"label": "FAKE", "original": "b.mp4"}}')
        >>> root = DatasetFiles(LocalStore("."), "dfdc_train_part_0", ("a.mp4", "metadata.json"))
        >>> [(video.video_id, video.label, video.source_ids) for video in list_dfdc(root).videos]
        [('dfdc/dfdc_train_part_0/a', 1, ('b',))]
    """
    folders = [
        name.removesuffix(METADATA) for name in root.files if f"/{name}".endswith(f"/{METADATA}")
    ]
    if not folders:
        raise layout_error(
            root, f"DFDC (a {METADATA} next to the videos)", ["dfdc_train_part_0/ ..."]
        )
    entries = {
        (folder, name): entry
        for folder in folders
        for name, entry in read_metadata(root, f"{folder}{METADATA}").items()
    }
    files = set(root.files) - {f"{folder}{METADATA}" for folder in folders}
    listed = {f"{folder}{name}" for folder, name in entries}
    videos = [
        describe_entry(root, f"{folder}{name}", entry)
        for (folder, name), entry in entries.items()
        if f"{folder}{name}" in files
    ]
    if not videos:
        raise ValueError(
            "Expected the videos of DFDC next to "
            f"{', '.join(f'{folder}{METADATA}' for folder in folders[:3])} in "
            f"{root.store.location}; got none of the {plural(len(listed), 'video')} in the "
            "metadata. Extract the archives there."
        )
    if {video.split for video in videos} == {"train"}:
        videos = [dataclasses.replace(video, split="") for video in videos]
    return Listing(videos, sorted(listed - files), sorted(files - listed))


def read_metadata(root: DatasetFiles, name: str) -> dict[str, dict[str, Any]]:
    """Read the metadata of a folder, by file name; raise ValueError if it is invalid.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> with open("metadata.json", "w") as file:
        ...     _ = file.write('{"a.mp4": {"label": "REAL"}}')
        >>> read_metadata(DatasetFiles(LocalStore("."), "part", ()), "metadata.json")
        {'a.mp4': {'label': 'REAL'}}
    """
    text = root.read(name)
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
            raise ValueError(f"{type(content).__name__} with other values")
    except ValueError as error:
        raise ValueError(
            f"Expected a JSON object for each video in {root.store.location}/{name}; got "
            f"'{error}'. Download it again."
        ) from error
    return content


def describe_entry(root: DatasetFiles, path: str, entry: dict[str, Any]) -> Video:
    """Describe a video from its metadata; raise ValueError if a value is unknown.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> root = DatasetFiles(LocalStore("."), "part", ())
        >>> describe_entry(root, "a.mp4", {"label": "FAKE", "original": "b.mp4"}).source_ids
        ('b',)
    """
    folder, _, name = path.rpartition("/")

    def look_up(key: str, value: Any, meanings: dict[str, Any]) -> Any:
        if str(value) not in meanings:
            raise ValueError(
                f"Expected {key} to be {' or '.join(meanings)} for {path} in its {METADATA} in "
                f"{root.store.location}; got {value!r}. Download it again."
            )
        return meanings[str(value)]

    key = "is_fake" if "is_fake" in entry else "label"
    value = entry.get(key)
    label = UNLABELLED if value is None else look_up(key, value, LABELS[key])
    source = str(entry.get("original") or name)
    return Video(
        video_id=f"dfdc/{folder or root.name}/{name.rsplit('.', 1)[0]}",
        path=path,
        label=label,
        manipulation="DFDC" if label == 1 else "",
        compression="",
        source_ids=(source.rsplit(".", 1)[0],),
        split=look_up("split", str(entry.get("split", "train")).lower(), SPLITS),
    )
