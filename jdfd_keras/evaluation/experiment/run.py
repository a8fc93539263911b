"""Prepared data sets to one of the paper's tables, with the paper's figures beside ours.

Takes the name of an experiment and the data sets; trains and evaluates what is not there yet and
writes the tables. What it consists of, how it is counted and how it looks is left to the modules
beside it.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from jdfd_keras.claims import claim_directory
from jdfd_keras.evaluation.experiment import (
    pictures,
    statistics,
    statistics_page,
    summary,
    tables,
)
from jdfd_keras.evaluation.experiment.plan import order_keys, plan_experiment
from jdfd_keras.evaluation.experiment.sets import look_at_sets
from jdfd_keras.evaluation.experiment.work import CELLS, RUNS, Work
from jdfd_keras.markdown import write_page
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
)

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
