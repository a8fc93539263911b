"""Command `inspect`: show the faces of a video, an image or a prepared dataset."""

import argparse

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs, read_options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import FaceOptions, FilterOptions, LimitOptions


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("path", "PATH", "video, image, or prepared dataset")
    parser.add_path("--out", "PNG", "contact sheet, a .png", required=True)
    parser.add_path(
        "--overlay",
        "FILE",
        "also draw the faces on the video (.mp4, .webm, .mov, .mkv) or image (.png, .jpg); "
        "analyses every frame unless --every is given",
    )
    parser.add_overwrite()
    parser.add_argument("--landmarks", action="store_true", help="draw the landmarks on the crops")
    parser.add_options(FaceOptions, FilterOptions, LimitOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Show the faces of a video, an image or a prepared dataset.

    jdfd-keras inspect prepared --out sheet.png
    jdfd-keras inspect clip.mp4 --out sheet.png --overlay clip-faces.mp4 --tracks all
    jdfd-keras inspect crop.png --out sheet.png --detector none
    """
    # A file without a face is a failure.
    if ":/" not in str(arguments.path):  # a URL has an error of its own
        check_inputs(arguments.path)
    from jdfd_keras.datasets.inspection import inspect
    from jdfd_keras.reporting.dataset_report import (
        check_inspection_files,
        describe_inspection,
        write_inspection,
    )

    path, out, overlay = arguments.path, arguments.out, arguments.overlay
    faces = read_options(arguments, FaceOptions)
    filters = read_options(arguments, FilterOptions)
    limits = read_options(arguments, LimitOptions)
    check_inspection_files(path, out, overlay, limits, overwrite=arguments.overwrite)
    if faces.detector == "mtcnn" and not path.is_dir():
        import_tensorflow()
    all_frames = overlay is not None
    result = inspect(path, faces=faces, filters=filters, all_frames=all_frames, limits=limits)
    files = write_inspection(
        result,
        out,
        overlay=overlay,
        landmarks=arguments.landmarks,
        overwrite=arguments.overwrite,
    )
    failed = [{"path": result.path, "reason": result.reason}] if result.reason else []
    return Output(
        result.to_dict() | files.to_dict() | {"failed": failed},
        describe_inspection(result, files),
        failed=bool(failed),
    )


COMMAND = Command(_add_arguments, _run)
