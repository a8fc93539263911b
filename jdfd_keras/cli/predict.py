"""Command `predict`: judge whether the faces of videos and images are manipulated."""

import argparse
import dataclasses
from typing import Any

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.client.signatures import SHIPPED_MODEL
from jdfd_keras.options import EngineOptions, LimitOptions, PredictOptions, PredictRuntime


def _add_arguments(parser: CommandParser) -> None:
    # Not paths, which would make https:/ of https://
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="videos, images, or folders of them"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        metavar="MODEL",
        help="name in saved_models/, run folder, .keras file, exported model, or URL of a served "
        f"one (default: {SHIPPED_MODEL})",
    )
    source.add_argument(
        "--server",
        metavar="URL",
        help="such as http://127.0.0.1:8501/v1/models/detector or grpc://127.0.0.1:8500/detector",
    )
    parser.add_path(
        "--report",
        "PAGE",
        "also write a page with the evidence (.html), or print it with Chromium (.pdf); of several "
        "files or in a folder an overview, with a page for each file beside it",
    )
    parser.add_argument("--case", default="", help="case number for the report")
    parser.add_argument("--examiner", default="", help="name of the examiner for the report")
    parser.add_path(
        "--annotate",
        "FILE",
        "also draw faces, scores and timeline on the video (.mp4, .webm, .mov, .mkv) or image "
        "(.png, .jpg); analyses every frame unless --every is given",
    )
    parser.add_path(
        "--out",
        "DIR",
        "result folder; an interrupted run is resumed, and existing verdicts are kept",
    )
    parser.add_overwrite()
    parser.add_options(PredictOptions, PredictRuntime, LimitOptions, EngineOptions)


def _run(arguments: argparse.Namespace) -> Output:
    """Judge videos and images: fake, uncertain, or no evidence of manipulation.

    jdfd-keras predict clip.mp4
    jdfd-keras predict clip.mp4 --model saved_models/detector
    jdfd-keras predict clip.mp4 --model run --report clip.html --annotate clip-annotated.mp4
    jdfd-keras predict clip.mp4 --model run --report clip.pdf --case 2026-17 --examiner "A. Ray"
    jdfd-keras predict uploads/ --model saved_models/detector --report overview.html
    jdfd-keras predict *.mp4 --server http://127.0.0.1:8501/v1/models/detector --format json
    jdfd-keras predict crops/ --model run --detector none
    jdfd-keras predict uploads/ --server grpc://127.0.0.1:8500/detector --out verdicts --workers 16
    """
    # A file that cannot be scored is a failure.
    from jdfd_keras.prediction.extraction import list_files
    from jdfd_keras.prediction.predict import predict_files
    from jdfd_keras.prediction.result_folder import check_paths, to_csv
    from jdfd_keras.reporting.verdict_page import resolve_report, write_report
    from jdfd_keras.reporting.verdict_text import summarize

    if arguments.server is not None and "://" not in arguments.server:
        raise ValueError(
            f"Expected the URL of a served model; got {arguments.server!r}. Try "
            f"http://{arguments.server} or grpc://HOST:8500/NAME."
        )
    paths: dict[str, Any] = {
        "model": arguments.server if arguments.model is None else arguments.model,
        "out": arguments.out,
        "annotate": arguments.annotate,
        "overwrite": arguments.overwrite,
    }
    report = resolve_report(arguments.report) if arguments.report else None
    if report:
        # A new folder, which is created with the page, is only a name until then.
        is_new = not arguments.report.suffix and not arguments.report.exists()
        checked = arguments.report if is_new else report
        check_paths(list_files(arguments.files)[0], report=checked, **paths)
    limits = read_options(arguments, LimitOptions)
    predictions = predict_files(
        arguments.files,
        read_options(arguments, PredictOptions),
        read_options(arguments, PredictRuntime),
        explain=report is not None,
        limits=limits,
        engine=read_options(arguments, EngineOptions),
        **paths,
    )
    stated = {"case": arguments.case, "examiner": arguments.examiner}
    provenance = dataclasses.replace(predictions.provenance, **stated)
    predictions = dataclasses.replace(predictions, provenance=provenance)
    if report:
        write_report(predictions, report, overwrite=arguments.overwrite, limits=limits)
    if arguments.format == "csv":
        text = to_csv(predictions.records)
    else:
        text = summarize(predictions, report)
    failed = bool(predictions.failed or predictions.annotation_error)
    return Output(predictions.to_dict(), text, failed=failed)


COMMAND = Command(_add_arguments, _run, formats=("text", "json", "csv"), is_resumable=True)
