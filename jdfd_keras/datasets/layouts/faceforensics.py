"""FaceForensics++ in the layout of its download script, including DeepFakeDetection.

    original_sequences/{youtube,actors}/{raw,c23,c40}/videos/
    manipulated_sequences/<manipulation>/{raw,c23,c40}/videos/
    manipulated_sequences/<manipulation>/masks/videos/    the manipulated pixels, if downloaded

DeepFakeDetection is a layout of its own, too.

`faceforensics.csv` has the official split and the clips that were cut from the same video: clip,
the clip it is swapped with, split, and the first clip of the same source.

Reference:
    Roessler et al.: "FaceForensics++: Learning to Detect Manipulated Facial Images" (2019),
    https://github.com/ondyari/FaceForensics, its splits and its list of sources.
"""

import csv
import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import NamedTuple

from jdfd_keras.datasets.videos import DatasetFiles, Listing, Video, layout_error
from jdfd_keras.io.console import plural

YOUTUBE, ACTORS = "youtube", "actors"
SWAPS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
ACTOR_SWAPS = "DeepFakeDetection"
NOT_REQUESTED = "not in --manipulations"
MASKS = "manipulated_sequences/{}/masks/videos"
NO_PUBLISHED_SPLIT = (
    f"{ACTOR_SWAPS} has no published split: all its videos are for testing, as in published "
    "evaluations."
)
VIDEO_PATH = re.compile(
    rf"(?P<folder>(?:original_sequences/(?P<real>{YOUTUBE}|{ACTORS})|manipulated_sequences/"
    rf"(?P<fake>{'|'.join([*SWAPS, ACTOR_SWAPS])}))/(?P<compression>raw|c23|c40)/videos)/"
    r"(?P<name>[^/]+)\.mp4"
)
# Published beside the videos: masks, models, the downloaded videos, lists and texts.
COMPANION = re.compile(
    r"manipulated_sequences/[^/]+/(masks|models)/.+|(original_sequences/)?downloaded_videos.*|"
    r"(splits/)?(train|val|test)\.json|(.+/)?(conversion_dict\.json|README\.md|LICENSE)"
)
ONE_ACTOR = re.compile(r"([0-9][0-9])__\w+")
TWO_ACTORS = re.compile(r"([0-9][0-9])_([0-9][0-9])__\w+")


class Clip(NamedTuple):
    """One of the thousand real clips."""

    partner: str  # the clip it is swapped with
    split: str  # its official split
    source: str  # the first of the clips that were cut from the same video; usually itself


@cache
def read_clips() -> dict[str, Clip]:
    """Read the table of clips that is part of the package, by name of the clip.

    Example:
        >>> read_clips()["071"].partner
        '054'
    """
    table = resources.files("jdfd_keras.datasets.layouts").joinpath("faceforensics.csv")
    _, *rows = csv.reader(table.read_text(encoding="utf-8").splitlines())
    return {name: Clip(*fields) for name, *fields in rows}


def list_faceforensics(root: DatasetFiles, manipulations: Collection[str] = ()) -> Listing:
    """List FaceForensics++, all existing manipulations and compressions.

    DeepFakeDetection and the real videos of its actors have no official split, and would change
    the test split of the others. They are listed only on request, and then all for testing, as
    in published evaluations; they share no subject with the others. `Listing.masks` has the mask
    video of a fake where it exists.

    Args:
        root: The folder that contains original_sequences/ and manipulated_sequences/.
        manipulations: Requested manipulations, with the real videos that they were made from; all
            but DeepFakeDetection if empty.

    Returns:
        The videos. `missing` are those of the official split that a folder lacks, and the real
        videos of every compression that has fakes; actors' videos have no published list, so none
        of them is missing.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> path = "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"
        >>> listing = list_faceforensics(DatasetFiles(LocalStore("."), "FF++", (path,)))
        >>> listing.videos[0].source_ids, listing.videos[0].split, len(listing.missing)
        (('000', '003'), 'test', 1999)
    """
    requested = {ACTORS, ACTOR_SWAPS} if ACTOR_SWAPS in manipulations else set()
    if not manipulations or set(manipulations) - {ACTOR_SWAPS}:
        requested |= {YOUTUBE, *SWAPS}
    return _list_kinds(root, requested, "FaceForensics++", NOT_REQUESTED)


