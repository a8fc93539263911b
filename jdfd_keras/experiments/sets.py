"""The prepared datasets of an experiment, its protocol and the notes on its results.

`inspect_datasets` takes keys and folders; it returns the options of each dataset and the reasons
why others are missing. `write_notes` takes a plan and its protocol; it returns the sentences that
a reader needs to compare the results with the paper's. Trains nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jdfd_keras
from jdfd_keras.datasets.manifest import MANIFEST, find_table
from jdfd_keras.experiments.plan import FIGURE_4_STATEMENTS, NAMES, PAPER_DATA, ExperimentPlan
from jdfd_keras.io.console import plural
from jdfd_keras.io.files import OPTIONS, load_options, sha256_of
from jdfd_keras.io.results import Result
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import (
    AugmentOptions,
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PipelineOptions,
    PrepareOptions,
    SplitOptions,
    TrainOptions,
)

PLAIN_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True)
class PreparedOptions(Result):
    """Options that a dataset was prepared with."""

    split: SplitOptions
    faces: FaceOptions
    filters: FilterOptions
    prepare: PrepareOptions


@dataclass(frozen=True)
class ExperimentDataset:
    """A prepared dataset.

    Attributes:
        directory: Its folder.
        digest: SHA-256 of its manifest.
        options: Options that it was prepared with.
    """

    directory: Path
    digest: str
    options: PreparedOptions


@dataclass(frozen=True)
class ExperimentProtocol(Result):
    """How the datasets were prepared and the cells are trained and evaluated.

    Attributes:
        sets: Options of each dataset, by its key.
        seeds: Seeds of the trainings.
        model: Network; `decoder` is set by the experiment.
        optimizer: Optimizer.
        loss: Weights of the losses.
        train: Epochs and batch size; `seed` is set by the experiment.
        pipeline: Balance and weights of the classes.
        augment: Augmentation.
        evaluate: Split, threshold and intervals of the evaluations.
    """

    sets: dict[str, PreparedOptions]
    seeds: tuple[int, ...]
    model: ModelOptions
    optimizer: OptimizerOptions
    loss: LossOptions
    train: TrainOptions
    pipeline: PipelineOptions
    augment: AugmentOptions
    evaluate: EvaluateOptions


@dataclass(frozen=True, kw_only=True)
class ExperimentReport(Result):
    """Fields of the reports of all experiments; `to_dict` is the content of NAME.json.

    Attributes:
        experiment: Name of the experiment.
        title: Title of its page.
        versions: Versions of the packages that the results depend on.
        notes: Sentences on the protocol of the results and how to compare them.
        failed: One sentence for each result that is missing; empty if all exist.
        figure: File name of the figure; None until `write_experiment` draws one.
        files: File names of the tables; empty until `write_experiment` writes them.
    """

    experiment: str
    title: str
    versions: dict[str, str]
    notes: tuple[str, ...]
    failed: tuple[str, ...] = ()
    figure: str | None = None
    files: tuple[str, ...] = ()


def inspect_datasets(
    data: Mapping[str, str | Path],
) -> tuple[dict[str, ExperimentDataset], dict[str, str]]:
    """Read the options and the manifest digest of each dataset.

    Args:
        data: Key to folder.

    Returns:
        The datasets by key, in the given order; and the reason for each of the given and of the
        paper's three datasets that is missing.

    Raises:
        ValueError: If a key cannot name a folder, or a folder is given twice.

    Example:
        >>> inspect_datasets({})[1]["ff"]
        'dataset ff is missing: ff=DIR was not given'
    """
    sets, missing = {}, {}
    keys: dict[Path, str] = {}
    for key, folder in data.items():
        _check_key(key)
        directory = Path(folder)
        first = keys.setdefault(directory.resolve(), key)
        if first != key:
            raise ValueError(
                f"Expected a different folder for each dataset; got {directory} for {first} and "
                f"for {key}. Remove one of them."
            )
        try:
            sets[key] = _inspect(directory)
        except (OSError, ValueError) as error:
            missing[key] = f"dataset {key} cannot be used: {error}"
    for key in NAMES:
        if key not in data:
            missing[key] = f"dataset {key} is missing: {key}=DIR was not given"
    return sets, missing


def _check_key(key: str) -> None:
    if not key or not set(key) <= PLAIN_KEY:
        raise ValueError(
            f"Expected a key of letters, digits, - and _ for a dataset; got {key!r}. Try one "
            f"such as {', '.join(NAMES)}."
        )


def _inspect(directory: Path) -> ExperimentDataset:
    path = directory / OPTIONS
    if not path.is_file():
        problem = "is not a prepared dataset" if directory.is_dir() else "does not exist"
        raise FileNotFoundError(f"{directory} {problem}")
    table = find_table(LocalStore(str(directory)), MANIFEST)
    if table is None:
        raise FileNotFoundError(f"{directory} has no manifest; `prepare` was perhaps interrupted")
    options = PreparedOptions(
        split=load_options(path, "split", SplitOptions),
        faces=load_options(path, "faces", FaceOptions),
        filters=load_options(path, "filters", FilterOptions),
        prepare=load_options(path, "prepare", PrepareOptions),
    )
    return ExperimentDataset(directory, sha256_of(directory / table), options)


def dataset_name(key: str) -> str:
    """Return the paper's name of a dataset, or the key of one that the paper does not use.

    Example:
        >>> dataset_name("celebdf"), dataset_name("mine")
        ('Celeb-DF', 'mine')
    """
    return NAMES.get(key, key)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on.

    Example:
        >>> list(package_versions())
        ['jdfd_keras', 'keras', 'tensorflow']
    """
    return {
        "jdfd_keras": jdfd_keras.__version__,
        "keras": version("keras"),
        "tensorflow": version("tensorflow"),
    }


