"""The cells of an experiment, done one after the other.

Takes a plan; trains what its cells need and evaluates them, and leaves alone what is there
already. A cell that fails stops no other.

Prepared data sets to one of the paper's tables, with the paper's figures beside ours.

Takes the name of an experiment and the data sets; trains and evaluates what is not there yet and
writes the tables. What it consists of, how it is counted and how it looks is left to the modules
beside it.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.experiments import results as cells
from jdfd_keras.experiments import results as summary
from jdfd_keras.experiments import statistics
from jdfd_keras.experiments.plan import Cell, Plan, Training, order_keys, plan_experiment
from jdfd_keras.experiments.sets import DataSet, look_at_sets
from jdfd_keras.io.files import claim_directory
from jdfd_keras.options import (
    EXPERIMENTS,
    AugmentOptions,
    EvaluateOptions,
    ExperimentOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    RunOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.reporting import experiment_report as pictures
from jdfd_keras.reporting import experiment_report as statistics_page
from jdfd_keras.reporting import experiment_tables as tables
from jdfd_keras.reporting.markdown import write_page

RUNS = "runs"
CELLS = "cells"


@dataclass(frozen=True)
class Work:
    """All that the cells of an experiment need to be done.

    Attributes:
        plan: Which cells there are.
        sets: The data sets that are there.
        out: The folder of the experiment.
        seeds: Of the trainings.
        told: Groups of options of `train`, by its names but for `train` itself.
        run: How `train` goes about it.
        evaluate: How cells are evaluated.
    """

    plan: Plan
    sets: Mapping[str, DataSet]
    out: Path
    seeds: Sequence[int]
    told: Mapping[str, object]
    run: RunOptions
    evaluate: EvaluateOptions

    def do(self) -> tuple[dict[Cell, list[cells.Result]], dict[Cell, list[str]]]:
        """Do every cell that is not done, seed after seed.

        Returns:
            Cell to its results, one for each seed that gave one; and cell to reasons.
        """
        results = {cell: [] for cell in self.plan.cells}
        failed = {cell: [reason] for cell, reason in self.plan.blocked.items()}
        for number, (cell, place, result) in enumerate(self._do_all(), start=1):
            if isinstance(result, cells.Result):
                results[cell].append(result)
                said = f"frame AUC {result.frame_auc_percent:.1f} %"
            else:
                failed.setdefault(cell, []).append(f"seed {place.seed}: {result}")
                said = f"failed: {result}"
            total = len(self.seeds) * (len(self.plan.cells) - len(self.plan.blocked))
            _tell(f"cell {number} of {total}: {cell}, seed {place.seed}: {said}")
        return results, failed

    def _do_all(self) -> Iterator[tuple[Cell, cells.Place, cells.Result | str]]:
        for seed in self.seeds:
            for training in self.plan.trainings:
                places = {c: self._place(c, seed) for c in self.plan.cells_of(training)}
                done = {cell: cells.read_cell(place) for cell, place in places.items()}
                reason = "" if all(done.values()) else self._train(training, seed)
                for cell, place in places.items():
                    # A training that goes on may end otherwise, so all of them are read anew.
                    yield cell, place, reason or cells.read_cell(place) or self._test(cell, place)

    def _place(self, cell: Cell, seed: int) -> cells.Place:
        keys = dict.fromkeys([*cell.training.uses, cell.test])
        own = cell.training.folder / f"seed{seed}"
        return cells.Place(
            directory=self.out / CELLS / own / cell.test,
            run=self.out / RUNS / own,
            seed=seed,
            digests={key: self.sets[key].digest for key in keys},
        )

    def _train(self, training: Training, seed: int) -> str:
        """Train, or go on with it; say why not."""
        import keras

        from jdfd_keras.training.train import train

        _tell(f"training {training}, seed {seed}")
        keras.utils.clear_session()  # of the training before
        told = dict(self.told)
        options = dataclasses.replace(told.pop("train"), seed=seed)
        told["model"] = dataclasses.replace(told["model"], decoder=training.decoder)
        unlabelled = UnlabelledOptions()
        if training.share_percent:
            unlabelled = UnlabelledOptions(
                tuple(str(self.sets[key].directory) for key in training.foreign),
                training.share_percent / 100,
            )
        try:
            train(
                self.sets[training.data].directory,
                self.out / RUNS / training.folder / f"seed{seed}",
                options=options,
                unlabelled=unlabelled,
                run=self.run,
                **told,
            )
        except (OSError, ValueError) as error:
            return f"training: {error}"
        return ""

    def _test(self, cell: Cell, place: cells.Place) -> cells.Result | str:
        try:
            return cells.make_cell(place, self.sets[cell.test].directory, self.evaluate)
        except (OSError, ValueError) as error:
            return f"evaluation: {error}"


def _tell(text: str) -> None:
    print(f"experiment: {text}", file=sys.stderr, flush=True)


DEFAULTS = {
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "loss": LossOptions,
    "train": TrainOptions,
    "pipeline": PipelineOptions,
    "augment": AugmentOptions,
}


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
    run: RunOptions | None = None,
    evaluate: EvaluateOptions | None = None,
) -> dict:
    """Do one of the paper's experiments, or go on with it.

    Runs lie in OUT/runs and evaluations in OUT/cells. Experiments with the same options share
    them, so that one `out` may hold all experiments. What is done already is not done again; what
    failed is tried again.

    Args:
        name: `cross-dataset` (Table 2), `ablation` (Table 3), `foreign-data` (Fig. 4) or
            `statistics` (Table 1).
        data: Key to prepared data set; `ff`, `celebdf` and `uadfv` are the paper's, others are
            taken too.
        out: Folder for NAME.md, NAME.html, NAME.csv, NAME.tex, NAME.json and a figure, all of them
            replaced.
        options: The seeds.
        model: The network; `decoder` is the experiment's.
        optimizer: As in `train`.
        loss: As in `train`.
        train: As in `train`; `seed` is the experiment's.
        pipeline: As in `train`.
        augment: As in `train`.
        run: As in `train`; on one machine.
        evaluate: As in `evaluate`.

    Returns:
        What NAME.json holds; with `failed`, a sentence for each cell that has no figure, where
        there is one.

    Raises:
        OSError: If `out` cannot be written.
        ValueError: If there is no such experiment, an option is out of range, or `out` was made
            with other options.
    """
    out, options = Path(out), options or ExperimentOptions()
    evaluate, run = evaluate or EvaluateOptions(), run or RunOptions()
    _check(name, options, run)
    sets, missing = look_at_sets(data)
    if name == "statistics":
        report = statistics.count_sets(sets, missing, order_keys(list(data)))
        pages, draw = statistics_page, statistics.draw_samples
    else:
        given = {"model": model, "optimizer": optimizer, "loss": loss, "train": train}
        given |= {"pipeline": pipeline, "augment": augment}
        told = {group: given[group] or kind() for group, kind in DEFAULTS.items()}
        told["model"] = dataclasses.replace(told["model"], decoder=True)
        told["train"] = dataclasses.replace(told["train"], seed=0)
        claim_directory(out / RUNS, **told)
        claim_directory(out / CELLS, evaluate=evaluate)
        plan = plan_experiment(name, list(data), missing)
        results, failed = Work(plan, sets, out, options.seeds, told, run, evaluate).do()
        seeds = options.seeds
        report = summary.summarize(plan, results, failed, sets, seeds, told, evaluate, out)
        pages, draw = tables, pictures.draw
    out.mkdir(parents=True, exist_ok=True)
    report["files"] = [f"{name}.{suffix}" for suffix in ("md", "html", "csv", "tex", "json")]
    for suffix in (".png", ".svg"):
        (out / f"{name}{suffix}").unlink(missing_ok=True)  # of a call before this one
    report["figure"] = None
    try:
        report["figure"] = draw(report, out, sets)
    except (OSError, ValueError) as error:  # the tables are worth having without it
        report["failed"] = [*report.get("failed", ()), f"figure: {error}"]
    report = json.loads(json.dumps(report))  # what is given is what is read back
    for suffix, text in (
        ("md", pages.render_markdown(report)),
        ("csv", pages.render_csv(report)),
        ("tex", pages.render_latex(report)),
        ("json", json.dumps(report, indent=1) + "\n"),
    ):
        (out / f"{name}.{suffix}").write_text(text, encoding="utf-8", newline="")
        if suffix == "md":
            write_page(out / f"{name}.html", text)
    return report


def _check(name: str, options: ExperimentOptions, run: RunOptions) -> None:
    if name not in EXPERIMENTS:
        raise ValueError(f"Expected one of {', '.join(EXPERIMENTS)}; got {name!r}. Choose one.")
    seeds = options.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(
            f"Expected seeds from 0 to {2**32 - 1}, each once; got {seeds}. Try 0,1,2."
        )
    if run.strategy == "multiworker":
        raise ValueError(
            "Expected one machine; got the strategy 'multiworker', and an experiment trains and "
            "evaluates by turns. Try mirrored, or `train` and `evaluate` by themselves."
        )
