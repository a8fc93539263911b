"""What must be said beside the figures of an experiment, so that they can be compared.

Takes its plan, its data sets and what it was told; gives sentences.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import jdfd_keras
from jdfd_keras.evaluation.experiment.plan import Plan
from jdfd_keras.evaluation.experiment.published import DATA, FIGURE_4_STATEMENTS, NAMES
from jdfd_keras.evaluation.experiment.sets import DataSet, describe_sets, name_set
from jdfd_keras.markdown import cell
from jdfd_keras.options import EvaluateOptions

PAPER_SPLITS = (
    "All cells of the paper's Table 1 are split 85 to 15, which is what drawing single faces "
    "gives: faces of one video then stand on both sides, and its figures within a data set say "
    "little of videos that a detector has not seen. Compare them with care."
)
CHOICE = (
    "The epoch is chosen by the frame AUC on validation data, never on test data; of what the "
    "paper's was chosen by it says nothing."
)


def write_notes(
    plan: Plan,
    sets: Mapping[str, DataSet],
    seeds: Sequence[int],
    told: Mapping,
    evaluate: EvaluateOptions,
) -> list[str]:
    """Say how sets were prepared, how it was trained and tested, and what to beware of.

    Args:
        plan: What the experiment is.
        sets: The data sets that are there.
        seeds: Those asked for.
        told: What `train` was told, by groups.
        evaluate: How cells were evaluated.
    """
    return [
        *describe_sets(sets),
        *_describe_training(seeds, told, evaluate),
        *_warn(plan, sets, told, evaluate),
    ]


def end_page(report: dict, lacking: str) -> list[str]:
    """Write the sections that every page of an experiment ends with, in Markdown.

    Args:
        report: Of the experiment, with `notes` and, where something lacks, `failed`.
        lacking: The heading over what lacks.
    """
    sections = {"Protocol": report["notes"], lacking: report.get("failed")}
    return [
        text
        for title, lines in sections.items()
        if lines
        for text in (f"## {title}", "\n".join(f"- {cell(line)}" for line in lines))
    ]


def name_versions() -> dict[str, str]:
    """Name the versions of what figures depend on."""
    return {
        "jdfd_keras": jdfd_keras.__version__,
        "keras": version("keras"),
        "tensorflow": version("tensorflow"),
    }


def _describe_training(seeds: Sequence[int], told: Mapping, evaluate: EvaluateOptions) -> list[str]:
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


def _warn(
    plan: Plan, sets: Mapping[str, DataSet], told: Mapping, evaluate: EvaluateOptions
) -> list[str]:
    notes = [DATA, PAPER_SPLITS]
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
