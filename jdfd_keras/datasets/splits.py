"""Rules of training, validation and test splits.

Assigns a split to every video of a listing. Except with the paper's rule, which exists for
comparison, splits share no sources where possible; `datasets.leakage` finds the exceptions. Videos
of unknown source are assumed to share none.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jdfd_keras.datasets.videos import (
    CLASSES,
    LABEL_NAMES,
    SPLITS,
    UNLABELLED,
    Listing,
    Video,
    group_by_source,
    qualified_sources,
)
from jdfd_keras.io.console import plural
from jdfd_keras.options import SplitOptions

STRATEGIES = ("official", "strict", "kfold", "paper", "leave-one-out")
FOLDED = ("kfold", "leave-one-out")  # of these, the strategies with folds
BASES = ("official", "strict")  # from which leave-one-out starts
MAX_DRAWS = 20  # of one number of validation subjects, until both splits have both classes
BOTH_SPLITS = "shows people from both training and validation"


class CannotSplitError(ValueError):
    """A dataset that has too few videos or sources for a rule, or only fakes."""


def classes_to_split(labels: Iterable[int]) -> dict[str, int]:
    """Return the classes that every split needs: both, or real alone if there are no fakes.

    From real videos alone, training makes its own fakes.

    Example:
        >>> classes_to_split([0, 1]), classes_to_split([0, -1]), classes_to_split([1])
        ({'real': 0, 'fake': 1}, {'real': 0}, {'real': 0, 'fake': 1})
    """
    found = set(labels)
    only_real = CLASSES["real"] in found and CLASSES["fake"] not in found
    return {name: label for name, label in CLASSES.items() if name == "real" or not only_real}


def assign_splits(listing: Listing, options: SplitOptions) -> tuple[list[Video], dict[str, str]]:
    """Assign a split to every video.

    A published split is the official one; if it has no validation, validation is split off from
    training by subject. Without a published split, sources are split at random.

    Args:
        listing: The videos of a dataset, with their published split.
        options: The rule, its shares and seed; `kfold` and `leave-one-out` need a fold.

    Returns:
        The videos that are used, in the same order; with `paper` they have no split, since
        `split_dataset` splits their faces. And the ids of the excluded videos, with the reason.
        Videos of other compressions than the chosen one are excluded last, so that the tables of
        all compressions have the same sources in each split.

    Raises:
        CannotSplitError: If a split that this rule creates would lack a class.
        ValueError: If an option is out of range.

    Example:
        >>> from jdfd_keras.datasets.layouts import list_videos
        >>> from jdfd_keras.io.storage import LocalStore
        >>> from jdfd_keras.options import PrepareOptions
        >>> listing = list_videos(LocalStore("videos"), PrepareOptions())
        >>> videos, excluded = assign_splits(listing, SplitOptions(seed=1))
        >>> [sum(video.split == split for video in videos) for split in SPLITS]
        [10, 2, 4]
    """
    _check_options(options)
    videos, excluded = _assign_all(listing, options)
    if options.compression != "all":
        compressions = list_compressions(listing.videos)
        if options.compression not in compressions:
            raise ValueError(
                f"Expected a compression that the videos have; got {options.compression!r}, and "
                f"videos of {', '.join(compressions) or 'no stated compression'}. Try "
                f"{compressions[0] if compressions else 'all'}."
            )
        videos, others = _without_losing_a_class(
            videos, lambda used: _select_compression(used, options.compression)
        )
        excluded |= others
    return videos, excluded


def _assign_all(listing: Listing, options: SplitOptions) -> tuple[list[Video], dict[str, str]]:
    """Assign a split to every video, of any compression."""
    videos, excluded = listing.videos, {}
    if options.strategy == "paper":
        return [dataclasses.replace(video, split="") for video in videos], {}
    if options.strategy == "kfold":
        fold = _check_fold(options, options.folds)
        names = {fold: "test", (fold + 1) % options.folds: "val"}
        return _split_groups(
            videos, options.seed, lambda rank, _: names.get(rank % options.folds, "train")
        ), {}
    published = {video.split for video in videos}
    if "" in published:
        videos = _split_by_source(videos, options)
    elif "train" in published and "val" not in published:
        # A video of unknown source is assumed to show subjects of its own.
        subjects = {v.video_id: qualified_sources(v) or (v.video_id,) for v in videos}
        videos, excluded = _split_validation(videos, subjects | listing.subjects, options)
    if "strict" in (options.strategy, options.base):
        videos, overlapping = _without_losing_a_class(videos, _remove_overlap)
        excluded |= overlapping
    if options.strategy == "leave-one-out":
        manipulations = list_manipulations(listing.videos)
        held_out = manipulations[_check_fold(options, len(manipulations))]
        videos, others = _without_losing_a_class(videos, lambda used: _leave_out(used, held_out))
        excluded |= others
    return videos, excluded


def list_manipulations(videos: Iterable[Video]) -> list[str]:
    """List the manipulations of fake videos, sorted by name.

    Example:
        >>> list_manipulations([Video("mine/a", "a.mp4", 1, "FaceSwap", "", (), "")])
        ['FaceSwap']
    """
    return sorted({video.manipulation for video in videos if video.label == CLASSES["fake"]})


def list_compressions(videos: Iterable[Video]) -> list[str]:
    """List the stated compressions of videos, from the least to the most compressed.

    Example:
        >>> list_compressions([Video("mine/a", "a.mp4", 0, "", "c23", (), "")])
        ['c23']
    """
    stated = {video.compression for video in videos} - {""}
    return sorted(stated, key=lambda name: (name != "raw", name))


def reason_kind(reason: str) -> str:
    """Return the reason for excluding a video without its details, to count such videos.

    Example:
        >>> reason_kind("shares footage with test: source 003")
        'shares footage with test'
    """
    return reason.partition(":")[0]


def _check_options(options: SplitOptions) -> None:
    if options.strategy not in STRATEGIES:
        raise ValueError(
            f"Expected a strategy of {', '.join(STRATEGIES)}; got {options.strategy!r}. Try the "
            "default, official."
        )
    if options.base not in (BASES if options.strategy == "leave-one-out" else BASES[:1]):
        raise ValueError(
            f"Expected a base of {' or '.join(BASES)}, which leave-one-out alone starts from; got "
            f"{options.base!r} with {options.strategy}. Omit it."
        )
    shares = (options.val_share, options.test_share)
    if not (min(shares) > 0 and sum(shares) < 1):
        raise ValueError(
            f"Expected val_share and test_share above 0 with a sum below 1; got {shares[0]} and "
            f"{shares[1]}. Try the default, 0.15 each."
        )
    if options.fold is not None and options.strategy not in FOLDED:
        raise ValueError(
            f"Expected a fold with the strategies {' and '.join(FOLDED)} only; got "
            f"fold={options.fold} with {options.strategy}. Omit it."
        )
    if options.folds < 3:
        raise ValueError(
            f"Expected 3 or more folds; got {options.folds}. Try 5: one tests, one validates."
        )


def _check_fold(options: SplitOptions, count: int) -> int:
    """Return the fold, after a check that there are so many."""
    if count < 2:  # of leave-one-out
        raise ValueError(
            f"Expected fakes of two or more manipulations for leave-one-out; got {count}. Try "
            "another strategy, or prepare more manipulations."
        )
    if options.fold is None or not 0 <= options.fold < count:
        raise ValueError(
            f"Expected fold from 0 to {count - 1} with the strategy {options.strategy}; got "
            f"{options.fold}. Try 0."
        )
    return options.fold


def _without_losing_a_class(
    videos: list[Video], exclude: Callable[[list[Video]], tuple[list[Video], dict[str, str]]]
) -> tuple[list[Video], dict[str, str]]:
    """Exclude videos, but raise if a split loses a class by it."""
    before = {(video.split, video.label) for video in videos}
    kept, excluded = exclude(videos)
    if lost := sorted(before - {(video.split, video.label) for video in kept}):
        split, label = lost[0]
        gone = [v.video_id for v in videos if (v.split, v.label) == (split, label)]
        raise CannotSplitError(
            f"Expected {LABEL_NAMES[label]} videos that remain in {split}; got none of "
            f"{plural(len(gone), 'video')}, such as {gone[0]} ({excluded[gone[0]]}). Add more of "
            "the dataset, or use the strategy official and check `jdfd-keras audit`."
        )
    return kept, excluded


def _select_compression(
    videos: list[Video], compression: str
) -> tuple[list[Video], dict[str, str]]:
    """Exclude videos of other compressions."""
    excluded = {
        video.video_id: f"of another compression: {video.compression or 'not stated'}"
        for video in videos
        if video.compression != compression
    }
    return [video for video in videos if video.video_id not in excluded], excluded


def _leave_out(videos: list[Video], held_out: str) -> tuple[list[Video], dict[str, str]]:
    """Exclude one manipulation from training and validation, and all others from testing."""
    excluded = {}
    for video in videos:
        is_held_out = video.manipulation == held_out
        if video.label == CLASSES["fake"] and (video.split == "test") != is_held_out:
            excluded[video.video_id] = (
                f"held out for testing: {held_out}"
                if is_held_out
                else f"only {held_out} is tested: {video.manipulation}"
            )
    return [video for video in videos if video.video_id not in excluded], excluded


def _remove_overlap(videos: list[Video]) -> tuple[list[Video], dict[str, str]]:
    """Exclude training and validation videos that share a source with a later split."""
    excluded = {}
    split_of: dict[str, str] = {}  # source to the latest split that has it
    for split in reversed(SPLITS):
        members = [video for video in videos if video.split == split]
        for video in members:
            for source in qualified_sources(video):
                if source in split_of:
                    name = source.split("/", 1)[1]
                    reason = f"shares footage with {split_of[source]}: source {name}"
                    excluded.setdefault(video.video_id, reason)
        # Excluded ones too: training must not overlap with any published validation video.
        split_of = {source: split for v in members for source in qualified_sources(v)} | split_of
    return [video for video in videos if video.video_id not in excluded], excluded


def _split_validation(
    videos: list[Video], subjects: Mapping[str, tuple[str, ...]], options: SplitOptions
) -> tuple[list[Video], dict[str, str]]:
    """Split validation off from training by subject, so that no subject is in both.

    A video with subjects of both splits, such as a face swap between them, is excluded. If there
    are few subjects and the share does not yield both classes, more of them are used.
    """
    training = [video for video in videos if video.split == "train"]
    all_subjects = sorted({subject for video in training for subject in subjects[video.video_id]})
    rng = np.random.default_rng(options.seed)
    fewest = max(1, round(options.val_share * len(all_subjects)))
    most = max(fewest, len(all_subjects) // 2)
    classes = classes_to_split(video.label for video in videos)
    for count in (count for count in range(fewest, most + 1) for _ in range(MAX_DRAWS)):
        chosen = {all_subjects[index] for index in rng.permutation(len(all_subjects))[:count]}
        splits = {
            video.video_id: _split_of_subjects(subjects[video.video_id], chosen)
            for video in training
        }
        drawn = {(splits[video.video_id], video.label) for video in training}
        if all((split, label) in drawn for split in ("train", "val") for label in classes.values()):
            break
    else:
        raise CannotSplitError(
            f"Expected enough subjects for a validation split with {' and '.join(classes)} videos "
            f"that shares none with training; got {plural(len(training), 'training video')} of "
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


def _split_by_source(videos: list[Video], options: SplitOptions) -> list[Video]:
    """Give each split its share of the groups; fewer than three are all for training."""

    def choose(rank: int, count: int) -> str:
        if count < 3:
            return "train"
        num_val = min(max(1, round(options.val_share * count)), count - 2)
        num_test = min(max(1, round(options.test_share * count)), count - 1 - num_val)
        return "val" if rank < num_val else "test" if rank < num_val + num_test else "train"

    return _split_groups(videos, options.seed, choose)


def _split_groups(videos: list[Video], seed: int, choose: Callable[[int, int], str]) -> list[Video]:
    """Split at random, keeping all videos that share a source in one split.

    Videos that share sources, directly or through other videos, form a group. Groups with both
    classes, with real videos only and with fakes only are split separately, so that every split
    has its share of each kind. Unlabelled groups are useful for training only.

    `choose` maps the rank of a group, and the number of groups of its kind, to a split.
    """
    kinds = defaultdict(list)  # sorted labels to groups, each as the indices of its videos
    groups = group_by_source(videos)
    for group in groups:
        kinds[tuple(sorted({videos[index].label for index in group}))].append(group)
    splits = ["train"] * len(videos)
    rng = np.random.default_rng(seed)
    for labels, members in sorted(kinds.items()):
        if labels != (UNLABELLED,):
            for rank, position in enumerate(rng.permutation(len(members))):
                for index in members[position]:
                    splits[index] = choose(rank, len(members))
    assigned = {(split, video.label) for split, video in zip(splits, videos, strict=True)}
    classes = classes_to_split(video.label for video in videos)
    lacking = [
        f"no {name} videos in {' or '.join(absent)}"
        for name, label in classes.items()
        if (absent := [split for split in SPLITS if (split, label) not in assigned])
    ]
    if lacking:
        counts = Counter(video.label for video in videos)
        found = " and ".join(f"{counts[label]} {name}" for name, label in CLASSES.items())
        raise CannotSplitError(
            "Expected enough videos for train, val and test splits that share no source, each with "
            f"{' and '.join(classes)} videos; got {found} in {plural(len(groups), 'group')} by "
            f"source, which leaves {', '.join(lacking)}. Add videos, state their splits in folders "
            "or in a table of your own, or evaluate on all of them with --split all."
        )
    return [
        dataclasses.replace(video, split=split) for video, split in zip(videos, splits, strict=True)
    ]
