"""The values that the figures of an experiment show, and the pages of its cells."""

import json

import numpy as np
import pytest

from jdfd_keras.experiments.experiment import experiment
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
        "jdfd_keras.reporting.curves.plot_roc",
        lambda path, curves, *, title: calls.update(path=path, curves=curves, title=title),
    )
    monkeypatch.setattr(
        "jdfd_keras.reporting.charts.plot_foreign_shares",
        lambda path, shares, series, published, *, title: calls.update(
            path=path, shares=shares, series=series, published=published, title=title
        ),
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
    report = write_experiment(experiment("cross-dataset", named_sets, out), out)
    assert len({folder for folder, *_ in pages}) == len(pages) == 9
    cell = report.rows[0].cells["uadfv"]
    auc = rooms.auc(out / "runs/ff/joint/seed0", named_sets["uadfv"], "frame").value
    assert (out / cell.results[0].report, auc, 2) in pages
    write_experiment(experiment("cross-dataset", named_sets, out), out)
    assert len(pages) == 9


def test_a_page_that_cannot_be_written_is_listed(rooms, named_sets, tmp_path):
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    (tmp_path / "out/cells/ff/joint/seed0/uadfv/scores.parquet").write_bytes(b"damaged")
    (reason,) = write_experiment(report, tmp_path / "out").failed
    assert reason.startswith("page of cells/ff/joint/seed0/uadfv: Expected a Parquet table")
