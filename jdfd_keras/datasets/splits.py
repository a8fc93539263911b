"""Training, validation and test splits.

Assigns a split to every video of a listing. Except with the paper's rule, which exists for
comparison, splits share no sources where possible; `datasets.leakage` finds the exceptions.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES, SPLITS, UNLABELLED, Listing, Video
from jdfd_keras.io.console import plural
from jdfd_keras.options import SplitOptions

MAX_DRAWS = 20  # of one number of validation subjects, until both splits have both classes
BOTH_SPLITS = "shows people from both training and validation"


def assign_splits(listing: Listing, options: SplitOptions) -> tuple[list[Video], dict[str, str]]:
    """Assign a split to every video.

    A published split is the official one; if it has no validation, validation is split off from
    training by subject. Without a published split, sources are split at random.

    Args:
        listing: The videos of a dataset.
        options: The rule, its shares and seed.

    Returns:
        The videos that are used, in the same order; with `paper` they have no split, since
        `split_faces` splits their faces. And the ids of the excluded videos, with the reason.

    Raises:
        ValueError: If an option is out of range, or a split would lack a class.

    Example:
        >>> videos, excluded = assign_splits(listing, SplitOptions(seed=1))  # doctest: +SKIP
        >>> {video.split for video in videos} == {"train", "val", "test"}  # doctest: +SKIP
        True
    """
    check_split_options(options)
    videos, excluded = listing.videos, {}
    if options.split == "paper":
        return [dataclasses.replace(video, split="") for video in videos], {}
    if options.split == "kfold":
        return split_by_fold(videos, options.folds, options.fold, options.seed), {}
    published = {video.split for video in videos}
    if "" in published:
        videos = split_by_source(
            videos,
            val_share=options.val_share,
            test_share=options.test_share,
            seed=options.seed,
        )
    elif "train" in published and "val" not in published:
        subjects = {video.video_id: video.source_ids for video in videos} | listing.subjects
        videos, excluded = split_validation(videos, subjects, options.val_share, options.seed)
    if options.split == "strict":
        before = {(video.split, video.label) for video in videos}
        videos, overlapping = remove_overlap(videos)
        excluded |= overlapping
        for split, label in sorted(before - {(video.split, video.label) for video in videos}):
            raise ValueError(
                f"Expected {LABEL_NAMES[label]} videos in {split} that share no source with a "
                "later split; got none: all do. Add more of the dataset, or use --split "
                "official and check `jdfd-keras audit`."
            )
    return videos, excluded


def reason_kind(reason: str) -> str:
    """Return the reason for excluding a video without its details, to count such videos.

    Example:
        >>> reason_kind("shares footage with test: source 003")
        'shares footage with test'
    """
    return reason.partition(":")[0]


def check_split_options(options: SplitOptions) -> None:
    """Check that split options are in range.

    Raises:
        ValueError: If one is not.

    Example:
        >>> check_split_options(SplitOptions(split="kfold", folds=5, fold=4))
    """
    if options.split not in ("official", "strict", "kfold", "paper"):
        raise ValueError(
            f"Expected a split of official, strict, kfold or paper; got {options.split!r}. Try "
            "the default, official."
        )
    val_share, test_share = options.val_share, options.test_share
    if not (0 < val_share < 1 and 0 < test_share < 1 and val_share + test_share < 1):
        raise ValueError(
            "Expected val_share and test_share above 0 with a sum below 1; got "
            f"val_share={val_share}, test_share={test_share}. Try the default, 0.15 each."
        )
    if not (options.folds >= 3 and 0 <= options.fold < options.folds):
        raise ValueError(
            f"Expected folds >= 3 and fold from 0 to folds - 1; got folds={options.folds}, "
            f"fold={options.fold}. Try 5 folds: one is for testing, one for validation."
        )


def remove_overlap(videos: list[Video]) -> tuple[list[Video], dict[str, str]]:
    """Exclude videos that share a source with a later split.

    These are training videos that share one with validation or testing, and validation videos
    that share one with testing.

    Returns:
        The videos kept, in the same order, and the ids of the excluded ones with the reason.

    Example:
        >>> def make(name, split):
        ...     return Video(name, f"{name}.mp4", 0, "", "", ("anna",), split)
        >>> remove_overlap([make("a", "train"), make("b", "test")])[1]
        {'a': 'shares footage with test: source anna'}
    """
    kept, excluded = set(), {}
    split_of: dict[str, str] = {}  # source to the latest split that has it
    for split in reversed(SPLITS):
        members = [video for video in videos if video.split == split]
        for video in members:
            shared = [source for source in video.source_ids if source in split_of]
            if shared:
                excluded[video.video_id] = (
                    f"shares footage with {split_of[shared[0]]}: source {shared[0]}"
                )
            else:
                kept.add(video.video_id)
        # Excluded ones too: training must not overlap with any published validation video.
        split_of = {source: split for v in members for source in v.source_ids} | split_of
    return [video for video in videos if video.video_id in kept], excluded


def split_validation(
    videos: list[Video], subjects: Mapping[str, tuple[str, ...]], val_share: float, seed: int
) -> tuple[list[Video], dict[str, str]]:
    """Split validation off from training by subject, so that no subject is in both.

    A video with subjects of both splits, such as a face swap between them, is excluded. If there
    are few subjects and the share does not yield both classes, more of them are used.

    Args:
        videos: All videos, for training or testing.
        subjects: Video id to the subjects in it.
        val_share: Share of the training subjects for validation, in (0, 1).
        seed: Seed of the draw.

    Returns:
        The videos used, in the same order, and the ids of the excluded ones with the reason.

    Raises:
        ValueError: If no draw yields both classes in training and in validation.

    Example:
        >>> videos, excluded = split_validation(
        ...     listing.videos, listing.subjects, 0.15, seed=0
        ... )  # doctest: +SKIP
    """
    training = [video for video in videos if video.split == "train"]
    all_subjects = sorted({subject for video in training for subject in subjects[video.video_id]})
    rng = np.random.default_rng(seed)
    fewest = max(1, round(val_share * len(all_subjects)))
    most = max(fewest, len(all_subjects) // 2)
    for count in (count for count in range(fewest, most + 1) for _ in range(MAX_DRAWS)):
        chosen = {all_subjects[index] for index in rng.permutation(len(all_subjects))[:count]}
        splits = {
            video.video_id: _split_of_subjects(subjects[video.video_id], chosen)
            for video in training
        }
        labels = {
            split: {video.label for video in training if splits[video.video_id] == split}
            for split in ("train", "val")
        }
        if all(set(CLASSES.values()) <= present for present in labels.values()):
            break
    else:
        raise ValueError(
            "Expected enough subjects for a validation split with real and fake videos that "
            f"shares none with training; got {plural(len(training), 'training video')} of "
            f"{plural(len(all_subjects), 'subject')}, and no draw of {fewest} to {most} of them "
            "yields one. Add videos of more subjects."
        )
    used = [
        dataclasses.replace(video, split=splits.get(video.video_id, video.split))
        for video in videos
        if splits.get(video.video_id) != ""
    ]
    return used, {video_id: BOTH_SPLITS for video_id, split in splits.items() if split == ""}


def _split_of_subjects(subjects: tuple[str, ...], validation: set[str]) -> str:
    """Return `train` or `val`; "" if the subjects of a video are of both."""
    if validation.isdisjoint(subjects):
        return "train"
    return "val" if validation.issuperset(subjects) else ""


def split_by_fold(videos: list[Video], folds: int, fold: int, seed: int) -> list[Video]:
    """Test on one fold, validate on the next one and train on the others.

    Folds are drawn from groups of videos that share sources. Published splits are ignored.

    Args:
        videos: The videos.
        folds: Number of folds, at least 3.
        fold: The fold to test on, from 0.
        seed: Seed of the draw, which does not depend on `fold`.

    Raises:
        ValueError: If a fold would lack a class.

    Example:
        >>> videos = split_by_fold(listing.videos, 5, 0, seed=0)  # doctest: +SKIP
    """
    fold_of = [folds] * len(videos)  # `folds` is not a fold: always for training
    rng = np.random.default_rng(seed)
    kinds = _group_by_labels(videos)
    for labels, groups in kinds.items():
        if labels == (UNLABELLED,):
            continue  # useful for training only
        for rank, position in enumerate(rng.permutation(len(groups))):
            for index in groups[position]:
                fold_of[index] = rank % folds
    names = {fold: "test", (fold + 1) % folds: "val"}
    splits = [names.get(number, "train") for number in fold_of]
    return _assign(videos, splits, sum(map(len, kinds.values())))


def split_faces(
    faces: Sequence[tuple[str, int]], *, val_share: float, test_share: float, seed: int
) -> list[str]:
    """Draw a split for every single face, as in the paper's Table 1.

    Faces of one video are in all splits, so a detector is tested on subjects, locations and cameras
    that it was trained on.

    Args:
        faces: Video id and position in the video of each face, without repetition.
        val_share: Share for validation, exact except for rounding.
        test_share: Share for testing, exact except for rounding.
        seed: Seed of the draw, which does not depend on the order of the faces.

    Returns:
        `train`, `val` or `test` for every face.

    Example:
        >>> faces = [("clips/a", position) for position in range(10)]
        >>> split_faces(faces, val_share=0.1, test_share=0.1, seed=0).count("train")
        8
    """
    keys = [
        hashlib.sha256(f"{seed} {video_id} {position}".encode()).digest()[:16]
        for video_id, position in faces
    ]
    num_test, num_val = round(test_share * len(faces)), round(val_share * len(faces))
    splits = ["train"] * len(faces)
    for rank, index in enumerate(sorted(range(len(faces)), key=keys.__getitem__)):
        if rank < num_test + num_val:
            splits[index] = "test" if rank < num_test else "val"
    return splits


def split_by_source(
    videos: list[Video], *, val_share: float, test_share: float, seed: int
) -> list[Video]:
    """Split at random, keeping all videos that share a source in one split.

    Videos that share sources, directly or through other videos, form a group. Groups with both
    classes, with real videos only and with fakes only are split separately, so that every split
    has its share of each kind.

    Args:
        videos: The videos.
        val_share: Share of the groups for validation, in (0, 1).
        test_share: Share of the groups for testing, in (0, 1).
        seed: Seed of the draw.

    Returns:
        The videos in the same order, each with its split.

    Raises:
        ValueError: If there are too few groups.

    Example:
        >>> videos = [
        ...     Video(f"{label}/{n}", f"{n}.mp4", label, "", "", (str(n),), "")
        ...     for n in range(4)
        ...     for label in (0, 1)
        ... ]
        >>> assigned = split_by_source(videos, val_share=0.25, test_share=0.25, seed=0)
        >>> [sum(video.split == split for video in assigned) for split in SPLITS]
        [4, 2, 2]
    """
    splits = ["train"] * len(videos)
    rng = np.random.default_rng(seed)
    kinds = _group_by_labels(videos)
    for labels, groups in kinds.items():
        if labels == (UNLABELLED,):
            continue  # useful for training only
        num_val, num_test = _count_groups(len(groups), val_share, test_share)
        order = rng.permutation(len(groups))
        for rank, position in enumerate(order[: num_val + num_test]):
            for index in groups[position]:
                splits[index] = "val" if rank < num_val else "test"
    return _assign(videos, splits, sum(map(len, kinds.values())))


def _assign(videos: list[Video], splits: list[str], num_groups: int) -> list[Video]:
    """Return the videos with their splits; check that each split has both classes."""
    assigned = [
        dataclasses.replace(video, split=split) for video, split in zip(videos, splits, strict=True)
    ]
    for split in SPLITS:
        labels = {video.label for video in assigned if video.split == split}
        if not set(CLASSES.values()) <= labels:
            raise ValueError(
                "Expected enough videos for a training, a validation and a test split that share "
                f"no source, each with both classes; got {plural(len(videos), 'video')} in "
                f"{plural(num_groups, 'group')} that share sources by their names (images in one "
                "folder count as frames of one video). Add videos, or sort them into train/, val/ "
                "and test/ yourself."
            )
    return assigned


def _group_by_labels(videos: list[Video]) -> dict[tuple[int, ...], list[list[int]]]:
    """Return the groups that share sources, by the sorted labels in them."""
    kinds = defaultdict(list)
    for group in _group_by_source(videos):
        kinds[tuple(sorted({videos[index].label for index in group}))].append(group)
    return {kind: kinds[kind] for kind in sorted(kinds)}


def _count_groups(num_groups: int, val_share: float, test_share: float) -> tuple[int, int]:
    """Round the shares so that each split has a group; fewer than three are all for training."""
    if num_groups < 3:
        return 0, 0
    num_val = min(max(1, round(val_share * num_groups)), num_groups - 2)
    num_test = min(max(1, round(test_share * num_groups)), num_groups - 1 - num_val)
    return num_val, num_test


def _group_by_source(videos: list[Video]) -> list[list[int]]:
    """Return the indices of videos that share sources, directly or through others (union-find)."""
    parent: dict[str, str] = {}

    def root(source_id: str) -> str:
        parent.setdefault(source_id, source_id)
        while parent[source_id] != source_id:
            parent[source_id] = parent[parent[source_id]]
            source_id = parent[source_id]
        return source_id

    for video in videos:
        for source_id in video.source_ids:
            parent[root(source_id)] = root(video.source_ids[0])
    groups = defaultdict(list)
    for index, video in enumerate(videos):
        groups[root(video.source_ids[0])].append(index)
    return list(groups.values())
