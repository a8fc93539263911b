"""Some faces of a prepared data set, chosen evenly and read without the others.

Takes the folder and rows of its manifest; gives crops. For people who look; training reads
whole splits through `data.pipeline`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jdfd_keras.data.assemble import SHARDS
from jdfd_keras.data.records import read_crop
from jdfd_keras.faces.decode import sample_frame_indices


def choose_evenly(items: Sequence, count: int) -> list:
    """Choose `count` items spread evenly over all; all of them if there are fewer."""
    return [items[index] for index in sample_frame_indices(len(items), count)] if items else []


def choose_over_videos(video_ids: Sequence[str], indices: Sequence[int], count: int) -> list[int]:
    """Choose faces of as many videos as there may be, and evenly over each.

    Args:
        video_ids: The video of every row of a manifest.
        indices: Rows to choose from.
        count: Faces wanted.

    Returns:
        Rows, in the order of their videos' names; `count` of them where there are as many.
    """
    videos: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        videos[video_ids[index]].append(index)
    names = choose_evenly(sorted(videos), count)
    chosen, left = {}, count
    # Those with few faces first: what they lack is taken of the others.
    for number, name in enumerate(sorted(names, key=lambda name: len(videos[name]))):
        chosen[name] = choose_evenly(videos[name], -(-left // (len(names) - number)))
        left -= len(chosen[name])
    return [index for name in names for index in chosen[name]]


def read_crops(
    directory: str | Path, shards: Sequence[str], offsets: Sequence[int], indices: Iterable[int]
) -> dict[int, np.ndarray]:
    """Read the crops of some rows.

    Args:
        directory: The prepared data set.
        shards: The shard of every row of its manifest.
        offsets: The offset of every row in it.
        indices: The rows wanted.

    Returns:
        Row to crop, uint8[size, size, 3], RGB.

    Raises:
        ValueError: If a shard is not there, is damaged or lacks the face.
    """
    shards_at = Path(directory) / SHARDS
    return {index: read_crop(shards_at / shards[index], offsets[index]) for index in indices}
