"""`jdfd-keras prepare`: extract aligned face crops from a dataset of videos."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow, plural
from jdfd_keras.options import (
    LAYOUTS,
    FaceOptions,
    FilterOptions,
    PrepareOptions,
    PrepareRuntime,
    SplitOptions,
)

if TYPE_CHECKING:
    from jdfd_keras.datasets.prepare import PreparedDataset

SUMMARY = "extract aligned face crops from a dataset of videos"
EXAMPLES = """\
  jdfd-keras prepare folder videos/ --out prepared
  jdfd-keras prepare faceforensics FaceForensics++/ --out ffpp --compression c23 --split strict
  jdfd-keras prepare celebdf Celeb-DF-v2/ --out celebdf --workers 8
  jdfd-keras prepare uadfv UADFV/ --out uadfv-fold0 --split kfold --fold 0
  jdfd-keras prepare folder gs://bucket/videos --out gs://bucket/prepared \\
      --runner DataflowRunner --project mine --region europe-west4 --temp_location gs://bucket/tmp"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "layout",
        choices=LAYOUTS,
        metavar="LAYOUT",
        help=f"{', '.join(LAYOUTS)}; `folder` is your own, with real/ and fake/, or train/real/, "
        "train/fake/, val/real/ ...",
    )
    parser.add_argument("root", metavar="ROOT", help="folder of the dataset")
    parser.add_argument("--out", required=True, metavar="DIR", help="prepared dataset to write")
    parser.add_options(FaceOptions)
    parser.add_options(FilterOptions)
    parser.add_options(PrepareOptions, skip=("layout",))
    parser.add_options(SplitOptions)
    parser.add_options(PrepareRuntime)


def check_usage(arguments: argparse.Namespace, rest: Sequence[str]) -> Sequence[str]:
    """Store unknown flags for Apache Beam if a runner is given."""
    arguments.beam_flags = rest if read_options(arguments, PrepareRuntime).runner else ()
    return () if arguments.beam_flags else rest


def is_resumable(arguments: argparse.Namespace) -> bool:
    """Return True: an interrupted run is resumed."""
    return True


def run(arguments: argparse.Namespace) -> Output:
    """Prepare the dataset; too many videos without a face are a failure."""
    faces, splits, runtime = (
        read_options(arguments, kind) for kind in (FaceOptions, SplitOptions, PrepareRuntime)
    )
    if faces.detector == "mtcnn":
        import_tensorflow()
    if splits.split == "paper":
        _warn(
            "--split paper assigns single faces: the same video is in training and test, so the "
            "metrics say little about videos that a detector has not seen"
        )
    from jdfd_keras.datasets.prepare import prepare

    prepared = prepare(
        arguments.root,
        arguments.out,
        faces,
        read_options(arguments, PrepareOptions, PrepareOptions(layout=arguments.layout)),
        read_options(arguments, FilterOptions),
        splits,
        runtime,
        arguments.beam_flags,
    )
    if prepared.shared_sources:
        _warn(
            f"sources in two splits: {len(prepared.shared_sources)}, such as "
            f"{prepared.shared_sources[0].source}: a detector may memorise them. "
            f"`jdfd-keras audit {shlex.quote(prepared.directory)}` lists all"
        )
    result = prepared.to_dict()
    failed = len(prepared.without_faces) > runtime.max_failed * prepared.videos
    if failed:
        _warn(
            f"{len(prepared.without_faces)} of {plural(prepared.videos, 'video')} without a face, "
            f"more than --max-failed {runtime.max_failed:g}"
        )
        result["failed"] = prepared.without_faces
    return Output(result, describe_prepared(prepared), failed)


def describe_prepared(prepared: "PreparedDataset") -> str:
    """Return the counts of a prepared dataset as lines for a terminal."""
    from jdfd_keras.datasets.splits import reason_kind

    classes = list(prepared.faces["train"])
    lines = [f"{plural(prepared.videos, 'video')}; faces:"]
    lines.append(f"{'':5} {' '.join(f'{name:>10}' for name in classes)}")
    lines += [
        f"{split:5} {' '.join(f'{count:10}' for count in counts.values())}"
        for split, counts in prepared.faces.items()
    ]
    lines += [
        f"{plural(count, 'face')} filtered: {reason}" for reason, count in prepared.filtered.items()
    ]
    without = set(prepared.without_faces)
    by_split = [reason for name, reason in prepared.excluded.items() if name not in without]
    lines += [
        f"{plural(count, 'video')} excluded: {reason}"
        for reason, count in sorted(Counter(map(reason_kind, by_split)).items())
    ]
    lines += _list("missing", prepared.missing)
    lines += _list("unrecognized", prepared.unrecognized)
    faceless = [f"{name}: {prepared.excluded[name]}" for name in prepared.without_faces]
    lines += _list("no face", faceless, 50)
    lines += _list("warning", [f"{name}: {why}" for name, why in prepared.warnings.items()], 50)
    return "\n".join([*lines, f"prepared dataset: {prepared.directory}"])


def _list(heading: str, names: Sequence[str], most: int = 5) -> list[str]:
    """Return one line per name, at most `most` of them."""
    lines = [f"{heading}: {name}" for name in names[:most]]
    more = len(names) - most
    return [*lines, f"{heading}: {more} more, all with --format json"] if more > 0 else lines


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
