"""Preparation of a dataset of videos: face extraction, splits, shards, tables and options.

The entry point of this room, on one machine or on a cluster. Videos are finished one by one, so
an interrupted run resumes and ends with the same bytes. A video without a face is a row with the
reason.

    <out>/options.json        options it was prepared with
    <out>/manifest.parquet    one row per face (`datasets.manifest.FaceRow`); or .csv
    <out>/videos.parquet      one row per video (`datasets.manifest.VideoRow`); or .csv
    <out>/listing.json        missing, unrecognized and excluded files of the source folder
    <out>/shards/             train-00000.tfrecord, ...
    <out>/parts/              finished videos, until the run is complete
"""

import contextlib
import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.datasets.extraction_task import ExtractVideo
from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.leakage import SharedSource, by_split, find_shared_sources
from jdfd_keras.datasets.manifest import (
    LISTING,
    MANIFEST,
    ListingSummary,
    VideoOutcome,
    VideoRow,
    count_filtered,
    find_table,
    read_faces,
    read_listing,
    read_videos,
)
from jdfd_keras.datasets.records import SHARDS
from jdfd_keras.datasets.shard_writer import WriteShard, check_faces, plan_shards, write_tables
from jdfd_keras.datasets.splits import assign_splits
from jdfd_keras.datasets.videos import (
    CLASSES,
    LABEL_NAMES,
    SPLITS,
    Listing,
    Video,
    count_by,
)
from jdfd_keras.faces.extract import check_face_options
from jdfd_keras.io.console import Progress, plural
from jdfd_keras.io.files import OPTIONS, check_same_options, to_json
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import (
    PARTS,
    UNFINISHED,
    BeamStore,
    LocalStore,
    Store,
    exclusive_lock,
    is_local,
    read_text,
    write_text,
)
from jdfd_keras.io.workers import (
    WorkerCrashed,
    count_workers,
    read_beam_flags,
    run_all,
    run_on_beam,
)
from jdfd_keras.options import (
    FaceOptions,
    FilterOptions,
    PrepareOptions,
    PrepareRuntime,
    SplitOptions,
)


@dataclass(frozen=True)
class PreparedDataset(Result):
    """Summary of a prepared dataset.

    Attributes:
        directory: The prepared dataset.
        videos: Number of its videos, with or without faces.
        faces: Split to class (`real`, `fake` and, if there are any, `unlabelled`) to number of
            faces.
        filtered: Reason to number of faces that were found and filtered out.
        excluded: Video id to reason, of the videos that the layout or the split excluded, and of
            those without a face.
        without_faces: Ids of the excluded videos without a face.
        warnings: Video id to warning, of the damaged videos that still decoded.
        missing: Files that the lists of the dataset name and its folder lacks.
        unrecognized: Videos and images in the folder that the layout does not list.
        shared_sources: Sources that are in two splits; `audit` compares the faces too.
    """

    directory: str
    videos: int
    faces: dict[str, dict[str, int]]
    filtered: dict[str, int]
    excluded: dict[str, str]
    without_faces: list[str]
    warnings: dict[str, str]
    missing: list[str]
    unrecognized: list[str]
    shared_sources: list[SharedSource]


