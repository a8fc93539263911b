"""The frames of DeepfakeBench: aligned faces of videos, as its preprocessing stores them.

    FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/000_003/000.png
    FaceForensics++/manipulated_sequences/Deepfakes/c23/landmarks/000_003/000.npy    81 points
    Celeb-DF-v2/Celeb-real/frames/id0_0000/000.png
    dataset_json/FaceForensics++.json    {dataset: {label: {split: {video: {label, frames}}}}}

Every folder `frames/<video>/` is one video. What its path does not tell is read from the lists of
the dataset and from DeepfakeBench's JSON files, where they are in the tree.

Reference:
    Yan et al.: "DeepfakeBench: A Comprehensive Benchmark of Deepfake Detection" (2023),
    https://github.com/SCLBD/DeepfakeBench
"""

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from jdfd_keras.datasets.layouts.faceforensics import (
    ACTOR_SWAPS,
    ACTORS,
    NO_PUBLISHED_SPLIT,
    NOT_REQUESTED,
)
from jdfd_keras.datasets.layouts.frame_tree import LISTS, FrameTree
from jdfd_keras.datasets.videos import (
    LABEL_NAMES,
    SPLITS,
    DatasetFiles,
    Listing,
    Video,
    dataset_namespace,
    layout_error,
)
from jdfd_keras.io.console import plural

# Names of classes in the JSON files: FF-DF, FF-real, CelebDFv2_real, DFDCP_FakeA and so on.
FAKE_CLASS = re.compile(r"FF-(DF|F2F|FS|NT|FH|SH)|(.*[_-])?fake[A-Z]?", re.IGNORECASE)
REAL_CLASS = re.compile(r"(.*[_-])?real", re.IGNORECASE)


class JsonEntry(NamedTuple):
    """What a JSON file tells of a video of frames."""

    file: str
    dataset: str
    class_name: str
    label: int
    split: str


def list_deepfakebench(
    root: DatasetFiles, name: str = "", manipulations: Collection[str] = ()
) -> Listing:
    """List the videos of frames that DeepfakeBench prepared.

    Ids and sources are those of the layouts of the original videos; a video that only a JSON file
    describes has no known source. A video that a JSON file has in several splits is for testing if
    it is there for testing; a dataset with all videos in all splits has no published split. In a
    tree with published splits, the videos without one are for testing. DeepFakeDetection would
    change the test split of FaceForensics++, so beside it it is listed only on request.

    Args:
        root: The folder `rgb`, a dataset in it, or a folder in that.
        name: Start of the ids of videos that only a JSON file describes; its dataset if empty.
        manipulations: Requested manipulations.

    Returns:
        The videos; `missing` are frames that a JSON file lists, and listed test videos.

    Raises:
        ValueError: If neither its path nor a JSON file tells the label of a video, a JSON file
            contradicts a path or another one, or lists videos that a folder of the tree lacks.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> frames = "FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/000_003"
        >>> files = (f"{frames}/100.png", f"{frames}/99.png")
        >>> listing = list_deepfakebench(DatasetFiles(LocalStore("."), "rgb", files))
        >>> [path[-7:] for path in listing.frames["ffpp/Deepfakes/c23/000_003"]]
        ['/99.png', '100.png']
    """
    tree = FrameTree(root)
    if not tree.folders:
        raise layout_error(root, "frames of DeepfakeBench", ["<dataset>/.../frames/<video>/"])
    entries, missing, notes, files = _read_entries(tree)
    videos, subjects, unlabelled = {}, {}, []
    for folder in tree.folders:
        video, of_video = tree.describe(folder)
        if folder in entries:
            video = _combine(video, entries[folder], folder, name)
        if video is None:
            unlabelled.append(folder)
            continue
        videos[folder] = dataclasses.replace(video, path=folder)
        if of_video:
            subjects[video.video_id] = of_video
    if unlabelled:
        units = sorted({folder.rpartition("/")[0] or folder for folder in unlabelled})
        raise ValueError(
            f"Expected frames of a known dataset, or DeepfakeBench's JSON file of it, in "
            f"{root.store.location}; got {plural(len(unlabelled), 'video')} without a label in "
            f"{', '.join(units[:5])}. Copy the JSON file there, or name the folders as published, "
            "such as FaceForensics++/original_sequences/youtube/c23/frames/000."
        )
    excluded = _exclude_actors(videos.values(), manipulations)
    kept = {path: video for path, video in videos.items() if video.video_id not in excluded}
    if any(video.manipulation == ACTOR_SWAPS for video in kept.values()):
        notes.append(NO_PUBLISHED_SPLIT)
    listed, split_notes = complete_splits(list(kept.values()))
    return Listing(
        listed,
        missing=sorted([*missing, *tree.missing_tests()]),
        unrecognized=[path for path in root.files if path not in files and tree.is_unknown(path)],
        subjects=subjects,
        excluded=excluded,
        frames={video.video_id: tuple(tree.folders[path]) for path, video in kept.items()},
        landmarks={
            video.video_id: points
            for path, video in kept.items()
            if any(points := tree.landmarks(path))
        },
        notes=notes + split_notes + tree.notes(),
    )


