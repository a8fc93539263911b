"""What each command of `jdfd-keras` does: flags in, one call, a result and its text out.

Every function takes the parsed flags and gives a dict ready for JSON, whose `failed` makes the
exit code 1 if it is not empty, and the same as lines for a person. Warnings go to stderr.
Nothing heavy is imported before a function runs.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import tempfile

from jdfd_keras import options


def read_flags(arguments: argparse.Namespace, kind: type):
    """Make a dataclass of options from the flags that there are of its fields."""
    return kind(
        **{
            field.name: getattr(arguments, field.name)
            for field in dataclasses.fields(kind)
            if hasattr(arguments, field.name)
        }
    )


def demo(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Run the whole line on made-up clips."""
    from jdfd_keras.demo import run_demo

    return run_demo(arguments.out, read_flags(arguments, options.DemoOptions))


def prepare(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Take the faces out of a folder of videos."""
    _import_tensorflow()
    from jdfd_keras.data import prepare as stage

    made = stage.prepare(
        arguments.root,
        arguments.out,
        read_flags(arguments, options.FaceOptions),
        read_flags(arguments, options.PrepareOptions),
        read_flags(arguments, options.FilterOptions),
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


def inspect(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Show the faces of a video or data set."""
    if arguments.path.is_dir() or arguments.detector == "mtcnn":
        _import_tensorflow()
    from jdfd_keras.data import inspect as stage

    result = stage.inspect(
        arguments.path,
        arguments.out,
        faces=read_flags(arguments, options.FaceOptions),
        filters=read_flags(arguments, options.FilterOptions),
        overlay=arguments.overlay,
        landmarks=arguments.landmarks,
    )
    return result, stage.summarize(result)


def train(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Train a detector."""
    print(_import_tensorflow(), file=sys.stderr)
    from jdfd_keras.training import train as stage

    run = stage.train(
        arguments.data,
        arguments.out,
        read_flags(arguments, options.ModelOptions),
        read_flags(arguments, options.OptimizerOptions),
        read_flags(arguments, options.TrainOptions),
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


def evaluate(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Measure a detector."""
    _import_tensorflow()
    from jdfd_keras.evaluation import evaluate as stage
    from jdfd_keras.evaluation.report import summarize

    report = stage.evaluate(
        arguments.model,
        arguments.data,
        arguments.out,
        read_flags(arguments, options.EvaluateOptions),
    )
    return report, f"{summarize(report)}\nreport: {arguments.out / 'report.md'}"


def export(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Write a SavedModel."""
    _import_tensorflow()
    from jdfd_keras.serving.export import export_run

    path = export_run(arguments.model, arguments.saved_models, arguments.name, arguments.version)
    return {"path": str(path)}, (
        f"exported: {path}\nserve it: jdfd-keras serve {shlex.quote(str(path.parent))}\n"
        f"      or: tensorflow_model_server --rest_api_port=8501 --model_name={arguments.name} "
        f"--model_base_path={shlex.quote(str(path.parent.resolve()))}"
    )


def serve(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Answer REST calls until stopped."""
    _import_tensorflow()
    from jdfd_keras.serving import server

    server.serve(arguments.model, read_flags(arguments, options.ServeOptions))
    return {"stopped": True}, "stopped"


def predict(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Give a verdict on files."""
    if arguments.model:
        _import_tensorflow()
    from jdfd_keras.serving.predict import predict_files, summarize

    result = predict_files(
        arguments.files,
        read_flags(arguments, options.PredictOptions),
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