def prepare(
    root: str | Path,
    out: str | Path,
    faces: FaceOptions | None = None,
    options: PrepareOptions | None = None,
    filters: FilterOptions | None = None,
    splits: SplitOptions | None = None,
    runtime: PrepareRuntime | None = None,
    beam_flags: Sequence[str] = (),
) -> PreparedDataset:
    """Prepare a dataset: extract the faces of its videos, split them, write shards and tables.

    Args:
        root: Folder of the videos, in the layout `options.layout` (`datasets.layouts`).
        out: The prepared dataset. It is created, resumed if a run with the same options was
            interrupted, or left unchanged if it is complete.
        faces: Face extraction.
        options: Selection of the videos, and storage.
        filters: Face quality filters; none if not given.
        splits: Training, validation and test splits.
        runtime: Number of processes, or the Apache Beam runner, with which `root` and `out` may
            be on any file system that Beam reads; only this process if not given.
        beam_flags: Further options of Beam.

    Returns:
        The summary, including the videos without a face and the reasons.

    Raises:
        OSError: If `root` does not exist, `out` cannot be written, or another run writes to it.
        ValueError: If an option is out of range; if `root` has another layout, cannot be split or
            has no face of one class; or if `out` has other videos, options or format version.

    Example:
        >>> result = prepare("videos", "prepared", runtime=PrepareRuntime(workers=4))
        >>> result.faces["train"]
        {'real': 1024, 'fake': 1024}
    """
    faces, options = faces or FaceOptions(), options or PrepareOptions()
    filters, splits = filters or FilterOptions(), splits or SplitOptions()
    check_face_options(faces, filters)
    _check_options(options, runtime or PrepareRuntime())
    runner = runtime.runner if runtime else ""
    # Beam needs its options before any use of its file systems.
    beam = read_beam_flags(runner, beam_flags) if runner else None
    source, target = _open_store(root, runner), _open_store(out, runner)
    files = source.list()
    listing = list_videos(source, options, files)
    _check_classes(source, listing)
    videos, excluded = assign_splits(listing, splits)
    items = [(video, files[video.path]) for video in videos]
    summary = ListingSummary(
        listing.missing, listing.unrecognized, {**listing.excluded, **excluded}
    )
    groups = {"faces": faces, "filters": filters, "prepare": options, "split": splits}
    if not (_is_initialized(target, groups) and find_table(target, MANIFEST)):
        with _reraise_disk_full(target), exclusive_lock(target):
            # Another run may have started or finished in the meantime.
            if not _is_initialized(target, groups):
                write_text(target, OPTIONS, to_json(groups))
            if find_table(target, MANIFEST) is None:
                target.remove(UNFINISHED)
                run = _make_runner(runtime, beam, target)
                outcomes = _extract_all(run, ExtractVideo(source, target, faces, filters), items)
                _write_dataset(run, target, videos, outcomes, options, splits, summary)
    for leftover in (PARTS, UNFINISHED):
        target.remove(leftover)
    return _summarize(target, items)


def _open_store(location: str | Path, runner: str) -> Store:
    location = str(location)
    if not is_local(location):
        if not runner:
            raise ValueError(
                f"Expected a folder on this machine; got {location}. Give --runner, such as "
                "DirectRunner, to read and write it with Apache Beam."
            )
        return BeamStore(location)
    # Beam workers have their own working directories, so the path must be absolute.
    return BeamStore(str(Path(location).resolve())) if runner else LocalStore(location)


def _check_options(options: PrepareOptions, runtime: PrepareRuntime) -> None:
    if options.faces_per_shard < 1 or runtime.workers < 0 or not 0 <= runtime.max_failed <= 1:
        raise ValueError(
            "Expected faces_per_shard >= 1, workers >= 0 and max_failed in 0..1; got "
            f"{options.faces_per_shard}, {runtime.workers} and {runtime.max_failed}. Try the "
            "defaults, 1024, 0 and 0.1."
        )


def _check_classes(root: Store, listing: Listing) -> None:
    for name, label in CLASSES.items():
        if all(video.label != label for video in listing.videos):
            raise ValueError(
                f"Expected real and fake videos in {root.location}; got "
                f"{plural(len(listing.videos), 'video')} and no {name} one. Add some, or choose "
                "other --manipulations or another --compression."
            )


def _is_initialized(out: Store, groups: dict) -> bool:
    """Return whether a folder has options.json; raise if it has other options or other files."""
    if out.exists(OPTIONS):
        check_same_options(read_text(out, OPTIONS), out.location, groups)
        return True
    if any(name.split("/")[0] not in (UNFINISHED, PARTS) for name in out.list()):
        raise ValueError(
            f"Expected a new or empty folder, or one to resume; got {out.location}, which holds "
            "other files. Choose another --out."
        )
    return False


@contextlib.contextmanager
def _reraise_disk_full(out: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"Expected free disk space for the faces in {out.location} and in the folder for "
            f"temporary files; got '{error.strerror}'. Free some and run the same command again: "
            "finished videos are kept."
        ) from error


def _make_runner(runtime: PrepareRuntime | None, beam, out: Store) -> Callable:
    """Return the function that runs a task on all items, on this machine or on a cluster."""
    if beam is None:
        return lambda task, items, name: run_all(
            task,
            items,
            count_workers(runtime.workers, len(items)) if runtime else 0,
            name=name,
        )

    def run(task, items: Iterable, name: Callable) -> Iterator:
        folder = f"{PARTS}/beam-{type(task).__name__.lower()}"
        return run_on_beam(task, items, options=beam, store=out, folder=folder)

    return run


