"""Files of an experiment read back: every AUC is in its own cell and figure, beside the paper's."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.experiments.plan import (
    BASELINE,
    METHOD_NAMES,
    NAMES,
    OURS,
    read_published,
)
from jdfd_keras.options import ExperimentOptions
from jdfd_keras.reporting.experiment_report import draw_figure, write_experiment


class CellScores:
    """Scores of a cell, as far as a curve needs them, with its seed and its AUC."""

    def __init__(self, path):
        directory = path.parent
        report = json.loads((directory / "report.json").read_text())
        seed = int(directory.parent.name.removeprefix("seed"))
        self.label = np.array([True, False])
        self.score = np.array([seed / 10, report["frame"]["auc"]["value"]])


@pytest.fixture
def drawn(monkeypatch):
    """Arguments of the drawing functions, which draw nothing."""
    calls = {}
    monkeypatch.setattr("jdfd_keras.reporting.experiment_report.read_scores", CellScores)
    monkeypatch.setattr(
        "jdfd_keras.reporting.curves.draw_roc",
        lambda curves, *, title: calls.update(curves=curves, title=title),
    )
    monkeypatch.setattr(
        "jdfd_keras.reporting.charts.draw_foreign_shares",
        lambda shares, series, published, *, title: calls.update(
            shares=shares, series=series, published=published, title=title
        ),
    )
    monkeypatch.setattr(
        "jdfd_keras.reporting.style.save_figure", lambda figure, path: calls.update(path=path)
    )
    return calls


def test_nine_curves_are_named_as_in_figure_3(rooms, drawn, named_sets, tmp_path):
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert draw_figure(report, tmp_path / "out") == "cross-dataset.png"
    assert [curve.name for curve in drawn["curves"]] == [
        f"({train}, {test})" for train in "FUC" for test in "FUC"
    ]
    by_name = {curve.name: curve.score[1] for curve in drawn["curves"]}
    # Trained on UADFV, tested on FF++.
    auc = rooms.auc(tmp_path / "out/runs/uadfv/joint/seed0", named_sets["ff"], "frame")
    assert by_name["(U, F)"] == pytest.approx(auc.value)
    assert drawn["path"] == tmp_path / "out/cross-dataset"


def test_curves_are_of_the_first_seed_that_all_cells_have(rooms, drawn, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "evaluate" and run.name == "seed4" and data.name == "uadfv":
            raise ValueError("no")

    rooms.refuse = refuse
    options = ExperimentOptions(seeds=(4, 7))
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options)
    draw_figure(report, tmp_path / "out")
    assert {curve.score[0] for curve in drawn["curves"]} == {0.7}
    assert "seed 7" in drawn["title"]


def test_without_any_result_nothing_is_drawn(rooms, drawn, tmp_path):
    for name in ("cross-dataset", "foreign-data", "ablation"):
        report = experiment(name, {}, tmp_path / "out")
        assert draw_figure(report, tmp_path / "out") is None
    assert drawn == {}


def test_shares_are_drawn_with_standard_deviation_and_the_papers_points(
    rooms, drawn, named_sets, tmp_path
):
    del named_sets["uadfv"]
    report = experiment("foreign-data", named_sets, tmp_path / "out", ExperimentOptions((0, 1)))
    assert draw_figure(report, tmp_path / "out") == "foreign-data.png"
    assert drawn["shares"] == [0, 0.05, 0.1, 0.15]
    assert set(drawn["series"]) == {"FF++", "Celeb-DF"}
    runs = [tmp_path / f"out/runs/ff/unlabelled-10-of-celebdf/seed{seed}" for seed in (0, 1)]
    values = [rooms.auc(run, named_sets["celebdf"], "frame").value for run in runs]
    mean, std = drawn["series"]["Celeb-DF"][2]
    assert mean == pytest.approx(np.mean(values))
    assert std == pytest.approx(np.std(values, ddof=1))
    assert drawn["published"]["Celeb-DF"] == pytest.approx([0.78, 0.747, None, 0.796])
    assert drawn["published"]["FF++"] == [pytest.approx(0.982), None, None, None]
    assert json.dumps(report.to_dict())


def test_one_seed_has_no_standard_deviation_in_the_figure(rooms, drawn, named_sets, tmp_path):
    draw_figure(experiment("foreign-data", named_sets, tmp_path / "out"), tmp_path / "out")
    assert all(point[1] is None for line in drawn["series"].values() for point in line)


def test_the_page_of_each_cell_is_written_once(rooms, named_sets, tmp_path, monkeypatch):
    pages = []

    def write_pages(report, folder):
        pages.append((folder, report.frame.auc.value, len(report.scores)))
        (folder / "report.html").write_text("page")

    monkeypatch.setattr("jdfd_keras.reporting.evaluation_folder.write_pages", write_pages)
    out = tmp_path / "out"
    write_experiment(experiment("cross-dataset", named_sets, out), out)
    assert len({folder for folder, *_ in pages}) == len(pages) == 9
    auc = rooms.auc(out / "runs/ff/joint/seed0", named_sets["uadfv"], "frame").value
    assert (out / "cells/ff/joint/seed0/uadfv", auc, 2) in pages
    write_experiment(experiment("cross-dataset", named_sets, out), out)
    assert len(pages) == 9


def test_a_page_that_cannot_be_written_is_listed(rooms, named_sets, tmp_path):
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    (tmp_path / "out/cells/ff/joint/seed0/uadfv/scores.parquet").write_bytes(b"damaged")
    (reason,) = write_experiment(report, tmp_path / "out").failed
    assert reason.startswith("page of cells/ff/joint/seed0/uadfv: Expected a Parquet ")


KEYS = {name: key for key, name in NAMES.items()}


@pytest.fixture
def written(rooms, named_sets, tmp_path):
    """A function that runs an experiment and returns the path of its files, without suffix."""

    def write(name, seeds=(0, 1, 2), drop=(), bounds=True, methods="jdfd"):
        rooms.bounds = bounds
        sets = {key: folder for key, folder in named_sets.items() if key not in drop}
        options = ExperimentOptions(seeds, methods)
        write_experiment(experiment(name, sets, tmp_path, options), tmp_path)
        return tmp_path / name

    return write


def read_tables(path):
    """Read the tables of a Markdown page: rows of cells each, header first."""
    found = []
    for block in path.with_suffix(".md").read_text().split("\n\n"):
        lines = block.splitlines()
        if lines and all(line.startswith("|") for line in lines):
            rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
            assert len({len(row) for row in rows}) == 1
            found.append([rows[0], *rows[2:]])
    return found


def read_csv(path):
    with path.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def published(method, *sources):
    return {
        (row.train, row.test): row.percent
        for row in read_published()
        if row.method == method and row.source in sources
    }


def test_markdown_has_our_mean_and_the_papers_auc_in_each_cell(
    written, rooms, named_sets, tmp_path
):
    frames, videos = read_tables(written("cross-dataset"))
    paper = published(OURS, "Table 2", "Tables 2 and 3")
    for table, level in ((frames, "frame"), (videos, "video")):
        assert table[0] == ["Method", "Train data", "FF++", "UADFV", "Celeb-DF"]
        own = [row for row in table if row[0] == "JDFD"]
        assert [row[1] for row in own] == ["FF++", "UADFV", "Celeb-DF"]
        for row in own:
            for name, cell in zip(table[0][2:], row[2:], strict=True):
                train, test = KEYS[row[1]], KEYS[name]
                runs = [tmp_path / f"runs/{train}/joint/seed{seed}" for seed in (0, 1, 2)]
                values = [100 * rooms.auc(run, named_sets[test], level).value for run in runs]
                ours, *theirs = cell.split("; paper ")
                mean, spread = map(float, re.fullmatch(r"([\d.]+) ± ([\d.]+)", ours).groups())
                assert mean == pytest.approx(np.mean(values), abs=0.051)
                assert spread == pytest.approx(np.std(values, ddof=1), abs=0.051)
                if level == "video":
                    assert theirs == []
                else:
                    assert float(re.search(r"\d+\.\d", theirs[0])[0]) == paper[train, test]


def test_markdown_has_the_other_methods_as_published(written):
    frames, _ = read_tables(written("cross-dataset", (0,)))
    others = [row for row in frames[1:] if row[0] != "JDFD"]
    numbers = [cell.strip("*") for row in others for cell in row[2:]]
    expected = [row.percent for row in read_published() if row.method not in (OURS, BASELINE)]
    assert [None if number == "-" else float(number) for number in numbers] == expected
    assert others[2] == ["Xception+Tri. [9]", "FF++", "*99.9*", "74.3", "61.7"]
    assert others[7] == ["FWA [22]", "UADFV", "**80.1**", "97.4", "56.9"]


def test_a_cell_with_two_published_aucs_shows_both(written):
    for name, number in (("cross-dataset", "**64.9**"), ("ablation", "64.9")):
        page = written(name, (0,)).with_suffix(".md").read_text()
        assert page.count(f"; paper {number} (Table 2) / 65.2 (Table 3)") == 1


def test_ablation_is_shown_beside_table_3(written):
    frames, _ = read_tables(written("ablation", (0,)))
    assert frames[0][:2] == ["Train data", "Method"] and len(frames) == 7
    for name, method, *cells in frames[1:]:
        paper = published(method, "Table 3", "Tables 2 and 3")
        last = [float(re.findall(r"\d+\.\d", cell.split("paper")[1])[-1]) for cell in cells]
        assert last == [paper[KEYS[name], test] for test in NAMES]


def test_foreign_data_has_the_papers_auc_where_its_text_states_one(written):
    frames, _ = read_tables(written("foreign-data", (0,)))
    assert [row[1] for row in frames[1:]] == ["0 %", "5 %", "10 %", "15 %"]
    paper = [[cell.partition("; paper ")[2] for cell in row[2:]] for row in frames[1:]]
    assert paper == [["98.2", "92.9", "78.0"], ["", "", "74.7"], ["", "", ""], ["", "", "79.6"]]


def test_one_seed_has_the_interval_of_its_evaluation_or_none(written):
    page = written("cross-dataset", (0,)).with_suffix(".md").read_text()
    assert re.search(r"\d\d\.\d \[\d\d\.\d, \d\d\.\d\]; paper", page)
    assert "±" not in page
    frames, _ = read_tables(written("cross-dataset", (4,), bounds=False))
    assert re.fullmatch(r"\d\d\.\d; paper 98\.2", frames[10][2])


def test_a_cell_that_was_not_run_shows_only_the_papers_auc(written):
    path = written("cross-dataset", (0,), drop=("celebdf",))
    frames, videos = read_tables(path)
    own = [row for row in frames if row[0] == "JDFD"]
    assert own[2][2:] == ["not run; paper **61.1**", "not run; paper 88.4", "not run; paper 97.1"]
    assert videos[-1][2:] == ["not run"] * 3
    page = path.with_suffix(".md").read_text()
    assert page.count("- ff -> celebdf: ") == 1


@pytest.mark.parametrize("name", ["cross-dataset", "foreign-data"])
def test_the_protocol_lists_datasets_training_and_differences(written, name, snapshot):
    page = written(name).with_suffix(".md").read_text()
    protocol = page.partition("## Protocol\n\n")[2]
    assert re.sub(r"(?<=- Versions: ).*", "...", protocol) == snapshot


def test_csv_has_a_row_for_each_seed_and_metric_and_each_published_auc(
    written, rooms, named_sets, tmp_path
):
    rows = read_csv(written("cross-dataset", (0, 5)))
    measured = [row for row in rows if row["kind"] == "measured"]
    assert len(measured) == 9 * 2 * 2
    for row in measured:
        run = tmp_path / f"runs/{row['train']}/joint/seed{row['seed']}"
        value = rooms.auc(run, named_sets[row["test"]], row["metric"].removesuffix("_auc")).value
        assert float(row["percent"]) == pytest.approx(100 * value, rel=1e-12)
        assert float(row["low_percent"]) == pytest.approx(100 * value - 10)
        assert row["source"] == f"cells/{row['train']}/joint/seed{row['seed']}/{row['test']}"
    assert len([row for row in rows if row["kind"] == "published"]) == 27 + 10  # 64.9 and 65.2


def test_csv_lists_failures_without_an_auc(written):
    rows = read_csv(written("ablation", (0,), drop=("uadfv",)))
    failed = [row for row in rows if row["kind"] == "failed"]
    assert len(failed) == 10
    assert all(row["percent"] == "" and "uadfv=DIR" in row["source"] for row in failed)
    assert {row["decoder"] for row in failed} == {"True", "False"}


def test_no_csv_cell_is_a_formula_or_moves_the_cursor(rooms, tmp_path):
    report = experiment("cross-dataset", {}, tmp_path)
    changed = {"source": "=1+1 \x1b[31m", "percent": -0.5}
    results = tuple(
        dataclasses.replace(row, **changed) if row.kind == "failed" else row
        for row in report.results
    )
    write_experiment(dataclasses.replace(report, results=results), tmp_path)
    rows = [row for row in read_csv(tmp_path / "cross-dataset") if row["kind"] == "failed"]
    assert {(row["source"], row["percent"]) for row in rows} == {("'=1+1 \\x1b[31m", "-0.5")}


@pytest.mark.parametrize("name", ["cross-dataset", "ablation", "foreign-data"])
def test_latex_rows_fill_the_columns(written, name):
    comments, _, body = written(name).with_suffix(".tex").read_text().partition(r"\begin{table}")
    assert all(line.startswith("%") for line in comments.splitlines())
    header, second, *rows = read_latex(body)
    assert r"\begin{tabular}{llrrrrrr}" in body
    assert len(header) == 5 and header[2] == r"\multicolumn{2}{c}{FF++}"
    assert second[2:] == ["ours", "paper"] * 3
    assert all(len(row) == 8 for row in rows)
    assert body.count("{") == body.count("}")
    assert body.isascii() and "%" not in body.replace(r"\%", "") and "*" not in body


def read_latex(text):
    return [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line]


def test_latex_has_ours_and_the_papers_aucs_side_by_side(written):
    rows = read_latex(written("cross-dataset").with_suffix(".tex").read_text())
    (own,) = [row for row in rows if row[:2] == ["JDFD", "UADFV"]]
    assert re.fullmatch(r"\d\d\.\d \$\\pm\$ \d+\.\d", own[2])
    assert own[3::2] == [
        "61.0",
        r"\underline{99.9}",
        r"\textbf{64.9} / 65.2",
    ]
    (fwa,) = [row for row in rows if row[0] == "FWA [22]"]
    assert [cell.strip() for cell in fwa[2:]] == ["", r"\textbf{80.1}", "", "97.4", "", "56.9"]


def test_another_dataset_is_escaped_and_has_no_published_auc(rooms, named_sets, tmp_path):
    sets = {"my_set": named_sets.pop("celebdf")} | named_sets
    write_experiment(experiment("cross-dataset", sets, tmp_path), tmp_path)
    text = (tmp_path / "cross-dataset.tex").read_text()
    body = text[text.index(r"\begin{table}") :]
    assert r"\multicolumn{2}{c}{my\_set}" in body and "my_" not in body
    frames, _ = read_tables(tmp_path / "cross-dataset")
    assert frames[0][-1] == "my_set"
    assert {row[-1] for row in frames if row[0] != "JDFD"} == {"my_set", ""}
    assert re.fullmatch(r"[\d.]+ \[[\d., ]+\]", frames[-1][-1])


def test_compared_methods_have_the_published_auc_in_the_next_column(
    written, rooms, named_sets, tmp_path
):
    path = written("cross-dataset", (0,), methods="all")
    frames, videos, settings = read_tables(path)
    header = ["Method", "Train data", "FF++", "paper", "UADFV", "paper", "Celeb-DF", "paper"]
    assert frames[0] == header
    assert len(frames) == 1 + 7 * 3 and len(videos) == 1 + 7 * 3
    table = {
        (row.method, row.train, row.test): "-" if row.percent is None else f"{row.percent:.1f}"
        for row in reversed(read_published())  # Table 2 replaces Table 3
        if row.method != BASELINE and not row.share_percent
    }
    found = {}
    for name, data, *cells in frames[1:]:
        key = KEYS[data]
        method = next(k for k, label in METHOD_NAMES.items() if label == name.split(" [")[0])
        run = tmp_path / f"runs/{key}/{'joint' if method == 'jdfd' else method}/seed0"
        for test, ours, paper in zip(NAMES, cells[::2], cells[1::2], strict=True):
            auc = rooms.auc(run, named_sets[test], "frame")
            low, high = 100 * auc.low, 100 * auc.high
            assert ours == f"{100 * auc.value:.1f} [{low:.1f}, {high:.1f}]"
            if paper:
                found[name, key, test] = paper.split(" / ")[0].strip("*")
    assert found == table
    assert [row[1] for row in settings[1:]] == list(METHOD_NAMES)
    page = path.with_suffix(".md").read_text()
    assert "**64.9** / 65.2" in page and "seeds and number of epochs" in page
    # In CSV and JSON, rows of one method have one key.
    rows = read_csv(path)
    pairs = {(row["kind"], row["method"]) for row in rows if row["method_key"] == "capsule"}
    assert pairs == {
        ("measured", "Capsule [26]"),
        ("measured", "Capsule"),
        ("published", "Capsule [26]"),
    }
    stored = json.loads(path.with_suffix(".json").read_text())
    assert stored["protocol"]["methods"]["fwa"]["pipeline"]["fakes"] == "warped"
    assert {row["num_faces"] for row in stored["results"] if row["kind"] == "measured"} == {2}


def test_a_method_without_scores_of_some_faces_is_named(rooms, named_sets, tmp_path, monkeypatch):
    evaluate = rooms.evaluate

    def evaluate_some(run, data, options):
        report = evaluate(run, data, options)
        num_faces = 7 if "headpose" in run.parts and data.name == "uadfv" else 9
        coverage = dataclasses.replace(report.coverage, num_faces=num_faces)
        return dataclasses.replace(report, coverage=coverage)

    monkeypatch.setattr("jdfd_keras.evaluation.evaluate.evaluate", evaluate_some)
    options = ExperimentOptions(methods="headpose,jdfd")
    write_experiment(experiment("cross-dataset", named_sets, tmp_path, options), tmp_path)
    page = (tmp_path / "cross-dataset.md").read_text()
    assert page.count("Headpose has a score for 7 of 9 test faces of UADFV;") == 1
    assert page.count(" has a score for ") == 1


def test_only_our_curves_are_drawn_of_compared_methods(rooms, drawn, named_sets, tmp_path):
    options = ExperimentOptions(methods="capsule,jdfd")
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options)
    draw_figure(report, tmp_path / "out")
    auc = rooms.auc(tmp_path / "out/runs/uadfv/joint/seed0", named_sets["ff"], "frame")
    by_name = {curve.name: curve.score[1] for curve in drawn["curves"]}
    assert len(drawn["curves"]) == 9 and by_name["(U, F)"] == pytest.approx(auc.value)
    assert drawn["title"].startswith("JDFD ")
    drawn.clear()
    options = ExperimentOptions(methods="capsule")
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options)
    assert draw_figure(report, tmp_path / "out") is None
