"""Plans of the experiments, and the values that the paper publishes for them.

The constants are the paper's Tables 1 to 3 and the statements of its text on Fig. 4, AUCs in per
cent. `plan_experiment` takes the name of an experiment and the keys of the given and the missing
datasets; it returns the cells in the order of their table, and the reasons why some of them cannot
be run. Reads no file and trains nothing.

Reference: Yan, Li and Lu, "Deepfake Detection via Joint Unsupervised Reconstruction and
Supervised Classification" (2022), https://arxiv.org/abs/2211.13424, section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jdfd_keras.io.results import Result

# Keys of --data and the paper's names, in the order of the columns of Table 2.
NAMES = {"ff": "FF++", "uadfv": "UADFV", "celebdf": "Celeb-DF"}
LETTERS = {"ff": "F", "uadfv": "U", "celebdf": "C"}  # Fig. 3


@dataclass(frozen=True)
class PublishedAuc(Result):
    """An AUC as published.

    Attributes:
        percent: Frame AUC in per cent.
        source: Table, figure or section of the paper.
    """

    percent: float
    source: str


@dataclass(frozen=True)
class OtherMethod(Result):
    """A row of Table 2 for a method other than the paper's own.

    Attributes:
        name: Name as published; numbers in brackets are the paper's references.
        train: Key of the training dataset.
        percent: Frame AUC in per cent for each test dataset; None where the paper has a dash.
    """

    name: str
    train: str
    percent: dict[str, float | None]


def _by_test(*values: float | None) -> dict[str, float | None]:
    return dict(zip(NAMES, values, strict=True))


# Number of faces per dataset, split and class; the paper has no validation split.
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
    OtherMethod("Xception [27]", "ff", _by_test(99.7, 80.4, 48.2)),
    OtherMethod("Capsule [26]", "ff", _by_test(96.6, 61.3, 57.5)),
    OtherMethod("Xception+Tri. [9]", "ff", _by_test(99.9, 74.3, 61.7)),
    OtherMethod("Xception [23]", "uadfv", _by_test(None, 96.8, 52.2)),
    OtherMethod("Xception+Reg. [8]", "uadfv", _by_test(None, 98.4, 57.1)),
    OtherMethod("Xception+Tri. [9]", "uadfv", _by_test(61.3, 99.9, 60.0)),
    OtherMethod("Headpose [34]", "uadfv", _by_test(47.3, 89.0, 54.6)),
    OtherMethod("FWA [22]", "uadfv", _by_test(80.1, 97.4, 56.9)),
    OtherMethod("Xception+Tri. [9]", "celebdf", _by_test(60.2, 88.9, 99.9)),
)

# The paper's own method: training dataset, then test dataset.
TABLE_2 = {
    "ff": _by_test(98.2, 92.9, 78.0),
    "uadfv": _by_test(61.0, 99.9, 64.9),
    "celebdf": _by_test(61.1, 88.4, 97.1),
}

# With the decoder (the paper's "JointDeepfake") and without it ("Baseline").
TABLE_3 = {
    True: {
        "ff": _by_test(98.2, 92.9, 78.0),
        "uadfv": _by_test(61.0, 99.9, 65.2),
        "celebdf": _by_test(61.1, 88.4, 97.1),
    },
    False: {
        "ff": _by_test(97.4, 80.7, 75.4),
        "uadfv": _by_test(58.4, 99.5, 63.7),
        "celebdf": _by_test(59.7, 83.0, 95.6),
    },
}

# Fig. 4 shows no numbers; the text states these. All of them are trained on FF++.
SHARES_PERCENT = (0, 5, 10, 15)
FIGURE_4 = {
    ("celebdf", 15): PublishedAuc(79.6, "section 4.4"),
    ("celebdf", 5): PublishedAuc(74.7, "section 4.4, 79.6 minus 4.9"),
}
FIGURE_4_STATEMENTS = (
    "When 15% foreign data is added to our framework for training, the performance on UADFV "
    "improves by 6.5% when compared to the case of 5% cross data.",
    "Similarly, the performance for Celeb-DF improves significantly to 79.6%, which is 4.9% "
    "higher.",
    "When tested on the FF++ itself, the result of adding 15% foreign data drops by around 0.8% "
    "compared with the best result achieved in this study.",
)

PAPER_DATA = (
    "The paper samples 300 frames per video. From FF++ it uses the compression c23 and the "
    "manipulations Deepfakes, Face2Face, FaceSwap and NeuralTextures; of Celeb-DF, version 2."
)


def find_published(
    train: str, test: str, *, decoder: bool = True, share_percent: int = 0
) -> tuple[PublishedAuc, ...]:
    """Return the paper's AUCs of its own method for one training and one test dataset.

    Args:
        train: Key of the training dataset.
        test: Key of the test dataset.
        decoder: Whether the network has a decoder.
        share_percent: Share of unlabelled foreign faces, in per cent.

    Returns:
        One AUC; two where the paper's tables differ; none where it publishes nothing.

    Example:
        >>> find_published("uadfv", "celebdf")
        (PublishedAuc(percent=64.9, source='Table 2'), PublishedAuc(percent=65.2, source='Table 3'))
    """
    if share_percent:
        stated = FIGURE_4.get((test, share_percent)) if train == "ff" and decoder else None
        return (stated,) if stated else ()
    table_3 = TABLE_3[decoder].get(train, {}).get(test)
    if table_3 is None:
        return ()
    if not decoder:
        return (PublishedAuc(table_3, "Table 3"),)
    table_2 = TABLE_2[train][test]
    if table_2 == table_3:
        return (PublishedAuc(table_2, "Tables 2 and 3"),)
    return PublishedAuc(table_2, "Table 2"), PublishedAuc(table_3, "Table 3")


def is_best(train: str, test: str, percent: float | None) -> bool:
    """Return whether an AUC of Table 2 is the best of all methods, the paper's own included.

    The paper underlines the best AUC where the test dataset is the training dataset, and prints it
    in bold elsewhere.

    Args:
        train: Key of the training dataset.
        test: Key of the test dataset.
        percent: AUC in per cent; None is never the best.

    Example:
        >>> is_best("ff", "uadfv", 92.9)
        True
    """
    rivals = [other.percent.get(test) for other in TABLE_2_OTHERS if other.train == train]
    rivals.append(TABLE_2.get(train, {}).get(test))
    return percent is not None and percent == max(r for r in rivals if r is not None)


@dataclass(frozen=True)
class Training(Result):
    """One training, apart from its seed.

    Attributes:
        data: Key of the training dataset.
        decoder: Whether the network has a decoder.
        share_percent: Share of the faces of each foreign dataset that are added unlabelled.
        foreign: Keys of the foreign datasets.
    """

    data: str
    decoder: bool = True
    share_percent: int = 0
    foreign: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Relative folder of its runs; equal for equal trainings of all experiments."""
        if self.share_percent:
            name = f"unlabelled-{self.share_percent}-of-{'+'.join(self.foreign)}"
        else:
            name = "joint" if self.decoder else "no-decoder"
        return Path(self.data) / name

    @property
    def uses(self) -> tuple[str, ...]:
        """Keys of the datasets it reads."""
        return (self.data, *self.foreign)

    def __str__(self) -> str:
        notes = "" if self.decoder else " without decoder"
        if self.share_percent:
            notes += f" with {self.share_percent} % of {' and '.join(self.foreign)} unlabelled"
        return f"{self.data}{notes}"


