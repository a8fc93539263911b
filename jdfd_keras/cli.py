"""The command `jdfd-keras`: parses, calls one function, prints.

Results go to stdout, progress and warnings to stderr. Exit 0: done; 1: something failed, in
one line that says what was expected, what came and what to try; 2: wrong usage. Nothing heavy
is imported before a command runs.
"""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

from jdfd_keras import __version__, options

EXAMPLES = {
    "demo": "jdfd-keras demo\n  jdfd-keras demo --portraits photographs/ --out my-demo",
    "prepare": "jdfd-keras prepare videos/ --out prepared\n"
    "  jdfd-keras prepare videos/ --out prepared --detector mtcnn --frames-per-video 300",
    "train": "jdfd-keras train prepared --out run\n"
    "  jdfd-keras train prepared --out run --encoder-weights none --optimizer adam "
    "--learning-rate 0.001 --classifier-learning-rate 0.001 --batch-size 16",
    "evaluate": "jdfd-keras evaluate run prepared --out report\n"
    "  jdfd-keras evaluate run prepared --out report --split val --format json",
    "export": "jdfd-keras export run --name detector\n"
    "  jdfd-keras export run --name detector --saved-models /models --version 7",
    "serve": "jdfd-keras serve saved_models/detector\n"
    "  jdfd-keras serve saved_models/detector --host 0.0.0.0 --port 8080",
    "predict": "jdfd-keras predict clip.mp4 --model saved_models/detector\n"
    "  jdfd-keras predict *.mp4 --server http://127.0.0.1:8501/v1/models/detector --format json",
}

RESUMABLE = ("demo", "prepare", "train")


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words; those of the process if none are given.

    Returns:
        The exit code: 0, 1, or 130 after Ctrl-C. Wrong usage leaves through SystemExit(2), as
        argparse does.
    """
    arguments = build_parser().parse_args(argv)
    os.environ["KERAS_BACKEND"] = "tensorflow"  # what is trained here is served by TensorFlow
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # serve and predict may share one
    try:
        result, text = arguments.run(arguments)
    except (OSError, ValueError) as error:
        print(f"jdfd-keras {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        hint = " The same command goes on with it." if arguments.command in RESUMABLE else ""
        print(f"jdfd-keras {arguments.command}: interrupted.{hint}", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=2) if arguments.format == "json" else text, flush=True)
    return 1 if result.get("failed") else 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; flags come from the dataclasses in `options`."""
    parser = argparse.ArgumentParser(
        prog="jdfd-keras",
        description="Detect deepfakes: train, evaluate, export and serve the Joint DeepFake "
        "Detector.",
        epilog="Start with `jdfd-keras demo`. `jdfd-keras COMMAND --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"jdfd-keras {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    command = _add_command(commands, "demo", _demo, "see the whole line at work, in minutes")
    command.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="where all of it goes (demo)"
    )
    _add_flags(command, options.DemoOptions)

    command = _add_command(commands, "prepare", _prepare, "take the faces out of videos")
    command.add_argument(
        "root",
        type=Path,
        metavar="ROOT",
        help="folder with real/ and fake/, or train/real/, train/fake/, val/real/ ...",
    )
    _add_out(command, "the prepared data set")
    _add_flags(command, options.FaceOptions)
    _add_flags(command, options.FilterOptions)
    _add_flags(command, options.PrepareOptions)

    command = _add_command(commands, "train", _train, "train a detector on a prepared data set")
    command.add_argument("data", type=Path, metavar="DATA", help="what `prepare` made")
    _add_out(command, "the run folder; one that was interrupted is gone on with")
    _add_flags(command, options.ModelOptions, skip=("image_size",))
    _add_flags(command, options.OptimizerOptions)
    _add_flags(command, options.TrainOptions)

    command = _add_command(commands, "evaluate", _evaluate, "measure a detector on a data set")
    command.add_argument("model", type=Path, metavar="RUN", help="what `train` made, or a .keras")
    command.add_argument("data", type=Path, metavar="DATA", help="what `prepare` made")
    _add_out(command, "the report")
    _add_flags(command, options.EvaluateOptions)

    command = _add_command(commands, "export", _export, "write a SavedModel for serving")
    command.add_argument("model", type=Path, metavar="RUN", help="what `train` made, or a .keras")
    command.add_argument("--name", required=True, help="the name it is served under")
    command.add_argument(
        "--saved-models",
        type=Path,
        default=Path("saved_models"),
        metavar="DIR",
        help="where models lie, as DIR/NAME/VERSION (saved_models)",
    )
    command.add_argument("--version", type=int, metavar="N", help="version (the next free one)")

    command = _add_command(commands, "serve", _serve, "answer REST calls for an exported model")
    command.add_argument("model", type=Path, metavar="MODEL", help="such as saved_models/detector")
    _add_flags(command, options.ServeOptions)

    command = _add_command(commands, "predict", _predict, "give a verdict on videos and images")
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="video or image")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=Path, metavar="PATH", help="run folder, .keras file or exported model"
    )
    source.add_argument(
        "--server", metavar="URL", help="such as http://127.0.0.1:8501/v1/models/detector"
    )
    _add_flags(command, options.PredictOptions)
    return parser


