"""Trainings and evaluations of the cells of an experiment, in its folder.

    OUT/runs/ff/joint/seed0/               a run folder, of one method and seed
    OUT/cells/ff/joint/seed0/celebdf/      report.json and scores.parquet of its evaluation
    OUT/cells/ff/joint/seed0/celebdf.json  digests of its inputs; written last

A cell with other inputs is evaluated again. A cell that fails does not stop the others.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jdfd_keras.evaluation.report import Report, load_report, save_report
from jdfd_keras.experiments.plan import OUR_METHOD, AucRow, Cell, Training
from jdfd_keras.experiments.sets import ExperimentDataset
from jdfd_keras.io.console import print_message
from jdfd_keras.io.disk_space import is_disk_full
from jdfd_keras.io.files import (
    OPTIONS,
    init_folder,
    load_groups,
    load_options,
    save_options,
    write_text_atomically,
)
from jdfd_keras.io.results import Result
from jdfd_keras.options import (
    METHOD_SETTINGS,
    AugmentOptions,
    EvaluateOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
    UnlabelledOptions,
    list_unused,
)
from jdfd_keras.training.run_folder import digest_model

RUNS = "runs"
CELLS = "cells"
NOTES = ("masks",)  # sentences on the data of a training, in the group `data` of its options.json


# Options of the experiment that every method is trained with, by their group.
SHARED = {
    "model": ("encoder_weights",),
    "train": ("epochs", "patience", "precision", "split_table", "allow_leak"),
}


@dataclass(frozen=True)
class ExperimentProtocol(Result):
    """Seeds and options of the trainings and evaluations, as `experiment` takes them.

    Attributes:
        methods: Option groups of each method of a comparison, by their names in `train`; empty if
            ours is the only one.
    """

    seeds: tuple[int, ...]
    model: ModelOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    train: TrainOptions
    pipeline: PipelineOptions
    augment: AugmentOptions
    evaluate: EvaluateOptions
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def training_options(self) -> dict[str, Any]:
        """Option groups of the trainings of our method, by their names in `train`."""
        options = dict(vars(self))
        del options["seeds"], options["evaluate"], options["methods"]
        return options


def set_shared_options(method: str, model: ModelOptions, train: TrainOptions) -> dict[str, Any]:
    """Return the settings of a method's source, with the options that all methods share.

    These are SHARED: the number of epochs is the budget of all. An option that the method does not
    have stays as it is, and so do initial weights from a file, if its network is not Xception.

    Args:
        method: A value of `--method` other than ours.
        model: Network of the experiment.
        train: Training of the experiment.

    Returns:
        Option groups by their names in `train`.

    Example:
        >>> groups = set_shared_options("capsule", ModelOptions(), TrainOptions(epochs=3))
        >>> groups["train"].epochs, groups["train"].batch_size
        (3, 100)
    """
    groups, unused = dict(METHOD_SETTINGS[method]), list_unused(method)
    for name, options in (("model", model), ("train", train)):
        values = {
            one: getattr(options, one) for one in SHARED[name] if (type(options), one) not in unused
        }
        weights = values.get("encoder_weights")
        if weights not in (None, "none", "imagenet") and not method.startswith("xception"):
            del values["encoder_weights"]
        groups[name] = dataclasses.replace(groups[name], **values)
    return groups


def init_runs(runs: Path, methods: Sequence[str], protocol: ExperimentProtocol) -> None:
    """Create the folder of all runs with its options, or check that it was made with these.

    Options of our method alone count only for its runs. Without it among the methods, those of the
    folder are kept; with it, in a folder without a run of it, they replace those of the folder.

    Raises:
        ValueError: If the folder has other options.

    Example:
        >>> groups = ModelOptions(), OptimizerOptions(), LossOptions(), TrainOptions()
        >>> options = PipelineOptions(), AugmentOptions(), EvaluateOptions()
        >>> protocol = ExperimentProtocol((0,), *groups, *options)
        >>> init_runs(Path("own_runs"), ["jdfd"], protocol)
        >>> Path("own_runs", "options.json").is_file()
        True
    """
    options, path, is_ours = protocol.training_options, runs / OPTIONS, OUR_METHOD in methods
    if path.is_file() and not (is_ours and _has_run_of_ours(runs)):
        kept = {name: load_options(path, name, type(group)) for name, group in options.items()}
        for group, names in SHARED.items():
            values = {name: getattr(options[group], name) for name in names}
            kept[group] = dataclasses.replace(kept[group], **values)
        init_folder(runs, **kept)  # whose shared options must be the same
        if is_ours:
            save_options(path, **options)
    else:
        init_folder(runs, **options)


def _has_run_of_ours(runs: Path) -> bool:
    groups = (load_groups(path).get("model", {}) for path in runs.glob(f"*/*/*/{OPTIONS}"))
    return any(model.get("method", OUR_METHOD) == OUR_METHOD for model in groups)


@dataclass(frozen=True)
class TrainedCells:
    """Training and evaluation of cells in a folder, one after the other.

    Attributes:
        out: Folder of the experiment.
        sets: The datasets, by the keys in `Cell.uses`.
        protocol: Options of the trainings and evaluations.
        runtime: Devices and checkpoints.
    """

    out: Path
    sets: Mapping[str, ExperimentDataset]
    protocol: ExperimentProtocol
    runtime: TrainRuntime

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

    def read_notes(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """Return what the run folders of other methods state on their data, such as masks."""
        notes = []
        for seed in self.protocol.seeds:
            for training in dict.fromkeys(cell.training for cell in cells):
                path = self._run_folder(training, seed) / OPTIONS
                if training.method != OUR_METHOD and path.is_file():
                    facts = load_groups(path).get("data", {})
                    notes += [
                        f"{training}, seed {seed}: {facts[one]}" for one in NOTES if facts.get(one)
                    ]
        return tuple(notes)

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
        options = self._choose_options(training)
        table = training.split_table or self.protocol.train.split_table
        options["train"] = dataclasses.replace(options["train"], seed=seed, split_table=table)
        try:
            directory = self.sets[training.dataset].directory
            train(directory, self._run_folder(training, seed), **options, runtime=self.runtime)
        except (OSError, ValueError) as error:
            if is_disk_full(error):  # of all cells
                raise
            return f"training: {error}"
        return ""

    def _choose_options(self, training: Training) -> dict[str, Any]:
        """Return the option groups of a training; seed and split table are those of all."""
        if training.method != OUR_METHOD:
            return dict(self.protocol.methods[training.method])
        model = dataclasses.replace(self.protocol.model, decoder=training.decoder)
        if not training.decoder:
            model = dataclasses.replace(model, attention="none")
        unlabelled = UnlabelledOptions()
        if training.foreign:
            folders = tuple(str(self.sets[key].directory) for key in training.foreign)
            unlabelled = UnlabelledOptions(folders, training.share_percent / 100)
        return self.protocol.training_options | {"model": model, "unlabelled": unlabelled}

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
            values["num_faces"] = report.coverage.num_faces
            rows.append(cell.to_row("measured", seed, source, metric=metric, **values))
        return rows


def _print(text: str) -> None:
    print_message(f"experiment: {text}")
