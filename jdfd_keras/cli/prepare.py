"""Command `prepare`: extract aligned face crops from a dataset of videos."""

import argparse
from collections import Counter
from pathlib import Path

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs, read_options
from jdfd_keras.io.console import import_tensorflow, plural, print_message
from jdfd_keras.options import (
    LAYOUTS,
    FaceOptions,
    FilterOptions,
    LimitOptions,
    PrepareOptions,
    PrepareRuntime,
    default_faces,
)


def _add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "layout",
        choices=LAYOUTS,
        metavar="LAYOUT",
        help=f"{', '.join(LAYOUTS)}; `folder` is your own, with real/ and fake/, or train/real/, "
        "train/fake/, val/real/ ...; `table` is a CSV file with the columns path and label",
    )
    # Not paths: with Apache Beam they can be URLs.
    parser.add_argument("root", metavar="ROOT", help="folder of the dataset; or the table")
    parser.add_argument(
        "--root",
        dest="table_root",
        metavar="DIR",
        help="layout table: folder that its paths are relative to (default: the table's folder)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="prepared dataset to write")
    parser.add_options(FaceOptions, FilterOptions, PrepareOptions, skip=("layout", "table"))
    parser.add_options(PrepareRuntime, LimitOptions)


def _run(arguments: argparse.Namespace) -> Output:
    r"""Extract aligned face crops from a dataset of videos.

    jdfd-keras prepare folder videos/ --out prepared
    jdfd-keras prepare faceforensics FaceForensics++/ --out ffpp --compression c23
    jdfd-keras prepare celebdf Celeb-DF-v2/ --out celebdf --workers 8
    jdfd-keras prepare table videos.csv --root videos/ --out prepared
    jdfd-keras prepare folder real_vs_fake/ --out kaggle --detector none
    jdfd-keras prepare folder gs://bucket/videos --out gs://bucket/prepared \
        --runner DataflowRunner --project mine --region europe-west4 --temp_location gs://bucket/tmp
    """
    # Too many videos without a face are a failure.
    layout, root, table = arguments.layout, arguments.root, ""
    if layout == "table":
        root, table = arguments.table_root or str(Path(root).parent), root
    elif arguments.table_root:
        arguments.parser.error("--root is for the layout `table`; give the folder as ROOT")
    if ":/" not in arguments.root:  # Apache Beam also reads URLs
        check_inputs(Path(arguments.root))
    faces = read_options(arguments, FaceOptions, default_faces(layout))
    options = read_options(arguments, PrepareOptions, PrepareOptions(layout=layout, table=table))
    runtime = read_options(arguments, PrepareRuntime)
    if faces.detector == "mtcnn":
        import_tensorflow()
    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.datasets.splits import reason_kind
    from jdfd_keras.reporting.templating import render_template

    prepared = prepare(
        root,
        arguments.out,
        faces,
        options,
        read_options(arguments, FilterOptions),
        runtime,
        arguments.beam_flags,
        read_options(arguments, LimitOptions),
    )
    result = prepared.to_dict()
    failed = len(prepared.without_faces) > runtime.max_failed * prepared.videos
    if failed:
        print_message(
            f"warning: {len(prepared.without_faces)} of {plural(prepared.videos, 'video')} without "
            f"a face, more than --max-failed {runtime.max_failed:g}"
        )
        result["failed"] = prepared.without_faces
    others = prepared.excluded.keys() - set(prepared.without_faces)
    excluded = Counter(reason_kind(prepared.excluded[name]) for name in others)
    text = render_template("prepared.txt.j2", prepared=prepared, excluded=excluded)
    return Output(result, text.rstrip(), failed)


COMMAND = Command(_add_arguments, _run, is_resumable=True)
