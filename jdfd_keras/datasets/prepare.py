"""Preparation of a dataset of videos: face extraction, shards, tables, options, official split.

The entry point of this room, on one machine or on a cluster. Videos are finished one by one, so
an interrupted run resumes and ends with the same bytes. Faces are stored without splits: those are
tables (`datasets.split_dataset`), of which this writes the official one where it can.

    <out>/options.json        options it was prepared with
    <out>/manifest.parquet    one row per face (`datasets.manifest.FaceRow`)
    <out>/videos.parquet      one row per video (`datasets.manifest.VideoRow`)
    <out>/listing.json        missing, unrecognized and excluded files of the source folder
    <out>/splits/             official.csv, and the tables of `split_dataset`
    <out>/shards/             00000.tfrecord, ...
    <out>/parts/              finished videos, until the run is complete
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from jdfd_keras.datasets import manifest
from jdfd_keras.datasets.damage import (
    find_changed_rows,
    find_damaged_shards,
    find_damaged_tables,
)
from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.prepare_tasks import (
    ExtractVideo,
    Shard,
    VideoFile,
    WriteShard,
    plan_shards,
    write_tables,
)
from jdfd_keras.datasets.prepared_dataset import (
    PreparedDataset,
    check_videos,
    summarize_prepared,
)
from jdfd_keras.datasets.records import SHARDS
from jdfd_keras.datasets.split_dataset import assign_rows, find_shared_splits
from jdfd_keras.datasets.split_tables import (
    OFFICIAL,
    list_split_tables,
    write_split_table,
)
from jdfd_keras.datasets.splits import CannotSplitError
from jdfd_keras.datasets.videos import (
    Listing,
    Video,
)
from jdfd_keras.faces.align import describe_framing
from jdfd_keras.faces.extract import check_face_options
from jdfd_keras.io import storage
from jdfd_keras.io.beam import read_beam_flags, run_on_beam
from jdfd_keras.io.console import Progress, plural, print_message
from jdfd_keras.io.disk_space import reraise_disk_full
from jdfd_keras.io.files import OPTIONS, check_same_options, to_json
from jdfd_keras.io.workers import WorkerCrashed, check_limits, count_workers, run_all
from jdfd_keras.options import (
    FaceOptions,
    FilterOptions,
    LimitOptions,
    PrepareOptions,
    PrepareRuntime,
    SplitOptions,
    default_faces,
)


def prepare(
    root: str | Path,
    out: str | Path,
    faces: FaceOptions | None = None,
    options: PrepareOptions | None = None,
    filters: FilterOptions | None = None,
    runtime: PrepareRuntime | None = None,
    beam_flags: Sequence[str] = (),
    limits: LimitOptions | None = None,
) -> PreparedDataset:
    """Prepare a dataset: extract the faces of its videos, write shards, tables and its split.

    A dataset that cannot be split, such as one of few videos or of one class, has no official split
    table; all of it can be evaluated.

    Args:
        root: Folder of the videos, in the layout `options.layout` (`datasets.layouts`).
        out: The prepared dataset: created, resumed if a run with the same options was interrupted,
            or left unchanged if it is complete.
        faces: Face extraction.
        options: Selection of the videos, and storage.
        filters: Face quality filters; none if not given.
        runtime: Processes, or the Apache Beam runner, with which `root` and `out` may be on an
            object store; one process besides this one if not given.
        beam_flags: Further options of Beam.
        limits: Limits of one video; a video beyond one is excluded. The defaults if not given.

    Raises:
        OSError: If `root` does not exist, `out` cannot be written, or another run writes to it.
        ValueError: If an option is out of range, `root` has another layout, no video has a face, or
            `out` has other videos, options or format version.

    Example:
        >>> faces = FaceOptions(frames_per_video=1, face_size=71)
        >>> result = prepare("videos", "new_dataset", faces, runtime=PrepareRuntime(workers=2))
        >>> result.videos, result.splits["test"]
        (16, {'real': 1, 'fake': 1})
    """
    options, filters = options or PrepareOptions(), filters or FilterOptions()
    faces = faces or default_faces(options.layout)
    runtime, limits = runtime or PrepareRuntime(workers=1), limits or LimitOptions()
    check_face_options(faces, filters)
    _check_options(options, runtime)
    check_limits(limits)
    runner = runtime.runner
    # Beam needs its options before any use of its file systems.
    beam = read_beam_flags(runner, beam_flags) if runner else None
    source, target = storage.open_store(root, runner), storage.open_store(out, runner)

    def run(
        task: Callable, items: list, limits: LimitOptions | None = None
    ) -> Iterator[tuple[Any, Any]]:
        if beam is None:
            return run_all(task, items, count_workers(runtime.workers, len(items)), limits)
        folder = f"{storage.PARTS}/beam-{type(task).__name__.lower()}"
        return run_on_beam(task, items, options=beam, store=target, folder=folder, limits=limits)

    sizes = source.list()
    listing = list_videos(source, options, sizes)
    for note in filter(None, [*listing.notes, describe_framing(faces)]):
        print_message(f"note: {note}")
    table, not_split = _split_officially(listing)
    items = [_describe_file(video, listing, sizes) for video in listing.videos]
    groups = {"faces": faces, "filters": filters, "prepare": options, "limits": limits}
    task = ExtractVideo(source, target, faces, filters, limits)
    if not (_is_initialized(target, groups) and _is_finished(target)):
        with _reraise_disk_full(target), storage.exclusive_lock(target):
            # Another run may have started or finished in the meantime.
            if not _is_initialized(target, groups):
                storage.write_text(target, OPTIONS, to_json(groups))
            if not _is_finished(target):
                if damaged := find_damaged_tables(target):
                    print_message(
                        f"warning: damaged, perhaps by a power failure, and written again: "
                        f"{', '.join(damaged)} of {target.location}"
                    )
                outcomes = _extract_all(run, task, items)
                num_faces = {video_id: outcome.num_faces for video_id, outcome in outcomes.items()}
                _check_faces(num_faces)
                shards = plan_shards(
                    listing.videos, num_faces, faces_per_shard=options.faces_per_shard
                )
                target.remove(SHARDS)
                outcomes |= _write_shards(run, task, items, shards)
                summary = manifest.ListingSummary(
                    listing.missing, listing.unrecognized, listing.excluded, listing.notes
                )
                text = json.dumps(summary.to_dict(), indent=1) + "\n"
                storage.write_text(target, manifest.LISTING, text)
                _write_official(target, table)
                write_tables(target, listing, outcomes, shards)
    _write_official(target, table)  # if it was removed
    check_videos(target, items)
    with _reraise_disk_full(target):
        _rebuild_shards(run, task, items)
    target.remove(storage.PARTS)
    return summarize_prepared(target, not_split)


def _split_officially(listing: Listing) -> tuple[pd.DataFrame | None, str]:
    """Return the official split table, or why there is none; warn at once if its splits leak."""
    try:
        table = assign_rows(listing, SplitOptions())
    except CannotSplitError as error:
        print_message(f"warning: not split. {error}")
        return None, str(error)
    if shared := find_shared_splits(table, listing.videos):
        sources = plural(len(shared), "source")
        print_message(
            f"warning: the official split shares footage: {sources} in two splits, such as "
            f"{shared[0].source}, which a detector may memorise. `jdfd-keras split --strategy "
            "strict` excludes such videos from training"
        )
    return table, ""


def _write_official(out: storage.Store, table: pd.DataFrame | None) -> None:
    if table is not None and OFFICIAL not in list_split_tables(out):
        write_split_table(out, OFFICIAL, table, SplitOptions())


def _describe_file(video: Video, listing: Listing, sizes: Mapping[str, int]) -> VideoFile:
    frames = listing.frames.get(video.video_id, ())
    return VideoFile(
        video,
        sum(sizes[name] for name in frames or (video.path,)),
        frames=frames,
        landmarks=listing.landmarks.get(video.video_id, ()),
        mask=listing.masks.get(video.video_id, ""),
    )


def _check_options(options: PrepareOptions, runtime: PrepareRuntime) -> None:
    if options.faces_per_shard < 1 or runtime.workers < 0 or not 0 <= runtime.max_failed <= 1:
        raise ValueError(
            "Expected faces_per_shard >= 1, workers >= 0 and max_failed in 0..1; got "
            f"{options.faces_per_shard}, {runtime.workers} and {runtime.max_failed}. Try the "
            "defaults, 1024, 0 and 0.1."
        )


def _is_initialized(out: storage.Store, groups: dict) -> bool:
    """Return whether a folder has options.json; raise if it has other options or other files."""
    if out.exists(OPTIONS):
        check_same_options(storage.read_text(out, OPTIONS), out.location, groups)
        return True
    if any(not name.startswith(f"{storage.PARTS}/") for name in out.list()):
        raise ValueError(
            f"Expected a new or empty folder, or one to resume; got {out.location}, which holds "
            "other files. Choose another --out."
        )
    return False


def _reraise_disk_full(out: storage.Store) -> contextlib.AbstractContextManager[None]:
    content = f"the faces in {out.location} and in the folder for temporary files"
    return reraise_disk_full(content, "finished videos are kept")


def _extract_all(
    run: Callable, task: ExtractVideo, items: list[VideoFile]
) -> dict[str, manifest.VideoOutcome]:
    """Finish every video; return video id to outcome."""
    outcomes, num_faces, start = {}, 0, time.monotonic()
    progress = Progress("extracting faces", len(items), "videos")
    try:
        for item, outcome in run(task, items, task.limits):
            if isinstance(outcome, WorkerCrashed):
                reason = f"Expected a video that can be analysed; got {item}, {outcome}"
                outcome = task.fail(item, reason)
            outcomes[item.video.video_id] = outcome
            num_faces += outcome.num_faces
            rate = num_faces / max(time.monotonic() - start, 1e-9)
            progress.advance(note=f"{rate:.1f} faces/s")
    finally:
        progress.close(plural(num_faces, "face"))
    return outcomes


def _check_faces(num_faces: Mapping[str, int]) -> None:
    if not any(num_faces.values()):
        raise ValueError(
            f"Expected a face in at least one video; got none in all {len(num_faces)}. Check that "
            "they show upright faces of 40 pixels or more, or try --detector mtcnn; for images "
            "that are face crops already, --detector none."
        )


def _is_finished(out: storage.Store) -> bool:
    return out.exists(manifest.MANIFEST) and not find_damaged_tables(out)


def _write_shards(
    run: Callable, task: ExtractVideo, items: list[VideoFile], shards: list[Shard]
) -> dict[str, manifest.VideoOutcome]:
    """Write shards; extract videos again whose records are damaged, and return their outcomes."""
    outcomes: dict[str, manifest.VideoOutcome] = {}
    while shards:
        damaged: set[str] = set()
        remaining = []
        for shard, result in run(WriteShard(task.out), shards):
            if isinstance(result, WorkerCrashed):
                raise OSError(
                    f"Expected a process that writes a shard; got {shard}, {result.cause}. Check "
                    "the disk and the memory of this machine, and run the same command again."
                )
            if result:
                remaining.append(shard)
                damaged |= set(result)
        if repeated := sorted(damaged & outcomes.keys()):
            raise OSError(
                f"Expected the faces of {repeated[0]} as they were written to {task.out.location}; "
                "got other bytes, twice. Check the disk."
            )
        shards = remaining
        if damaged:
            print_message(
                f"warning: the records of {plural(len(damaged), 'video')} in {task.out.location} "
                f"are damaged, perhaps by a power failure, such as {min(damaged)}: extracted again"
            )
            again = [item for item in items if item.video.video_id in damaged]
            outcomes |= _extract_all(run, dataclasses.replace(task, again=True), again)
    return outcomes


def _rebuild_shards(run: Callable, task: ExtractVideo, items: list[VideoFile]) -> None:
    """Write the shards of a finished dataset again that are missing or cut."""
    out = task.out
    damaged = find_damaged_shards(out)
    if not damaged:
        return
    print_message(
        f"warning: {plural(len(damaged), 'shard')} of {out.location} missing or cut, perhaps by a "
        f"power failure, such as {min(damaged)}: written again"
    )
    files = {item.video.video_id: item for item in items}
    with storage.exclusive_lock(out):
        again = [files[video_id] for video_ids in damaged.values() for video_id in video_ids]
        _extract_all(run, task, again)
        shards = [Shard(name, tuple(files[v].video for v in ids)) for name, ids in damaged.items()]
        _write_shards(run, task, items, shards)
        if changed := find_changed_rows(out, shards):
            for shard in shards:
                out.remove(f"{SHARDS}/{shard.name}")
            raise ValueError(
                f"Expected the faces that the manifest of {out.location} states; got others of "
                f"{changed}, perhaps by another version of a library. Prepare the dataset into "
                "another --out."
            )
