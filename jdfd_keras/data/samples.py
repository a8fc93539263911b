"""Some faces of a prepared data set, chosen evenly and read without the others.

Takes the folder and rows of its manifest; gives crops. For people who look; training reads
whole splits through `data.pipeline`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jdfd_keras.data.manifest import FaceRow
from jdfd_keras.data.prepare import SHARDS
from jdfd_keras.faces.decode import sample_frame_indices
from jdfd_keras.options import OPTIONS, FaceOptions, load_options


def choose_evenly(items: Sequence, count: int) -> list:
    """Choose `count` items spread evenly over all; all of them if there are fewer."""
    return [items[index] for index in sample_frame_indices(len(items), count)] if items else []


def choose_over_videos(rows: Sequence[FaceRow], indices: Sequence[int], count: int) -> list[int]:
    """Choose faces of as many videos as there may be, and evenly over each.

    Args:
        rows: The manifest.
        indices: Rows to choose from.
        count: Faces wanted.

    Returns:
        Rows, in the order of their videos' names; `count` of them where there are as many.
    """
    videos: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        videos[rows[index].video_id].append(index)
    names = choose_evenly(sorted(videos), count)
    chosen, left = {}, count
    # Those with few faces first: what they lack is taken of the others.
    for number, name in enumerate(sorted(names, key=lambda name: len(videos[name]))):
        chosen[name] = choose_evenly(videos[name], -(-left // (len(names) - number)))
        left -= len(chosen[name])
    return [index for name in names for index in chosen[name]]


def read_crops(
    directory: str | Path, rows: Sequence[FaceRow], indices: Iterable[int]
) -> dict[int, np.ndarray]:
    """Read the crops of some rows.

    Args:
        directory: The prepared data set.
        rows: Its manifest.
        indices: The rows wanted.

    Returns:
        Row to crop, uint8[size, size, 3], RGB.

    Raises:
        ValueError: If a shard is not there, is damaged or lacks the face.
    """
    import tensorflow as tf

    from jdfd_keras.data.pipeline import UNREADABLE
    from jdfd_keras.data.shards import decode_face

    size = load_options(Path(directory) / OPTIONS, "faces", FaceOptions).face_size
    crops = {}
    for shard, places in _locate(rows, set(indices)).items():
        path = Path(directory) / SHARDS / shard
        records = tf.data.TFRecordDataset(str(path)).take(max(places) + 1)
        try:
            for place, record in enumerate(records):
                if place in places:
                    crops[places[place]] = decode_face(record, size)[0].numpy()
            if missing := [place for place, index in places.items() if index not in crops]:
                raise EOFError(missing)
        # TensorFlow 2.21 quotes bytes that it cannot parse and stumbles over its own quotation.
        except (EOFError, UnicodeDecodeError, *UNREADABLE) as error:
            state = "cut short or damaged" if path.is_file() else "not there"
            raise ValueError(
                f"Expected {path} to hold every face that the manifest lists for it; got a file "
                f"that is {state}. Copy the data set again, or prepare it again."
            ) from error
    return crops


def _locate(rows: Sequence[FaceRow], indices: set[int]) -> dict[str, dict[int, int]]:
    """Say where rows lie: shard, then place in it, to the row's index; in the order of the rows."""
    located: dict[str, dict[int, int]] = defaultdict(dict)
    num_before: Counter = Counter()
    for index, row in enumerate(rows):
        if index in indices:
            located[row.shard][num_before[row.shard]] = index
        num_before[row.shard] += 1
    return located
