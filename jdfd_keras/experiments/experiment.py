"""Experiments on prepared datasets: training and evaluation of their cells.

A cell is the folder of one evaluation (report.json and scores.parquet) and a done file next to it
with the digests of its inputs: a cell with other inputs is evaluated again. A cell that fails does
not stop the others. `reporting` writes the results as tables and a figure.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jdfd_keras
from jdfd_keras.evaluation.report import Report, load_report, save_report
from jdfd_keras.experiments.plan import (
    BASELINE,
    NAMES,
    OURS,
    AucRow,
    Cell,
    Training,
    plan_cells,
    read_published,
)
from jdfd_keras.experiments.sets import ExperimentDataset, ExperimentReport, inspect_datasets
from jdfd_keras.experiments.split_cells import plan_split_cells
from jdfd_keras.experiments.statistics import STATISTICS, CountReport, count_datasets
from jdfd_keras.io.console import print_message
from jdfd_keras.io.disk_space import is_disk_full
from jdfd_keras.io.files import init_folder, write_text_atomically
from jdfd_keras.io.results import Result
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
    UnlabelledOptions,
)
from jdfd_keras.training.run_folder import digest_model

RUNS = "runs"
CELLS = "cells"
TITLES = {
    "cross-dataset": "Trained on one dataset, tested on each (the paper's Table 2)",
    "ablation": "With and without the decoder (the paper's Table 3)",
    "foreign-data": "Unlabelled faces of other datasets (the paper's Fig. 4)",
    "leave-one-out": "Trained without one manipulation, tested on that one",
    "cross-compression": "Trained on one compression, tested on each",
}


@dataclass(frozen=True)
class ExperimentProtocol(Result):
    """Seeds and options of the trainings and evaluations, as `experiment` takes them."""

    seeds: tuple[int, ...]
    model: ModelOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    train: TrainOptions
    pipeline: PipelineOptions
    augment: AugmentOptions
    evaluate: EvaluateOptions


@dataclass(frozen=True, kw_only=True)
class AucReport(ExperimentReport):
    """The report of every experiment that trains.

    Attributes:
        protocol: Training and evaluation.
        foreign: Keys of the datasets whose faces are added unlabelled; of `foreign-data` only.
        results: Published rows of other methods; then each cell: its AUCs by faces and by videos
            for each seed, or its failures, and the paper's AUCs.
    """

    protocol: ExperimentProtocol
    foreign: tuple[str, ...]
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
        options: Seeds.
        model: Network; `decoder` is set by the experiment.
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
        ValueError: If the experiment is unknown, an option is out of range, the network is
            MesoNet, which is not the paper's, or `out` was made with other options.

    Example:
        >>> report = experiment("statistics", {"ff": "prepared"}, "experiments")
        >>> report.failed[0]
        'dataset uadfv is missing: uadfv=DIR was not given'
    """
    out, options = Path(out), options or ExperimentOptions()
    runtime = runtime or TrainRuntime()
    model = model or ModelOptions()
    _check(name, options, runtime, model.network)
    train = dataclasses.replace(train or TrainOptions(), seed=0)
    if name in SPLIT_EXPERIMENTS:
        cells, sets = plan_split_cells(name, data, train.split_table)
    else:
        sets, missing = inspect_datasets(data, train.split_table)
        if name == STATISTICS:
            return count_datasets(sets, missing, list(dict.fromkeys([*NAMES, *data])))
        cells = plan_cells(name, list(data), missing)
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
    runner = _CellRunner(out, sets, protocol, runtime)
    init_folder(out / RUNS, **runner.training_options)
    init_folder(out / CELLS, evaluate=protocol.evaluate)
    results = runner.run(cells)
    published, rows = read_published(), []
    if name == "cross-dataset":
        rows += [row for row in published if row.method not in (OURS, BASELINE)]
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
    )


def _check(name: str, options: ExperimentOptions, runtime: TrainRuntime, network: str) -> None:
    if name not in EXPERIMENTS:
        raise ValueError(f"Expected one of {', '.join(EXPERIMENTS)}; got {name!r}. Choose one.")
    seeds = options.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(
            f"Expected seeds from 0 to {2**32 - 1}, each once; got {seeds}. Try 0,1,2."
        )
    if name != STATISTICS and not network.startswith(ModelOptions.network):
        raise ValueError(
            f"Expected the network xception or xception-pytorch in the paper's experiments; got "
            f"{network!r}. Compare MesoNet by the commands train and evaluate."
        )
    if runtime.strategy == "multiworker":
        raise ValueError(
            "Expected a strategy on one machine; got 'multiworker', and an experiment alternates "
            "training and evaluation. Try mirrored, or run `train` and `evaluate` separately."
        )


