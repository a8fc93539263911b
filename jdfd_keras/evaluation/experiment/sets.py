"""The prepared data sets of an experiment, looked at before anything is trained.

Takes keys and folders; gives what is known of each set that is there, and why others are not.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.claims import OPTIONS, load_options
from jdfd_keras.data.manifest import MANIFEST, find_table
from jdfd_keras.evaluation.experiment.published import NAMES
from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions
from jdfd_keras.storage import LocalStore

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
