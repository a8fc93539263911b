"""Celeb-DF, versions 1 and 2 and Celeb-DF++, in the layouts of their archives.

    Celeb-real/id0_0000.mp4             a clip of subject 0
    Celeb-synthesis/id0_id1_0000.mp4    the same clip with the face of subject 1
    YouTube-real/00170.mp4
    List_of_testing_videos.txt          the published test list, in which 1 is real

Celeb-DF++ has the same real clips, and fakes of 22 methods in
`Celeb-synthesis/{FaceSwap,FaceReenact,TalkingFace}/<method>/`.

Reference:
    Li et al.: "Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics" (2020),
    https://github.com/yuezunli/celeb-deepfakeforensics; Li et al.: "Celeb-DF++: A Large-scale
    Challenging Video DeepFake Benchmark for Generalizable Forensics" (2025),
    https://github.com/OUC-VAS/Celeb-DF-PP
"""

import dataclasses
import re
from typing import NamedTuple

from jdfd_keras.datasets.videos import DatasetFiles, Listing, Video, layout_error
from jdfd_keras.io.console import plural

TEST_LIST = "List_of_testing_videos.txt"
MANIPULATION = "Celeb-synthesis"
PLUS_PLUS = "++"
FACE_SWAP = "FaceSwap"
FAKE_NAME = re.compile(r"(id[0-9]+)_id[0-9]+_([0-9]+)")
CELEB_REALS = re.compile(r"Celeb-real/(?P<name>id[0-9]+_[0-9]+)\.mp4")
YOUTUBE_REALS = re.compile(r"YouTube-real/(?P<name>[0-9]+)\.mp4")
FAKES = re.compile(rf"{MANIPULATION}/(?P<name>id[0-9]+_id[0-9]+_[0-9]+)\.mp4")
FAKES_OF_METHODS = re.compile(
    rf"{MANIPULATION}/(?P<scenario>{FACE_SWAP}|FaceReenact|TalkingFace)/(?P<method>[^/]+)/"
    r"(?P<name>[^/]+)\.mp4"
)


class Clip(NamedTuple):
    """One video of Celeb-DF, as its file name tells."""

    video: Video  # without a split
    subjects: tuple[str, ...]


def list_celebdf(root: DatasetFiles, *, version: str) -> Listing:
    """List Celeb-DF: the published test list for testing, all other videos for training.

    The source of a fake is the clip that was manipulated, such as `id0_0000`; the clip with the
    new face is not published. `Listing.subjects` has both subjects. Of Celeb-DF++, only face swaps
    have a source: the names of its other fakes are not documented.

    Args:
        root: Folder of the extracted archive.
        version: `v1`, `v2` or `++`; used in the video ids.

    Returns:
        The videos; `missing` are the listed test videos that do not exist.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> with open(TEST_LIST, "w") as file:
        ...     _ = file.write("1 Celeb-real/id0_0000.mp4")
        >>> files = ("Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4", TEST_LIST)
        >>> root = DatasetFiles(LocalStore("."), "Celeb-DF-v2", files)
        >>> listing = list_celebdf(root, version="v2")
        >>> [(video.label, video.source_ids, video.split) for video in listing.videos]
        [(0, ('id0_0000',), 'test'), (1, ('id0_0000',), 'train')]
    """
    clips = {path: clip for path in root.files if (clip := parse_clip(path, version=version))}
    if not clips:
        below = f"{FACE_SWAP}/<method>/" if version == PLUS_PLUS else ""
        folders = ["Celeb-real/", f"{MANIPULATION}/{below}", "YouTube-real/"]
        raise layout_error(root, f"Celeb-DF{'++' * (version == PLUS_PLUS)}", folders)
    if TEST_LIST not in root.files:
        raise FileNotFoundError(
            f"Expected the published test list at {root.store.location}/{TEST_LIST}; got no such "
            "file. Copy it from the archive of Celeb-DF, where it is next to the folders of videos."
        )
    test = read_test_list(root, TEST_LIST, version=version)
    videos = [
        dataclasses.replace(clip.video, split="test" if path in test else "train")
        for path, clip in clips.items()
    ]
    return Listing(
        videos,
        missing=sorted(test - set(clips)),
        unrecognized=[path for path in root.files if path not in clips and path != TEST_LIST],
        subjects={clip.video.video_id: clip.subjects for clip in clips.values() if clip.subjects},
        notes=_describe_unknown(videos),
    )


