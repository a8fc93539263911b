"""Celeb-DF, version 1 and 2, as its archive unpacks.

    Celeb-real/id0_0000.mp4             a clip of person 0
    Celeb-synthesis/id0_id1_0000.mp4    the same clip with the face of person 1
    YouTube-real/00170.mp4
    List_of_testing_videos.txt          the published test list, in which 1 is real

Reference:
    Li et al.: "Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics" (2020),
    https://github.com/yuezunli/celeb-deepfakeforensics
"""

import re

from jdfd_keras.datasets.videos import Listing, Tree, Video, refuse, sort_videos

TEST_LIST = "List_of_testing_videos.txt"
MANIPULATION = "Celeb-synthesis"
NAMES = {
    "Celeb-real": re.compile(r"(id[0-9]+)_([0-9]+)"),
    MANIPULATION: re.compile(r"(id[0-9]+)_(id[0-9]+)_([0-9]+)"),
    "YouTube-real": re.compile(r"([0-9]+)"),
}


def list_celebdf(tree: Tree, *, version: str) -> Listing:
    """List Celeb-DF: its published test list, all else in training; no list is for validation.

    A fake's source is the clip that it was made of, `id0_0000`; of which clip the face came is
    not published. Both people are told in the listing.

    Args:
        tree: The root of the archive.
        version: `v1` or `v2`; part of the video ids.

    Returns:
        The videos; missing are those of the test list that are not there.

    Raises:
        OSError: If the test list is not there.
        ValueError: If no video lies where it should, or the list names what can be no clip of
            Celeb-DF.
    """
    found = {}
    unknown = []
    for path in tree.media():
        parts = _parse(path)
        if parts is None:
            unknown.append(path)
        else:
            found[path] = parts
    if not found:
        raise refuse(tree, "Celeb-DF", [f"{folder}/" for folder in NAMES])
    test = _read_test_list(tree)
    videos, people = [], {}
    for path, (folder, names) in found.items():
        video_id = f"celebdf/{version}/{path.removesuffix('.mp4')}"
        if folder == "YouTube-real":
            source, seen = f"youtube{names[0]}", (f"youtube{names[0]}",)
        else:
            source, seen = f"{names[0]}_{names[-1]}", names[:-1]
        people[video_id] = seen
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
    missing = sorted(test - set(found))
    return Listing(sort_videos(videos), missing, unknown, people)


def _parse(path: str) -> tuple[str, tuple[str, ...]] | None:
    folder, _, name = path.partition("/")
    stem, dot, suffix = name.partition(".")
    match = (
        NAMES[folder].fullmatch(stem) if folder in NAMES and (dot, suffix) == (".", "mp4") else None
    )
    return (folder, match.groups()) if match else None


def _read_test_list(tree: Tree) -> set[str]:
    """Read the published list; see that its labels, in which 1 is real, agree with its folders."""
    place = f"{tree.store.place}/{TEST_LIST}"
    if TEST_LIST not in tree.files:
        raise FileNotFoundError(
            f"Expected the published test list at {place}; got no such file. It lies in the "
            "archive of Celeb-DF beside the folders of videos: copy it there."
        )
    test, wrong = set(), []
    for line in tree.read(TEST_LIST).splitlines():
        if not line.strip():
            continue
        label, path = [*line.split(maxsplit=1), ""][:2]
        parts = _parse(path.strip())
        if parts is None or label not in ("0", "1") or (label == "1") == (parts[0] == MANIPULATION):
            wrong.append(line.strip())
        else:
            test.add(path.strip())
    if wrong:
        raise ValueError(
            "Expected lines such as `1 YouTube-real/00170.mp4` or `0 Celeb-synthesis/"
            f"id0_id1_0000.mp4` (1 is real) in {place}; got {len(wrong)} that name no clip of "
            f"Celeb-DF or have the wrong label: {', '.join(map(repr, wrong[:5]))}. Use the list "
            "of the archive."
        )
    return test
