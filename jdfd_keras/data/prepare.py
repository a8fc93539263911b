"""A data set of videos in, a prepared data set out: shards, tables, options.

The one way through this room, on this machine or on a cluster. Every video is finished by
itself, so a run that was killed goes on where it stopped and ends with the same bytes. A video
that gives no face becomes a row with its reason.

    <out>/options.json        what made it
    <out>/manifest.parquet    one row per face (`data.manifest.FaceRow`); or .csv
    <out>/videos.parquet      one row per video (`data.manifest.VideoRow`); or .csv
    <out>/listing.json        what the layout missed, did not know, or left out of every split
    <out>/shards/             train-00000.tfrecord, ...
    <out>/parts/              finished videos, while the run is not done
"""

import contextlib
import errno
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.data.assemble import SHARDS, Join, check_faces, plan_shards, write_tables
from jdfd_keras.data.layouts import list_videos
from jdfd_keras.data.leaks import COLUMNS, Leaks, by_split, find_leaks
from jdfd_keras.data.manifest import (
    LISTING,
    MANIFEST,
    VideoRow,
    find_table,
    read_faces,
    read_listing,
    read_videos,
)
from jdfd_keras.data.splits import assign_splits
from jdfd_keras.data.take import PARTS, Take
from jdfd_keras.data.videos import CLASSES, LABEL_NAMES, SPLITS, Listing, Video
from jdfd_keras.data.workers import Died, run_all
from jdfd_keras.faces.extract import check_face_options
from jdfd_keras.options import (
    OPTIONS,
    FaceOptions,
    FilterOptions,
    PrepareOptions,
    SplitOptions,
    WorkOptions,
    check_claim,
    to_json,
)
from jdfd_keras.progress import Progress
from jdfd_keras.storage import UNFINISHED, BeamStore, LocalStore, Store, read_text, write_text


@dataclass(frozen=True)
class PreparedSet:
    """What `prepare` made.

    Attributes:
        directory: The prepared data set.
        videos: One row per video, in the order of their ids.
        faces: Split, then `real`, `fake` and, if there are any, `unlabelled`, to the number of
            faces.
        missing: Files that the data set has and its folder has not.
        unknown: Videos and images in the folder that the layout does not know.
        left_out: Ids of the videos that are in no split, and why.
        leaks: What lies in two splits all the same.
    """

    directory: str
    videos: list[VideoRow]
    faces: dict[str, dict[str, int]]
    missing: list[str]
    unknown: list[str]
    left_out: dict[str, str]
    leaks: Leaks

    def count_dropped(self) -> dict[str, int]:
        """Count the faces that were found and not taken, by reason."""
        counts: Counter = Counter()
        for row in self.videos:
            counts.update(row.dropped)
        return dict(counts)


def prepare(
    root: str | Path,
    out: str | Path,
    faces: FaceOptions | None = None,
    options: PrepareOptions | None = None,
    filters: FilterOptions | None = None,
    splits: SplitOptions | None = None,
    work: WorkOptions | None = None,
    beam_flags: Sequence[str] = (),
) -> PreparedSet:
    """Prepare a data set.

    Args:
        root: The folder of videos, laid out as `options.layout` says (`data.layouts`).
        out: The prepared data set; made, or gone on with when a run of the same options was
            interrupted, or left as it is when it is already done.
        faces: How faces are taken.
        options: What is taken, and how it is stored.
        filters: Which faces are too bad to be taken; none if not given.
        splits: Which videos are for training, validation and testing.
        work: In how many processes, one if not given, or on which runner of Apache Beam: then
            `root` and `out` may lie on any file system that Beam reads.
        beam_flags: Further options of Beam.

    Returns:
        What was made; videos without a face are in it, with the reason.

    Raises:
        OSError: If `root` is not there, `out` cannot be written, or another run writes to it.
        ValueError: If an option is out of its range, if `root` is not laid out so, cannot be
            split or shows no face of some class, or if `out` was made of other videos or with
            other options.
    """
    faces, options = faces or FaceOptions(), options or PrepareOptions()
    filters, splits = filters or FilterOptions(), splits or SplitOptions()
    work = work or WorkOptions(workers=1)
    check_face_options(faces, filters)
    _check_options(options, work)
    kind = BeamStore if work.runner else LocalStore
    source, target = kind(str(root)), kind(str(out))
    listing = list_videos(source, options)
    videos, left_out = assign_splits(listing, splits)
    sizes = source.list()
    works = [(video, sizes[video.path]) for video in videos]
    _claim(target, faces=faces, filters=filters, prepare=options, split=splits)
    if find_table(target, MANIFEST) is None:
        with _lock(target), _explain_full(target):
            run = _runner(work, beam_flags, target)
            outcomes = _take_faces(run, Take(source, target, faces, filters), works)
            _assemble(run, target, works, outcomes, options, splits, listing, left_out)
    for leftover in (PARTS, UNFINISHED):
        target.remove(leftover)
    return _describe(target, works)