@dataclass(frozen=True)
class Cell:
    """One training and the dataset that it is tested on."""

    training: Training
    test: str

    def __str__(self) -> str:
        return f"{self.training} -> {self.test}"


@dataclass(frozen=True)
class ExperimentPlan:
    """The cells of an experiment.

    Attributes:
        name: Name of the experiment.
        tests: Keys of the test datasets: the columns of the table.
        cells: Cells in the order of the table, training by training.
        blocked: Reason for each of these cells that cannot be run.
    """

    name: str
    tests: tuple[str, ...]
    cells: tuple[Cell, ...]
    blocked: Mapping[Cell, str]

    @property
    def trainings(self) -> list[Training]:
        """All trainings, also those that cannot be run."""
        return list(dict.fromkeys(cell.training for cell in self.cells))

    def runnable(self, training: Training) -> list[Cell]:
        """Return the cells of a training that can be run."""
        return [
            cell for cell in self.cells if cell.training == training and cell not in self.blocked
        ]


def plan_experiment(name: str, keys: Sequence[str], missing: Mapping[str, str]) -> ExperimentPlan:
    """Return the cells of an experiment.

    The paper's three datasets belong to every experiment, whether they were given or not; other
    given datasets are added.

    Args:
        name: `cross-dataset`, `ablation` or `foreign-data`.
        keys: Keys of the given datasets, in their order.
        missing: Reason for each dataset, of the given and the paper's, that is missing.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> len(plan_experiment("cross-dataset", ["ff", "uadfv", "celebdf"], {}).cells)
        9
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
        absent = [key for key in (*cell.training.uses, cell.test) if key in missing]
        if absent:
            blocked[cell] = "; ".join(missing[key] for key in dict.fromkeys(absent))
        elif cell.training.share_percent and not cell.training.foreign:
            blocked[cell] = "no other dataset is available for unlabelled faces"
    return ExperimentPlan(name, tests, tuple(cells), blocked)


def order_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of the paper's three datasets, then those of the other given ones.

    Example:
        >>> order_keys(["mine", "celebdf"])
        ('ff', 'uadfv', 'celebdf', 'mine')
    """
    return tuple(dict.fromkeys([*NAMES, *keys]))


def _plan_shares(keys: Sequence[str], tests: Sequence[str], missing: Mapping) -> list[Training]:
    data = "ff" if "ff" in keys or not keys else keys[0]
    # To compare with published AUCs, only the paper's own datasets are added.
    candidates = NAMES if data in NAMES else tests
    foreign = tuple(key for key in candidates if key != data and key not in missing)
    return [
        Training(data, share_percent=share, foreign=foreign if share else ())
        for share in SHARES_PERCENT
    ]
