"""FaceForensics++ as its download script lays it out, DeepFakeDetection included.

    original_sequences/{youtube,actors}/{raw,c23,c40}/videos/
    manipulated_sequences/<manipulation>/{raw,c23,c40}/videos/

The official split and the clips that were cut from one video stand in `faceforensics.csv`: clip,
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

from jdfd_keras.datasets.videos import Listing, Tree, Video, refuse, sort_videos

REALS = ("youtube", "actors")
SWAPS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
OF_ACTORS = "DeepFakeDetection"
NOT_ASKED_FOR = "not among --manipulations"
COMPRESSIONS = ("raw", "c23", "c40")
FOLDER = re.compile(
    rf"(?:original_sequences/({'|'.join(REALS)})|manipulated_sequences/"
    rf"({'|'.join([*SWAPS, OF_ACTORS])}))/({'|'.join(COMPRESSIONS)})/videos/([^/]+)\.mp4"
)
OF_ONE_ACTOR = re.compile(r"([0-9][0-9])__\w+")
OF_TWO_ACTORS = re.compile(r"([0-9][0-9])_([0-9][0-9])__\w+")


@dataclass(frozen=True)
class Clip:
    """One of the thousand real clips.

    Attributes:
        partner: The clip with which it swaps faces.
        split: In the official split.
        source: The first of the clips that were cut from the same video; mostly itself.
    """

    partner: str
    split: str
    source: str


@cache
def read_clips() -> dict[str, Clip]:
    """Read the table of clips that comes with the package: clip to what is known of it."""
    text = resources.files(__package__).joinpath("faceforensics.csv").read_text(encoding="utf-8")
    return {
        row["clip"]: Clip(row["partner"], row["split"], row["source"])
        for row in csv.DictReader(text.splitlines())
    }


def list_faceforensics(tree: Tree, wanted: Collection[str] = ()) -> Listing:
    """List FaceForensics++: all manipulations and compressions that are there.

    DeepFakeDetection and the real videos of its actors have no official split: beside the others
    they would change its test split. They are taken only if asked for, and then all for testing,
    where published evaluations use them; they share nobody with the others.

    Args:
        tree: The folder that holds original_sequences/ and manipulated_sequences/.
        wanted: Manipulations asked for; all but DeepFakeDetection if none is. Real videos are
            those that they are made of.

    Returns:
        The videos. Missing are those of the official split that a folder lacks, and the real
        videos of every compression of fakes; of actors' videos no list is known, so none is missed.

    Raises:
        ValueError: If no video lies where it should.
    """
    clips = read_clips()
    expected = {kind: set(clips) for kind in REALS[:1]}
    swapped = {f"{clip}_{of.partner}" for clip, of in clips.items()}
    expected |= dict.fromkeys(SWAPS, swapped)

    kinds = {REALS[1], OF_ACTORS} if OF_ACTORS in wanted else set()
    if not wanted or set(wanted) - {OF_ACTORS}:
        kinds |= {REALS[0], *SWAPS}

    videos, unknown, found, left_out = [], [], {}, {}
    for path in tree.media():
        match = FOLDER.fullmatch(path)
        video = match and _describe(path, *match.groups(), expected)
        if video and (match[1] or match[2]) not in kinds:
            left_out[video.video_id] = NOT_ASKED_FOR
        elif video:
            videos.append(video)
            folder, name = path.rsplit("/", 1)
            found.setdefault((folder, match[1] or match[2]), set()).add(name)
            if match[2] in SWAPS:
                reals = f"original_sequences/{REALS[0]}/{match[3]}/videos"
                found.setdefault((reals, REALS[0]), set())
        elif "/masks/" not in path:  # published beside the videos
            unknown.append(path)
    if not videos and not left_out:
        raise refuse(
            tree,
            "FaceForensics++",
            [
                *(f"original_sequences/{kind}/c23/videos" for kind in REALS),
                *(f"manipulated_sequences/{kind}/c23/videos" for kind in (*SWAPS, OF_ACTORS)),
                "(or raw, c40)",
            ],
        )
    missing = [
        f"{folder}/{name}.mp4"
        for (folder, kind), names in sorted(found.items())
        for name in sorted(expected.get(kind, ()))
        if f"{name}.mp4" not in names
    ]
    return Listing(sort_videos(videos), missing, unknown, left_out=left_out)


def _describe(
    path: str,
    real: str | None,
    manipulation: str | None,
    compression: str,
    name: str,
    expected: dict[str, set[str]],
) -> Video | None:
    kind = real or manipulation
    if kind in expected:
        if name not in expected[kind]:
            return None
        clips = read_clips()
        parts = name.split("_")
        sources, split = tuple(clips[part].source for part in parts), clips[parts[0]].split
    else:
        match = (OF_ONE_ACTOR if real else OF_TWO_ACTORS).fullmatch(name)
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
