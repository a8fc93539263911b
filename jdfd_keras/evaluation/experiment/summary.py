"""The figures of all cells to what a table says: means, spreads, the paper's figures, the protocol.

Takes a plan and its results; gives a dict ready for JSON, from which all pages are written.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

import jdfd_keras
from jdfd_keras.evaluation.experiment.cells import Result
from jdfd_keras.evaluation.experiment.plan import Cell, Plan, Training
from jdfd_keras.evaluation.experiment.published import (
    FIGURE_4_STATEMENTS,
    NAMES,
    TABLE_2_OTHERS,
    find_published,
)
from jdfd_keras.evaluation.experiment.sets import DataSet, describe_sets, name_set
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.training.run import best_epoch, read_history

TITLES = {
    "cross-dataset": "Trained on one data set, tested on each (the paper's Table 2)",
    "ablation": "With and without the decoder (the paper's Table 3)",
    "foreign-data": "Unlabelled faces of other data sets (the paper's Fig. 4)",
}
PAPER_SPLITS = (
    "All cells of the paper's Table 1 are split 85 to 15, which is what drawing single faces "
    "gives: faces of one video then stand on both sides, and its figures within a data set say "
    "little of videos that a detector has not seen. Compare them with care."
)
CHOICE = (
    "The epoch is chosen by the frame AUC on validation data, never on test data; of what the "
    "paper's was chosen by it says nothing."
)


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
        "notes": [*describe_sets(sets), *_describe_training(plan, seeds, told, evaluate)],
    }
    report["notes"] += _warn(plan, sets, told, evaluate)
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


def name_versions() -> dict[str, str]:
    """Name the versions of what figures depend on."""
    return {
        "jdfd_keras": jdfd_keras.__version__,
        "keras": version("keras"),
        "tensorflow": version("tensorflow"),
    }


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


def _describe_training(plan: Plan, seeds: Sequence[int], told: Mapping, evaluate) -> list[str]:
    train, optimizer, model = told["train"], told["optimizer"], told["model"]
    versions = ", ".join(f"{name} {number}" for name, number in name_versions().items())
    epochs = f"{train.epochs} epochs" if train.epochs > 1 else "1 epoch"
    if train.patience:
        epochs = f"at most {epochs}, fewer after {train.patience} without a better one"
    return [
        f"Training: {epochs}, {train.batch_size} faces per step, {optimizer.optimizer} with "
        f"{optimizer.learning_rate:g} (classifier {optimizer.classifier_learning_rate:g}), times "
        f"{optimizer.decay_rate:g} every {optimizer.decay_epochs} epochs; weights of the "
        f"encoder to begin with: {model.encoder_weights}. Seeds {', '.join(map(str, seeds))}.",
        f"{CHOICE} Tested on the split {evaluate.split}.",
        "Spread is the sample standard deviation over the seeds. Where one seed stands alone, "
        "brackets hold the 95 % interval of its one evaluation, which says nothing of others.",
        f"Versions: {versions}.",
    ]


def _warn(plan: Plan, sets: Mapping[str, DataSet], told: Mapping, evaluate) -> list[str]:
    notes = [PAPER_SPLITS]
    single = [key for key, found in sets.items() if found.options["split"]["split"] == "paper"]
    if single:
        names = " and ".join(map(name_set, single))
        notes.append(f"So it is here for {names}, prepared with --split paper.")
    if told["train"].allow_leak or evaluate.allow_leak:
        notes.append(
            "Leaks were allowed (--allow-leak): what a training saw may be in what it is tested "
            "on; the report of each cell says what was found."
        )
    if plan.name != "foreign-data":
        return notes
    notes.append(
        "The paper's Fig. 4 has no numbers. Its text says: "
        + " ".join(f'"{statement}"' for statement in FIGURE_4_STATEMENTS)
        + " What follows from that alone stands beside ours; 0 % is the training of Table 2."
    )
    foreign = {key for training in plan.trainings for key in training.foreign}
    data = plan.trainings[0].data
    lacking = [key for key in NAMES if key not in foreign | {data}]
    if lacking:
        notes.append(
            f"Unlabelled faces are of {' and '.join(map(name_set, sorted(foreign))) or 'nothing'} "
            f"alone, not of {' and '.join(map(name_set, lacking))}: that is not the paper's "
            "experiment."
        )
    return notes
