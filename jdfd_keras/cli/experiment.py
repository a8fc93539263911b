"""Command `experiment`: the paper's tables and figures on your datasets, and robustness."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from jdfd_keras.cli.parser import Command, CommandParser, Output, read_options
from jdfd_keras.io.console import import_tensorflow, print_message
from jdfd_keras.options import (
    EXPERIMENTS,
    PRECISIONS,
    ROBUSTNESS,
    TRAINING_GROUPS,
    EngineOptions,
    EvaluateOptions,
    ExperimentOptions,
    LimitOptions,
    RobustnessOptions,
    TrainOptions,
    TrainRuntime,
)

# The experiment itself chooses the unlabelled faces of a training.
TRAIN_GROUPS = {name: kind for name, kind in TRAINING_GROUPS.items() if name != "unlabelled"}
# Of robustness only; --backend and --engine-precision are those of its model.
ROBUSTNESS_GROUPS = (RobustnessOptions, EngineOptions, LimitOptions)
ENGINE_PRECISION = "EngineOptions.precision"
# Options of training and evaluation that robustness has as well.
SHARED = {
    *("TrainOptions.split_table", "TrainOptions.allow_leak"),
    *(f"EvaluateOptions.{name}" for name in ("split", "aggregation", "n_resamples")),
}


def _add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "name",
        choices=(*EXPERIMENTS, ROBUSTNESS),
        metavar="NAME",
        help="cross-dataset: Table 2, train on each, test on each; ablation: Table 3, with and "
        "without decoder; foreign-data: Fig. 4, unlabelled faces of the other datasets; "
        "statistics: Table 1, no training; leave-one-out: train without one manipulation, test it; "
        "cross-compression: train on each compression, test on each; robustness: a trained model "
        "on degraded data",
    )
    parser.add_argument(
        "--data",
        type=_key_and_folder,
        nargs="+",
        action="extend",
        required=True,
        metavar="KEY=DIR",
        help="prepared datasets; ff, celebdf and uadfv are the paper's, other keys are added",
    )
    parser.add_path(
        "--out",
        "DIR",
        "tables, figure, runs and reports; an interrupted experiment is resumed",
        required=True,
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="robustness: exported model, run folder or .keras file",
    )
    parser.add_argument(
        "--videos",
        type=_key_and_folder,
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=DIR",
        help="robustness without --quick: the videos that each dataset was prepared from",
    )
    parser.add_options(ExperimentOptions)
    parser.add_options(RobustnessOptions)
    kinds = (*TRAIN_GROUPS.values(), TrainRuntime, EvaluateOptions)
    # Set by the experiment, except the recipe and the mark of a demonstration.
    skip = ("method", "image_size", "decoder", "seed", "recipe", "demonstration", "degrade")
    hide = ("balance", "fakes", "jpeg", "h264", "threshold", "aggregation")
    parser.add_options(*kinds, skip=skip, hide=hide)
    # --precision is that of a training.
    parser.add_options(EngineOptions, LimitOptions, skip=("precision",), hide=("backend",))
    parser.add_argument(
        "--engine-precision",
        dest=ENGINE_PRECISION,
        choices=PRECISIONS,
        default=argparse.SUPPRESS,
        help="robustness: as --precision of evaluate" if parser.show_all else argparse.SUPPRESS,
    )


def _run(arguments: argparse.Namespace) -> Output:
    r"""Reproduce the paper's tables and figures on your datasets, or measure robustness.

    jdfd-keras experiment cross-dataset --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments
    jdfd-keras experiment cross-dataset --data ff=ffpp celebdf=celebdf uadfv=uadfv \
        --out experiments --methods all
    jdfd-keras experiment ablation --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments \
        --seeds 0,1,2
    jdfd-keras experiment foreign-data --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments
    jdfd-keras experiment statistics --data ff=ffpp celebdf=celebdf uadfv=uadfv --out experiments
    jdfd-keras experiment leave-one-out --data ff=ffpp --split-table strict --out experiments
    jdfd-keras experiment cross-compression --data ff=ffpp --split-table strict --out experiments
    jdfd-keras experiment robustness --model run --data celebdf=celebdf --quick --out robustness
    """
    # A cell that cannot be run is a failure.
    keys = [key for key, _ in arguments.data]
    if repeated := [key for key in keys if keys.count(key) > 1]:
        arguments.parser.error(f"--data has {repeated[0]}=DIR twice; give each key once")
    _check_usage(arguments)
    if arguments.name == ROBUSTNESS:
        return _run_robustness(arguments)
    if arguments.name != "statistics":
        print_message(import_tensorflow())
    from jdfd_keras.experiments.experiment import experiment
    from jdfd_keras.reporting.experiment_report import write_experiment

    groups: dict[str, Any] = {
        name: read_options(arguments, kind) for name, kind in TRAIN_GROUPS.items()
    }
    evaluate = read_options(arguments, EvaluateOptions)
    report = experiment(
        arguments.name,
        dict(arguments.data),
        arguments.out,
        read_options(arguments, ExperimentOptions),
        runtime=read_options(arguments, TrainRuntime),
        evaluate=dataclasses.replace(evaluate, allow_leak=groups["train"].allow_leak),
        **groups,
    )
    report = write_experiment(report, arguments.out)
    page = (arguments.out / f"{arguments.name}.md").read_text(encoding="utf-8")
    return Output(
        report.to_dict(),
        f"{page}\nexperiment: {arguments.out / f'{arguments.name}.html'}",
        failed=bool(report.failed),
    )


def _check_usage(arguments: argparse.Namespace) -> None:
    """Exit with the usage for options that the experiment does not have."""
    error, name = arguments.parser.error, arguments.name
    if name == ROBUSTNESS:
        if not arguments.model:
            error("robustness needs --model MODEL: an exported model, a run folder or .keras file")
        own = {kind.__name__ for kind in ROBUSTNESS_GROUPS}
        kinds = {kind.__name__ for kind in (*TRAIN_GROUPS.values(), ExperimentOptions)}
        kinds |= {TrainRuntime.__name__, EvaluateOptions.__name__}
        given = _find_given(arguments, kinds - own) - SHARED
        reason = "robustness trains nothing and does not have it"
    else:
        given = _find_given(arguments, {kind.__name__ for kind in ROBUSTNESS_GROUPS})
        given |= {option for option in ("model", "videos") if getattr(arguments, option)}
        reason = f"an option of robustness, not of {name}"
        if not given:
            given, reason = _check_methods(arguments)
    if given:
        option = min(given)
        flag = "engine-" * (option == ENGINE_PRECISION) + option.rpartition(".")[2]
        error(f"--{flag.replace('_', '-')}: {reason}; omit it")


def _check_methods(arguments: argparse.Namespace) -> tuple[set[str], str]:
    """Exit with the usage for unsuitable methods; return the options without effect, and why."""
    from jdfd_keras.experiments.plan import OUR_METHOD, parse_methods
    from jdfd_keras.experiments.trained_cells import SHARED as SHARED_BY_METHODS

    error, name, methods = arguments.parser.error, arguments.name, ()
    try:
        methods = parse_methods(read_options(arguments, ExperimentOptions).methods)
    except ValueError as problem:
        error(f"--methods: {problem}")
    if name != "cross-dataset" and methods != (OUR_METHOD,):
        error(f"--methods: an option of cross-dataset, not of {name}; omit it")
    if OUR_METHOD in methods:
        return set(), ""
    given = _find_given(arguments, {kind.__name__ for kind in TRAIN_GROUPS.values()})
    kinds = {name: TRAIN_GROUPS[name].__name__ for name in SHARED_BY_METHODS}
    shared = {f"{kinds[group]}.{one}" for group, of in SHARED_BY_METHODS.items() for one in of}
    return given - shared, f"an option of {OUR_METHOD}, which is not among the methods"


def _find_given(arguments: argparse.Namespace, kinds: set[str]) -> set[str]:
    """Return the destinations of the given options of some groups."""
    return {name for name in vars(arguments) if name.partition(".")[0] in kinds}


def _run_robustness(arguments: argparse.Namespace) -> Output:
    from jdfd_keras.experiments.robustness import measure_robustness
    from jdfd_keras.reporting.robustness_report import summarize_robustness, write_robustness

    train = read_options(arguments, TrainOptions)
    evaluate = dataclasses.replace(
        read_options(arguments, EvaluateOptions),
        split_table=train.split_table,
        allow_leak=train.allow_leak,
    )
    report = measure_robustness(
        arguments.model,
        dict(arguments.data),
        arguments.out,
        read_options(arguments, RobustnessOptions),
        videos=dict(arguments.videos),
        evaluate=evaluate,
        engine=read_options(arguments, EngineOptions),
        limits=read_options(arguments, LimitOptions),
    )
    report = write_robustness(report, arguments.out)
    lines = [summarize_robustness(report), *(f"missing: {reason}" for reason in report.failed)]
    page = arguments.out / f"{ROBUSTNESS}.html"
    return Output(
        report.to_dict(), "\n".join([*lines, f"experiment: {page}"]), failed=bool(report.failed)
    )


def _key_and_folder(text: str) -> tuple[str, Path]:
    key, _, folder = text.partition("=")
    if not (key and folder):
        raise argparse.ArgumentTypeError(f"expected KEY=DIR such as ff=prepared; got {text!r}")
    return key, Path(folder)


COMMAND = Command(_add_arguments, _run, is_resumable=True)
