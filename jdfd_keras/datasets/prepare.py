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

import pyarrow as pa
import pyarrow.compute as pc

from jdfd_keras.datasets.extraction_task import Take
from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.leakage import SharedSource, by_split, find_shared_sources
from jdfd_keras.datasets.manifest import (
    LISTING,
    MANIFEST,
    VideoRow,
    find_table,
    read_faces,
    read_listing,
    read_videos,
)
from jdfd_keras.datasets.records import SHARDS
from jdfd_keras.datasets.shard_writer import Join, check_faces, plan_shards, write_tables
from jdfd_keras.datasets.splits import assign_splits
from jdfd_keras.datasets.videos import CLASSES, LABEL_NAMES, SPLITS, Listing, Video
from jdfd_keras.faces.extract import check_face_options
from jdfd_keras.io.console import Progress
from jdfd_keras.io.files import OPTIONS, check_claim, to_json
from jdfd_keras.io.storage import (
    PARTS,
    UNFINISHED,
    BeamStore,
    LocalStore,
    Store,
    hold,
    is_local,
    read_text,
    write_text,
)
from jdfd_keras.io.workers import Died, run_all
from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions, WorkOptions


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
        shared_sources: What lies in two splits all the same; `audit` looks at the faces as well.
    """

    directory: str
    videos: list[VideoRow]
    faces: dict[str, dict[str, int]]
    missing: list[str]
    unknown: list[str]
    left_out: dict[str, str]
    shared_sources: list[SharedSource]

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
        work: In how many other processes, or on which runner of Apache Beam: then `root` and `out`
            may lie on any file system that Beam reads. All is done in this one if not given.
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
    check_face_options(faces, filters)
    _check_options(options, work or WorkOptions())
    runner = work.runner if work else ""
    beam = _read_beam_flags(runner, beam_flags)
    source, target = _open_store(root, runner), _open_store(out, runner)
    files = source.list()
    listing = list_videos(source, options, files)
    _check_classes(source, listing)
    videos, left_out = assign_splits(listing, splits)
    works = [(video, files[video.path]) for video in videos]
    groups = {"faces": faces, "filters": filters, "prepare": options, "split": splits}
    if not (_is_claimed(target, groups) and find_table(target, MANIFEST)):
        with _explain_full(target), hold(target):
            # Another run may have begun or ended since.
            if not _is_claimed(target, groups):
                write_text(target, OPTIONS, to_json(groups))
            if find_table(target, MANIFEST) is None:
                target.remove(UNFINISHED)
                run = _runner(work, beam, target)
                outcomes = _take_faces(run, Take(source, target, faces, filters), works)
                _assemble(run, target, works, outcomes, options, splits, listing, left_out)
    for leftover in (PARTS, UNFINISHED):
        target.remove(leftover)
    return _describe(target, works)


def _read_beam_flags(runner: str, flags: Sequence[str]):
    """Hand Beam its options, before any of its file systems is asked."""
    if not runner:
        return None
    from jdfd_keras.io.beam import read_flags

    return read_flags(runner, flags)


def _open_store(place: str | Path, runner: str) -> Store:
    place = str(place)
    if not is_local(place):
        if not runner:
            raise ValueError(
                f"Expected a folder of this machine; got {place}. Give --runner, such as "
                "DirectRunner: Apache Beam then reads and writes there."
            )
        return BeamStore(place)
    # The whole path: on Beam, workers are in folders of their own.
    return BeamStore(str(Path(place).resolve())) if runner else LocalStore(place)


def _check_options(options: PrepareOptions, work: WorkOptions) -> None:
    if options.faces_per_shard < 1 or work.workers < 0 or not 0 <= work.max_failed <= 1:
        raise ValueError(
            "Expected faces_per_shard >= 1, workers >= 0 and max_failed in 0..1; got "
            f"{options.faces_per_shard}, {work.workers} and {work.max_failed}. Try the defaults, "
            "1024, 0 and 0.1."
        )


def _check_classes(root: Store, listing: Listing) -> None:
    for name, label in CLASSES.items():
        if all(video.label != label for video in listing.videos):
            raise ValueError(
                f"Expected real and fake videos in {root.place}; got {len(listing.videos)} videos "
                f"and none that is {name}. Add them, or ask for other --manipulations or another "
                "--compression."
            )


def _is_claimed(out: Store, groups: dict) -> bool:
    """Tell whether a place is made with these options; refuse one of others or of other things."""
    if out.exists(OPTIONS):
        check_claim(read_text(out, OPTIONS), out.place, groups)
        return True
    if any(name.split("/")[0] not in (UNFINISHED, PARTS) for name in out.list()):
        raise ValueError(
            f"Expected a new or empty folder, or one to go on with; got {out.place}, which holds "
            "other files. Choose another --out."
        )
    return False


@contextlib.contextmanager
def _explain_full(out: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"Expected room for the faces at {out.place} and in the folder for temporary files; "
            f"got '{error.strerror}'. Free some and run the same again: what is done is kept."
        ) from error


def _runner(work: WorkOptions | None, beam, out: Store) -> Callable:
    """Give the function that calls a task on all items, here or on a cluster."""
    if beam is None:
        return lambda task, items, name: run_all(
            task, items, _count_workers(work, len(items)), name=name
        )

    def run(task, items: Iterable, name: Callable) -> Iterator:
        from jdfd_keras.io.beam import run_on_beam

        folder = f"{PARTS}/beam-{type(task).__name__.lower()}"
        return run_on_beam(task, items, options=beam, store=out, folder=folder)

    return run


def _count_workers(work: WorkOptions | None, num_items: int) -> int:
    if work is None:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(work.workers or cores, max(1, num_items))


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
            progress.advance(note=f"{pace:.1f} faces/s")
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
    facts = {
        "missing": listing.missing,
        "unknown": listing.unknown,
        "left_out": listing.left_out | left_out,
    }
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
    faces = read_faces(out, columns=["video_id", "source_ids", "split", "label", "shard"])
    there = {name.rsplit("/", 1)[-1] for name in out.list(SHARDS)}
    lacking = sorted(set(pc.unique(faces["shard"].cast(pa.string())).to_pylist()) - there)
    if lacking:
        raise ValueError(
            f"Expected the shards that the manifest of {out.place} names; got none called "
            f"{lacking[0]} ({len(lacking)} are missing). Copy the data set again, or prepare it "
            "into another --out."
        )
    counts = {
        (row["split"], row["label"]): row["video_id_count"]
        for row in faces.select(["split", "label", "video_id"])
        .group_by(["split", "label"])
        .aggregate([("video_id", "count")])
        .to_pylist()
    }
    labels = {*CLASSES.values(), *(label for _, label in counts)}
    return PreparedSet(
        directory=out.place,
        videos=rows,
        faces={
            split: {
                name: counts.get((split, label), 0)
                for label, name in LABEL_NAMES.items()
                if label in labels
            }
            for split in SPLITS
        },
        **read_listing(out),
        shared_sources=find_shared_sources(by_split(faces)),
    )