def describe_datasets(sets: Mapping[str, PreparedOptions]) -> list[str]:
    """Return one sentence for each dataset on how it was prepared."""
    lines = []
    for key, options in sets.items():
        faces, split = options.faces, options.split
        frames = (
            f"every {_ordinal(faces.every)}frame"
            if faces.every
            else f"{plural(faces.frames_per_video, 'frame')} per video"
        )
        fold = f" (fold {split.fold} of {split.folds})" if split.split == "kfold" else ""
        lines.append(
            f"{dataset_name(key)} ({key}): split {split.split}{fold}, {frames}, detector "
            f"{faces.detector}, alignment {faces.alignment}, margin {faces.margin:g}, "
            f"{faces.face_size} pixels, compression {options.prepare.compression}."
        )
    return lines


def _ordinal(number: int) -> str:
    """Return an ordinal and a space, such as `2nd `; nothing for 1."""
    if number == 1:
        return ""
    teen = number % 100 // 10 == 1
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')} "


PAPER_SPLITS = (
    "Every cell of the paper's Table 1 is split 85:15, as a random split of single faces would be: "
    "faces of one video are then in both training and test, and the paper's AUCs within a dataset "
    "say little about unseen videos. Compare them with care."
)
EPOCH_SELECTION = (
    "The epoch is selected by the frame AUC on validation data, never on test data; the paper does "
    "not state how it selected its own."
)


def write_notes(plan: ExperimentPlan, protocol: ExperimentProtocol) -> list[str]:
    """Return the sentences that a reader needs to compare the results with the paper's.

    Args:
        plan: Cells of the experiment.
        protocol: Preparation of the datasets, training and evaluation.

    Example:
        >>> notes = write_notes(plan, protocol)  # doctest: +SKIP
    """
    return [
        *describe_datasets(protocol.sets),
        *_describe_training(protocol),
        *_describe_differences(plan, protocol),
    ]


def _describe_training(protocol: ExperimentProtocol) -> list[str]:
    train, optimizer = protocol.train, protocol.optimizer
    versions = ", ".join(f"{name} {number}" for name, number in package_versions().items())
    epochs = plural(train.epochs, "epoch")
    if train.patience:
        patience = plural(train.patience, "epoch")
        epochs = f"at most {epochs}, fewer after {patience} without improvement"
    return [
        f"Training: {epochs}, {plural(train.batch_size, 'face')} per step, {optimizer.optimizer} "
        f"with a learning rate of {optimizer.learning_rate:g} (classifier "
        f"{optimizer.classifier_learning_rate:g}), multiplied by {optimizer.decay_rate:g} every "
        f"{plural(optimizer.decay_epochs, 'epoch')}; initial weights of the encoder: "
        f"{protocol.model.encoder_weights}. Seeds {', '.join(map(str, protocol.seeds))}.",
        f"{EPOCH_SELECTION} Tested on the split {protocol.evaluate.split}.",
        "The spread is the sample standard deviation over the seeds. With one seed, brackets hold "
        "the 95 % interval of its evaluation, which does not cover the variation between seeds.",
        f"Versions: {versions}.",
    ]


def _describe_differences(plan: ExperimentPlan, protocol: ExperimentProtocol) -> list[str]:
    notes = [PAPER_DATA, PAPER_SPLITS]
    by_face = [key for key, options in protocol.sets.items() if options.split.split == "paper"]
    if by_face:
        notes.append(
            f"The same applies here to {_join_names(by_face)}, prepared with --split paper."
        )
    if protocol.train.allow_leak or protocol.evaluate.allow_leak:
        notes.append(
            "Leakage was allowed (--allow-leak): training data may be among the test data; the "
            "report of each cell lists the leakage that was found."
        )
    if plan.name == "foreign-data":
        notes += _describe_foreign_data(plan)
    return notes


def _describe_foreign_data(plan: ExperimentPlan) -> list[str]:
    statements = " ".join(f'"{statement}"' for statement in FIGURE_4_STATEMENTS)
    notes = [
        f"The paper's Fig. 4 has no numbers. Its text states: {statements} Only the AUCs that "
        "follow from these statements are shown next to ours; 0 % is the training of Table 2."
    ]
    foreign = {key for training in plan.trainings for key in training.foreign}
    absent = [key for key in NAMES if key not in foreign | {plan.trainings[0].data}]
    if absent:
        source = f"only from {_join_names(sorted(foreign))}" if foreign else "from no dataset"
        notes.append(
            f"Unlabelled faces are {source}, not from {_join_names(absent)}: this is not the "
            "paper's experiment."
        )
    return notes


def _join_names(keys: Sequence[str]) -> str:
    return " and ".join(map(dataset_name, keys))
