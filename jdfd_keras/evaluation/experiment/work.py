"""The cells of an experiment, done one after the other.

Takes a plan; trains what its cells need and evaluates them, and leaves alone what is there
already. A cell that fails stops no other.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.evaluation.experiment import cells
from jdfd_keras.evaluation.experiment.plan import Cell, Plan, Training
from jdfd_keras.evaluation.experiment.sets import DataSet
from jdfd_keras.options import EvaluateOptions, RunOptions, UnlabelledOptions

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
