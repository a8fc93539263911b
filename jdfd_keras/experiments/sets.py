"""The prepared datasets of an experiment, and the fields that the reports of all have.

`inspect_datasets` takes keys and folders; it returns the options of each dataset and the reasons
why others are missing.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdfd_keras.datasets.manifest import MANIFEST, read_videos
from jdfd_keras.datasets.split_tables import OFFICIAL, read_split_table
from jdfd_keras.experiments.plan import NAMES
from jdfd_keras.io.files import OPTIONS, load_groups, sha256_of
from jdfd_keras.io.results import Result


@dataclass(frozen=True)
class ExperimentDataset:
    """A prepared dataset.

    Attributes:
        directory: Its folder.
        digest: SHA-256 of its manifest and of the rows of its split table.
        options: Its options by group; `split` has those of the split table, and its name.
    """

    directory: Path
    digest: str
    options: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ExperimentReport(Result):
    """Fields of the reports of all experiments; `to_dict` is the content of NAME.json.

    Attributes:
        experiment: Name of the experiment.
        title: Title of its page.
        versions: Versions of the packages that the results depend on.
        datasets: Options that each available dataset was prepared and split with, by its key and
            group.
        failed: One sentence for each result that is missing; empty if all exist.
        figure: File name of the figure; None until `write_experiment` draws one.
        files: File names of the tables; empty until `write_experiment` writes them.
    """

    experiment: str
    title: str
    versions: dict[str, str]
    datasets: dict[str, dict[str, dict[str, Any]]]
    failed: tuple[str, ...] = ()
    figure: str | None = None
    files: tuple[str, ...] = ()


def inspect_datasets(
    data: Mapping[str, str | Path], split_table: str = OFFICIAL
) -> tuple[dict[str, ExperimentDataset], dict[str, str]]:
    """Read the options and the digest of each dataset and its split table.

    Args:
        data: Key to folder.
        split_table: Name of the split table of all datasets.

    Returns:
        The datasets by key, in the given order; and the reason for each of the given and of the
        paper's three datasets that is missing.

    Raises:
        ValueError: If a key cannot name a folder, or a folder is given twice.

    Example:
        >>> sets, missing = inspect_datasets({"ff": "prepared"})
        >>> sets["ff"].options["faces"]["face_size"], missing["uadfv"]
        (71, 'dataset uadfv is missing: uadfv=DIR was not given')
    """
    check_keys(data)
    sets, missing = {}, {}
    for key, folder in data.items():
        try:
            sets[key] = inspect_dataset(Path(folder), split_table)
        except (OSError, ValueError) as error:
            missing[key] = describe_unusable(key, error)
    for key in NAMES:
        if key not in data:
            missing[key] = f"dataset {key} is missing: {key}=DIR was not given"
    return sets, missing


def check_keys(data: Mapping[str, str | Path]) -> None:
    """Check that the keys of datasets can name folders, and that each folder is given once.

    Example:
        >>> check_keys({"ff": "prepared", "mine": "prepared"})
        Traceback (most recent call last):
        ValueError: Expected a different folder for each dataset; got prepared for ff and for ...
    """
    keys: dict[Path, str] = {}
    for key, folder in data.items():
        if not re.fullmatch(r"[\w-]+", key, re.ASCII):
            raise ValueError(
                f"Expected a key of letters, digits, - and _ for a dataset; got {key!r}. Try one "
                f"such as {', '.join(NAMES)}."
            )
        directory = Path(folder)
        first = keys.setdefault(directory.resolve(), key)
        if first != key:
            raise ValueError(
                f"Expected a different folder for each dataset; got {directory} for {first} and "
                f"for {key}. Remove one of them."
            )


def describe_unusable(key: str, error: Exception) -> str:
    """Return the reason why a dataset cannot be used.

    Example:
        >>> describe_unusable("ff", OSError("it does not exist"))
        'dataset ff cannot be used: it does not exist'
    """
    return f"dataset {key} cannot be used: {error}"


def check_prepared(directory: Path) -> None:
    """Check that a folder is a prepared dataset.

    Example:
        >>> check_prepared(Path("nowhere"))
        Traceback (most recent call last):
        FileNotFoundError: nowhere does not exist
    """
    if not (directory / OPTIONS).is_file():
        problem = "is not a prepared dataset" if directory.is_dir() else "does not exist"
        raise FileNotFoundError(f"{directory} {problem}")
    if not (directory / MANIFEST).is_file():
        raise FileNotFoundError(f"{directory} has no manifest; `prepare` was perhaps interrupted")


def inspect_dataset(directory: Path, split_table: str) -> ExperimentDataset:
    """Read the options and the digest of a dataset and its split table.

    Example:
        >>> inspect_dataset(Path("prepared"), "official").options["split"]["strategy"]
        'official'
    """
    check_prepared(directory)
    table = read_split_table(directory, split_table)
    read_videos(directory, split_table=split_table)  # raises if the table is of another dataset
    options = load_groups(directory / OPTIONS) | {
        "split": {"table": table.name} | dataclasses.asdict(table.options)
    }
    digest = hashlib.sha256(sha256_of(directory / MANIFEST).encode())
    digest.update(table.rows.to_csv(index=False).encode())
    return ExperimentDataset(directory, digest.hexdigest(), options)


def dataset_name(key: str) -> str:
    """Return the paper's name of a dataset, or the key of one that the paper does not use.

    Example:
        >>> dataset_name("celebdf"), dataset_name("mine")
        ('Celeb-DF', 'mine')
    """
    return NAMES.get(key, key)
