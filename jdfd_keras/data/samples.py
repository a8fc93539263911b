"""Some faces of a prepared data set, chosen evenly and read without the others.

Takes the folder and rows of its manifest; gives crops. For people who look; training reads
whole splits through `data.pipeline`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.data.assemble import SHARDS
from jdfd_keras.data.records import read_framed, read_png
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
    directory: str | Path, shards: Sequence[str], indices: Iterable[int]
) -> dict[int, np.ndarray]:
    """Read the crops of some rows.

    Args:
        directory: The prepared data set.
        shards: The shard of every row of its manifest.
        indices: The rows wanted.

    Returns:
        Row to crop, uint8[size, size, 3], RGB.

    Raises:
        ValueError: If a shard is not there, is damaged or lacks the face.
    """
    crops = {}
    for shard, places in _locate(shards, set(indices)).items():
        path = Path(directory) / SHARDS / shard
        try:
            with open(path, "rb") as file:
                for place, record in enumerate(islice(read_framed(file), max(places) + 1)):
                    if place in places:
                        crops[places[place]] = _decode(read_png(record))
            if missing := [place for place, index in places.items() if index not in crops]:
                raise ValueError(f"no face {missing[0]}")
        except (FileNotFoundError, ValueError) as error:
            state = "cut short or damaged" if path.is_file() else "not there"
            raise ValueError(
                f"Expected {path} to hold every face that the manifest lists for it; got a file "
                f"that is {state}. Copy the data set again, or prepare it again."
            ) from error
    return crops


def _decode(png: bytes) -> np.ndarray:
    crop = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    if crop is None:
        raise ValueError("a picture that cannot be decoded")
    return crop


def _locate(shards: Sequence[str], indices: set[int]) -> dict[str, dict[int, int]]:
    """Say where rows lie: shard, then place in it, to the row's index; in the order of the rows."""
    located: dict[str, dict[int, int]] = defaultdict(dict)
    num_before: Counter = Counter()
    for index, shard in enumerate(shards):
        if index in indices:
            located[shard][num_before[shard]] = index
        num_before[shard] += 1
    return located
