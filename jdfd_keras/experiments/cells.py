"""The cells of an experiment on disk, and their summary as an `ExperimentReport`.

A cell is the folder of one evaluation (report.json and scores.parquet) and a done file next to it
with the digests of its inputs: a cell with other inputs is evaluated again. `summarize` takes the
results of all cells; it returns means and spreads with the published AUCs.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.evaluation.evaluate_scores import load_report, save_report
from jdfd_keras.evaluation.report import Report
from jdfd_keras.experiments.plan import (
    TABLE_2_OTHERS,
    Cell,
    ExperimentPlan,
    OtherMethod,
    PublishedAuc,
    Training,
    find_published,
)
from jdfd_keras.experiments.sets import (
    ExperimentDataset,
    ExperimentProtocol,
    ExperimentReport,
    package_versions,
    write_notes,
)
from jdfd_keras.io.files import write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.training.run_folder import best_epoch, digest_model, read_history

RUNS = "runs"
CELLS = "cells"
TITLES = {
    "cross-dataset": "Trained on one dataset, tested on each (the paper's Table 2)",
    "ablation": "With and without the decoder (the paper's Table 3)",
    "foreign-data": "Unlabelled faces of other datasets (the paper's Fig. 4)",
}


@dataclass(frozen=True)
class CellResult(Result):
    """The result of one cell with one seed.

    Attributes:
        seed: Seed of the training.
        frame_auc_percent: AUC by faces, in per cent.
        frame_interval_percent: Its 95 % interval; None where undefined.
        video_auc_percent: AUC by videos, in per cent.
        video_interval_percent: Its 95 % interval; None where undefined.
        run: Run folder, relative to the folder of the experiment.
        report: Folder of the evaluation, relative to the folder of the experiment.
    """

    seed: int
    frame_auc_percent: float
    frame_interval_percent: tuple[float, float] | None
    video_auc_percent: float
    video_interval_percent: tuple[float, float] | None
    run: str
    report: str


@dataclass(frozen=True)
class CellInputs(Result):
    """Inputs of the result of a cell; stored in its done file.

    Attributes:
        model: SHA-256 of the model file.
        data: SHA-256 of the manifest of each dataset, by its key.
    """

    model: str
    data: dict[str, str]


@dataclass(frozen=True)
class CellPaths:
    """The paths of a cell with one seed.

    Attributes:
        out: Folder of the experiment.
        cell: The cell.
        seed: Seed of its training.
    """

    out: Path
    cell: Cell
    seed: int

    @property
    def run(self) -> Path:
        """Run folder of its training."""
        return run_folder(self.out, self.cell.training, self.seed)

    @property
    def directory(self) -> Path:
        """Folder of its evaluation."""
        training = self.cell.training.folder / f"seed{self.seed}"
        return self.out / CELLS / training / self.cell.test

    @property
    def done_file(self) -> Path:
        """File that exists once the cell is complete."""
        return self.directory.with_name(f"{self.directory.name}.json")


def run_folder(out: Path, training: Training, seed: int) -> Path:
    """Return the run folder of a training with one seed.

    Example:
        >>> run_folder(Path("out"), Training("ff"), 0).as_posix()
        'out/runs/ff/joint/seed0'
    """
    return out / RUNS / training.folder / f"seed{seed}"


def read_cell(paths: CellPaths, sets: Mapping[str, ExperimentDataset]) -> CellResult | None:
    """Read the result of a complete cell.

    Args:
        paths: Paths of the cell.
        sets: The datasets, by key.

    Returns:
        The result; None if the cell does not exist, is incomplete, or was made with another model
        or with datasets that were prepared again since.

    Example:
        >>> read_cell(CellPaths(Path("new"), Cell(Training("ff"), "ff"), seed=0), sets={})
    """
    with contextlib.suppress(OSError, ValueError):  # a damaged cell is evaluated again
        inputs = CellInputs.from_dict(json.loads(paths.done_file.read_text(encoding="utf-8")))
        if inputs == _find_inputs(paths, sets):
            return _to_result(paths, load_report(paths.directory))
    return None


def evaluate_cell(
    paths: CellPaths, sets: Mapping[str, ExperimentDataset], options: EvaluateOptions
) -> CellResult:
    """Evaluate a run on a dataset, and write the report, the scores and the done file.

    Args:
        paths: Paths of the cell.
        sets: The datasets, by key.
        options: Options of the evaluation.

    Raises:
        OSError: If a file does not exist or cannot be written.
        ValueError: If `evaluate` raises it, or the dataset has one class only.

    Example:
        >>> paths = CellPaths(Path("out"), Cell(Training("ff"), "ff"), seed=0)
        >>> evaluate_cell(paths, sets, EvaluateOptions()).frame_auc_percent  # doctest: +SKIP
        97.4
    """
    from jdfd_keras.evaluation.evaluate import evaluate

    report = evaluate(paths.run, sets[paths.cell.test].directory, options)
    if paths.directory.is_dir():
        shutil.rmtree(paths.directory)  # pages of an earlier evaluation
    paths.directory.mkdir(parents=True)
    save_report(report, paths.directory)
    result = _to_result(paths, report)
    inputs = _find_inputs(paths, sets)
    write_text_atomically(paths.done_file, json.dumps(inputs.to_dict(), indent=1) + "\n")
    return result


def _find_inputs(paths: CellPaths, sets: Mapping[str, ExperimentDataset]) -> CellInputs:
    keys = dict.fromkeys([*paths.cell.training.uses, paths.cell.test])
    return CellInputs(digest_model(paths.run), {key: sets[key].digest for key in keys})


def _to_result(paths: CellPaths, report: Report) -> CellResult:
    values = {}
    for level, metrics in (("frame", report.frame), ("video", report.video)):
        auc = metrics.auc
        if auc.value is None:
            raise ValueError(
                "Expected real and fake faces in the test split; got one class only, which has no "
                "AUC. Add videos of the other class and prepare the dataset again."
            )
        values[f"{level}_auc_percent"] = 100 * auc.value
        values[f"{level}_interval_percent"] = (
            None if auc.low is None or auc.high is None else (100 * auc.low, 100 * auc.high)
        )
    return CellResult(
        seed=paths.seed,
        run=paths.run.relative_to(paths.out).as_posix(),
        report=paths.directory.relative_to(paths.out).as_posix(),
        **values,
    )


@dataclass(frozen=True)
class AucSummary(Result):
    """The AUCs of one cell over its seeds.

    Attributes:
        mean_percent: Mean, in per cent.
        std_percent: Sample standard deviation, in percentage points; None for one seed.
        num_seeds: Number of seeds with a result.
        interval_percent: 95 % interval of the evaluation; None for several seeds.
    """

    mean_percent: float
    std_percent: float | None
    num_seeds: int
    interval_percent: tuple[float, float] | None


@dataclass(frozen=True)
class ReportCell(Result):
    """One cell of the table.

    Attributes:
        frame: AUC by faces; None without a result.
        video: AUC by videos; None without a result.
        published: AUCs by faces that the paper publishes for this cell.
        results: Results of the single seeds.
        failed: Reasons for the missing results.
    """

    frame: AucSummary | None
    video: AucSummary | None
    published: tuple[PublishedAuc, ...]
    results: tuple[CellResult, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class RunSummary(Result):
    """Length of one run: its folder relative to the experiment, and epochs counted from 1."""

    seed: int
    run: str
    epochs: int
    best_epoch: int | None


@dataclass(frozen=True)
class ReportRow(Result):
    """One row of the table: a training, its runs, and its cells by test dataset."""

    training: Training
    runs: tuple[RunSummary, ...]
    cells: dict[str, ReportCell]


@dataclass(frozen=True, kw_only=True)
class AucReport(ExperimentReport):
    """The report of `cross-dataset`, `ablation` and `foreign-data`.

    Attributes:
        tests: Keys of the test datasets: the columns of the table.
        rows: Rows of the table, one per training.
        others: Published rows of other methods; of `cross-dataset` only.
        protocol: Preparation of the datasets, training and evaluation.
    """

    tests: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    others: tuple[OtherMethod, ...]
    protocol: ExperimentProtocol


def summarize(
    plan: ExperimentPlan,
    protocol: ExperimentProtocol,
    results: Mapping[Cell, Sequence[CellResult]],
    failed: Mapping[Cell, Sequence[str]],
    out: Path,
) -> AucReport:
    """Summarize the results of an experiment.

    Args:
        plan: Cells of the experiment.
        protocol: Preparation of the datasets, training and evaluation.
        results: Results of each cell, one per seed that succeeded.
        failed: Reasons for the missing results of each cell.
        out: Folder of the experiment.

    Example:
        >>> report = summarize(plan, protocol, results, failed, out)  # doctest: +SKIP
        >>> report.rows[0].cells["uadfv"].frame.mean_percent  # doctest: +SKIP
        92.9
    """
    rows = []
    for training in plan.trainings:
        cells = [cell for cell in plan.cells if cell.training == training]
        row_results = [result for cell in cells for result in results.get(cell, ())]
        summaries = {
            cell.test: _summarize_cell(cell, results.get(cell, ()), failed.get(cell, ()))
            for cell in cells
        }
        rows.append(ReportRow(training, _summarize_runs(row_results, out), summaries))
    return AucReport(
        experiment=plan.name,
        title=TITLES[plan.name],
        versions=package_versions(),
        notes=tuple(write_notes(plan, protocol)),
        failed=tuple(f"{cell}: {why}" for cell in plan.cells for why in failed.get(cell, ())),
        tests=plan.tests,
        rows=tuple(rows),
        others=TABLE_2_OTHERS if plan.name == "cross-dataset" else (),
        protocol=protocol,
    )


def _summarize_cell(cell: Cell, results: Sequence[CellResult], failed: Sequence[str]) -> ReportCell:
    training = cell.training
    return ReportCell(
        frame=_summarize_auc(results, "frame"),
        video=_summarize_auc(results, "video"),
        published=find_published(
            training.data, cell.test, decoder=training.decoder, share_percent=training.share_percent
        ),
        results=tuple(results),
        failed=tuple(failed),
    )


def _summarize_auc(results: Sequence[CellResult], level: str) -> AucSummary | None:
    if not results:
        return None
    values = [getattr(result, f"{level}_auc_percent") for result in results]
    single = len(values) == 1
    return AucSummary(
        mean_percent=float(np.mean(values)),
        std_percent=None if single else float(np.std(values, ddof=1)),
        num_seeds=len(values),
        interval_percent=getattr(results[0], f"{level}_interval_percent") if single else None,
    )


def _summarize_runs(results: Sequence[CellResult], out: Path) -> tuple[RunSummary, ...]:
    summaries = []
    for run, seed in {result.run: result.seed for result in results}.items():
        history = read_history(out / run)
        best = best_epoch(history) + 1 if history else None
        summaries.append(RunSummary(seed, run, len(history), best))
    return tuple(summaries)
