"""Pages read back: every AUC is in its own cell, beside the paper's."""

import csv
import io
import re

import pytest

from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.experiments.plan import NAMES, TABLE_2, TABLE_2_OTHERS, TABLE_3
from jdfd_keras.options import ExperimentOptions
from jdfd_keras.reporting import experiment_tables as tables

KEYS = {name: key for key, name in NAMES.items()}


@pytest.fixture
def report_of(rooms, named_sets, tmp_path):
    """A function that returns the report of an experiment."""

    def make(name, seeds=(0, 1, 2), drop=(), bounds=True):
        rooms.bounds = bounds
        for key in drop:
            del named_sets[key]
        return experiment(name, named_sets, tmp_path / "out", ExperimentOptions(seeds))

    return make


def read_tables(page):
    """Read the tables of a Markdown page: rows of cells each, header first."""
    found = []
    for block in page.split("\n\n"):
        lines = block.splitlines()
        if lines and all(line.startswith("| ") for line in lines):
            rows = [line[2:-2].split(" | ") for line in lines]
            assert len({len(row) for row in rows}) == 1
            found.append([rows[0], *rows[2:]])
    return found


def expected_percent(rooms, tmp_path, named_sets, train, folder, test, seeds, level="frame"):
    runs = [tmp_path / f"out/runs/{train}/{folder}/seed{seed}" for seed in seeds]
    return [100 * rooms.auc(run, named_sets[test], level).value for run in runs]


def test_markdown_has_our_mean_and_the_papers_auc_in_each_cell(
    report_of, rooms, named_sets, tmp_path
):
    frames, videos = read_tables(tables.render_markdown(report_of("cross-dataset")))
    for table, level in ((frames, "frame"), (videos, "video")):
        assert table[0] == ["Method", "Train data", "FF++", "UADFV", "Celeb-DF"]
        own = [row for row in table if row[0] == "JDFD"]
        assert [row[1] for row in own] == ["FF++", "UADFV", "Celeb-DF"]
        for row in own:
            for test, cell in zip(table[0][2:], row[2:], strict=True):
                sets = (KEYS[row[1]], "joint", KEYS[test])
                values = expected_percent(rooms, tmp_path, named_sets, *sets, (0, 1, 2), level)
                ours, *paper = cell.split("; paper ")
                mean, spread = re.fullmatch(r"([\d.]+) ± ([\d.]+)", ours).groups()
                assert float(mean) == pytest.approx(sum(values) / 3, abs=0.051)
                center = sum(values) / 3
                deviation = (sum((value - center) ** 2 for value in values) / 2) ** 0.5
                assert float(spread) == pytest.approx(deviation, abs=0.051)
                if level == "video":
                    assert paper == []
                else:
                    number = float(re.search(r"\d+\.\d", paper[0])[0])
                    assert number == TABLE_2[KEYS[row[1]]][KEYS[test]]


def test_markdown_has_the_other_methods_as_published(report_of):
    frames, _ = read_tables(tables.render_markdown(report_of("cross-dataset", (0,))))
    others = [row for row in frames[1:] if row[0] != "JDFD"]
    assert len(others) == len(TABLE_2_OTHERS) == 9
    for row, other in zip(others, TABLE_2_OTHERS, strict=True):
        cells = [cell.strip("*") for cell in row[2:]]
        numbers = [None if cell == "-" else float(cell) for cell in cells]
        assert numbers == list(other.percent.values())
    assert others[2][2:] == ["*99.9*", "74.3", "61.7"]
    assert others[7][2:] == ["**80.1**", "97.4", "56.9"]


def test_a_cell_with_two_published_aucs_shows_both(report_of):
    for name in ("cross-dataset", "ablation"):
        page = tables.render_markdown(report_of(name, (0,)))
        assert page.count("/ 65.2 (Table 3)") == 1
        assert re.search(r"paper [*]*64\.9[*]* \(Table 2\) / 65\.2 \(Table 3\)", page)


def test_ablation_is_shown_beside_table_3(report_of):
    frames, _ = read_tables(tables.render_markdown(report_of("ablation", (0,))))
    assert frames[0][:2] == ["Train data", "Method"] and len(frames) == 7
    for row in frames[1:]:
        for test, cell in zip(frames[0][2:], row[2:], strict=True):
            last = float(re.findall(r"\d+\.\d", cell.split("paper")[1])[-1])
            assert last == TABLE_3[row[1] == "JDFD"][KEYS[row[0]]][KEYS[test]]


def test_foreign_data_has_the_papers_auc_where_its_text_states_one(report_of):
    page = tables.render_markdown(report_of("foreign-data", (0,)))
    frames, _ = read_tables(page)
    assert [row[1] for row in frames[1:]] == ["0 %", "5 %", "10 %", "15 %"]
    published = [[cell.partition("; paper ")[2] for cell in row[2:]] for row in frames[1:]]
    assert published == [["98.2", "92.9", "78.0"], ["", "", "74.7"], ["", "", ""], ["", "", "79.6"]]
    assert "improves by 6.5%" in page


def test_one_seed_has_the_interval_of_its_evaluation_or_none(report_of, rooms):
    page = tables.render_markdown(report_of("cross-dataset", (0,)))
    assert re.search(r"\d\d\.\d \[\d\d\.\d, \d\d\.\d\]; paper", page)
    assert "±" not in page
    bare = tables.render_markdown(report_of("cross-dataset", (4,), bounds=False))
    assert re.search(r"\| \d\d\.\d; paper", bare)


