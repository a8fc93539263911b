"""Command `predict`: judge whether the faces of videos and images are manipulated."""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.client.signatures import SHIPPED_MODEL
from jdfd_keras.io.files import check_no_result
from jdfd_keras.options import (
    CredentialOptions,
    EngineOptions,
    LimitOptions,
    PredictOptions,
    PredictRuntime,
)

if TYPE_CHECKING:
    from jdfd_keras.prediction.predictions import Predictions


class _Server(str):
    """The URL of a served model."""


def _add_arguments(parser: CommandParser) -> None:
    # Not paths, which would make https:/ of https://
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="videos, images, or folders of them"
    )
    # In one list, so that the models keep their order.
    parser.add_argument(
        "--model",
        dest="models",
        metavar="MODEL",
        action="append",
        help="name in saved_models/, run folder, .keras file, exported model, URL of a served one, "
        f"or plug-in MODULE:FUNCTION (default: {SHIPPED_MODEL}); repeatable, for several opinions",
    )
    parser.add_argument(
        "--server",
        dest="models",
        metavar="URL",
        action="append",
        type=_Server,
        help="such as http://127.0.0.1:8501/v1/models/detector or grpc://127.0.0.1:8500/detector; "
        "repeatable",
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
    parser.add_options(
        PredictOptions, PredictRuntime, LimitOptions, EngineOptions, CredentialOptions
    )


def _run(arguments: argparse.Namespace) -> Output:
    """Judge videos and images: fake, uncertain, or no evidence of manipulation.

    jdfd-keras predict clip.mp4
    jdfd-keras predict clip.mp4 --model saved_models/detector
    jdfd-keras predict clip.mp4 --model run --report clip.html --annotate clip-annotated.mp4
    jdfd-keras predict clip.mp4 --model run --report clip.pdf --case 2026-17 --examiner "A. Ray"
    jdfd-keras predict uploads/ --model saved_models/detector --report overview.html
    jdfd-keras predict clip.mp4 --model jdfd-faces --model run --model my_scores:score
    jdfd-keras predict *.mp4 --server http://127.0.0.1:8501/v1/models/detector --format json
    jdfd-keras predict crops/ --model run --detector none
    jdfd-keras predict uploads/ --server grpc://127.0.0.1:8500/detector --out verdicts --workers 16
    """
    # A file that cannot be scored is a failure.
    from jdfd_keras.prediction.file_list import list_files
    from jdfd_keras.prediction.plugins import is_plugin
    from jdfd_keras.prediction.predict import predict_files
    from jdfd_keras.prediction.result_folder import check_paths
    from jdfd_keras.prediction.verdict_table import csv_lines
    from jdfd_keras.reporting.page_files import resolve_report
    from jdfd_keras.reporting.verdict_page import write_report
    from jdfd_keras.reporting.verdict_text import summary_parts

    models = arguments.models or [None]
    for model in models:
        if isinstance(model, _Server) and "://" not in model:
            raise ValueError(
                f"Expected the URL of a served model; got {str(model)!r}. Try http://{model} or "
                "grpc://HOST:8500/NAME."
            )
    report = resolve_report(arguments.report) if arguments.report else None
    shared = {
        "out": arguments.out,
        "explain": report is not None,
        "limits": read_options(arguments, LimitOptions),
        "engine": read_options(arguments, EngineOptions),
        "credentials": read_options(arguments, CredentialOptions),
    }
    if len(models) > 1 or is_plugin(models[0] or ""):
        return _compare(arguments, [str(model) for model in models], report, shared)
    paths: dict[str, Any] = {
        "model": models[0],
        "out": arguments.out,
        "annotate": arguments.annotate,
        "overwrite": arguments.overwrite,
    }
    if report:
        checked = _checked_report(arguments, report)
        check_paths(list_files(arguments.files)[0], report=checked, **paths)
    predictions = predict_files(
        arguments.files,
        read_options(arguments, PredictOptions),
        read_options(arguments, PredictRuntime),
        **paths | shared,
    )
    predictions = _add_case(arguments, predictions)
    if report:
        limits = shared["limits"]
        write_report(predictions, report, overwrite=arguments.overwrite, limits=limits)
    if arguments.format == "csv":
        text = _join(csv_lines(predictions.records))
    else:
        text = summary_parts(predictions, report)
    failed = bool(predictions.failed or predictions.annotation_error)
    return Output(predictions, text, failed=failed)


def _join(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines with line feeds between them."""
    yield next(lines)
    for line in lines:
        yield f"\n{line}"


def _compare(
    arguments: argparse.Namespace, models: list[str], report: Path | None, shared: dict[str, Any]
) -> Output:
    """Judge files by several models, or by a plug-in."""
    from jdfd_keras.prediction.file_list import list_files
    from jdfd_keras.prediction.opinions import opinions_to_csv
    from jdfd_keras.prediction.result_folder import check_paths
    from jdfd_keras.prediction.several_models import predict_opinions
    from jdfd_keras.reporting.opinions_page import write_opinions
    from jdfd_keras.reporting.opinions_text import summarize_opinions

    if arguments.annotate:
        raise ValueError(
            f"Expected one model with --annotate, whose scores are drawn; got {', '.join(models)}. "
            "Annotate with one model."
        )
    if report:
        files = list_files(arguments.files)[0]
        out, overwrite = arguments.out, arguments.overwrite
        checked = _checked_report(arguments, report)
        for model in models:
            check_paths(files, model=model, out=out, report=checked, overwrite=overwrite)
        # The pages of the models; of one file, `check_paths` expects its video instead.
        check_no_result(report.with_name(f"{report.stem}_files"), overwrite=overwrite)
    opinions = predict_opinions(
        arguments.files,
        models,
        read_options(arguments, PredictOptions),
        read_options(arguments, PredictRuntime),
        **shared,
    )
    predictions = tuple(known and _add_case(arguments, known) for known in opinions.predictions)
    opinions = dataclasses.replace(
        opinions, predictions=predictions, case=arguments.case, examiner=arguments.examiner
    )
    if report:
        limits = shared["limits"]
        write_opinions(opinions, report, overwrite=arguments.overwrite, limits=limits)
    if arguments.format == "csv":
        text = opinions_to_csv(opinions)
    else:
        text = summarize_opinions(opinions, report)
    return Output(opinions, text, failed=opinions.has_failures)


def _checked_report(arguments: argparse.Namespace, report: Path) -> Path:
    """Return the path of a report to check: a new folder, which is created with it, is a name."""
    is_new = not arguments.report.suffix and not arguments.report.exists()
    return arguments.report if is_new else report


def _add_case(arguments: argparse.Namespace, predictions: "Predictions") -> "Predictions":
    """Add what the user states about the case."""
    stated = {"case": arguments.case, "examiner": arguments.examiner}
    provenance = dataclasses.replace(predictions.provenance, **stated)
    return dataclasses.replace(predictions, provenance=provenance)


COMMAND = Command(_add_arguments, _run, formats=("text", "json", "csv"), is_resumable=True)
