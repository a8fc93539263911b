"""The figures of all cells to what a table says: means, spreads, the paper's figures.

Takes a plan and its results; gives a dict ready for JSON, from which all pages are written.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jdfd_keras.evaluation.experiment.cells import Result
from jdfd_keras.evaluation.experiment.notes import name_versions, write_notes
from jdfd_keras.evaluation.experiment.plan import Cell, Plan, Training
from jdfd_keras.evaluation.experiment.published import (
    TABLE_2_OTHERS,
    find_published,
)
from jdfd_keras.evaluation.experiment.sets import DataSet
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.training.run import best_epoch, read_history

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
