"""Celeb-DF, versions 1 and 2, in the layout of its archive.

    Celeb-real/id0_0000.mp4             a clip of subject 0
    Celeb-synthesis/id0_id1_0000.mp4    the same clip with the face of subject 1
    YouTube-real/00170.mp4
    List_of_testing_videos.txt          the published test list, in which 1 is real

Reference:
    Li et al.: "Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics" (2020),
    https://github.com/yuezunli/celeb-deepfakeforensics
"""

import re

from jdfd_keras.datasets.videos import DatasetFiles, Listing, Video, layout_error

TEST_LIST = "List_of_testing_videos.txt"
MANIPULATION = "Celeb-synthesis"
CLIPS = {
    "Celeb-real": re.compile(r"Celeb-real/(id[0-9]+)_([0-9]+)\.mp4"),
    MANIPULATION: re.compile(rf"{MANIPULATION}/(id[0-9]+)_(id[0-9]+)_([0-9]+)\.mp4"),
    "YouTube-real": re.compile(r"YouTube-real/([0-9]+)\.mp4"),
}


def list_celebdf(root: DatasetFiles, *, version: str) -> Listing:
    """List Celeb-DF: the published test list for testing, all other videos for training.

    The source of a fake is the clip that was manipulated, such as `id0_0000`; the clip with the
    new face is not published. `Listing.subjects` has both subjects.

    Args:
        root: Folder of the extracted archive.
        version: `v1` or `v2`; used in the video ids.

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
    clips = {path: clip for path in root.media() if (clip := _parse(path))}
    if not clips:
        raise layout_error(root, "Celeb-DF", [f"{folder}/" for folder in CLIPS])
    test = _read_test_list(root)
    videos, subjects = [], {}
    for path, (folder, ids) in clips.items():
        video_id = f"celebdf/{version}/{path.removesuffix('.mp4')}"
        is_fake = folder == MANIPULATION
        source = f"youtube{ids[0]}" if folder == "YouTube-real" else f"{ids[0]}_{ids[-1]}"
        subjects[video_id] = ids[:-1] or (source,)
        videos.append(
            Video(
                video_id=video_id,
                path=path,
                label=int(is_fake),
                manipulation=MANIPULATION if is_fake else "",
                compression="",
                source_ids=(source,),
                split="test" if path in test else "train",
            )
        )
    unrecognized = [path for path in root.media() if path not in clips]
    return Listing(videos, sorted(test - set(clips)), unrecognized, subjects)


def _parse(path: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the folder and the ids in a file name; None if it is not a clip of Celeb-DF."""
    for folder, pattern in CLIPS.items():
        if match := pattern.fullmatch(path):
            return folder, match.groups()
    return None


def _read_test_list(root: DatasetFiles) -> set[str]:
    """Read the published list; check that its labels, in which 1 is real, match the folders."""
    list_path = f"{root.store.location}/{TEST_LIST}"
    if TEST_LIST not in root.files:
        raise FileNotFoundError(
            f"Expected the published test list at {list_path}; got no such file. Copy it from the "
            "archive of Celeb-DF, where it is next to the folders of videos."
        )
    test, invalid = set(), []
    for line in filter(None, map(str.strip, root.read(TEST_LIST).splitlines())):
        label, path = [*line.split(maxsplit=1), ""][:2]
        clip = _parse(path)
        if clip and label == ("0" if clip[0] == MANIPULATION else "1"):
            test.add(path)
        else:
            invalid.append(line)
    if invalid:
        raise ValueError(
            "Expected lines such as `1 YouTube-real/00170.mp4` or `0 Celeb-synthesis/"
            f"id0_id1_0000.mp4` (1 is real) in {list_path}; got {len(invalid)} with an invalid "
            f"clip or label: {', '.join(map(repr, invalid[:5]))}. Use the list of the archive."
        )
    return test
