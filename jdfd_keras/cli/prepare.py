"""Command `prepare`: extract aligned face crops from a dataset of videos."""

import argparse
import shlex
from collections import Counter

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow, plural, print_message
from jdfd_keras.options import (
    LAYOUTS,
    FaceOptions,
    FilterOptions,
    LimitOptions,
    PrepareOptions,
    PrepareRuntime,
    SplitOptions,
)


def _add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "layout",
        choices=LAYOUTS,
        metavar="LAYOUT",
        help=f"{', '.join(LAYOUTS)}; `folder` is your own, with real/ and fake/, or train/real/, "
        "train/fake/, val/real/ ...",
    )
    # Not paths: with Apache Beam they can be URLs.
    parser.add_argument("root", metavar="ROOT", help="folder of the dataset")
    parser.add_argument("--out", required=True, metavar="DIR", help="prepared dataset to write")
    parser.add_options(FaceOptions, FilterOptions, PrepareOptions, SplitOptions, skip=("layout",))
    parser.add_options(PrepareRuntime, LimitOptions)


def _run(arguments: argparse.Namespace) -> Output:
    r"""Extract aligned face crops from a dataset of videos.

    jdfd-keras prepare folder videos/ --out prepared
    jdfd-keras prepare faceforensics FaceForensics++/ --out ffpp --compression c23 --split strict
    jdfd-keras prepare celebdf Celeb-DF-v2/ --out celebdf --workers 8
    jdfd-keras prepare uadfv UADFV/ --out uadfv-fold0 --split kfold --fold 0
    jdfd-keras prepare folder gs://bucket/videos --out gs://bucket/prepared \
        --runner DataflowRunner --project mine --region europe-west4 --temp_location gs://bucket/tmp
    """
    # Too many videos without a face are a failure.
    faces = read_options(arguments, FaceOptions)
    splits = read_options(arguments, SplitOptions)
    runtime = read_options(arguments, PrepareRuntime)
    if faces.detector == "mtcnn":
        import_tensorflow()
    if splits.split == "paper":
        _warn(
            "--split paper assigns single faces: the same video is in training and test, so the "
            "metrics say little about videos that a detector has not seen"
        )
    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.datasets.splits import reason_kind
    from jdfd_keras.reporting.templating import render_template

    prepared = prepare(
        arguments.root,
        arguments.out,
        faces,
        read_options(arguments, PrepareOptions, PrepareOptions(layout=arguments.layout)),
        read_options(arguments, FilterOptions),
        splits,
        runtime,
        arguments.beam_flags,
        read_options(arguments, LimitOptions),
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
    by_split = prepared.excluded.keys() - set(prepared.without_faces)
    excluded = Counter(reason_kind(prepared.excluded[name]) for name in by_split)
    text = render_template("prepared.txt.j2", prepared=prepared, excluded=excluded)
    return Output(result, text.rstrip(), failed)


def _warn(text: str) -> None:
    print_message(f"warning: {text}")


COMMAND = Command(_add_arguments, _run, is_resumable=True)
