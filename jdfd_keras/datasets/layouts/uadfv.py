"""UADFV as its archive unpacks.

    real/0000.mp4 ... real/0048.mp4
    fake/0000_fake.mp4 ... fake/0048_fake.mp4    the same footage with another face

No split was ever published.

Reference:
    Yang, Li, Lyu: "Exposing Deep Fakes Using Inconsistent Head Poses" (2019).
"""

import re

from jdfd_keras.datasets.videos import Listing, Tree, Video, refuse, sort_videos

NUM_PAIRS = 49
NAME = re.compile(r"(?:real/([0-9]{4})|fake/([0-9]{4})_fake)\.mp4")


def list_uadfv(tree: Tree) -> Listing:
    """List UADFV; its splits are left open.

    Args:
        tree: The folder that holds real/ and fake/.

    Returns:
        The videos; missing are those of the 49 pairs that are not there.

    Raises:
        ValueError: If no video lies where it should.
    """
    videos, unknown = [], []
    for path in tree.media():
        match = NAME.fullmatch(path)
        number = match and (match[1] or match[2])
        if number is None or int(number) >= NUM_PAIRS:
            unknown.append(path)
            continue
        is_fake = match[2] is not None
        videos.append(
            Video(
                video_id=f"uadfv/{path.removesuffix('.mp4')}",
                path=path,
                label=int(is_fake),
                manipulation="FakeApp" if is_fake else "",
                compression="",
                source_ids=(number,),
                split="",
            )
        )
    if not videos:
        raise refuse(tree, "UADFV", ["real/ (0000.mp4)", "fake/ (0000_fake.mp4)"])
    pairs = [f"{number:04d}" for number in range(NUM_PAIRS)]
    expected = {f"real/{n}.mp4" for n in pairs} | {f"fake/{n}_fake.mp4" for n in pairs}
    return Listing(
        sort_videos(videos), sorted(expected - {video.path for video in videos}), unknown
    )
