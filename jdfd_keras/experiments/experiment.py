"""Experiments on prepared datasets: training and evaluation of their cells.

Takes datasets and options; returns a report, which `reporting` writes as tables and a figure.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jdfd_keras
from jdfd_keras.experiments.plan import (
    BASELINE,
    NAMES,
    OUR_METHOD,
    AucRow,
    parse_methods,
    plan_cells,
    read_published,
)
from jdfd_keras.experiments.sets import ExperimentReport, inspect_datasets
from jdfd_keras.experiments.split_cells import plan_split_cells
from jdfd_keras.experiments.statistics import STATISTICS, CountReport, count_datasets
from jdfd_keras.experiments.trained_cells import (
    CELLS,
    RUNS,
    ExperimentProtocol,
    TrainedCells,
    init_runs,
    set_shared_options,
)
from jdfd_keras.io.files import init_folder
from jdfd_keras.options import (
    EXPERIMENTS,
    SPLIT_EXPERIMENTS,
    AugmentOptions,
    EvaluateOptions,
    ExperimentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
)

TITLES = {
    "cross-dataset": "Trained on one dataset, tested on each (the paper's Table 2)",
    "ablation": "With and without the decoder (the paper's Table 3)",
    "foreign-data": "Unlabelled faces of other datasets (the paper's Fig. 4)",
    "leave-one-out": "Trained without one manipulation, tested on that one",
    "cross-compression": "Trained on one compression, tested on each",
}


@dataclass(frozen=True, kw_only=True)
class AucReport(ExperimentReport):
    """The report of every experiment that trains.

    Attributes:
        protocol: Training and evaluation.
        foreign: Keys of the datasets whose faces are added unlabelled; of `foreign-data` only.
        results: Published rows of methods that were not trained; then each cell: its AUCs by faces
            and by videos for each seed, or its failures, and the paper's AUCs.
        notes: What the trainings of other methods state on their data, one sentence for each.
    """

    protocol: ExperimentProtocol
    foreign: tuple[str, ...]
    notes: tuple[str, ...] = ()
    results: tuple[AucRow, ...]


def experiment(
    name: str,
    data: Mapping[str, str | Path],
    out: str | Path,
    options: ExperimentOptions | None = None,
    *,
    model: ModelOptions | None = None,
    optimizer: OptimizerOptions | None = None,
    loss: LossOptions | None = None,
    train: TrainOptions | None = None,
    pipeline: PipelineOptions | None = None,
    augment: AugmentOptions | None = None,
    runtime: TrainRuntime | None = None,
    evaluate: EvaluateOptions | None = None,
) -> AucReport | CountReport:
    """Run an experiment with its trainings and evaluations, or resume it.

    Runs are stored in OUT/runs and evaluations in OUT/cells. Experiments with the same options
    share them, so that one `out` may hold all experiments. Finished cells are not run again;
    failed ones are tried again.

    Args:
        name: Of the paper `cross-dataset` (Table 2), `ablation` (Table 3), `foreign-data` (Fig. 4)
            or `statistics` (Table 1). `leave-one-out` trains without one manipulation and tests
            it, for each; `cross-compression` trains on each compression and tests all.
        data: Key to prepared dataset. `ff`, `celebdf` and `uadfv` are the paper's; datasets under
            other keys are added. `leave-one-out` and `cross-compression` use the given ones alone,
            and make the split tables that these lack, as `split_dataset` does.
        out: Folder of the experiments; `statistics` writes nothing.
        options: Seeds; and for `cross-dataset` the methods of Table 2 to train. Methods other than
            ours have the settings of their sources, with the epochs, patience, precision, initial
            weights, splits and seeds of the experiment.
        model: Network of our method; `decoder` is set by the experiment.
        optimizer: As in `train`.
        loss: As in `train`.
        train: As in `train`; `seed` is set by the experiment, and `split_table` is that of all
            datasets and evaluations, or, `official` or `strict`, that from which they are made.
        pipeline: As in `train`.
        augment: As in `train`.
        runtime: As in `train`; on one machine.
        evaluate: As in `evaluate`; `split_table` is that of `train`.

    Returns:
        An `AucReport`, or a `CountReport` of `statistics`. Its `failed` has one sentence for each
        result that is missing. `write_experiment` writes it as tables and a figure.

    Raises:
        OSError: If `out` cannot be written.
        ValueError: If the experiment or a method is unknown, the experiment compares no methods,
            an option is out of range, the network is MesoNet, which is not the paper's, or `out`
            was made with other options.

    Example:
        >>> report = experiment("statistics", {"ff": "prepared"}, "experiments")
        >>> report.failed[0]
        'dataset uadfv is missing: uadfv=DIR was not given'
    """
    out, options = Path(out), options or ExperimentOptions()
    runtime = runtime or TrainRuntime()
    model = model or ModelOptions()
    methods = _check(name, options, runtime, model)
    train = dataclasses.replace(train or TrainOptions(), seed=0)
    if name in SPLIT_EXPERIMENTS:
        cells, sets = plan_split_cells(name, data, train.split_table)
    else:
        sets, missing = inspect_datasets(data, train.split_table)
        if name == STATISTICS:
            return count_datasets(sets, missing, list(dict.fromkeys([*NAMES, *data])))
        cells = plan_cells(name, list(data), missing, methods)
    from jdfd_keras.training.devices import Devices, resolve_precision

    train = resolve_precision(train, out / RUNS, Devices())  # all runs have the same
    protocol = ExperimentProtocol(
        seeds=options.seeds,
        model=dataclasses.replace(model, decoder=True),
        optimizer=optimizer or OptimizerOptions(),
        loss=loss or LossOptions(),
        train=train,
        pipeline=pipeline or PipelineOptions(),
        augment=augment or AugmentOptions(),
        evaluate=dataclasses.replace(evaluate or EvaluateOptions(), split_table=train.split_table),
    )
    if methods != (OUR_METHOD,):
        compared = {
            one: protocol.training_options
            if one == OUR_METHOD
            else set_shared_options(one, model, train)
            for one in methods
        }
        protocol = dataclasses.replace(protocol, methods=compared)
    runner = TrainedCells(out, sets, protocol, runtime)
    init_runs(out / RUNS, methods, protocol)
    init_folder(out / CELLS, evaluate=protocol.evaluate)
    results = runner.run(cells)
    published, rows = read_published(), []
    if name == "cross-dataset":
        others = [row for row in published if row.method != BASELINE and not row.share_percent]
        rows += [row for row in others if not any(cell.has_setup_of(row) for cell in cells)]
    for cell in cells:
        rows += results[cell]
        rows += [row for row in published if cell.has_setup_of(row)]
    return AucReport(
        experiment=name,
        title=TITLES[name],
        versions={"jdfd_keras": jdfd_keras.__version__}
        | {package: version(package) for package in ("keras", "tensorflow")},
        datasets={key: dataset.options for key, dataset in sets.items()},
        failed=tuple(
            f"{cell}: {'' if row.seed is None else f'seed {row.seed}: '}{row.source}"
            for cell in cells
            for row in results[cell]
            if row.kind == "failed"
        ),
        protocol=protocol,
        foreign=cells[-1].training.foreign,
        results=tuple(rows),
        notes=runner.read_notes(cells),
    )


def _check(
    name: str, options: ExperimentOptions, runtime: TrainRuntime, model: ModelOptions
) -> tuple[str, ...]:
    """Check the arguments of an experiment, and return its methods."""
    if name not in EXPERIMENTS:
        raise ValueError(f"Expected one of {', '.join(EXPERIMENTS)}; got {name!r}. Choose one.")
    seeds = options.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(
            f"Expected seeds from 0 to {2**32 - 1}, each once; got {seeds}. Try 0,1,2."
        )
    methods = parse_methods(options.methods)
    if name != "cross-dataset" and methods != (OUR_METHOD,):
        raise ValueError(
            f"Expected the experiment cross-dataset for the methods {', '.join(methods)}; got "
            f"{name!r}, which trains {OUR_METHOD} alone. Omit the methods."
        )
    if model.method != OUR_METHOD:
        raise ValueError(
            f"Expected the network of {OUR_METHOD}, whose options an experiment takes; got the "
            f"method {model.method!r}. Name it among the methods of cross-dataset instead."
        )
    if name != STATISTICS and not model.network.startswith(ModelOptions.network):
        raise ValueError(
            f"Expected the network xception or xception-pytorch in the paper's experiments; got "
            f"{model.network!r}. Compare MesoNet by the commands train and evaluate."
        )
    if runtime.strategy == "multiworker":
        raise ValueError(
            "Expected a strategy on one machine; got 'multiworker', and an experiment alternates "
            "training and evaluation. Try mirrored, or run `train` and `evaluate` separately."
        )
    return methods
