"""The figures that the paper prints, each with the place where it stands.

Takes nothing; gives numbers as published, in per cent where they are AUCs. Computes nothing but
the one subtraction that its text gives.

Reference: Yan, Li and Lu, "Deepfake Detection via Joint Unsupervised Reconstruction and
Supervised Classification" (2022), https://arxiv.org/abs/2211.13424, section 4.

Which trainings and which cells an experiment is.

Takes its name, the keys of the data sets and which of them are missing; gives the cells in the
order of their table, and why those that cannot be run cannot. Trains and reads nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# By the keys of --data; in the order of the columns of Table 2.
NAMES = {"ff": "FF++", "uadfv": "UADFV", "celebdf": "Celeb-DF"}
LETTERS = {"ff": "F", "uadfv": "U", "celebdf": "C"}  # Fig. 3


@dataclass(frozen=True)
class Figure:
    """One number as published.

    Attributes:
        percent: AUC in per cent, of faces.
        source: Where in the paper it stands.
    """

    percent: float
    source: str


@dataclass(frozen=True)
class OtherMethod:
    """A row of Table 2 that is not the paper's own method.

    Attributes:
        name: As published; numbers in brackets are the paper's references.
        train: The data set it was trained on.
        percent: Data set tested on to AUC in per cent; None where the paper has a dash.
    """

    name: str
    train: str
    percent: dict[str, float | None]


def _by_set(*values):
    return dict(zip(NAMES, values, strict=True))


# Faces of real and fake, as Table 1 counts them; it has no validation.
TABLE_1 = {
    "celebdf": {
        "train": {"real": 152786, "fake": 147901},
        "test": {"real": 26834, "fake": 26108},
    },
    "ff": {
        "train": {"real": 117218, "fake": 124429},
        "test": {"real": 20795, "fake": 21995},
    },
    "uadfv": {
        "train": {"real": 9881, "fake": 9886},
        "test": {"real": 1740, "fake": 1723},
    },
}

TABLE_2_OTHERS = (
    OtherMethod("Xception [27]", "ff", _by_set(99.7, 80.4, 48.2)),
    OtherMethod("Capsule [26]", "ff", _by_set(96.6, 61.3, 57.5)),
    OtherMethod("Xception+Tri. [9]", "ff", _by_set(99.9, 74.3, 61.7)),
    OtherMethod("Xception [23]", "uadfv", _by_set(None, 96.8, 52.2)),
    OtherMethod("Xception+Reg. [8]", "uadfv", _by_set(None, 98.4, 57.1)),
    OtherMethod("Xception+Tri. [9]", "uadfv", _by_set(61.3, 99.9, 60.0)),
    OtherMethod("Headpose [34]", "uadfv", _by_set(47.3, 89.0, 54.6)),
    OtherMethod("FWA [22]", "uadfv", _by_set(80.1, 97.4, 56.9)),
    OtherMethod("Xception+Tri. [9]", "celebdf", _by_set(60.2, 88.9, 99.9)),
)

# The paper's own method: trained on, then tested on.
TABLE_2 = {
    "ff": _by_set(98.2, 92.9, 78.0),
    "uadfv": _by_set(61.0, 99.9, 64.9),
    "celebdf": _by_set(61.1, 88.4, 97.1),
}

# With the decoder ("JointDeepfake" there) and without ("Baseline").
TABLE_3 = {
    True: {
        "ff": _by_set(98.2, 92.9, 78.0),
        "uadfv": _by_set(61.0, 99.9, 65.2),
        "celebdf": _by_set(61.1, 88.4, 97.1),
    },
    False: {
        "ff": _by_set(97.4, 80.7, 75.4),
        "uadfv": _by_set(58.4, 99.5, 63.7),
        "celebdf": _by_set(59.7, 83.0, 95.6),
    },
}

# Fig. 4 is a picture without numbers; the text gives these. All of them are trained on FF++.
SHARES_PERCENT = (0, 5, 10, 15)
FIGURE_4 = {
    ("celebdf", 15): Figure(79.6, "section 4.4"),
    ("celebdf", 5): Figure(74.7, "section 4.4, 79.6 less 4.9"),
}
FIGURE_4_STATEMENTS = (
    "When 15% foreign data is added to our framework for training, the performance on UADFV "
    "improves by 6.5% when compared to the case of 5% cross data.",
    "Similarly, the performance for Celeb-DF improves significantly to 79.6%, which is 4.9% "
    "higher.",
    "When tested on the FF++ itself, the result of adding 15% foreign data drops by around 0.8% "
    "compared with the best result achieved in this study.",
)

DATA = (
    "The paper takes 300 frames of each video; of FF++ the compression c23 and the manipulations "
    "Deepfakes, Face2Face, FaceSwap and NeuralTextures; of Celeb-DF version 2."
)


def find_published(
    train: str, test: str, *, decoder: bool = True, share_percent: int = 0
) -> list[Figure]:
    """Find what the paper has for one training and one test of its own method.

    Args:
        train: Key of the data set that is trained on.
        test: Of that which is tested on.
        decoder: Whether the network has one.
        share_percent: Share of unlabelled foreign faces.

    Returns:
        One figure; two where the paper's tables differ; none where it says nothing.
    """
    if share_percent:
        there = FIGURE_4.get((test, share_percent)) if train == "ff" and decoder else None
        return [there] if there else []
    tables = [("Table 3", TABLE_3[decoder])]
    if decoder:
        tables.insert(0, ("Table 2", TABLE_2))
    found: list[Figure] = []
    for source, table in tables:
        percent = table.get(train, {}).get(test)
        if percent is not None and found == [Figure(percent, "Table 2")]:
            found = [Figure(percent, "Tables 2 and 3")]
        elif percent is not None:
            found.append(Figure(percent, source))
    return found


def is_best(train: str, test: str, percent: float | None) -> bool:
    """Tell whether a figure of Table 2 is the best of all its methods, its own one included.

    The paper underlines these where a method is tested on what it was trained on, and prints them
    in bold elsewhere.
    """
    rivals = [other.percent.get(test) for other in TABLE_2_OTHERS if other.train == train]
    rivals.append(TABLE_2.get(train, {}).get(test))
    return percent is not None and percent == max(r for r in rivals if r is not None)


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
