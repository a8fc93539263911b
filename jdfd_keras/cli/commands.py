"""What each command of `jdfd-keras` does: flags in, one call, a result and its text out.

Every function takes the parsed flags and gives a dict ready for JSON, whose `failed` makes the
exit code 1 if it is not empty, and the same as lines for a person. Warnings go to stderr.
Nothing heavy is imported before a function runs.
"""

import argparse
import dataclasses
import shlex
import sys
from collections import Counter
from pathlib import Path

from jdfd_keras import options
from jdfd_keras.io.console import import_tensorflow
from jdfd_keras.io.files import OPTIONS, load_options

# What `train` is told of, by the names that a run folder has for it.
TRAIN_GROUPS = {
    "model": options.ModelOptions,
    "optimizer": options.OptimizerOptions,
    "loss": options.LossOptions,
    "train": options.TrainOptions,
    "unlabelled": options.UnlabelledOptions,
    "pipeline": options.PipelineOptions,
    "augment": options.AugmentOptions,
}
# What `evaluate` is told of that `train` has a flag for, too.
SHARED_WITH_TRAIN = tuple(
    field.name
    for field in dataclasses.fields(options.EvaluateOptions)
    if field.name
    in {own.name for kind in TRAIN_GROUPS.values() for own in dataclasses.fields(kind)}
)


def read_flags(arguments: argparse.Namespace, kind: type):
    """Make a dataclass of options from the flags that there are of its fields."""
    given = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(kind)
        if hasattr(arguments, field.name)
    }
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def read_run(directory: Path) -> dict:
    """Read what a run was told, as the arguments of `train`.

    Raises:
        OSError: If there is no run folder.
        ValueError: If what it was told cannot be read.
    """
    path = directory / OPTIONS
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a run folder to go on with; got {directory}, which holds no {OPTIONS}. "
            "Begin one with `jdfd-keras train DATA --out DIR`."
        )
    run = {"data": Path(load_options(path, "place", options.PlaceOptions).data), "out": directory}
    for group, kind in TRAIN_GROUPS.items():
        run |= dataclasses.asdict(load_options(path, group, kind))
    return {name: list(v) if name == "unlabelled" else v for name, v in run.items()}


