"""The prepared data sets of an experiment, looked at before anything is trained.

Takes keys and folders; gives what is known of each set that is there, and why others are not.

What must be said beside the figures of an experiment, so that they can be compared.

Takes its plan, its data sets and what it was told; gives sentences.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jdfd_keras
from jdfd_keras.datasets.manifest import MANIFEST, find_table
from jdfd_keras.experiments.plan import DATA, FIGURE_4_STATEMENTS, NAMES, Plan
from jdfd_keras.io.files import OPTIONS, load_options
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import (
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    PrepareOptions,
    SplitOptions,
)
from jdfd_keras.reporting.markdown import cell

# Of options.json; what a reader must know to compare figures.
GROUPS = {
    "split": SplitOptions,
    "faces": FaceOptions,
    "filters": FilterOptions,
    "prepare": PrepareOptions,
}
PLAIN_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True)
class DataSet:
    """A prepared data set.

    Attributes:
        directory: Its folder.
        digest: Of its manifest.
        options: Groups of options it was made with, as dicts.
    """

    directory: Path
    digest: str
    options: dict[str, dict]


def check_key(key: str) -> None:
    """See that a key can name a folder.

    Raises:
        ValueError: If it has other signs than letters, digits, `-` and `_`.
    """
    if not key or not set(key) <= PLAIN_KEY:
        raise ValueError(
            f"Expected a key of letters, digits, - and _ for a data set; got {key!r}. Try one "
            f"such as {', '.join(NAMES)}."
        )


def look_at_sets(data: Mapping[str, str | Path]) -> tuple[dict[str, DataSet], dict[str, str]]:
    """Look at the data sets that were given.

    Args:
        data: Key to folder.

    Returns:
        Those that are there, by key in the order given; and, of the others and of the paper's
        three that were not given, the reason.

    Raises:
        ValueError: If a key cannot name a folder, or a folder is given twice.
    """
    there, missing = {}, {}
    places: dict[Path, str] = {}
    for key, given in data.items():
        check_key(key)
        directory = Path(given)
        twin = places.setdefault(directory.resolve(), key)
        if twin != key:
            raise ValueError(
                f"Expected another folder for each data set; got {directory} for {twin} and for "
                f"{key}. Leave one of them out."
            )
        try:
            there[key] = _look_at(directory)
        except (OSError, ValueError) as error:
            missing[key] = f"data set {key} is missing: {error}"
    for key in NAMES:
        if key not in data:
            missing[key] = f"data set {key} is missing: {key}=DIR was not given"
    return there, missing


def _look_at(directory: Path) -> DataSet:
    if not (directory / OPTIONS).is_file():
        raise FileNotFoundError(
            f"{directory} {'holds no prepared data set' if directory.is_dir() else 'is not there'}"
        )
    table = find_table(LocalStore(str(directory)), MANIFEST)
    if table is None:
        raise FileNotFoundError(f"{directory} holds no manifest, `prepare` was perhaps interrupted")
    with (directory / table).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    options = {
        name: dataclasses.asdict(load_options(directory / OPTIONS, name, kind))
        for name, kind in GROUPS.items()
    }
    return DataSet(directory, digest, options)


def describe_sets(sets: Mapping[str, DataSet]) -> list[str]:
    """Say in a sentence for each set how it was prepared."""
    lines = []
    for key, found in sets.items():
        faces, split = found.options["faces"], found.options["split"]
        frames = (
            f"every {_say_ordinal(faces['every'])}frame"
            if faces["every"]
            else f"{faces['frames_per_video']} frames a video"
        )
        fold = f" (fold {split['fold']} of {split['folds']})" if split["split"] == "kfold" else ""
        compression = found.options["prepare"]["compression"]
        lines.append(
            f"{name_set(key)} ({key}): split {split['split']}{fold}, {frames}, detector "
            f"{faces['detector']}, alignment {faces['alignment']}, margin {faces['margin']:g}, "
            f"{faces['face_size']} pixels, compression {compression}."
        )
    return lines


def _say_ordinal(number: int) -> str:
    """Say which; of 1, every one, nothing."""
    if number == 1:
        return ""
    teen = number % 100 // 10 == 1
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')} "


def name_set(key: str) -> str:
    """Name a data set as the paper does, where it is one of its three."""
    return NAMES.get(key, key)


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
