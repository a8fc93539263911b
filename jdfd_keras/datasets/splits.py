"""Which video is for training, which for validation, which for testing.

Takes videos as a layout lists them; gives them back with splits. But for the paper's own way,
which is there to be compared with, no two splits share footage where that can be helped; what
cannot is found by `data.leaks`.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES, SPLITS, UNLABELLED, Listing, Video
from jdfd_keras.options import SplitOptions

TRIES = 20  # draws of so many people for validation, until both classes are on both sides


def assign_splits(listing: Listing, options: SplitOptions) -> tuple[list[Video], dict[str, str]]:
    """Give every video its split.

    Where a data set comes with a split, that is the official one; where it has none for
    validation, it is carved out of training by people. Where it comes with none, sources are
    shared out at random.

    Args:
        listing: What a layout found.
        options: By which rule.

    Returns:
        The videos that are used, in the same order; of `paper` they have no split, for their
        faces get one each, by `split_faces`. And the ids of those left out, with the reason.

    Raises:
        ValueError: If an option is out of its range, or a split would lack a class.
    """
    check_split_options(options)
    videos, left_out = listing.videos, {}
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
        people = {video.video_id: video.source_ids for video in videos} | listing.people
        videos, left_out = carve_validation(videos, people, options.val_share, options.seed)
    if options.split == "strict":
        labels = {(video.split, video.label) for video in videos}
        videos, shared = drop_shared(videos)
        left_out |= shared
        for split, label in sorted(labels - {(video.split, video.label) for video in videos}):
            raise ValueError(
                f"Expected {LABEL_NAMES[label]} videos in {split} that share no source with a "
                "later split; got none: all do. Give more of the data set, or take --split "
                "official and look at `jdfd-keras audit`."
            )
    return videos, left_out


def kind_of(reason: str) -> str:
    """Leave the particulars out of a reason for which a video is left out, to count such videos."""
    return reason.partition(":")[0]


def check_split_options(options: SplitOptions) -> None:
    """See that options are within their ranges.

    Raises:
        ValueError: If one is not.
    """
    if options.split not in ("official", "strict", "kfold", "paper"):
        raise ValueError(
            f"Expected a split of official, strict, kfold or paper; got {options.split!r}. Try "
            "the default, official."
        )
    val_share, test_share = options.val_share, options.test_share
    if not (0 < val_share < 1 and 0 < test_share < 1 and val_share + test_share < 1):
        raise ValueError(
            "Expected val_share and test_share above 0 and below 1 together; got "
            f"val_share={val_share}, test_share={test_share}. Try the default, 0.15 each."
        )
    if not (options.folds >= 3 and 0 <= options.fold < options.folds):
        raise ValueError(
            f"Expected folds >= 3 and fold from 0 to folds - 1; got folds={options.folds}, "
            f"fold={options.fold}. Try 5 folds: one is for testing, one for validation."
        )


def drop_shared(videos: list[Video]) -> tuple[list[Video], dict[str, str]]:
    """Leave out what shares footage with a later split.

    That is training with validation or testing, and validation with testing.

    Returns:
        The videos kept, in the same order, and the ids of the others with the reason.
    """
    kept, left_out = {}, {}
    taken: dict[str, str] = {}  # source to the later split that has it
    for split in reversed(SPLITS):
        members = [video for video in videos if video.split == split]
        for video in members:
            shared = [source for source in video.source_ids if source in taken]
            if shared:
                left_out[video.video_id] = (
                    f"shares footage with {taken[shared[0]]}: source {shared[0]}"
                )
            else:
                kept[video.video_id] = video
        # Also of those left out of validation: training is to be apart from what is published.
        taken |= {source: split for v in members for source in v.source_ids if source not in taken}
    return [video for video in videos if video.video_id in kept], left_out


def carve_validation(
    videos: list[Video], people: Mapping[str, tuple[str, ...]], val_share: float, seed: int
) -> tuple[list[Video], dict[str, str]]:
    """Take a validation split out of training, by people: nobody in it is seen in training.

    A video that shows people of both sides, such as a swap between them, can be in neither. Of
    few people, more than the share are taken where fewer do not give both classes.

    Args:
        videos: All of them, in training or testing.
        people: Video id to those who are seen in it.
        val_share: Share of the people of training for validation, in (0, 1).
        seed: The same seed gives the same split.

    Returns:
        The videos used, in the same order, and the ids of the others with the reason.

    Raises:
        ValueError: If no draw leaves both classes in training and in validation.
    """
    training = [video for video in videos if video.split == "train"]
    known = sorted({person for video in training for person in people[video.video_id]})
    rng = np.random.default_rng(seed)
    fewest = max(1, round(val_share * len(known)))
    most = max(fewest, len(known) // 2)
    for count in (count for count in range(fewest, most + 1) for _ in range(TRIES)):
        chosen = {known[index] for index in rng.permutation(len(known))[:count]}
        sides = {
            video.video_id: _side(chosen.intersection(people[video.video_id]), people, video)
            for video in training
        }
        labels = {
            side: {video.label for video in training if sides[video.video_id] == side}
            for side in ("train", "val")
        }
        if all(set(CLASSES.values()) <= found for found in labels.values()):
            break
    else:
        raise ValueError(
            "Expected people enough for a validation split of real and fake videos in which "
            f"nobody of training is seen; got {len(training)} training videos of {len(known)} "
            f"people, and no draw of {fewest} to {most} of them gave one. Give more of them."
        )
    used = [
        dataclasses.replace(video, split=sides.get(video.video_id, video.split))
        for video in videos
        if sides.get(video.video_id) != ""
    ]
    return used, {
        video_id: "shows people of both training and validation"
        for video_id, side in sides.items()
        if side == ""
    }


def _side(chosen: set[str], people: Mapping[str, tuple[str, ...]], video: Video) -> str:
    if not chosen:
        return "train"
    return "val" if chosen == set(people[video.video_id]) else ""


def split_by_fold(videos: list[Video], folds: int, fold: int, seed: int) -> list[Video]:
    """Test on one fold, validate on the next and train on the others, by groups of sources.

    Args:
        videos: Videos; a split of theirs is passed over.
        folds: Number of folds, at least 3.
        fold: The one to test on.
        seed: The same seed gives the same folds, whichever is tested.

    Raises:
        ValueError: If a fold would lack a class.
    """
    places = [folds] * len(videos)  # none of them: training
    rng = np.random.default_rng(seed)
    kinds = _group_by_kind(videos)
    for labels, groups in kinds.items():
        if labels == (UNLABELLED,):
            continue  # they are of use in training alone
        for rank, position in enumerate(rng.permutation(len(groups))):
            for index in groups[position]:
                places[index] = rank % folds
    names = {fold: "test", (fold + 1) % folds: "val"}
    splits = [names.get(place, "train") for place in places]
    return _place(videos, splits, sum(map(len, kinds.values())))


def split_faces(
    faces: Sequence[tuple[str, int]], *, val_share: float, test_share: float, seed: int
) -> list[str]:
    """Draw a split for every single face, as the paper's Table 1 has it.

    Faces of one video come to lie in every split, so that a detector is tested on people,
    places and cameras that it was trained on.

    Args:
        faces: Video id and position in the video of each face; no two alike.
        val_share: Share for validation.
        test_share: Share for testing; exact but for rounding, as is the other.
        seed: The same seed gives the same splits, in whatever order the faces stand.

    Returns:
        `train`, `val` or `test` for every face.
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
    """Split at random, keeping together all videos that share a source.

    Groups of videos that share sources, directly or through others, are shared out whole.
    Groups with both classes, of real videos alone and of fakes alone are shared out each by
    itself, so that every split gets its part of each.

    Args:
        videos: Videos without a split.
        val_share: Share of the groups for validation, in (0, 1).
        test_share: Share of the groups for testing, in (0, 1).
        seed: The same seed gives the same splits.

    Returns:
        The videos in the same order, each with its split.

    Raises:
        ValueError: If there are too few groups.
    """
    splits = ["train"] * len(videos)
    rng = np.random.default_rng(seed)
    kinds = _group_by_kind(videos)
    for labels, groups in kinds.items():
        if labels == (UNLABELLED,):
            continue  # they are of use in training alone
        num_val, num_test = _share_out(len(groups), val_share, test_share)
        order = rng.permutation(len(groups))
        for rank, position in enumerate(order[: num_val + num_test]):
            for index in groups[position]:
                splits[index] = "val" if rank < num_val else "test"
    return _place(videos, splits, sum(map(len, kinds.values())))