def demo(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Run the whole line on made-up clips."""
    from jdfd_keras.cli.demo import run_demo

    return run_demo(arguments.out, read_flags(arguments, options.DemoOptions))


def prepare(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Take the faces out of a data set of videos."""
    if arguments.detector == "mtcnn":
        import_tensorflow()
    from jdfd_keras.datasets import prepare as stage

    splits = read_flags(arguments, options.SplitOptions)
    if splits.split == "paper":
        _warn(
            "--split paper draws single faces: the same video lies in training and in testing, "
            "so that its figures say little of videos that a detector has not seen"
        )
    made = stage.prepare(
        arguments.root,
        arguments.out,
        read_flags(arguments, options.FaceOptions),
        read_flags(arguments, options.PrepareOptions),
        read_flags(arguments, options.FilterOptions),
        splits,
        read_flags(arguments, options.WorkOptions),
        arguments.beam_flags,
    )
    if made.shared_sources:
        _warn(
            f"sources that lie in two splits: {len(made.shared_sources)}, such as "
            f"{made.shared_sources[0].source}: a detector may know them by heart. "
            f"`jdfd-keras audit {shlex.quote(made.directory)}` names all"
        )
    excluded = [{"path": r.path, "reason": r.reason} for r in made.videos if not r.num_faces]
    result = {
        "directory": made.directory,
        "videos": len(made.videos),
        "faces": made.faces,
        "dropped": made.count_dropped(),
        "excluded": excluded,
        "warnings": [{"path": r.path, "warning": r.warning} for r in made.videos if r.warning],
        "missing": made.missing,
        "unknown": made.unknown,
        "left_out": made.left_out,
    }
    if len(excluded) > arguments.max_failed * len(made.videos):
        _warn(
            f"{len(excluded)} of {len(made.videos)} videos gave no face, more than "
            f"--max-failed {arguments.max_failed:g}"
        )
        result["failed"] = excluded
    return result, _sum_up_prepared(result)


def _sum_up_prepared(result: dict) -> str:
    from jdfd_keras.datasets.splits import kind_of

    classes = list(result["faces"]["train"])
    lines = [f"{result['videos']} videos, faces taken:"]
    lines.append(f"{'':5} {' '.join(f'{name:>10}' for name in classes)}")
    lines += [
        f"{split:5} {' '.join(f'{count:10}' for count in counts.values())}"
        for split, counts in result["faces"].items()
    ]
    lines += [f"{count} faces not taken: {reason}" for reason, count in result["dropped"].items()]
    reasons = Counter(map(kind_of, result["left_out"].values()))
    lines += [f"{count} videos left out: {reason}" for reason, count in reasons.items()]
    lines += _name_some("missing", result["missing"])
    lines += _name_some("not of this layout", result["unknown"])
    lines += _name_some("no face", [f"{e['path']}: {e['reason']}" for e in result["excluded"]], 50)
    warnings = [f"{entry['path']}: {entry['warning']}" for entry in result["warnings"]]
    lines += _name_some("warning", warnings, 50)
    return "\n".join([*lines, f"prepared data set: {result['directory']}"])


def _name_some(what: str, names: list[str], most: int = 5) -> list[str]:
    """Write a line for each name, but not for thousands of them."""
    lines = [f"{what}: {name}" for name in names[:most]]
    more = len(names) - most
    return [*lines, f"{what}: {more} more, with --format json all of them"] if more > 0 else lines


def audit(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Look for leaks and shortcuts in prepared data sets."""
    from jdfd_keras.datasets import audit as stage
    from jdfd_keras.reporting.dataset_report import render_audit

    report = stage.audit(arguments.data, arguments.out)
    where = f"\naudit: {arguments.out / 'audit.md'}" if arguments.out else ""
    return report, render_audit(report) + where


def inspect(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Show the faces of a video or data set."""
    if arguments.detector == "mtcnn" and not arguments.path.is_dir():
        import_tensorflow()
    from jdfd_keras.datasets import inspection as stage

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
    print(import_tensorflow(), file=sys.stderr)
    from jdfd_keras.training import train as stage

    told = {name: read_flags(arguments, kind) for name, kind in TRAIN_GROUPS.items()}
    run = stage.train(
        arguments.data,
        arguments.out,
        options=told.pop("train"),
        run=read_flags(arguments, options.RunOptions),
        **told,
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
    """Measure a detector, or scores."""
    from jdfd_keras.reporting.report_text import summarize

    told = read_flags(arguments, options.EvaluateOptions)
    if arguments.from_scores:
        from jdfd_keras.evaluation.evaluate_scores import evaluate_scores

        report = evaluate_scores(
            arguments.from_scores,
            arguments.out,
            told,
            data=arguments.data,
            compare=arguments.compare,
        )
    else:
        import_tensorflow()
        from jdfd_keras.evaluation import evaluate as stage

        report = stage.evaluate(
            arguments.model, arguments.data, arguments.out, told, compare=arguments.compare
        )
    return report, f"{summarize(report)}\nreport: {arguments.out / 'report.html'}"


def calibrate(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Make scores mean what they say."""
    import_tensorflow()
    from jdfd_keras.evaluation import calibrate as stage

    result = stage.calibrate(
        arguments.model, arguments.data, read_flags(arguments, options.CalibrateOptions)
    )
    kept = arguments.model / stage.CALIBRATION
    return result, f"{stage.summarize(result)}\ncalibration: {kept}"


def experiment(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Make one of the paper's tables."""
    if arguments.name != "statistics":
        print(import_tensorflow(), file=sys.stderr)
    from jdfd_keras.experiments.experiment import experiment as stage

    told = {
        name: read_flags(arguments, kind)
        for name, kind in TRAIN_GROUPS.items()
        if kind is not options.UnlabelledOptions
    }
    # But for leaks, flags that both have are of training.
    own = {name: getattr(options.EvaluateOptions, name) for name in SHARED_WITH_TRAIN}
    own["allow_leak"] = arguments.allow_leak
    evaluate = dataclasses.replace(read_flags(arguments, options.EvaluateOptions), **own)
    report = stage(
        arguments.name,
        dict(arguments.data),
        arguments.out,
        read_flags(arguments, options.ExperimentOptions),
        run=read_flags(arguments, options.RunOptions),
        evaluate=evaluate,
        **told,
    )
    page = (arguments.out / f"{arguments.name}.md").read_text(encoding="utf-8")
    return report, f"{page}\nexperiment: {arguments.out / f'{arguments.name}.html'}"


def export(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Write a SavedModel."""
    import_tensorflow()
    from jdfd_keras.serving.export.exporter import export_run

    path = export_run(
        arguments.model,
        arguments.saved_models,
        arguments.name,
        arguments.version,
        report=arguments.report,
        tflite=tuple(arguments.tflite),
        data=arguments.data,
    )
    return {"path": str(path)}, (
        f"exported: {path}\nserve it: jdfd-keras serve {shlex.quote(str(path.parent))}"
    )


def serve(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Answer calls until stopped."""
    from jdfd_keras.serving import serve as launch

    launch.serve(
        arguments.model,
        read_flags(arguments, options.ServeOptions),
        models_config=arguments.models_config,
    )
    return {"stopped": True}, "stopped"


def predict(arguments: argparse.Namespace) -> tuple[dict, str]:
    """Give a verdict on files."""
    if arguments.model:
        import_tensorflow()
    from jdfd_keras.prediction.predict import predict_files
    from jdfd_keras.reporting.verdict_text import summarize, to_csv

    result = predict_files(
        arguments.files,
        read_flags(arguments, options.PredictOptions),
        read_flags(arguments, options.PredictWorkOptions),
        model=arguments.model,
        server=arguments.server,
        out=arguments.out,
        report=arguments.report,
        annotate=arguments.annotate,
    )
    return result, to_csv(result) if arguments.format == "csv" else summarize(result)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
