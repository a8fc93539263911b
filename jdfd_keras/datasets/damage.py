"""Files of a prepared dataset that a power failure or an incomplete copy has cut.

A file system may keep the name of a new file and lose its content. Only sizes and ends are checked
here; each record has a checksum, which is checked whenever it is read.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jdfd_keras.datasets import manifest
from jdfd_keras.datasets.prepare_tasks import Shard
from jdfd_keras.datasets.records import SHARDS, parse_length
from jdfd_keras.io.storage import Store, read_text

HEAD_BYTES, TAIL_BYTES = 12, 4  # of a record in a TFRecord file
PARQUET_END = b"PAR1"


def find_damaged_tables(store: Store) -> list[str]:
    """Return the names of existing tables of a dataset that are empty or cut.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> find_damaged_tables(LocalStore("prepared"))
        []
    """
    return [name for name in _list_tables(store) if not _is_whole(store, name)]


def find_damaged_shards(store: Store) -> dict[str, list[str]]:
    """Return the shards that are missing or do not end with the last record of the manifest.

    Args:
        store: A prepared dataset with its manifest.

    Returns:
        Name of the shard to the ids of its videos, in their order.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> find_damaged_shards(LocalStore("prepared"))
        {}
    """
    faces = manifest.read_faces(store, columns=["shard", "video_id", "offset"])
    shards = np.asarray(faces["shard"].to_numpy(zero_copy_only=False).astype(str))
    offsets, video_ids = (
        faces["offset"].to_numpy(),
        faces["video_id"].to_numpy(zero_copy_only=False),
    )
    sizes = {name.rsplit("/", 1)[-1]: size for name, size in store.list(SHARDS).items()}
    damaged = {}
    for shard in np.unique(shards):
        rows = np.flatnonzero(shards == shard)
        rows = rows[np.argsort(offsets[rows])]
        if not _ends_with(store, f"{SHARDS}/{shard}", sizes.get(shard, 0), offsets[rows[-1]]):
            damaged[str(shard)] = list(dict.fromkeys(video_ids[rows].tolist()))
    return damaged


def _list_tables(store: Store) -> Iterator[str]:
    for name in (manifest.LISTING, manifest.VIDEOS, manifest.MANIFEST):
        if store.exists(name):
            yield name


def _is_whole(store: Store, name: str) -> bool:
    if name == manifest.LISTING:
        try:
            return isinstance(json.loads(read_text(store, name)), dict)
        except ValueError:
            return False
    with store.open(name) as file:
        content_end = file.seek(0, 2)
        file.seek(max(content_end - len(PARQUET_END), 0))
        return file.read() == PARQUET_END


def _ends_with(store: Store, name: str, size: int, offset: int) -> bool:
    """Return whether the record at an offset is the last one of a file of this size."""
    if size < offset + HEAD_BYTES:
        return False
    with store.open(name) as file:
        file.seek(int(offset))
        try:
            length = parse_length(file.read(HEAD_BYTES))
        except ValueError:
            return False
    return size == offset + HEAD_BYTES + length + TAIL_BYTES


def find_changed_rows(store: Store, shards: Sequence[Shard]) -> str:
    """Return the first of some shards whose new rows differ from those of the manifest; "" if none.

    Args:
        store: A prepared dataset.
        shards: Shards that were just written, whose rows are in the folder of unfinished work.

    Example:
        >>> from jdfd_keras.io.storage import LocalStore
        >>> find_changed_rows(LocalStore("prepared"), [])
        ''
    """
    faces = manifest.read_faces(store, split_table="") if shards else None
    for shard in shards:
        assert faces is not None
        with store.open(shard.rows_name) as file:
            rows = pq.read_table(file, schema=manifest.schema_of(manifest.FaceRow))
        stated = faces.filter(pc.field("shard") == shard.name)
        if manifest.to_rows(rows, manifest.FaceRow) != manifest.to_rows(stated, manifest.FaceRow):
            return shard.name
    return ""