def _read_entries(tree: FrameTree) -> tuple[dict[str, JsonEntry], list[str], list[str], set[str]]:
    """Read the JSON files of DeepfakeBench in a tree.

    Returns:
        Folder of frames to what they tell of it, the frames that they list and the tree lacks,
        notes, and the names of the files.
    """
    entries, missing, notes, files = {}, set(), [], set()
    for file in tree.root.files:
        if not file.endswith(".json") or LISTS.fullmatch(file):
            continue
        listed = list(_walk(_parse_json(tree.root, file), ()))
        if not listed:
            continue  # another kind of JSON
        files.add(file)
        found, lacking = defaultdict(list), defaultdict(list)  # folder to its entries
        for keys, values in listed:
            word = str(values.get("label", keys[-1]))
            split = next((key for key in keys if key in SPLITS), "")
            entry = JsonEntry(file, keys[0], word, _read_label(tree.root, file, word), split)
            by_folder = defaultdict(set)
            for path in values["frames"]:
                above, _, name = str(path).replace("\\", "/").rpartition("/")
                by_folder[above].add(name)
            for path, names in by_folder.items():
                if folder := tree.find_folder(path):
                    found[folder].append(entry)
                    present = {frame.rpartition("/")[2] for frame in tree.folders[folder]}
                    missing |= {f"{folder}/{name}" for name in names - present}
                else:
                    lacking[path].append(entry)
        notes += _check_lacking(tree, file, lacking)
        resolved, split_notes = _resolve_splits(tree.root, file, found)
        notes += split_notes
        for folder, entry in resolved.items():
            _check_agreement(tree.root, folder, entries.setdefault(folder, entry), entry)
    return entries, sorted(missing), notes, files


def _parse_json(root: DatasetFiles, file: str) -> Any:
    try:
        return json.loads(root.read(file))
    except ValueError as error:
        raise ValueError(
            f"Expected JSON in {root.store.location}/{file}; got '{error}'. Download it again, or "
            "remove it."
        ) from error


