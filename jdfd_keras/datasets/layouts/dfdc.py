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

from jdfd_keras.datasets.videos import (
    UNLABELLED,
    DatasetFiles,
    Listing,
    Video,
    layout_error,
    sort_videos,
)
from jdfd_keras.io.console import plural

METADATA = "metadata.json"
LABELS = {"REAL": 0, "FAKE": 1}
IS_FAKE = {"0": 0, "1": 1}  # of the test videos, which have no `label`
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def list_dfdc(root: DatasetFiles) -> Listing:
    """List DFDC from the metadata.json of each of its folders.

    The published folders are all for training. If no video has another split, splits are not
    assigned. The source of a fake is its original. A video without a label in the metadata is
    unlabelled.

    Args:
        root: The folder that contains the published folders, or one of these.

    Returns:
        The videos; `missing` are those in the metadata that do not exist, `unrecognized` those
        that no metadata has.

    Raises:
        ValueError: If no folder has a metadata.json, or one of them is invalid.

    Example:
        >>> list_dfdc(read_dataset_files(LocalStore("dfdc")))  # doctest: +SKIP
    """
    folders = [
        name.removesuffix(METADATA) for name in root.files if f"/{name}".endswith(f"/{METADATA}")
    ]
    if not folders:
        raise layout_error(
            root, f"DFDC (a {METADATA} next to the videos)", ["dfdc_train_part_0/ ..."]
        )
    media = set(root.media())
    videos, missing, listed = [], [], set()
    for folder in folders:
        for name, entry in _read_metadata(root, f"{folder}{METADATA}").items():
            path = f"{folder}{name}"
            listed.add(path)
            if path not in media:
                missing.append(path)
                continue
            label = _parse_label(root, path, entry)
            source = str(entry.get("original") or name)
            videos.append(
                Video(
                    video_id=f"dfdc/{folder or root.name + '/'}{name.rsplit('.', 1)[0]}",
                    path=path,
                    label=label,
                    manipulation="DFDC" if label == 1 else "",
                    compression="",
                    source_ids=(source.rsplit(".", 1)[0],),
                    split=_parse_split(root, path, entry),
                )
            )
    if not videos:
        raise ValueError(
            "Expected the videos of DFDC next to "
            f"{', '.join(f'{folder}{METADATA}' for folder in folders[:3])} in "
            f"{root.store.location}; got none of the {plural(len(missing), 'video')} in the "
            "metadata. Extract the archives there."
        )
    if {video.split for video in videos} == {"train"}:
        videos = [dataclasses.replace(video, split="") for video in videos]
    return Listing(sort_videos(videos), sorted(missing), sorted(media - listed))


def _read_metadata(root: DatasetFiles, name: str) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(root.read(name))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Expected JSON in {root.store.location}/{name}; got '{error}'. Download it again."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ValueError(
            f"Expected an object for each video in {root.store.location}/{name}; got "
            f"{type(content).__name__} with other values. Download it again."
        )
    return content


def _parse_label(root: DatasetFiles, path: str, entry: dict[str, Any]) -> int:
    key, labels = ("is_fake", IS_FAKE) if "is_fake" in entry else ("label", LABELS)
    label = entry.get(key)
    if label is None:
        return UNLABELLED
    if str(label) not in labels:
        raise ValueError(
            f"Expected {key} to be {' or '.join(labels)} for {path} in its {METADATA} in "
            f"{root.store.location}; got {label!r}. Download it again."
        )
    return labels[str(label)]


def _parse_split(root: DatasetFiles, path: str, entry: dict[str, Any]) -> str:
    split = str(entry.get("split", "train")).lower()
    if split not in SPLITS:
        raise ValueError(
            f"Expected a split of {', '.join(SPLITS)} for {path} in its {METADATA} in "
            f"{root.store.location}; got {entry['split']!r}. Download it again."
        )
    return SPLITS[split]