def _extract_all(
    run: Callable, task: ExtractVideo, items: list[tuple[Video, int]]
) -> dict[str, VideoOutcome]:
    """Finish every video; return video id to outcome."""
    outcomes, num_faces, start = {}, 0, time.monotonic()
    progress = Progress("extracting faces", len(items), "videos")
    try:
        for item, outcome in run(task, items, lambda item: item[0].path):
            if isinstance(outcome, WorkerCrashed):
                outcome = task.fail(item, f"reading it ended the process with {outcome.signal}")
            outcomes[item[0].video_id] = outcome
            num_faces += outcome.num_faces
            rate = num_faces / max(time.monotonic() - start, 1e-9)
            progress.advance(note=f"{rate:.1f} faces/s")
    finally:
        progress.close(plural(num_faces, "face"))
    return outcomes


def _write_dataset(
    run: Callable,
    out: Store,
    videos: list[Video],
    outcomes: dict[str, VideoOutcome],
    options: PrepareOptions,
    splits: SplitOptions,
    summary: ListingSummary,
) -> None:
    num_faces = {video_id: outcome.num_faces for video_id, outcome in outcomes.items()}
    check_faces(videos, num_faces)
    shards = plan_shards(videos, num_faces, faces_per_shard=options.faces_per_shard, splits=splits)
    out.remove(SHARDS)
    for shard, result in run(WriteShard(out), shards, lambda shard: shard.name):
        if isinstance(result, WorkerCrashed):
            raise OSError(
                f"Expected to write {shard.name}; got a process that crashed with {result.signal} "
                "twice. Check the disk and the memory of this machine, and run the same command "
                "again."
            )
    write_text(out, LISTING, json.dumps(summary.to_dict(), indent=1) + "\n")
    write_tables(out, options.manifest, videos, outcomes, shards)


def _summarize(out: Store, items: list[tuple[Video, int]]) -> PreparedDataset:
    """Read a prepared dataset back and check that it has these videos and all its shards."""
    rows = read_videos(out)
    _check_videos(out, rows, items)
    faces = read_faces(out, columns=["video_id", "source_ids", "split", "label", "shard"])
    existing = {name.rsplit("/", 1)[-1] for name in out.list(SHARDS)}
    absent = sorted(set(pc.unique(faces["shard"].cast(pa.string())).to_pylist()) - existing)
    if absent:
        raise ValueError(
            f"Expected the shards that the manifest of {out.location} names; got no {absent[0]} "
            f"({len(absent)} missing). Copy the dataset again, or prepare it into another --out."
        )
    listing = read_listing(out)
    reasons = {row.video_id: row.reason for row in rows if not row.num_faces}
    return PreparedDataset(
        directory=out.location,
        videos=len(rows),
        faces=_count_faces(faces),
        filtered=count_filtered(rows),
        excluded=listing.excluded | reasons,
        without_faces=list(reasons),
        warnings={row.video_id: row.warning for row in rows if row.warning},
        missing=listing.missing,
        unrecognized=listing.unrecognized,
        shared_sources=find_shared_sources(by_split(faces)),
    )


def _check_videos(out: Store, rows: list[VideoRow], items: list[tuple[Video, int]]) -> None:
    stored = {(row.video_id, row.file_bytes) for row in rows}
    difference = stored ^ {(video.video_id, size) for video, size in items}
    if difference:
        names = sorted({video_id for video_id, _ in difference})
        raise ValueError(
            f"Expected the videos that {out.location} was prepared from; got a folder that differs "
            f"in {plural(len(names), 'video')}, such as {names[0]}. Prepare it into another --out."
        )


def _count_faces(faces: pa.Table) -> dict[str, dict[str, int]]:
    counts = {(g.split, g.label): g.num_faces for g in count_by(faces, "split", "label")}
    labels = {*CLASSES, *(label for _, label in counts)}
    classes = [name for name in LABEL_NAMES.values() if name in labels]
    return {split: {name: counts.get((split, name), 0) for name in classes} for split in SPLITS}
