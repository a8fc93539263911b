"""FaceForensics++ in the layout of its download script, including DeepFakeDetection.

    original_sequences/{youtube,actors}/{raw,c23,c40}/videos/
    manipulated_sequences/<manipulation>/{raw,c23,c40}/videos/

`faceforensics.csv` has the official split and the clips that were cut from the same video: clip,
the clip it is swapped with, split, and the first clip of the same source.

Reference:
    Roessler et al.: "FaceForensics++: Learning to Detect Manipulated Facial Images" (2019),
    https://github.com/ondyari/FaceForensics, its splits and its list of sources.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import NamedTuple

from jdfd_keras.datasets.videos import DatasetFiles, Listing, Video, layout_error

YOUTUBE, ACTORS = "youtube", "actors"
SWAPS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
ACTOR_SWAPS = "DeepFakeDetection"
NOT_REQUESTED = "not in --manipulations"
VIDEO_PATH = re.compile(
    rf"(?P<folder>(?:original_sequences/(?P<real>{YOUTUBE}|{ACTORS})|manipulated_sequences/"
    rf"(?P<fake>{'|'.join([*SWAPS, ACTOR_SWAPS])}))/(?P<compression>raw|c23|c40)/videos)/"
    r"(?P<name>[^/]+)\.mp4"
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
    in published evaluations; they share no subject with the others.

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
    clips = read_clips()
    swaps = {f"{name}_{clip.partner}" for name, clip in clips.items()}
    expected = {YOUTUBE: set(clips)} | dict.fromkeys(SWAPS, swaps)

    requested = {ACTORS, ACTOR_SWAPS} if ACTOR_SWAPS in manipulations else set()
    if not manipulations or set(manipulations) - {ACTOR_SWAPS}:
        requested |= {YOUTUBE, *SWAPS}

    videos, unrecognized, excluded = [], [], {}
    found = defaultdict(set)  # folder and kind to the names in it
    for path in root.media():
        match = VIDEO_PATH.fullmatch(path)
        video = _describe(match, expected) if match else None
        if match is None or video is None:
            if "/masks/" not in path:  # published beside the videos
                unrecognized.append(path)
            continue
        kind = match["real"] or match["fake"]
        if kind not in requested:
            excluded[video.video_id] = NOT_REQUESTED
            continue
        videos.append(video)
        found[match["folder"], kind].add(match["name"])
        if kind in SWAPS:
            _ = found[f"original_sequences/{YOUTUBE}/{match['compression']}/videos", YOUTUBE]
    if not videos and not excluded:
        folders = [f"original_sequences/{kind}/c23/videos" for kind in (YOUTUBE, ACTORS)]
        folders += [f"manipulated_sequences/{kind}/c23/videos" for kind in (*SWAPS, ACTOR_SWAPS)]
        raise layout_error(root, "FaceForensics++", [*folders, "(or raw, c40)"])
    missing = [
        f"{folder}/{name}.mp4"
        for (folder, kind), names in sorted(found.items())
        for name in sorted(expected.get(kind, set()) - names)
    ]
    return Listing(videos, missing, unrecognized, excluded=excluded)


def _describe(match: re.Match[str], expected: dict[str, set[str]]) -> Video | None:
    """Return the video at a matched path; None if the dataset has none of that name."""
    real, fake, compression, name = match.group("real", "fake", "compression", "name")
    kind = real or fake
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
