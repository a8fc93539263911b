"""`jdfd-keras inspect`: draw the faces of a video, an image or a prepared dataset."""

import argparse
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import FaceOptions, FilterOptions

SUMMARY = "show the faces of a video, an image or a prepared dataset"
EXAMPLES = """\
  jdfd-keras inspect prepared --out sheet.png
  jdfd-keras inspect clip.mp4 --out sheet.png --overlay clip-faces.mp4 --tracks all"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("path", type=Path, metavar="PATH", help="video, image, or prepared dataset")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PNG", help="contact sheet, a .png"
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="also draw the faces on the video (.mp4, .webm, .avi) or image (.png, .jpg); "
        "analyses every frame unless --every is given",
    )
    parser.add_argument("--landmarks", action="store_true", help="draw the landmarks on the crops")
    parser.add_options(FaceOptions)
    parser.add_options(FilterOptions)


def run(arguments: argparse.Namespace) -> Output:
    """Draw the faces; a file without any is a failure."""
    from jdfd_keras.datasets.inspection import inspect
    from jdfd_keras.reporting.dataset_report import (
        check_inspection_files,
        describe_inspection,
        write_inspection,
    )

    faces = read_options(arguments, FaceOptions)
    if faces.detector == "mtcnn" and not arguments.path.is_dir():
        import_tensorflow()
    check_inspection_files(arguments.path, arguments.out, arguments.overlay)
    result = inspect(
        arguments.path,
        faces=faces,
        filters=read_options(arguments, FilterOptions),
        all_frames=arguments.overlay is not None,
    )
    files = write_inspection(
        result, arguments.out, overlay=arguments.overlay, landmarks=arguments.landmarks
    )
    failed = [{"path": result.path, "reason": result.reason}] if result.reason else []
    return Output(
        result.to_dict() | files.to_dict() | {"failed": failed},
        describe_inspection(result, files),
        failed=bool(failed),
    )