@dataclass(frozen=True)
class _CellRunner:
    """Training and evaluation of cells in a folder, one after the other."""

    out: Path
    sets: Mapping[str, ExperimentDataset]
    protocol: ExperimentProtocol
    runtime: TrainRuntime

    @property
    def training_options(self) -> dict:
        options = dict(vars(self.protocol))
        del options["seeds"], options["evaluate"]
        return options

    def run(self, cells: Sequence[Cell]) -> dict[Cell, list[AucRow]]:
        """Run every cell that is not done, seed by seed, and return the rows of each cell."""
        rows = {
            cell: [cell.to_row("failed", None, cell.blocked)] if cell.blocked else []
            for cell in cells
        }
        runnable = [cell for cell in cells if not cell.blocked]
        number, total = 0, len(self.protocol.seeds) * len(runnable)
        for seed in self.protocol.seeds:
            for training in dict.fromkeys(cell.training for cell in runnable):
                own = [cell for cell in runnable if cell.training == training]
                is_done = all(self._read(cell, seed) for cell in own)
                problem = "" if is_done else self._train(training, seed)
                for cell in own:
                    number += 1
                    # A resumed training may select another epoch, so finished cells are read again.
                    result = problem or self._read(cell, seed) or self._evaluate(cell, seed)
                    if isinstance(result, str):
                        rows[cell].append(cell.to_row("failed", seed, result))
                        outcome = f"failed: {result}"
                    else:
                        rows[cell] += result
                        outcome = f"frame AUC {result[0].percent:.1f} %"
                    _print(f"cell {number} of {total}: {cell}, seed {seed}: {outcome}")
        return rows

    def _run_folder(self, training: Training, seed: int) -> Path:
        return self.out / RUNS / training.folder / f"seed{seed}"

    def _cell_folder(self, cell: Cell, seed: int) -> Path:
        own = cell.dataset.replace("/", "-")
        return self.out / CELLS / cell.training.folder / f"seed{seed}" / own

    def _train(self, training: Training, seed: int) -> str:
        """Train or resume a run; return the reason if it failed, else an empty string."""
        import keras

        from jdfd_keras.training.train import train

        _print(f"training {training}, seed {seed}")
        keras.utils.clear_session()  # of the previous training
        unlabelled = UnlabelledOptions()
        if training.foreign:
            folders = tuple(str(self.sets[key].directory) for key in training.foreign)
            unlabelled = UnlabelledOptions(folders, training.share_percent / 100)
        model = dataclasses.replace(self.protocol.model, decoder=training.decoder)
        if not training.decoder:
            model = dataclasses.replace(model, attention="none")
        table = training.split_table or self.protocol.train.split_table
        options = self.training_options | {
            "model": model,
            "train": dataclasses.replace(self.protocol.train, seed=seed, split_table=table),
            "unlabelled": unlabelled,
            "runtime": self.runtime,
        }
        try:
            directory = self.sets[training.dataset].directory
            train(directory, self._run_folder(training, seed), **options)
        except (OSError, ValueError) as error:
            if is_disk_full(error):  # of all cells
                raise
            return f"training: {error}"
        return ""

    def _read(self, cell: Cell, seed: int) -> list[AucRow]:
        """Return the rows of a cell; none unless it is complete, and of the present inputs."""
        folder = self._cell_folder(cell, seed)
        with contextlib.suppress(OSError, ValueError):  # a damaged cell is evaluated again
            inputs = json.loads(Path(f"{folder}.json").read_text(encoding="utf-8"))
            if inputs == self._find_inputs(cell, seed):
                return self._to_rows(cell, seed, load_report(folder))
        return []

    def _evaluate(self, cell: Cell, seed: int) -> list[AucRow] | str:
        """Evaluate a run and write the cell; return its rows, or the reason if it failed."""
        from jdfd_keras.evaluation.evaluate import evaluate

        run, folder = self._run_folder(cell.training, seed), self._cell_folder(cell, seed)
        table = cell.split_table or self.protocol.evaluate.split_table
        options = dataclasses.replace(self.protocol.evaluate, split_table=table)
        try:
            report = evaluate(run, self.sets[cell.dataset].directory, options)
            if folder.is_dir():
                shutil.rmtree(folder)  # pages of an earlier evaluation
            folder.mkdir(parents=True)
            save_report(report, folder)
            rows = self._to_rows(cell, seed, report)
            inputs = json.dumps(self._find_inputs(cell, seed), indent=1)
            write_text_atomically(f"{folder}.json", inputs + "\n")
        except (OSError, ValueError) as error:
            if is_disk_full(error):
                raise
            return f"evaluation: {error}"
        return rows

    def _find_inputs(self, cell: Cell, seed: int) -> dict[str, object]:
        model = digest_model(self._run_folder(cell.training, seed))
        return {"model": model, "data": {key: self.sets[key].digest for key in cell.uses}}

    def _to_rows(self, cell: Cell, seed: int, report: Report) -> list[AucRow]:
        source = self._cell_folder(cell, seed).relative_to(self.out).as_posix()
        rows = []
        for metric, auc in (("frame_auc", report.frame.auc), ("video_auc", report.video.auc)):
            if auc.value is None:
                raise ValueError(
                    "Expected real and fake faces in the test split; got one class only, which has "
                    "no AUC. Add videos of the other class and prepare the dataset again."
                )
            numbers = {"percent": auc.value, "low_percent": auc.low, "high_percent": auc.high}
            values = {key: None if end is None else 100 * end for key, end in numbers.items()}
            rows.append(cell.to_row("measured", seed, source, metric=metric, **values))
        return rows


def _print(text: str) -> None:
    print_message(f"experiment: {text}")
