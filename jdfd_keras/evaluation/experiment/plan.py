"""Which trainings and which cells an experiment is.

Takes its name, the keys of the data sets and which of them are missing; gives the cells in the
order of their table, and why those that cannot be run cannot. Trains and reads nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.evaluation.experiment.published import NAMES, SHARES_PERCENT


@dataclass(frozen=True)
class Training:
    """One training, but for its seed.

    Attributes:
        data: Key of the data set that is trained on.
        decoder: Whether the network has a decoder.
        share_percent: Share of the faces of each foreign data set that are taken unlabelled.
        foreign: Keys of those data sets.
    """

    data: str
    decoder: bool = True
    share_percent: int = 0
    foreign: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Name its folder: the same training has the same one in every experiment."""
        if self.share_percent:
            own = f"unlabelled-{self.share_percent}-of-{'+'.join(self.foreign)}"
        else:
            own = "joint" if self.decoder else "no-decoder"
        return Path(self.data) / own

    @property
    def uses(self) -> tuple[str, ...]:
        """Name the data sets it reads."""
        return (self.data, *self.foreign)

    def __str__(self) -> str:
        notes = "" if self.decoder else " without decoder"
        if self.share_percent:
            notes += f" with {self.share_percent} % of {' and '.join(self.foreign)} unlabelled"
        return f"{self.data}{notes}"


@dataclass(frozen=True)
class Cell:
    """One training, tested on one data set."""

    training: Training
    test: str

    def __str__(self) -> str:
        return f"{self.training} -> {self.test}"


@dataclass(frozen=True)
class Plan:
    """What an experiment is.

    Attributes:
        name: Of the experiment.
        tests: Keys of the data sets that are tested on: the columns of the table.
        cells: In the order of the table: training after training.
        blocked: The cells of them that cannot be run, and why.
    """

    name: str
    tests: tuple[str, ...]
    cells: tuple[Cell, ...]
    blocked: Mapping[Cell, str]

    @property
    def trainings(self) -> list[Training]:
        """List the trainings, those that cannot be run included."""
        return list(dict.fromkeys(cell.training for cell in self.cells))

    def cells_of(self, training: Training) -> list[Cell]:
        """List the cells of a training that can be run."""
        return [
            cell for cell in self.cells if cell.training == training and cell not in self.blocked
        ]


def plan_experiment(name: str, keys: Sequence[str], missing: Mapping[str, str]) -> Plan:
    """Say what is trained and tested.

    The paper's three data sets belong to every experiment, whether they are given or not; others
    are taken as well.

    Args:
        name: `cross-dataset`, `ablation` or `foreign-data`.
        keys: Of the data sets that were given, in their order.
        missing: Those of the paper's and of the given ones that are not there, and why.

    Raises:
        ValueError: If there is no such experiment.
    """
    tests = order_keys(keys)
    if name == "cross-dataset":
        trainings = [Training(key) for key in tests]
    elif name == "ablation":
        trainings = [Training(key, decoder) for key in tests for decoder in (False, True)]
    elif name == "foreign-data":
        trainings = _plan_shares(keys, tests, missing)
    else:
        raise ValueError(
            f"Expected cross-dataset, ablation or foreign-data; got {name!r}. Try one of these."
        )
    cells = [Cell(training, test) for training in trainings for test in tests]
    blocked = {}
    for cell in cells:
        lacking = [key for key in (*cell.training.uses, cell.test) if key in missing]
        if lacking:
            blocked[cell] = "; ".join(missing[key] for key in dict.fromkeys(lacking))
        elif cell.training.share_percent and not cell.training.foreign:
            blocked[cell] = "there is no other data set to take unlabelled faces of"
    return Plan(name, tests, tuple(cells), blocked)


def order_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Put the paper's three data sets first, then the others that were given."""
    return tuple(dict.fromkeys([*NAMES, *keys]))


def _plan_shares(keys: Sequence[str], tests: Sequence[str], missing: Mapping) -> list[Training]:
    data = "ff" if "ff" in keys or not keys else keys[0]
    # The paper's figures stand beside ours where all of the data is the paper's.
    among = NAMES if data in NAMES else tests
    foreign = tuple(key for key in among if key != data and key not in missing)
    return [
        Training(data, share_percent=share, foreign=foreign if share else ())
        for share in SHARES_PERCENT
    ]