def _check_options(options: PrepareOptions, work: WorkOptions) -> None:
    if options.faces_per_shard < 1 or work.workers < 0 or not 0 <= work.max_failed <= 1:
        raise ValueError(
            "Expected faces_per_shard >= 1, workers >= 0 and max_failed in 0..1; got "
            f"{options.faces_per_shard}, {work.workers} and {work.max_failed}. Try the defaults, "
            "1024, 0 and 0.1."
        )


def _claim(out: Store, **groups) -> None:
    """Mark a place as made with these options, so that no others are mixed into it."""
    if out.exists(OPTIONS):
        check_claim(read_text(out, OPTIONS), out.place, groups)
        return
    if any(not name.startswith(f"{UNFINISHED}/") for name in out.list()):
        raise ValueError(
            f"Expected a new or empty folder, or one to go on with; got {out.place}, which holds "
            "other files. Choose another --out."
        )
    write_text(out, OPTIONS, to_json(groups))


@contextlib.contextmanager
def _lock(out: Store) -> Iterator[None]:
    """Keep other runs out of a folder of this machine; the system lets go if this one is killed.

    Other file systems have no locks: there two runs of the same options write the same bytes.
    """
    if "://" in out.place:
        yield
        return
    from filelock import FileLock, Timeout

    path = Path(out.place, PARTS, "lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise OSError(
            f"Expected to be the only run that writes to {out.place}; got another one at work "
            "there. Wait for it, or choose another --out."
        ) from error


@contextlib.contextmanager
def _explain_full(out: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"Expected room for the faces at {out.place}; got '{error.strerror}'. Free some, or "
            "let the file system grow, and run the same again: what is done is kept."
        ) from error


def _runner(work: WorkOptions, flags: Sequence[str], out: Store) -> Callable:
    """Give the function that calls a task on all items, here or on a cluster."""
    if not work.runner:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return lambda task, items, name: run_all(
            task, items, min(work.workers or cores, max(1, len(items))), name=name
        )

    def run(task, items: Iterable, name: Callable) -> Iterator:
        from jdfd_keras.data.cluster import run_on_beam

        folder = f"{PARTS}/beam-{type(task).__name__.lower()}"
        for result in run_on_beam(
            task, items, runner=work.runner, flags=flags, store=out, folder=folder
        ):
            yield None, result

    return run


def _take_faces(run: Callable, take: Take, works: list[tuple[Video, int]]) -> dict[str, dict]:
    """Finish every video; give the outcomes by video id."""
    outcomes, num_faces, begun = {}, 0, time.monotonic()
    progress = Progress("finding faces", len(works), "videos")
    try:
        for item, result in run(take, works, lambda item: item[0].path):
            if isinstance(result, Died):
                result = take.fail(item, f"reading it ended the process with {result.signal}")
            outcome = dict(result)
            outcomes[outcome.pop("video_id")] = outcome
            num_faces += outcome["num_faces"]
            pace = num_faces / max(time.monotonic() - begun, 1e-9)
            progress.advance(note=f"{num_faces} faces, {pace:.1f} faces/s")
    finally:
        progress.close(f"{num_faces} faces")
    return outcomes


def _assemble(
    run: Callable,
    out: Store,
    works: list[tuple[Video, int]],
    outcomes: dict[str, dict],
    options: PrepareOptions,
    splits: SplitOptions,
    listing: Listing,
    left_out: dict[str, str],
) -> None:
    videos = [video for video, _ in works]
    num_faces = {video_id: outcome["num_faces"] for video_id, outcome in outcomes.items()}
    check_faces(videos, num_faces)
    shards = plan_shards(videos, num_faces, faces_per_shard=options.faces_per_shard, splits=splits)
    out.remove(SHARDS)
    for shard, result in run(Join(out), shards, lambda shard: shard.name):
        if isinstance(result, Died):
            raise OSError(
                f"Expected to join {shard.name}; got a process that {result.signal} ended, twice. "
                "Look at the disk and the memory of this machine, and run the same again."
            )
    facts = {"missing": listing.missing, "unknown": listing.unknown, "left_out": left_out}
    write_text(out, LISTING, json.dumps(facts, indent=1) + "\n")
    write_tables(out, options.manifest, videos, outcomes, shards)


def _describe(out: Store, works: list[tuple[Video, int]]) -> PreparedSet:
    """Read back what is there, and see that it was made of these videos."""
    rows = read_videos(out)
    made = {(row.video_id, row.file_bytes) for row in rows}
    difference = made ^ {(video.video_id, size) for video, size in works}
    if difference:
        names = sorted({video_id for video_id, _ in difference})
        raise ValueError(
            f"Expected the videos that {out.place} was made of; got a folder that differs in "
            f"{len(names)}, such as {names[0]}. Prepare it into another --out."
        )
    faces = read_faces(out, columns=[*COLUMNS, "split", "label"])
    counts = Counter(zip(faces["split"].to_pylist(), faces["label"].to_pylist(), strict=True))
    labels = {*CLASSES.values(), *(label for _, label in counts)}
    return PreparedSet(
        directory=out.place,
        videos=rows,
        faces={
            split: {
                name: counts[split, label] for label, name in LABEL_NAMES.items() if label in labels
            }
            for split in SPLITS
        },
        **read_listing(out),
        leaks=find_leaks(by_split(faces)),
    )