def list_dfd(root: DatasetFiles) -> Listing:
    """List DeepFakeDetection: its actors' real videos and its fakes, all for testing.

    `Listing.masks` has the mask video of a fake where it exists. Several people are in some of its
    fakes, one of whom is manipulated: the mask marks this person.

    Args:
        root: The folder that contains original_sequences/ and manipulated_sequences/.

    Returns:
        The videos. None of them is missing, since there is no published list.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> fakes = "manipulated_sequences/DeepFakeDetection"
        >>> names = [f"{fakes}/{folder}/videos/01_02__exit_phone_room__A1B2C3D4.mp4"
        ...          for folder in ("c23", "masks")]
        >>> listing = list_dfd(DatasetFiles(LocalStore("."), "DFD", tuple(names)))
        >>> listing.videos[0].source_ids, list(listing.masks.values()) == names[1:]
        (('actor01', 'actor02'), True)
    """
    listing = _list_kinds(root, {ACTORS, ACTOR_SWAPS}, ACTOR_SWAPS, f"not of {ACTOR_SWAPS}")
    notes = [NO_PUBLISHED_SPLIT]
    fakes = [video for video in listing.videos if video.label == 1]
    if without := [video.path for video in fakes if video.video_id not in listing.masks]:
        notes.append(
            f"{len(without)} of {plural(len(fakes), 'fake')} have no mask in "
            f"{MASKS.format(ACTOR_SWAPS)}, such as {without[0]}."
        )
    return dataclasses.replace(listing, notes=notes)


def describe_path(path: str) -> Video | None:
    """Return what the path of a video tells; None if FaceForensics++ has none of that name.

    Example:
        >>> video = describe_path("original_sequences/youtube/c23/videos/071.mp4")
        >>> video.video_id, video.split
        ('ffpp/youtube/c23/071', 'train')
    """
    match = VIDEO_PATH.fullmatch(path)
    return _describe(match) if match else None


def _list_kinds(root: DatasetFiles, kinds: set[str], dataset: str, reason: str) -> Listing:
    """List the videos of some kinds; exclude those of others for a reason."""
    videos, unrecognized, excluded = [], [], {}
    found = defaultdict(set)  # folder and kind to the names in it
    for path in root.files:
        match = VIDEO_PATH.fullmatch(path)
        video = _describe(match) if match else None
        if match is None or video is None:
            if not COMPANION.fullmatch(path):
                unrecognized.append(path)
            continue
        kind = match["real"] or match["fake"]
        if kind not in kinds:
            excluded[video.video_id] = reason
            continue
        videos.append(video)
        found[match["folder"], kind].add(match["name"])
        if kind in SWAPS:
            _ = found[f"original_sequences/{YOUTUBE}/{match['compression']}/videos", YOUTUBE]
    if not videos and (not excluded or dataset == ACTOR_SWAPS):
        order = (YOUTUBE, ACTORS, *SWAPS, ACTOR_SWAPS)
        wanted = [kind for kind in order if dataset != ACTOR_SWAPS or kind in kinds]
        folders = [
            f"{'original' if kind in (YOUTUBE, ACTORS) else 'manipulated'}_sequences/{kind}/c23/"
            "videos"
            for kind in wanted
        ]
        raise layout_error(root, dataset, [*folders, "(or raw, c40)"])
    expected = _expected_names()
    missing = [
        f"{folder}/{name}.mp4"
        for (folder, kind), names in sorted(found.items())
        for name in sorted(expected.get(kind, set()) - names)
    ]
    names = set(root.files)
    masks = {
        video.video_id: mask
        for video in videos
        if video.label == 1
        and (mask := f"{MASKS.format(video.manipulation)}/{video.path.rpartition('/')[2]}") in names
    }
    return Listing(videos, missing, unrecognized, excluded=excluded, masks=masks)


@cache
def _expected_names() -> dict[str, set[str]]:
    """Return the names of the official split, by kind of video."""
    clips = read_clips()
    swaps = {f"{name}_{clip.partner}" for name, clip in clips.items()}
    return {YOUTUBE: set(clips)} | dict.fromkeys(SWAPS, swaps)


def _describe(match: re.Match[str]) -> Video | None:
    """Return the video at a matched path; None if the dataset has none of that name."""
    real, fake, compression, name = match.group("real", "fake", "compression", "name")
    kind, expected = real or fake, _expected_names()
    if kind in expected:
        if name not in expected[kind]:
            return None
        clips = [read_clips()[clip] for clip in name.split("_")]
        sources, split = tuple(clip.source for clip in clips), clips[0].split
    else:
        actors = (ONE_ACTOR if real else TWO_ACTORS).fullmatch(name)
        if actors is None:
            return None
        sources, split = tuple(f"actor{number}" for number in actors.groups()), "test"
    return Video(
        video_id=f"ffpp/{kind}/{compression}/{name}",
        path=match.string,
        label=int(real is None),
        manipulation=fake or "",
        compression=compression,
        source_ids=sources,
        split=split,
    )
