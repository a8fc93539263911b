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

from jdfd_keras.datasets.videos import DatasetFiles, Listing, Video, layout_error, sort_videos

TEST_LIST = "List_of_testing_videos.txt"
MANIPULATION = "Celeb-synthesis"
NAMES = {
    "Celeb-real": re.compile(r"(id[0-9]+)_([0-9]+)"),
    MANIPULATION: re.compile(r"(id[0-9]+)_(id[0-9]+)_([0-9]+)"),
    "YouTube-real": re.compile(r"([0-9]+)"),
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

    Raises:
        OSError: If the test list does not exist.
        ValueError: If no video is in the expected folders, or the list names an invalid clip.

    Example:
        >>> root = read_dataset_files(LocalStore("Celeb-DF-v2"))  # doctest: +SKIP
        >>> list_celebdf(root, version="v2").videos[0].split  # doctest: +SKIP
        'train'
    """
    clips, unrecognized = {}, []
    for path in root.media():
        clip = _parse(path)
        if clip is None:
            unrecognized.append(path)
        else:
            clips[path] = clip
    if not clips:
        raise layout_error(root, "Celeb-DF", [f"{folder}/" for folder in NAMES])
    test = _read_test_list(root)
    videos, subjects = [], {}
    for path, (folder, ids) in clips.items():
        video_id = f"celebdf/{version}/{path.removesuffix('.mp4')}"
        if folder == "YouTube-real":
            source = f"youtube{ids[0]}"
            subjects[video_id] = (source,)
        else:
            source = f"{ids[0]}_{ids[-1]}"
            subjects[video_id] = ids[:-1]
        is_fake = folder == MANIPULATION
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
    return Listing(sort_videos(videos), sorted(test - set(clips)), unrecognized, subjects)


def _parse(path: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the folder and the ids in a file name; None if it is not a clip of Celeb-DF."""
    folder, _, name = path.partition("/")
    stem, dot, suffix = name.partition(".")
    if folder not in NAMES or (dot, suffix) != (".", "mp4"):
        return None
    match = NAMES[folder].fullmatch(stem)
    return (folder, match.groups()) if match else None


def _read_test_list(root: DatasetFiles) -> set[str]:
    """Read the published list; check that its labels, in which 1 is real, match the folders."""
    list_path = f"{root.store.location}/{TEST_LIST}"
    if TEST_LIST not in root.files:
        raise FileNotFoundError(
            f"Expected the published test list at {list_path}; got no such file. Copy it from the "
            "archive of Celeb-DF, where it is next to the folders of videos."
        )
    test, invalid = set(), []
    for line in root.read(TEST_LIST).splitlines():
        if not line.strip():
            continue
        label, path = [*line.split(maxsplit=1), ""][:2]
        clip = _parse(path.strip())
        if clip is None or label not in ("0", "1") or (label == "1") == (clip[0] == MANIPULATION):
            invalid.append(line.strip())
        else:
            test.add(path.strip())
    if invalid:
        raise ValueError(
            "Expected lines such as `1 YouTube-real/00170.mp4` or `0 Celeb-synthesis/"
            f"id0_id1_0000.mp4` (1 is real) in {list_path}; got {len(invalid)} with an invalid "
            f"clip or label: {', '.join(map(repr, invalid[:5]))}. Use the list of the archive."
        )
    return test
