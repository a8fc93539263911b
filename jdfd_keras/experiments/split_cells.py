"""Cells of the experiments that split a dataset themselves, and the split tables of these cells.

`leave-one-out` trains without one manipulation and tests it; `cross-compression` trains on one
compression and tests each. The tables are those of the command `split`; existing ones are used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jdfd_keras.datasets.manifest import VideoRow, read_videos
from jdfd_keras.datasets.split_dataset import split_dataset
from jdfd_keras.datasets.split_tables import OFFICIAL
from jdfd_keras.datasets.splits import BASES, list_compressions, list_manipulations
from jdfd_keras.experiments.plan import Cell, Training, qualified_key
from jdfd_keras.experiments.sets import (
    ExperimentDataset,
    check_keys,
    check_prepared,
    describe_unusable,
    inspect_dataset,
)
from jdfd_keras.io.console import plural
from jdfd_keras.options import SplitOptions


def plan_split_cells(
    name: str, data: Mapping[str, str | Path], split_table: str = OFFICIAL
) -> tuple[list[Cell], dict[str, ExperimentDataset]]:
    """Make the split tables of an experiment and return its cells, dataset by dataset.

    Args:
        name: `leave-one-out` or `cross-compression`.
        data: Key to prepared dataset; at least one.
        split_table: Split that the tables start from, `official` or `strict`.

    Returns:
        The cells, of which those that cannot be run state why; and the datasets of the others by
        the keys in `Cell.uses`.

    Raises:
        ValueError: If the tables cannot start from the split, there is no dataset, a key cannot
            name a folder or a folder is given twice.

    Example:
        >>> cells, _ = plan_split_cells("leave-one-out", {"ff": "prepared"})
        >>> [cell.blocked for cell in cells]
        ['dataset ff has fakes of 1 manipulation; leave-one-out needs 2 or more']
    """
    if not data:
        raise ValueError(f"Expected datasets for {name}; got none. Give one prepared dataset.")
    if split_table not in BASES:
        raise ValueError(
            f"Expected the split table {' or '.join(BASES)}, from which {name} makes its own; got "
            f"{split_table!r}. Try --split-table strict."
        )
    check_keys(data)
    plan = _plan_leave_one_out if name == "leave-one-out" else _plan_cross_compression
    cells, sets = [], {}
    for key, folder in data.items():
        directory = Path(folder)
        try:
            check_prepared(directory)
            cells += plan(key, directory, read_videos(directory), split_table)
        except (OSError, ValueError) as error:
            cells.append(Cell(Training(key), key, describe_unusable(key, error)))
    for cell in cells:
        if not cell.blocked:
            for table in (cell.training.split_table, cell.split_table):
                used = qualified_key(cell.test, table)
                if used not in sets:
                    sets[used] = inspect_dataset(Path(data[cell.test]), table)
    return cells, sets


def _plan_leave_one_out(
    key: str, directory: Path, videos: Sequence[VideoRow], base: str
) -> list[Cell]:
    """Return a cell for each manipulation, which its training does without."""
    manipulations = list_manipulations(videos)
    if len(manipulations) < 2:
        found = plural(len(manipulations), "manipulation")
        problem = f"dataset {key} has fakes of {found}; leave-one-out needs 2 or more"
        return [Cell(Training(key, held_out=name), key, problem) for name in manipulations or [""]]
    cells = []
    for fold, held_out in enumerate(manipulations):
        options = SplitOptions(strategy="leave-one-out", fold=fold, base=base)
        table, problem = _make_table(directory, options)
        training = Training(key, split_table=table, held_out=held_out)
        cells.append(Cell(training, key, problem, table))
    return cells


def _plan_cross_compression(
    key: str, directory: Path, videos: Sequence[VideoRow], base: str
) -> list[Cell]:
    """Return a cell for each pair of compressions: one of the training and one of the test."""
    compressions = list_compressions(videos)
    if len(compressions) < 2:
        found = compressions[0] if compressions else "not stated"
        problem = f"dataset {key} has one compression ({found}); cross-compression needs 2 or more"
        return [
            Cell(Training(key, compression=name), key, problem, compression=name)
            for name in compressions or [""]
        ]
    made = {
        name: _make_table(directory, SplitOptions(strategy=base, compression=name))
        for name in compressions
    }
    cells = []
    for compression, (table, problem) in made.items():
        training = Training(key, split_table=table, compression=compression)
        for test, (test_table, test_problem) in made.items():
            problems = dict.fromkeys(filter(None, (problem, test_problem)))
            cells.append(Cell(training, key, "; ".join(problems), test_table, test))
    return cells


def _make_table(directory: Path, options: SplitOptions) -> tuple[str, str]:
    """Make a split table unless it exists; return its name and the reason if it cannot be made."""
    try:
        (table,) = split_dataset(directory, options)
    except (OSError, ValueError) as error:
        return "", f"split: {error}"
    return table.name, ""
