"""The cells of the paper's experiments and their methods, and what the paper publishes for them.

published.csv holds the AUCs of Tables 2 and 3 and those that the text states on Fig. 4.

Reference: Yan, Li and Lu, "Deepfake Detection via Joint Unsupervised Reconstruction and
Supervised Classification" (2022), https://arxiv.org/abs/2211.13424, section 4.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jdfd_keras.io.results import Result
from jdfd_keras.options import METHODS

# Keys of --data and the paper's names, in the order of the columns of Table 2.
NAMES = {"ff": "FF++", "uadfv": "UADFV", "celebdf": "Celeb-DF"}
LETTERS = {"ff": "F", "uadfv": "U", "celebdf": "C"}  # Fig. 3
OURS, BASELINE = "JDFD", "Baseline (no decoder)"
OUR_METHOD = "jdfd"
# Values of --method and the names of Table 2 without references, in the order of its rows.
METHOD_NAMES = {
    "xception": "Xception",
    "capsule": "Capsule",
    "xception-triplet": "Xception+Tri.",
    "xception-regression": "Xception+Reg.",
    "headpose": "Headpose",
    "fwa": "FWA",
    OUR_METHOD: OURS,
}
SHARES_PERCENT = (0, 5, 10, 15)  # Fig. 4
PUBLISHED = Path(__file__).with_name("published.csv")

# Number of faces per dataset, split and class; the paper has no validation split.
TABLE_1 = {
    "ff": {"train": {"real": 117218, "fake": 124429}, "test": {"real": 20795, "fake": 21995}},
    "uadfv": {"train": {"real": 9881, "fake": 9886}, "test": {"real": 1740, "fake": 1723}},
    "celebdf": {"train": {"real": 152786, "fake": 147901}, "test": {"real": 26834, "fake": 26108}},
}


@dataclass(frozen=True, kw_only=True)
class AucRow(Result):
    """One row of the table of results: an AUC, or the reason why it is missing.

    Attributes:
        kind: `measured`, `published` (by the paper) or `failed`.
        method: OURS, BASELINE or another method, by its name in Table 2; numbers in brackets are
            the paper's references.
        method_key: The value of `--method` that trains it; joins measured and published rows.
        train: Key of the training dataset.
        test: Key of the test dataset.
        decoder: Whether the network has a decoder.
        share_percent: Share of the faces of each foreign dataset that are added unlabelled.
        seed: Seed of the training; None if published, or if no seed can be run.
        metric: `frame_auc` or `video_auc`.
        percent: AUC in per cent; None if failed, or where the paper has a dash.
        low_percent: Lower end of its 95 % interval; None if undefined or published.
        high_percent: Upper end of that interval.
        num_faces: Number of scored test faces; None unless measured.
        source: Folder of the evaluation, relative to that of the experiment; the table or section
            of the paper; or the reason of the failure.
        mark: The paper's mark of the best AUC in Table 2: `underlined` within a dataset, `bold`
            across datasets, else empty.
        held_out: Manipulation that was only tested; else empty.
        train_compression: Compression of the training videos, if the experiment chose one.
        test_compression: Compression of the test videos, if the experiment chose one.
    """

    kind: str
    method: str
    method_key: str = OUR_METHOD
    train: str
    test: str
    decoder: bool
    share_percent: int
    seed: int | None = None
    metric: str = "frame_auc"
    percent: float | None = None
    low_percent: float | None = None
    high_percent: float | None = None
    num_faces: int | None = None
    source: str
    mark: str = ""
    held_out: str = ""
    train_compression: str = ""
    test_compression: str = ""


def read_published() -> list[AucRow]:
    """Read the AUCs that the paper publishes: other methods first, then its own.

    Example:
        >>> [(row.percent, row.source) for row in read_published()
        ...  if (row.method, row.train, row.test) == (OURS, "uadfv", "celebdf")]
        [(64.9, 'Table 2'), (65.2, 'Table 3')]
    """
    table = pd.read_csv(PUBLISHED, dtype={"mark": str}).fillna({"mark": ""})
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [AucRow(kind="published", **record) for record in records]


@functools.cache
def name_method(method: str, train: str) -> str:
    """Return the name of a method in the row of Table 2 with this training dataset.

    Args:
        method: A value of `--method`.
        train: Key of the training dataset; without such a row, the name has no reference.

    Example:
        >>> name_method("xception", "ff"), name_method("xception", "uadfv")
        ('Xception [27]', 'Xception [23]')
        >>> name_method("xception", "mine")
        'Xception'
    """
    for row in read_published():
        if (row.method_key, row.train) == (method, train) and row.method != BASELINE:
            return row.method
    return METHOD_NAMES[method]


def parse_methods(text: str) -> tuple[str, ...]:
    """Return the methods of a list, in the order of the rows of Table 2.

    Args:
        text: Values of `--method`, separated by commas, or `all`.

    Raises:
        ValueError: If one is unknown, or none is given.

    Example:
        >>> parse_methods("jdfd,capsule")
        ('capsule', 'jdfd')
    """
    names = [name.strip() for name in text.split(",")]
    chosen = METHODS if text.strip() == "all" else names
    if unknown := [name for name in chosen if name not in METHOD_NAMES]:
        raise ValueError(
            f"Expected methods of {', '.join(METHODS)}, or all; got {unknown[0]!r}. Try "
            "xception,capsule."
        )
    return tuple(name for name in METHOD_NAMES if name in chosen)


def qualified_key(key: str, split_table: str) -> str:
    """Return the key of a dataset that is split by a table of the experiment, else its own key.

    Example:
        >>> qualified_key("ff", "official-c23"), qualified_key("ff", "")
        ('ff/official-c23', 'ff')
    """
    return f"{key}/{split_table}" if split_table else key


@dataclass(frozen=True)
class Training:
    """One training, apart from its seed.

    Attributes:
        data: Key of its dataset.
        decoder: Whether the network has a decoder.
        share_percent: Share of the `foreign` datasets that is added unlabelled.
        foreign: Their keys.
        split_table: Split table that the experiment made; else empty: that of all datasets.
        held_out: Manipulation that the table leaves for testing; else empty.
        compression: Compression whose videos alone the table has; else empty.
        method: The value of `--method`.
    """

    data: str
    decoder: bool = True
    share_percent: int = 0
    foreign: tuple[str, ...] = ()
    split_table: str = ""
    held_out: str = ""
    compression: str = ""
    method: str = OUR_METHOD

    @property
    def folder(self) -> Path:
        """Relative folder of its runs; equal for equal trainings of all experiments."""
        if self.split_table:
            return Path(self.data, self.split_table)
        if self.share_percent:
            return Path(self.data, f"unlabelled-{self.share_percent}-of-{'+'.join(self.foreign)}")
        if self.method != OUR_METHOD:
            return Path(self.data, self.method)
        return Path(self.data, "joint" if self.decoder else "no-decoder")

    @property
    def dataset(self) -> str:
        """Key of its dataset and split table."""
        return qualified_key(self.data, self.split_table)

    def __str__(self) -> str:
        is_ours = self.method == OUR_METHOD
        notes = "" if self.decoder or not is_ours else " without decoder"
        if self.share_percent:
            notes += f" with {self.share_percent} % of {' and '.join(self.foreign)} unlabelled"
        if self.held_out:
            notes += f" without {self.held_out}"
        name = self.data if is_ours else f"{METHOD_NAMES[self.method]} on {self.data}"
        return f"{name}{notes}{f' {self.compression}' if self.compression else ''}"


@dataclass(frozen=True)
class Cell:
    """One training, the key of its test dataset, and the reason why it cannot be run, if any.

    `split_table` and `compression` are those of the test, as in `Training`.
    """

    training: Training
    test: str
    blocked: str = ""
    split_table: str = ""
    compression: str = ""

    @property
    def method(self) -> str:
        """Name of the method, as in Tables 2 and 3."""
        if self.training.method == OUR_METHOD and not self.training.decoder:
            return BASELINE
        return name_method(self.training.method, self.training.data)

    @property
    def dataset(self) -> str:
        """Key of its test dataset and split table."""
        return qualified_key(self.test, self.split_table)

    @property
    def uses(self) -> list[str]:
        """Keys of the datasets and split tables that its training and evaluation read."""
        keys = [self.training.dataset, *self.training.foreign, self.dataset]
        return list(dict.fromkeys(keys))

    def has_setup_of(self, row: AucRow) -> bool:
        """Return whether a row is of this method, training and test dataset."""
        own = (self.method, self.training.data, self.training.share_percent, self.test)
        published = (row.method, row.train, row.share_percent, row.test)
        return not self.training.split_table and own == published

    def to_row(self, kind: str, seed: int | None, source: str, **values) -> AucRow:
        """Return a row of this cell."""
        return AucRow(
            kind=kind,
            method=self.method,
            method_key=self.training.method,
            train=self.training.data,
            test=self.test,
            decoder=self.training.decoder,
            share_percent=self.training.share_percent,
            seed=seed,
            source=" ".join(source.split()),
            held_out=self.training.held_out,
            train_compression=self.training.compression,
            test_compression=self.compression,
            **values,
        )

    def __str__(self) -> str:
        test = f"{self.test} {self.compression}" if self.compression else self.test
        return f"{self.training} -> {test}"


def plan_cells(
    name: str,
    keys: Sequence[str],
    missing: Mapping[str, str],
    methods: Sequence[str] = (OUR_METHOD,),
) -> list[Cell]:
    """Return the cells of an experiment in the order of its table, training by training.

    The paper's three datasets belong to every experiment, whether they were given or not; other
    given datasets are added.

    Args:
        name: `cross-dataset`, `ablation` or `foreign-data`.
        keys: Keys of the given datasets, in their order.
        missing: Reason for each dataset, of the given and the paper's, that is missing.
        methods: Values of `--method` for `cross-dataset`; the other experiments are of ours.

    Example:
        >>> cells = plan_cells("cross-dataset", ["ff", "uadfv"], {"celebdf": "no celebdf"})
        >>> len(cells), [str(cell) for cell in cells if not cell.blocked]
        (9, ['ff -> ff', 'ff -> uadfv', 'uadfv -> ff', 'uadfv -> uadfv'])
    """
    tests = list(dict.fromkeys([*NAMES, *keys]))
    if name == "cross-dataset":
        trainings = [
            Training(key, decoder=method == OUR_METHOD, method=method)
            for key in tests
            for method in methods
        ]
    elif name == "ablation":
        trainings = [Training(key, decoder) for key in tests for decoder in (False, True)]
    else:
        data = "ff" if "ff" in keys or not keys else keys[0]
        # To compare with published AUCs, only the paper's own datasets are added.
        candidates = NAMES if data in NAMES else tests
        foreign = tuple(key for key in candidates if key != data and key not in missing)
        shares = [Training(data, True, share, foreign) for share in SHARES_PERCENT[1:]]
        trainings = [Training(data), *shares]
    cells = []
    for training in trainings:
        for test in tests:
            absent = [missing[key] for key in Cell(training, test).uses if key in missing]
            if training.share_percent and not training.foreign:
                absent = absent or ["no other dataset is available for unlabelled faces"]
            cells.append(Cell(training, test, "; ".join(absent)))
    return cells
