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
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jdfd_keras.datasets.videos import DatasetFiles, Listing, Video, layout_error, sort_videos

YOUTUBE, ACTORS = "youtube", "actors"
SWAPS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
ACTOR_SWAPS = "DeepFakeDetection"
NOT_REQUESTED = "not in --manipulations"
COMPRESSIONS = ("raw", "c23", "c40")
VIDEO_PATH = re.compile(
    rf"(?:original_sequences/({YOUTUBE}|{ACTORS})|manipulated_sequences/"
    rf"({'|'.join([*SWAPS, ACTOR_SWAPS])}))/({'|'.join(COMPRESSIONS)})/videos/([^/]+)\.mp4"
)
ONE_ACTOR = re.compile(r"([0-9][0-9])__\w+")
TWO_ACTORS = re.compile(r"([0-9][0-9])_([0-9][0-9])__\w+")


@dataclass(frozen=True)
class Clip:
    """One of the thousand real clips.

    Attributes:
        partner: The clip it is swapped with.
        split: Its official split.
        source: The first of the clips that were cut from the same video; usually itself.
    """

    partner: str
    split: str
    source: str


@cache
def read_clips() -> dict[str, Clip]:
    """Read the table of clips that is part of the package, by name of the clip.

    Example:
        >>> read_clips()["071"].partner
        '054'
    """
    text = resources.files(__package__).joinpath("faceforensics.csv").read_text(encoding="utf-8")
    return {
        row["clip"]: Clip(row["partner"], row["split"], row["source"])
        for row in csv.DictReader(text.splitlines())
    }


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

    Raises:
        ValueError: If no video is in the expected folders.

    Example:
        >>> list_faceforensics(read_dataset_files(LocalStore("FF++")))  # doctest: +SKIP
    """
    clips = read_clips()
    swaps = {f"{name}_{clip.partner}" for name, clip in clips.items()}
    expected = {YOUTUBE: set(clips)} | dict.fromkeys(SWAPS, swaps)

    requested = {ACTORS, ACTOR_SWAPS} if ACTOR_SWAPS in manipulations else set()
    if not manipulations or set(manipulations) - {ACTOR_SWAPS}:
        requested |= {YOUTUBE, *SWAPS}

    videos, unrecognized, names_by_folder, excluded = [], [], {}, {}
    for path in root.media():
        match = VIDEO_PATH.fullmatch(path)
        video = match and _describe(path, *match.groups(), expected)
        if video and (match[1] or match[2]) not in requested:
            excluded[video.video_id] = NOT_REQUESTED
        elif video:
            videos.append(video)
            folder, name = path.rsplit("/", 1)
            names_by_folder.setdefault((folder, match[1] or match[2]), set()).add(name)
            if match[2] in SWAPS:
                real_folder = f"original_sequences/{YOUTUBE}/{match[3]}/videos"
                names_by_folder.setdefault((real_folder, YOUTUBE), set())
        elif "/masks/" not in path:  # published beside the videos
            unrecognized.append(path)
    if not videos and not excluded:
        raise layout_error(
            root,
            "FaceForensics++",
            [
                *(f"original_sequences/{kind}/c23/videos" for kind in (YOUTUBE, ACTORS)),
                *(f"manipulated_sequences/{kind}/c23/videos" for kind in (*SWAPS, ACTOR_SWAPS)),
                "(or raw, c40)",
            ],
        )
    missing = [
        f"{folder}/{name}.mp4"
        for (folder, kind), names in sorted(names_by_folder.items())
        for name in sorted(expected.get(kind, ()))
        if f"{name}.mp4" not in names
    ]
    return Listing(sort_videos(videos), missing, unrecognized, excluded=excluded)


def _describe(
    path: str,
    real: str | None,
    manipulation: str | None,
    compression: str,
    name: str,
    expected: dict[str, set[str]],
) -> Video | None:
    """Return the video at a path; None if the dataset has none of that name."""
    kind = real or manipulation
    if kind in expected:
        if name not in expected[kind]:
            return None
        clips = [read_clips()[clip] for clip in name.split("_")]
        sources, split = tuple(clip.source for clip in clips), clips[0].split
    else:
        match = (ONE_ACTOR if real else TWO_ACTORS).fullmatch(name)
        if match is None:
            return None
        sources, split = tuple(f"actor{number}" for number in match.groups()), "test"
    return Video(
        video_id=f"ffpp/{kind}/{compression}/{name}",
        path=path,
        label=int(real is None),
        manipulation=manipulation or "",
        compression=compression,
        source_ids=sources,
        split=split,
    )
