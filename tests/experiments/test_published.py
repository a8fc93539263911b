"""The paper's AUCs, against numbers typed independently of the code and the paper's text."""

import re
from pathlib import Path

import pytest

from jdfd_keras.experiments.plan import (
    FIGURE_4,
    FIGURE_4_STATEMENTS,
    NAMES,
    TABLE_1,
    TABLE_2,
    TABLE_2_OTHERS,
    TABLE_3,
    find_published,
    is_best,
)

PAPER = Path(__file__).parents[3] / "shared" / "paper.txt"
KEYS = {name: key for key, name in NAMES.items()}


@pytest.fixture(scope="module")
def paper():
    if not PAPER.is_file():
        pytest.skip("the paper's text is not available")
    return PAPER.read_text(encoding="utf-8")


def rows_after(text: str, heading: str, count: int) -> list[list[str]]:
    lines = text[text.index(f"**{heading}.**") :].splitlines()
    return [line.split("\t") for line in lines if "\t" in line][:count]


def test_table_1_equals_the_papers(paper):
    found = {}
    for name, *numbers in rows_after(paper, "Table 1", 5)[2:]:
        key = {"FaceForensics++": "ff"}.get(name) or KEYS[name]
        train_real, train_fake, test_real, test_fake = map(int, numbers)
        found[key] = {
            "train": {"real": train_real, "fake": train_fake},
            "test": {"real": test_real, "fake": test_fake},
        }
    assert found == TABLE_1


def test_table_1_is_split_85_to_15_in_all_cells():
    for splits in TABLE_1.values():
        for label in ("real", "fake"):
            train, test = splits["train"][label], splits["test"][label]
            assert test / (train + test) == pytest.approx(0.15, abs=0.003)
    # Summed independently of the code.
    assert sum(TABLE_1[key]["train"]["real"] for key in TABLE_1) == 279885
    assert sum(TABLE_1[key]["train"]["fake"] for key in TABLE_1) == 282216
    assert sum(TABLE_1[key]["test"]["real"] for key in TABLE_1) == 49369
    assert sum(TABLE_1[key]["test"]["fake"] for key in TABLE_1) == 49826


def read_mark(cell: str) -> tuple[float | None, str]:
    number = re.sub(r"<[^>]*>", "", cell)
    mark = "underlined" if "<u>" in cell else "bold" if "<b>" in cell else ""
    return (None if number == "-" else float(number)), mark


def test_table_2_equals_the_papers_with_its_marks(paper):
    rows = rows_after(paper, "Table 2", 13)
    assert rows[0] == ["Methods", "Train data", *NAMES.values()]
    ours = [(other.name, other.train, other.percent) for other in TABLE_2_OTHERS]
    ours += [("JDFD", train, TABLE_2[train]) for train in ("ff", "uadfv", "celebdf")]
    assert len(rows) - 1 == len(ours) == 12
    for (name, train, *cells), (our_name, our_train, percent) in zip(rows[1:], ours, strict=True):
        assert name.replace(" ", "") == our_name.replace(" ", "")
        assert KEYS[train] == our_train
        for test, cell in zip(NAMES, cells, strict=True):
            number, mark = read_mark(cell)
            assert percent[test] == number
            expected = "underlined" if test == our_train else "bold"
            assert mark == (expected if is_best(our_train, test, number) else "")


def test_table_3_equals_the_papers(paper):
    rows = rows_after(paper, "Table 3", 7)
    tests = [KEYS[name] for name in rows[0][2:]]
    found, train = {True: {}, False: {}}, None
    for first, method, *numbers in rows[1:]:
        train = KEYS.get(first, train)
        found[method == "JointDeepfake"][train] = dict(zip(tests, map(float, numbers), strict=True))
    assert found == TABLE_3


def test_tables_2_and_3_have_the_sums_computed_by_hand():
    def total(table):
        return round(sum(sum(row.values()) for row in table.values()), 1)

    assert total(TABLE_2) == 741.5
    assert total(TABLE_3[True]) == 741.8  # 65.2 instead of 64.9
    assert total(TABLE_3[False]) == 713.4
    others = [p for other in TABLE_2_OTHERS for p in other.percent.values() if p is not None]
    assert (len(others), round(sum(others), 1)) == (25, 1879.6)


@pytest.mark.parametrize(
    ("train", "test", "gain"),
    [
        ("uadfv", "uadfv", 0.4),
        ("ff", "ff", 0.8),
        ("celebdf", "celebdf", 1.5),
        ("uadfv", "ff", 2.6),
        ("uadfv", "celebdf", 1.5),
        ("ff", "uadfv", 12.2),
        ("ff", "celebdf", 2.6),
        ("celebdf", "uadfv", 5.4),  # the text has 5.3, its only slip
    ],
)
def test_the_gain_of_the_decoder_equals_that_in_the_text(train, test, gain):
    assert TABLE_3[True][train][test] - TABLE_3[False][train][test] == pytest.approx(gain)


def test_the_statements_on_figure_4_are_quoted_from_the_paper(paper):
    for statement in FIGURE_4_STATEMENTS:
        assert statement in paper


def test_figure_4_has_only_the_aucs_that_the_text_states():
    assert {key: auc.percent for key, auc in FIGURE_4.items()} == {
        ("celebdf", 15): 79.6,
        ("celebdf", 5): 74.7,
    }
    assert FIGURE_4["celebdf", 15].percent - FIGURE_4["celebdf", 5].percent == pytest.approx(4.9)
    assert find_published("ff", "uadfv", share_percent=15) == ()
    assert find_published("uadfv", "celebdf", share_percent=15) == ()


def test_the_cell_that_differs_between_two_tables_has_both_aucs():
    both = find_published("uadfv", "celebdf")
    assert [(auc.percent, auc.source) for auc in both] == [(64.9, "Table 2"), (65.2, "Table 3")]
    (same,) = find_published("ff", "uadfv")
    assert (same.percent, same.source) == (92.9, "Tables 2 and 3")
    (baseline,) = find_published("uadfv", "celebdf", decoder=False)
    assert (baseline.percent, baseline.source) == (63.7, "Table 3")
    assert find_published("mine", "ff") == find_published("ff", "mine") == ()
