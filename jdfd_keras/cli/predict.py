"""`jdfd-keras predict`: judge videos and images."""

import argparse
from pathlib import Path

from jdfd_keras.cli.main import CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.options import PredictOptions, PredictRuntime

SUMMARY = "judge videos and images: fake, real or uncertain"
EXAMPLES = """\
  jdfd-keras predict clip.mp4 --model saved_models/detector
  jdfd-keras predict clip.mp4 --model run --report clip.html --annotate clip-annotated.mp4
  jdfd-keras predict *.mp4 --server http://127.0.0.1:8501/v1/models/detector --format json
  jdfd-keras predict uploads/ --server grpc://127.0.0.1:8500/detector --out verdicts --workers 16"""
FORMATS = ("text", "json", "csv")


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="videos, images, or folders of them"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=Path, metavar="PATH", help="run folder, .keras file or exported model"
    )
    source.add_argument(
        "--server",
        metavar="URL",
        help="such as http://127.0.0.1:8501/v1/models/detector or grpc://127.0.0.1:8500/detector",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="HTML",
        help="also write a page with timelines, the most suspicious faces and the evidence in them",
    )
    parser.add_argument(
        "--annotate",
        type=Path,
        metavar="FILE",
        help="also draw faces, scores and timeline on the video (.mp4, .webm, .avi) or image "
        "(.png, .jpg); analyses every frame unless --every is given",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="result folder; an interrupted run is resumed, and existing verdicts are kept",
    )
    parser.add_options(PredictOptions)
    parser.add_options(PredictRuntime)


def is_resumable(arguments: argparse.Namespace) -> bool:
    """Return whether verdicts are kept in a result folder."""
    return bool(arguments.out)


def run(arguments: argparse.Namespace) -> Output:
    """Compute the verdicts; a file that cannot be scored is a failure."""
    if arguments.model:
        import_tensorflow()
    from jdfd_keras.prediction.extraction import list_files
    from jdfd_keras.prediction.predict import predict_files
    from jdfd_keras.prediction.result_folder import check_paths, to_csv
    from jdfd_keras.reporting.verdict_page import write_report
    from jdfd_keras.reporting.verdict_text import summarize

    if arguments.server and "://" not in arguments.server:
        raise ValueError(
            f"Expected the URL of a served model; got {arguments.server!r}. Try "
            f"http://{arguments.server} or grpc://HOST:8500/NAME."
        )
    model = arguments.model or arguments.server
    if arguments.report:
        check_paths(
            list_files(arguments.files)[0],
            model=model,
            out=arguments.out,
            report=arguments.report,
            annotate=arguments.annotate,
        )
    predictions = predict_files(
        arguments.files,
        read_options(arguments, PredictOptions),
        read_options(arguments, PredictRuntime),
        model=model,
        out=arguments.out,
        annotate=arguments.annotate,
        explain=bool(arguments.report),
    )
    if arguments.report:
        write_report(predictions, arguments.report)
    if arguments.format == "csv":
        text = to_csv(predictions.records)
    else:
        text = summarize(predictions)
        text += f"\nreport: {arguments.report}" if arguments.report else ""
    return Output(predictions.to_dict(), text, failed=bool(predictions.failed))