def parse_clip(path: str, *, version: str) -> Clip | None:
    """Return what the path of a video in the archive tells; None if it is not of Celeb-DF.

    Example:
        >>> clip = parse_clip("Celeb-synthesis/id0_id1_0002.mp4", version="v2")
        >>> clip.video.source_ids, clip.subjects
        (('id0_0002',), ('id0', 'id1'))
    """
    fakes = FAKES_OF_METHODS if version == PLUS_PLUS else FAKES
    forms = (CELEB_REALS, YOUTUBE_REALS, fakes)
    match = next(filter(None, (form.fullmatch(path) for form in forms)), None)
    if match is None:
        return None
    name, manipulation = match["name"], ""
    if path.startswith("YouTube-real/"):
        sources = subjects = (f"youtube{name}",)
    elif path.startswith("Celeb-real/"):
        sources, subjects = (name,), (name.split("_")[0],)
    else:
        groups = match.groupdict()
        manipulation = groups.get("method", MANIPULATION)
        pair = FAKE_NAME.fullmatch(name)
        # Which clip a reenacted or talking face shows is not documented.
        is_swap = pair is not None and groups.get("scenario", FACE_SWAP) == FACE_SWAP
        sources = ("_".join(pair.groups()),) if pair and is_swap else ()
        subjects = tuple(dict.fromkeys(re.findall(r"(?<![A-Za-z0-9])id[0-9]+", name)))
    video = Video(
        video_id=f"celebdf/{version}/{path.removesuffix('.mp4')}",
        path=path,
        label=int(manipulation != ""),
        manipulation=manipulation,
        compression="",
        source_ids=sources,
        split="",
    )
    return Clip(video, subjects)


def read_test_list(root: DatasetFiles, name: str, *, version: str) -> set[str]:
    """Read the published list of test videos.

    Args:
        root: The dataset.
        name: Name of the list in it.
        version: `v1`, `v2` or `++`.

    Returns:
        The paths of the test videos, relative to the archive.

    Raises:
        ValueError: If a line does not name a video of this version, or its label, in which 1 is
            real, contradicts the folder.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> with open(TEST_LIST, "w") as file:
        ...     _ = file.write("1 YouTube-real/00170.mp4")
        >>> root = DatasetFiles(LocalStore("."), "Celeb-DF-v2", (TEST_LIST,))
        >>> read_test_list(root, TEST_LIST, version="v2")
        {'YouTube-real/00170.mp4'}
    """
    test, invalid = set(), []
    for line in filter(None, map(str.strip, root.read(name).splitlines())):
        label, path = [*line.split(maxsplit=1), ""][:2]
        clip = parse_clip(path, version=version)
        if clip and label == ("0" if clip.video.label else "1"):
            test.add(path)
        else:
            invalid.append(line)
    if invalid:
        fake = "Celeb-synthesis/" + ("FaceSwap/SimSwap/" if version == PLUS_PLUS else "")
        raise ValueError(
            f"Expected lines such as `1 YouTube-real/00170.mp4` or `0 {fake}id0_id1_0000.mp4` (1 "
            f"is real) in {root.store.location}/{name}; got {len(invalid)} with an invalid clip or "
            f"label: {', '.join(map(repr, invalid[:5]))}. Use the list of the archive."
        )
    return test


def _describe_unknown(videos: list[Video]) -> list[str]:
    """Return a note if there are fakes without a source."""
    unknown = [video for video in videos if not video.source_ids]
    if not unknown:
        return []
    return [
        f"{plural(len(unknown), 'fake')} of Celeb-DF++ have no known source, such as "
        f"{unknown[0].path}: only the names of face swaps are those of Celeb-DF. Their subjects "
        "are those in their names."
    ]