def test_a_cell_that_was_not_run_shows_only_the_papers_auc(report_of):
    page = tables.render_markdown(report_of("cross-dataset", (0,), drop=("celebdf",)))
    frames, videos = read_tables(page)
    own = [row for row in frames if row[0] == "JDFD"]
    assert own[2][2:] == ["not run; paper **61.1**", "not run; paper 88.4", "not run; paper 97.1"]
    assert videos[-1][2:] == ["not run"] * 3
    assert page.count("- ff -> celebdf: dataset celebdf is missing") == 1


def test_the_protocol_states_how_datasets_were_prepared_and_runs_trained(report_of):
    page = tables.render_markdown(report_of("cross-dataset"))
    described = "FF++ (ff): split strict, 32 frames per video, detector dlib, alignment landmarks68"
    assert described in page
    assert "20 epochs, 4 faces per step" in page and "Seeds 0, 1, 2." in page
    assert "a random split of single faces" in page and "keras 3" in page
    assert "From FF++ it uses the compression c23" in page


def test_csv_has_a_row_for_each_cell_and_seed_and_each_published_auc(
    report_of, rooms, named_sets, tmp_path
):
    rows = list(csv.DictReader(io.StringIO(tables.render_csv(report_of("cross-dataset", (0, 5))))))
    measured = [row for row in rows if row["kind"] == "measured"]
    assert len(measured) == 18
    for row in measured:
        for level in ("frame", "video"):
            sets = (row["train"], "joint", row["test"], [row["seed"]], level)
            (value,) = expected_percent(rooms, tmp_path, named_sets, *sets)
            assert float(row[f"{level}_auc_percent"]) == pytest.approx(value, rel=1e-12)
            assert float(row[f"{level}_low_percent"]) == pytest.approx(value - 10)
    published = [row for row in rows if row["kind"] == "published"]
    assert len(published) == 25 + 10  # 64.9 and 65.2
    others = [row for row in published if row["method"] != "JDFD"]
    assert sum(float(row["frame_auc_percent"]) for row in others) == pytest.approx(1879.6)
    assert all(row["video_auc_percent"] == "" for row in published)


def test_csv_lists_failures_without_an_auc(report_of):
    report = report_of("ablation", (0,), drop=("uadfv",))
    rows = list(csv.DictReader(io.StringIO(tables.render_csv(report))))
    failed = [row for row in rows if row["kind"] == "failed"]
    assert len(failed) == len(report.failed) == 10
    assert all(row["frame_auc_percent"] == "" and "uadfv=DIR" in row["source"] for row in failed)
    assert {row["decoder"] for row in failed} == {"True", "False"}


def read_latex(text):
    lines = text.splitlines()
    spec = next(line for line in lines if line.startswith(r"\begin{tabular}"))
    columns = re.search(r"tabular}\{([lr]+)\}", spec)[1]
    rows = [line[: -len(r" \\")].split(" & ") for line in lines if line.endswith(r" \\")]
    return columns, rows


@pytest.mark.parametrize("name", ["cross-dataset", "ablation", "foreign-data"])
def test_latex_rows_fill_the_columns(report_of, name):
    text = tables.render_latex(report_of(name))
    columns, (header, *rows) = read_latex(text)
    assert columns == "llrrrrrr"
    assert len(header) == 5 and header[2] == r"\multicolumn{2}{c}{FF++}"
    assert all(len(row) == 8 for row in rows)
    body = text[text.index(r"\begin{table}") :]
    assert body.count("{") == body.count("}")
    assert body.isascii() and "%" not in body.replace(r"\%", "")
    assert all(line.startswith("%") for line in text[: text.index(r"\begin{table}")].splitlines())
    for opened in re.findall(r"\\begin\{(\w+)\}", body):
        assert body.count(rf"\end{{{opened}}}") == 1


def test_latex_has_ours_and_the_papers_aucs_side_by_side(report_of):
    _, rows = read_latex(tables.render_latex(report_of("cross-dataset")))
    (own,) = [row for row in rows if row[:2] == ["JDFD", "UADFV"]]
    assert re.fullmatch(r"\d\d\.\d \$\\pm\$ \d+\.\d", own[2])
    assert own[3::2] == ["61.0", r"\underline{99.9}", r"\textbf{64.9} / 65.2"]
    (fwa,) = [row for row in rows if row[0] == "FWA [22]"]
    assert fwa[2:] == ["", r"\textbf{80.1}", "", "97.4", "", "56.9"]


def test_latex_escapes_names():
    assert tables.escape("a_b & 50% #1 {x} ~^ \\ $") == (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{} \textbackslash{} \$"
    )


def test_another_dataset_is_escaped_and_has_no_published_auc(rooms, named_sets, tmp_path):
    sets = {"my_set": named_sets.pop("celebdf")} | named_sets
    report = experiment("cross-dataset", sets, tmp_path / "out")
    text = tables.render_latex(report)
    body = text[text.index(r"\begin{table}") :]
    assert r"\multicolumn{2}{c}{my\_set}" in body and "my_" not in body
    frames, _ = read_tables(tables.render_markdown(report))
    assert frames[0][-1] == "my_set"
    assert {row[-1] for row in frames if row[0] != "JDFD"} == {"my_set", ""}
    assert re.fullmatch(r"[\d.]+ \[[\d., ]+\]", frames[-1][-1])
