"""The paper's experiments on prepared datasets: plan, training, evaluation and summary.

`experiment` takes a name and datasets; it trains and evaluates the cells that are not done yet
and returns a typed report, which `reporting` writes as tables and a figure. A cell that fails
does not stop the others.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.experiments.cells import (
    CELLS,
    RUNS,
    CellPaths,
    CellResult,
    evaluate_cell,
    read_cell,
    run_folder,
    summarize,
)
from jdfd_keras.experiments.plan import Cell, ExperimentPlan, Training, order_keys, plan_experiment
from jdfd_keras.experiments.sets import (
    ExperimentDataset,
    ExperimentProtocol,
    ExperimentReport,
    inspect_datasets,
)
from jdfd_keras.experiments.statistics import STATISTICS, count_datasets
from jdfd_keras.io.files import init_folder
from jdfd_keras.options import (
    EXPERIMENTS,
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
) -> ExperimentReport:
    """Run one of the paper's experiments, or resume it.

    Runs are stored in OUT/runs and evaluations in OUT/cells. Experiments with the same options
    share them, so that one `out` may hold all experiments. Finished cells are not run again;
    failed ones are tried again.

    Args:
        name: `cross-dataset` (Table 2), `ablation` (Table 3), `foreign-data` (Fig. 4) or
            `statistics` (Table 1).
        data: Key to prepared dataset. `ff`, `celebdf` and `uadfv` are the paper's; datasets under
            other keys are added.
        out: Folder of the experiments; `statistics` writes nothing.
        options: Seeds.
        model: Network; `decoder` is set by the experiment.
        optimizer: As in `train`.
        loss: As in `train`.
        train: As in `train`; `seed` is set by the experiment.
        pipeline: As in `train`.
        augment: As in `train`.
        runtime: As in `train`; on one machine.
        evaluate: As in `evaluate`.

    Returns:
        An `AucReport`, or a `CountReport` of `statistics`. Its `failed` has one sentence for each
        result that is missing. `write_experiment` writes it as tables and a figure.

    Raises:
        OSError: If `out` cannot be written.
        ValueError: If the experiment is unknown, an option is out of range, or `out` was made
            with other options.

    Example:
        >>> report = experiment("statistics", {"ff": "prepared"}, "out")  # doctest: +SKIP
        >>> report.failed  # doctest: +SKIP
        ('dataset uadfv is missing: uadfv=DIR was not given', ...)
    """
    out, options = Path(out), options or ExperimentOptions()
    runtime = runtime or TrainRuntime()
    _check(name, options, runtime)
    sets, missing = inspect_datasets(data)
    if name == STATISTICS:
        return count_datasets(sets, missing, order_keys(list(data)))
    protocol = ExperimentProtocol(
        sets={key: dataset.options for key, dataset in sets.items()},
        seeds=options.seeds,
        model=dataclasses.replace(model or ModelOptions(), decoder=True),
        optimizer=optimizer or OptimizerOptions(),
        loss=loss or LossOptions(),
        train=dataclasses.replace(train or TrainOptions(), seed=0),
        pipeline=pipeline or PipelineOptions(),
        augment=augment or AugmentOptions(),
        evaluate=evaluate or EvaluateOptions(),
    )
    init_folder(
        out / RUNS,
        model=protocol.model,
        optimizer=protocol.optimizer,
        loss=protocol.loss,
        train=protocol.train,
        pipeline=protocol.pipeline,
        augment=protocol.augment,
    )
    init_folder(out / CELLS, evaluate=protocol.evaluate)
    plan = plan_experiment(name, list(data), missing)
    results, failed = ExperimentRunner(plan, sets, out, protocol, runtime).run()
    return summarize(plan, protocol, results, failed, out)


def _check(name: str, options: ExperimentOptions, runtime: TrainRuntime) -> None:
    if name not in EXPERIMENTS:
        raise ValueError(f"Expected one of {', '.join(EXPERIMENTS)}; got {name!r}. Choose one.")
    seeds = options.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(
            f"Expected seeds from 0 to {2**32 - 1}, each once; got {seeds}. Try 0,1,2."
        )
    if runtime.strategy == "multiworker":
        raise ValueError(
            "Expected a strategy on one machine; got 'multiworker', and an experiment alternates "
            "training and evaluation. Try mirrored, or run `train` and `evaluate` separately."
        )


@dataclass(frozen=True)
class ExperimentRunner:
    """Training and evaluation of the cells of an experiment, one after the other.

    Attributes:
        plan: Cells of the experiment.
        sets: The datasets, by key.
        out: Folder of the experiment.
        protocol: Seeds and options of training and evaluation.
        runtime: Devices and checkpoints of the trainings.
    """

    plan: ExperimentPlan
    sets: Mapping[str, ExperimentDataset]
    out: Path
    protocol: ExperimentProtocol
    runtime: TrainRuntime

    def run(self) -> tuple[dict[Cell, list[CellResult]], dict[Cell, list[str]]]:
        """Run every cell that is not done, seed by seed.

        Returns:
            The results of each cell, one per seed that succeeded; and the reasons for the missing
            results of each cell.
        """
        results = {cell: [] for cell in self.plan.cells}
        failed = {cell: [reason] for cell, reason in self.plan.blocked.items()}
        total = len(self.protocol.seeds) * (len(self.plan.cells) - len(self.plan.blocked))
        for number, (paths, result) in enumerate(self._run_cells(), start=1):
            if isinstance(result, CellResult):
                results[paths.cell].append(result)
                outcome = f"frame AUC {result.frame_auc_percent:.1f} %"
            else:
                failed.setdefault(paths.cell, []).append(f"seed {paths.seed}: {result}")
                outcome = f"failed: {result}"
            _print(f"cell {number} of {total}: {paths.cell}, seed {paths.seed}: {outcome}")
        return results, failed

    def _run_cells(self) -> Iterator[tuple[CellPaths, CellResult | str]]:
        for seed in self.protocol.seeds:
            for training in self.plan.trainings:
                cells = [CellPaths(self.out, cell, seed) for cell in self.plan.runnable(training)]
                is_done = all(read_cell(paths, self.sets) for paths in cells)
                error = "" if is_done else self._train(training, seed)
                for paths in cells:
                    # A resumed training may select another epoch, so finished cells are read again.
                    yield paths, error or read_cell(paths, self.sets) or self._evaluate(paths)

    def _train(self, training: Training, seed: int) -> str:
        """Train or resume a run; return the reason if it failed, else an empty string."""
        import keras

        from jdfd_keras.training.train import train

        _print(f"training {training}, seed {seed}")
        keras.utils.clear_session()  # of the previous training
        unlabelled = UnlabelledOptions()
        if training.share_percent:
            unlabelled = UnlabelledOptions(
                tuple(str(self.sets[key].directory) for key in training.foreign),
                training.share_percent / 100,
            )
        protocol = self.protocol
        try:
            train(
                self.sets[training.data].directory,
                run_folder(self.out, training, seed),
                model=dataclasses.replace(protocol.model, decoder=training.decoder),
                optimizer=protocol.optimizer,
                train=dataclasses.replace(protocol.train, seed=seed),
                pipeline=protocol.pipeline,
                augment=protocol.augment,
                loss=protocol.loss,
                unlabelled=unlabelled,
                runtime=self.runtime,
            )
        except (OSError, ValueError) as error:
            return f"training: {error}"
        return ""

    def _evaluate(self, paths: CellPaths) -> CellResult | str:
        try:
            return evaluate_cell(paths, self.sets, self.protocol.evaluate)
        except (OSError, ValueError) as error:
            return f"evaluation: {error}"


def _print(text: str) -> None:
    print(f"experiment: {text}", file=sys.stderr, flush=True)