def _walk(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the entries with frames, at any depth, with the keys that lead to them."""
    if isinstance(node, dict):
        if keys and isinstance(node.get("frames"), list):
            yield keys, node
        else:
            for key, value in node.items():
                yield from _walk(value, (*keys, key))


def _read_label(root: DatasetFiles, file: str, word: str) -> int:
    is_fake, is_real = FAKE_CLASS.fullmatch(word), REAL_CLASS.fullmatch(word)
    if not (is_fake or is_real):
        raise ValueError(
            f"Expected labels such as FF-DF, CelebDFv2_real, UADFV_Fake, real or fake in "
            f"{root.store.location}/{file}; got {word!r}. Correct it."
        )
    return int(is_fake is not None)


def _check_lacking(tree: FrameTree, file: str, lacking: dict[str, list[JsonEntry]]) -> list[str]:
    """Return a note on folders that the whole tree lacks; raise if some of a folder's videos do."""
    gone = sorted(path for path in lacking if tree.has_unit(path))
    if gone:
        raise ValueError(
            f"Expected the frames of all videos of {tree.root.store.location}/{file}; got none of "
            f"{plural(len(gone), 'video')}: {', '.join(gone[:3])}. Download them again, or remove "
            "them from that file."
        )
    units = sorted({path.rpartition("/")[0] for path in lacking})
    if not units:
        return []
    return [
        f"{file} lists {plural(len(lacking), 'video')} in {plural(len(units), 'folder')} that "
        f"{tree.root.store.location} lacks, such as {units[0]}."
    ]


def _resolve_splits(
    root: DatasetFiles, file: str, found: dict[str, list[JsonEntry]]
) -> tuple[dict[str, JsonEntry], list[str]]:
    """Return one entry for each folder, with one split, and notes on videos in several."""
    splits, resolved, notes = {}, {}, []
    for folder, entries in found.items():
        for entry in entries:
            _check_agreement(root, folder, entries[0], entry, splits=False)
        splits[folder] = {entry.split for entry in entries} - {""}
    for dataset in sorted({entries[0].dataset for entries in found.values()}):
        folders = [folder for folder, entries in found.items() if entries[0].dataset == dataset]
        several = [folder for folder in folders if len(splits[folder]) > 1]
        has_none = all(splits[folder] == set(SPLITS) for folder in folders)
        for folder in folders:
            # DeepfakeBench validates on the test videos, and tests on some training videos.
            chosen = [split for split in ("test", "train", "val") if split in splits[folder]]
            split = "" if has_none or not chosen else chosen[0]
            resolved[folder] = found[folder][0]._replace(split=split)
        if has_none:
            notes.append(f"{file} has every video of {dataset} in every split: it publishes none.")
        elif several:
            notes.append(
                f"{file} has {plural(len(several), 'video')} of {dataset} in several splits, such "
                f"as {several[0]}: those that are there for testing are for testing only, the "
                "others for training only."
            )
    return resolved, notes


def _check_agreement(
    root: DatasetFiles, folder: str, one: JsonEntry, other: JsonEntry, *, splits: bool = True
) -> None:
    """Check that two entries on a folder agree."""
    labels = [LABEL_NAMES[entry.label] for entry in (one, other)]
    for values in (labels, [one.split, other.split] if splits else []):
        if len(set(filter(None, values))) > 1:
            raise ValueError(
                f"Expected one label and one split for the frames in {root.store.location}/"
                f"{folder}; got {values[0]} from {one.file} and {values[1]} from {other.file}. "
                "Remove one of both from these files."
            )


def _combine(video: Video | None, entry: JsonEntry, folder: str, name: str) -> Video:
    """Complete what a path tells by a JSON file; raise ValueError if they contradict."""
    if video is None:
        return Video(
            video_id=f"{name or entry.dataset}/{folder}",
            path=folder,
            label=entry.label,
            manipulation=entry.class_name if entry.label else "",
            compression="",
            source_ids=(),
            split=entry.split,
        )
    for own, stated in (
        (LABEL_NAMES[video.label] if video.label in (0, 1) else "", LABEL_NAMES[entry.label]),
        (video.split, entry.split),
    ):
        if own and stated and own != stated:
            raise ValueError(
                f"Expected {entry.file} to agree with the published dataset on {folder}, which is "
                f"{own}; got {stated}. Correct or remove that file."
            )
    return dataclasses.replace(video, label=entry.label, split=video.split or entry.split)


def _exclude_actors(videos: Iterable[Video], manipulations: Collection[str]) -> dict[str, str]:
    """Exclude the kinds of FaceForensics++ that its layout does not list, either."""
    kinds = {
        video.video_id: video.video_id.split("/")[1] in (ACTORS, ACTOR_SWAPS)
        for video in videos
        if dataset_namespace(video.video_id) == "ffpp"
    }
    if len(set(kinds.values())) < 2:
        return {}
    wanted = {True} if ACTOR_SWAPS in manipulations else set()
    if not manipulations or set(manipulations) - {ACTOR_SWAPS}:
        wanted.add(False)
    return {video_id: NOT_REQUESTED for video_id, kind in kinds.items() if kind not in wanted}


def complete_splits(videos: list[Video]) -> tuple[list[Video], list[str]]:
    """Give all videos a split or none, with notes: those without one are for testing.

    Example:
        >>> one, other = (Video(f"{name}/a", "a", 0, "", "", (), "") for name in ("ffpp", "uadfv"))
        >>> videos, notes = complete_splits([dataclasses.replace(one, split="train"), other])
        >>> [video.split for video in videos], notes
        (['train', 'test'], ['Videos without a published split are for testing: 1 of uadfv.'])
    """
    with_split = {(dataset_namespace(video.video_id), video.split) for video in videos}
    with_split = {(dataset, split) for dataset, split in with_split if split}
    if with_split <= {("dfdc", "train")}:  # as of DFDC by itself
        videos = [dataclasses.replace(video, split="") for video in videos]
        return videos, ["No published split is known."]
    without = Counter(dataset_namespace(video.video_id) for video in videos if not video.split)
    if not without:
        return videos, []
    videos = [dataclasses.replace(video, split=video.split or "test") for video in videos]
    counts = ", ".join(f"{count} of {dataset}" for dataset, count in sorted(without.items()))
    return videos, [f"Videos without a published split are for testing: {counts}."]