def _add_command(commands, name: str, run, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n  {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument(
        "--format", choices=("text", "json"), default="text", help="form of the result (text)"
    )
    return command


def _add_out(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help=what)


def _add_flags(command: argparse.ArgumentParser, kind: type, skip: tuple[str, ...] = ()) -> None:
    """Add a flag for each field of a dataclass of options."""
    for field in dataclasses.fields(kind):
        if field.name not in skip:
            command.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=field.type,
                default=field.default,
                choices=field.metadata["choices"] or None,
                metavar=None if field.metadata["choices"] else field.type.__name__.upper(),
                help=f"{field.metadata['help']} ({field.default})",
            )


def _read_flags(arguments: argparse.Namespace, kind: type):
    return kind(
        **{
            field.name: getattr(arguments, field.name)
            for field in dataclasses.fields(kind)
            if hasattr(arguments, field.name)
        }
    )


def _demo(arguments) -> tuple[dict, str]:
    from jdfd_keras.demo import run_demo

    return run_demo(arguments.out, _read_flags(arguments, options.DemoOptions))


def _prepare(arguments) -> tuple[dict, str]:
    _import_tensorflow()
    from jdfd_keras.data.prepare import prepare

    made = prepare(
        arguments.root,
        arguments.out,
        _read_flags(arguments, options.FaceOptions),
        _read_flags(arguments, options.PrepareOptions),
        _read_flags(arguments, options.FilterOptions),
    )
    for source_id, splits in made.shared_sources.items():
        print(
            f"warning: source {source_id!r} lies in {' and '.join(sorted(splits))}: a detector "
            "may know it by heart",
            file=sys.stderr,
        )
    excluded = [row for row in made.videos if not row.num_faces]
    damaged = [row for row in made.videos if row.warning]
    dropped = made.count_dropped()
    result = {
        "directory": str(made.directory),
        "videos": len(made.videos),
        "faces": made.count_faces(),
        "dropped": dropped,
        "excluded": [{"path": row.path, "reason": row.reason} for row in excluded],
        "warnings": [{"path": row.path, "warning": row.warning} for row in damaged],
    }
    lines = [f"{len(made.videos)} videos, faces taken:", "        real   fake"]
    lines += [
        f"{split:5} {count['real']:6} {count['fake']:6}" for split, count in result["faces"].items()
    ]
    lines += [f"{count} faces not taken: {reason}" for reason, count in dropped.items()]
    lines += [f"no face: {row.path}: {row.reason}" for row in excluded]
    lines += [f"warning: {row.path}: {row.warning}" for row in damaged]
    return result, "\n".join([*lines, f"prepared data set: {made.directory}"])


def _train(arguments) -> tuple[dict, str]:
    print(_import_tensorflow(), file=sys.stderr)
    from jdfd_keras.training.train import train

    run = train(
        arguments.data,
        arguments.out,
        _read_flags(arguments, options.ModelOptions),
        _read_flags(arguments, options.OptimizerOptions),
        _read_flags(arguments, options.TrainOptions),
    )
    result = {
        "directory": str(run.directory),
        "epochs": len(run.history),
        "best_epoch": run.best_epoch,
        "validation_frame_auc": run.best_frame_auc,
    }
    return result, (
        f"best epoch {run.best_epoch} of {len(run.history)}, "
        f"validation frame AUC {run.best_frame_auc:.3f}\nrun: {run.directory}"
    )


def _evaluate(arguments) -> tuple[dict, str]:
    _import_tensorflow()
    from jdfd_keras.evaluation.evaluate import evaluate
    from jdfd_keras.evaluation.report import summarize

    report = evaluate(
        arguments.model,
        arguments.data,
        arguments.out,
        _read_flags(arguments, options.EvaluateOptions),
    )
    return report, f"{summarize(report)}\nreport: {arguments.out / 'report.md'}"


def _export(arguments) -> tuple[dict, str]:
    _import_tensorflow()
    from jdfd_keras.serving.export import export_run

    path = export_run(arguments.model, arguments.saved_models, arguments.name, arguments.version)
    return {"path": str(path)}, (
        f"exported: {path}\nserve it: jdfd-keras serve {shlex.quote(str(path.parent))}\n"
        f"      or: tensorflow_model_server --rest_api_port=8501 --model_name={arguments.name} "
        f"--model_base_path={shlex.quote(str(path.parent.resolve()))}"
    )


def _serve(arguments) -> tuple[dict, str]:
    _import_tensorflow()
    from jdfd_keras.serving.server import serve

    serve(arguments.model, _read_flags(arguments, options.ServeOptions))
    return {"stopped": True}, "stopped"


def _predict(arguments) -> tuple[dict, str]:
    if arguments.model:
        _import_tensorflow()
    from jdfd_keras.serving.predict import predict_files, summarize

    result = predict_files(
        arguments.files,
        _read_flags(arguments, options.PredictOptions),
        model=arguments.model,
        server=arguments.server,
    )
    return result, summarize(result)


def _import_tensorflow() -> str:
    """Import TensorFlow and say what it runs on.

    Its notes on a missing CUDA driver are written before its log level counts (2.21.0); they are
    held back, and shown only if the import fails.
    """
    with tempfile.TemporaryFile() as notes:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            devices = tf.config.list_physical_devices("GPU")
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return f"TensorFlow {tf.__version__} on {f'{len(devices)} GPU' if devices else 'the CPU'}"
