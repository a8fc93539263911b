"""One cell of an experiment: done once, kept, and told from one that was made otherwise.

Takes a run, the data set it is tested on and a place; gives its figures. A cell is its folder, as
`evaluate` writes it, and a file beside it, written when all of it is there.

The figures of all cells to what a table says: means, spreads, the paper's figures.

Takes a plan and its results; gives a dict ready for JSON, from which all pages are written.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jdfd_keras.experiments.plan import TABLE_2_OTHERS, Cell, Plan, Training, find_published
from jdfd_keras.experiments.sets import DataSet, name_versions, write_notes
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.evaluation_folder import REPORT, SCORES
from jdfd_keras.training.run_folder import best_epoch, digest_model, read_history


@dataclass(frozen=True)
class Result:
    """What one cell gave with one seed; AUCs in per cent.

    Attributes:
        seed: Of the training.
        frame_auc_percent: Over faces.
        frame_interval_percent: Its interval, as the report gives one.
        video_auc_percent: Over videos.
        video_interval_percent: Its interval.
        run: The run folder.
        report: The folder of the evaluation.
    """

    seed: int
    frame_auc_percent: float
    frame_interval_percent: tuple[float, float] | None
    video_auc_percent: float
    video_interval_percent: tuple[float, float] | None
    run: str
    report: str


@dataclass(frozen=True)
class Place:
    """Where a cell lies, and what it is made of.

    Attributes:
        directory: Of its evaluation.
        run: Of its training.
        seed: Of its training.
        digests: Data set to the digest of its manifest, of all that the cell depends on.
    """

    directory: Path
    run: Path
    seed: int
    digests: dict[str, str]

    @property
    def mark(self) -> Path:
        """Name the file that says that the cell is whole."""
        return self.directory.with_name(f"{self.directory.name}.json")


def read_cell(place: Place) -> Result | None:
    """Read a cell that is whole.

    Returns:
        Its figures; None if it is not there, was cut short, or was made of another run or of data
        sets that were prepared again since.
    """
    # Whatever is wrong with it, it is made again.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        mark = json.loads(place.mark.read_text(encoding="utf-8"))
        report = json.loads((place.directory / REPORT).read_text(encoding="utf-8"))
        if mark == _describe(place):
            return _to_result(place, report)
    return None


def make_cell(place: Place, data: Path, options) -> Result:
    """Evaluate a run on a data set and keep what came out.

    Args:
        place: Where to.
        data: The data set.
        options: The EvaluateOptions.

    Raises:
        OSError: If a file is not there or cannot be written.
        ValueError: If `evaluate` refuses, or the data set has one class alone.
    """
    from jdfd_keras.evaluation.evaluate import evaluate

    place.directory.parent.mkdir(parents=True, exist_ok=True)
    result = _to_result(place, evaluate(place.run, data, place.directory, options))
    unfinished = place.mark.with_name(f"unfinished-{place.mark.name}")
    unfinished.write_text(json.dumps(_describe(place), indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, place.mark)
    return result


def read_cell_scores(directory: Path):
    """Read the scores of the folder of a cell, which a curve is drawn of.

    Raises:
        OSError: If the evaluation left none.
        ValueError: If they are damaged.
    """
    from jdfd_keras.evaluation.scores_file import read_scores

    return read_scores(directory / SCORES)


def _describe(place: Place) -> dict:
    return {"model": digest_model(place.run), "data": place.digests}


def _to_result(place: Place, report: dict) -> Result:
    figures = {}
    for level in ("frame", "video"):
        auc = report[level]["auc"]
        if auc["value"] is None:
            raise ValueError(
                "Expected real and fake faces to test on; got one class alone, so that there is "
                "no AUC. Add videos of the other and prepare the data set again."
            )
        low, high = auc.get("low"), auc.get("high")
        figures[f"{level}_auc_percent"] = 100 * auc["value"]
        figures[f"{level}_interval_percent"] = (
            None if low is None or high is None else (100 * low, 100 * high)
        )
    return Result(seed=place.seed, run=str(place.run), report=str(place.directory), **figures)


TITLES = {
    "cross-dataset": "Trained on one data set, tested on each (the paper's Table 2)",
    "ablation": "With and without the decoder (the paper's Table 3)",
    "foreign-data": "Unlabelled faces of other data sets (the paper's Fig. 4)",
}


def summarize(
    plan: Plan,
    results: Mapping[Cell, Sequence[Result]],
    failed: Mapping[Cell, Sequence[str]],
    sets: Mapping[str, DataSet],
    seeds: Sequence[int],
    told: Mapping[str, object],
    evaluate: EvaluateOptions,
    out: Path,
) -> dict:
    """Put the results of an experiment together.

    Args:
        plan: What it is.
        results: Those there are of each cell, by seed.
        failed: Why there are no others.
        sets: The data sets that are there.
        seeds: Those asked for.
        told: What `train` was told, by groups.
        evaluate: How cells were evaluated.
        out: The folder of the experiment; places in the report are below it.

    Returns:
        `experiment`, `title`, `tests` (the columns), `rows` with the `cells` of one training
        each, `others` (published rows of other methods), `protocol`, `notes`; and `failed`, a
        sentence for each cell and reason, where there is one.
    """
    rows = []
    for training in plan.trainings:
        row = dataclasses.asdict(training) | {"runs": _describe_runs(plan, training, results, out)}
        row["cells"] = {
            cell.test: _sum_up(cell, results.get(cell, ()), failed.get(cell, ()), out)
            for cell in plan.cells
            if cell.training == training
        }
        rows.append(row)
    report = {
        "experiment": plan.name,
        "title": TITLES[plan.name],
        "tests": list(plan.tests),
        "rows": rows,
        "others": [dataclasses.asdict(other) for other in TABLE_2_OTHERS]
        if plan.name == "cross-dataset"
        else [],
        "protocol": {
            "sets": {key: found.options for key, found in sets.items()},
            "seeds": list(seeds),
            **{name: dataclasses.asdict(group) for name, group in told.items()},
            "evaluate": dataclasses.asdict(evaluate),
            "versions": name_versions(),
        },
        "notes": write_notes(plan, sets, seeds, told, evaluate),
    }
    sentences = [f"{cell}: {reason}" for cell in plan.cells for reason in failed.get(cell, ())]
    return report | ({"failed": sentences} if sentences else {})


def measure_spread(values: Sequence[float]) -> dict:
    """Give mean and sample standard deviation; of one value there is no spread.

    Raises:
        ValueError: If there is no value.
    """
    if not len(values):
        raise ValueError("Expected at least one value; got none. Leave the cell empty.")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean_percent": float(np.mean(values)), "spread_percent": spread, "seeds": len(values)}


def _sum_up(cell: Cell, results: Sequence[Result], failed: Sequence[str], out: Path) -> dict:
    training = cell.training
    published = find_published(
        training.data, cell.test, decoder=training.decoder, share_percent=training.share_percent
    )
    entry = {
        "frame": None,
        "video": None,
        "published": [dataclasses.asdict(figure) for figure in published],
        "results": [
            dataclasses.asdict(result)
            | {name: _below(out, getattr(result, name)) for name in ("run", "report")}
            for result in results
        ],
        "failed": list(failed),
    }
    if results:
        for level in ("frame", "video"):
            entry[level] = measure_spread([getattr(r, f"{level}_auc_percent") for r in results])
            # Of several seeds the spread is told instead.
            alone = results[0] if len(results) == 1 else None
            entry[level]["interval_percent"] = (
                getattr(alone, f"{level}_interval_percent") if alone else None
            )
    return entry


def _describe_runs(plan: Plan, training: Training, results: Mapping, out: Path) -> list[dict]:
    """Say how long each run of a training was."""
    runs = {
        result.run: result.seed
        for cell in plan.cells
        if cell.training == training
        for result in results.get(cell, ())
    }
    described = []
    for run, seed in runs.items():
        history = read_history(run)
        best = best_epoch(history) + 1 if history else None
        place = _below(out, run)
        described.append({"seed": seed, "run": place, "epochs": len(history), "best_epoch": best})
    return described


def _below(out: Path, place: str) -> str:
    return Path(place).relative_to(out).as_posix()