def _place(videos: list[Video], splits: list[str], num_groups: int) -> list[Video]:
    for split in SPLITS:
        labels = {
            video.label for video, place in zip(videos, splits, strict=True) if place == split
        }
        if not set(CLASSES.values()) <= labels:
            raise ValueError(
                "Expected enough videos for a training, a validation and a test split that share "
                f"no source, each with both classes; got {len(videos)} videos in {num_groups} "
                "groups that share sources by their names (images in one folder count as frames of "
                "one video). Add videos, or sort them into train/, val/ and test/ yourself."
            )
    return [
        dataclasses.replace(video, split=split) for video, split in zip(videos, splits, strict=True)
    ]


def _group_by_kind(videos: list[Video]) -> dict[tuple[int, ...], list[list[int]]]:
    """Gather groups that share sources by the labels that are in them, in a fixed order."""
    kinds = defaultdict(list)
    for group in _groups(videos):
        kinds[tuple(sorted({videos[index].label for index in group}))].append(group)
    return {kind: kinds[kind] for kind in sorted(kinds)}


def _share_out(num_groups: int, val_share: float, test_share: float) -> tuple[int, int]:
    """Round the shares so that each split gets a group; of fewer than three all are to train."""
    if num_groups < 3:
        return 0, 0
    num_val = min(max(1, round(val_share * num_groups)), num_groups - 2)
    num_test = min(max(1, round(test_share * num_groups)), num_groups - 1 - num_val)
    return num_val, num_test


def _groups(videos: list[Video]) -> list[list[int]]:
    """Gather indices of videos that share sources, directly or through others (union-find)."""
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
