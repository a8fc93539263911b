"""Leave-one-out and cross-compression: which data each cell is trained and tested on, and shown."""

import csv
import json
import re

import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.datasets.manifest import VideoRow, read_videos, to_table, write_table
from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.options import ExperimentOptions, ModelOptions, TrainOptions
from jdfd_keras.reporting.experiment_report import write_experiment

MANIPULATIONS = ("Deepfakes", "Face Swap")


@pytest.fixture
def prepare_videos(named_sets):
    """A function that fills one of the datasets with videos of 12 people; returns its folder.

    Of each person and compression there is a real video and a fake of each manipulation.
    """

    def prepare(key, manipulations=MANIPULATIONS, compressions=("c23", "c40", "raw")):
        rows = [
            VideoRow(
                f"{key}/{kind or 'real'}/{compression}/{person}",
                "a.mp4",
                int(bool(kind)),
                kind,
                compression,
                (f"person{person}",),
                "train" if person < 6 else ("val" if person < 9 else "test"),
                file_bytes=1,
            )
            for person in range(12)
            for compression in compressions
            for kind in ("", *manipulations)
        ]
        with open(named_sets[key] / "videos.parquet", "wb") as file:
            write_table(file, VideoRow, [to_table(rows, VideoRow)])
        for path in (named_sets[key] / "splits").iterdir():
            path.unlink()
        return named_sets[key]

    return prepare


@pytest.fixture
def tables(rooms, monkeypatch):
    """Run folder and split table of each evaluation."""
    used, evaluate = [], rooms.evaluate

    def note(run, data, options):
        used.append((run.parent.name, options.split_table))
        return evaluate(run, data, options)

    monkeypatch.setattr("jdfd_keras.evaluation.evaluate.evaluate", note)
    return used


def splits_of(directory, table):
    """Return the manipulations and the compressions of each split of a table."""
    rows = [row for row in read_videos(directory, split_table=table) if row.split]
    return {
        split: (
            {row.manipulation for row in rows if row.split == split and row.label},
            {row.compression for row in rows if row.split == split},
        )
        for split in ("train", "val", "test")
    }


def test_each_manipulation_is_held_out_of_its_training_and_tested(
    rooms, tables, prepare_videos, tmp_path
):
    directory = prepare_videos("ff")
    report = experiment("leave-one-out", {"ff": directory}, tmp_path / "out")
    assert report.failed == ()
    names = ["leave-one-out-Deepfakes", "leave-one-out-Face-Swap"]
    assert [call["train"].split_table for call in rooms.trained] == names
    assert tables == [(name, name) for name in names]
    for name, held_out, other in zip(names, MANIPULATIONS, MANIPULATIONS[::-1], strict=True):
        own = splits_of(directory, name)
        assert [own[split][0] for split in own] == [{other}, {other}, {held_out}]
        (row,) = [r for r in report.results if (r.held_out, r.metric) == (held_out, "video_auc")]
        assert row.source == f"cells/ff/{name}/seed0/ff-{name}"
        assert (tmp_path / "out" / row.source / "report.json").is_file()


def test_each_compression_is_trained_on_and_tested_by_all(rooms, tables, prepare_videos, tmp_path):
    directory = prepare_videos("ff")
    report = experiment("cross-compression", {"ff": directory}, tmp_path / "out")
    names = ["official-raw", "official-c23", "official-c40"]
    assert [call["train"].split_table for call in rooms.trained] == names
    assert tables == [(train, test) for train in names for test in names]
    people = {}
    for name in names:
        compression = name.removeprefix("official-")
        own = splits_of(directory, name)
        assert [own[split][1] for split in own] == [{compression}] * 3
        for row in read_videos(directory, split_table=name):
            if row.split:
                people.setdefault(row.split, set()).update(row.source_ids)
    assert people["train"].isdisjoint(people["test"] | people["val"])
    cells = [(r.train_compression, r.test_compression) for r in report.results]
    assert len(set(cells)) == 9 and len(cells) == 18  # frame and video AUC


def test_finished_cells_are_not_run_again_unless_their_table_changes(
    rooms, prepare_videos, tmp_path
):
    directory = prepare_videos("ff")
    first = experiment("cross-compression", {"ff": directory}, tmp_path / "out")
    rooms.trained.clear(), rooms.tested.clear()
    assert experiment("cross-compression", {"ff": directory}, tmp_path / "out") == first
    assert rooms.trained == rooms.tested == []
    path = directory / "splits" / "official-c40.csv"
    path.write_text(path.read_text().replace(",test,", ",,", 1))
    experiment("cross-compression", {"ff": directory}, tmp_path / "out")
    # The row and the column of c40.
    assert len(rooms.tested) == 5


def test_the_tables_may_start_from_the_strict_split(rooms, prepare_videos, tmp_path):
    directory = prepare_videos("ff")
    strict = TrainOptions(split_table="strict")
    experiment("cross-compression", {"ff": directory}, tmp_path / "out", train=strict)
    experiment("leave-one-out", {"ff": directory}, tmp_path / "out", train=strict)
    assert {call["train"].split_table for call in rooms.trained} == {
        *("strict-raw", "strict-c23", "strict-c40"),
        *("leave-one-out-Deepfakes-strict", "leave-one-out-Face-Swap-strict"),
    }
    stored = json.loads((directory / "splits/leave-one-out-Face-Swap-strict.json").read_text())
    assert stored["split"]["base"] == "strict"
    with pytest.raises(ValueError, match="table official or strict, from which .*; got 'own'"):
        own = TrainOptions(split_table="own")
        experiment("leave-one-out", {"ff": directory}, tmp_path / "other", train=own)
    assert not (tmp_path / "other").exists()


def test_datasets_that_cannot_be_used_are_named_and_the_others_run(
    rooms, prepare_videos, named_sets, tmp_path
):
    sets = {"ff": prepare_videos("ff"), "mine": tmp_path / "nowhere"}
    sets["uadfv"] = prepare_videos("uadfv", ("fake",), ("",))
    for name, reason in (
        ("leave-one-out", "dataset uadfv has fakes of 1 manipulation; leave-one-out needs 2"),
        ("cross-compression", "dataset uadfv has one compression (not stated)"),
    ):
        report = write_experiment(experiment(name, sets, tmp_path / "out"), tmp_path / "out")
        assert len(report.failed) == 2
        assert "dataset mine cannot be used" in report.failed[0]
        assert reason in report.failed[1]
        assert {row.train for row in report.results if row.kind == "measured"} == {"ff"}
        page = (tmp_path / "out" / f"{name}.md").read_text()
        assert all(text in page for text in report.failed)
        assert re.search(r"\| UADFV +\|.* not run", page) and re.search(r"\| mine .* not run", page)


def test_a_manipulation_that_cannot_be_tested_blocks_only_its_own_cell(
    rooms, prepare_videos, change_table, tmp_path
):
    directory = prepare_videos("ff")

    def drop(rows):
        return [r for r in rows if (r.manipulation, r.split) != ("Deepfakes", "test")]

    change_table(directory, VideoRow, drop)
    report = write_experiment(
        experiment("leave-one-out", {"ff": directory}, tmp_path / "out"), tmp_path / "out"
    )
    (reason,) = report.failed
    assert reason.startswith("ff without Deepfakes -> ff: split: Expected fake videos that remain")
    assert {row.held_out for row in report.results if row.kind == "measured"} == {"Face Swap"}
    assert "| - (1 of 2 were run) |" in (tmp_path / "out/leave-one-out.md").read_text()


def read_table(path):
    """Read the first table of a page: rows of cells, header first."""
    block = path.read_text().split("\n\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
    return [rows[0], *rows[2:]]


def test_the_page_has_datasets_by_held_out_manipulations_and_their_mean(
    rooms, prepare_videos, tmp_path
):
    sets = {"ff": prepare_videos("ff"), "mine": prepare_videos("celebdf", ("Deepfakes", "Other"))}
    options = ExperimentOptions((0, 1))
    out = tmp_path / "out"
    report = write_experiment(experiment("leave-one-out", sets, out, options), out)
    assert report.failed == () and report.figure is None
    table = read_table(out / "leave-one-out.md")
    assert table[0] == ["Dataset", "Deepfakes", "Face Swap", "Other", "Mean"]
    assert [row[0] for row in table[1:]] == ["FF++", "mine"]
    assert (table[1][3], table[2][2]) == ("", "")
    with (out / "leave-one-out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for line, key in zip(table[1:], sets, strict=True):
        by_seed = [
            [
                float(r["percent"])
                for r in rows
                if (r["train"], r["metric"], r["seed"]) == (key, "video_auc", seed)
            ]
            for seed in ("0", "1")
        ]
        means = [sum(values) / len(values) for values in by_seed]
        assert [len(values) for values in by_seed] == [2, 2]
        assert float(line[-1].split(" ± ")[0]) == pytest.approx(sum(means) / 2, abs=0.051)
        spread = abs(means[0] - means[1]) / 2**0.5
        assert float(line[-1].split(" ± ")[1]) == pytest.approx(spread, abs=0.051)
    latex = (out / "leave-one-out.tex").read_text()
    assert r"\begin{tabular}{lrrrr}" in latex and r"Dataset & Deepfakes & Face Swap" in latex
    assert "paper" not in (out / "leave-one-out.md").read_text()


def test_the_page_has_compressions_of_training_by_those_of_the_test(
    rooms, prepare_videos, tmp_path
):
    sets, out = {"ff": prepare_videos("ff", compressions=("c40", "c23"))}, tmp_path / "out"
    write_experiment(experiment("cross-compression", sets, out), out)
    table = read_table(out / "cross-compression.md")
    assert table[0] == ["Dataset", "Trained on", "c23", "c40"]
    assert [row[:2] for row in table[1:]] == [["FF++", "c23"], ["FF++", "c40"]]
    run = out / "runs/ff/official-c40/seed0"
    auc = 100 * rooms.auc(run, sets["ff"], "video").value
    assert table[2][2].startswith(f"{auc:.1f} [")
    page = (out / "cross-compression.md").read_text()
    assert "(ff): split table official-c23: strategy official, compression c23, 32 frames" in page
    assert "compression all" not in page


def test_other_networks_and_no_dataset_are_refused(rooms, prepare_videos, tmp_path):
    directory = prepare_videos("ff")
    with pytest.raises(ValueError, match="got 'meso4'"):
        meso = ModelOptions(network="meso4")
        experiment("leave-one-out", {"ff": directory}, tmp_path / "out", model=meso)
    with pytest.raises(ValueError, match="Expected datasets for leave-one-out; got none"):
        experiment("leave-one-out", {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list((directory / "splits").iterdir()) == []


def test_split_makes_the_same_table_as_the_experiment(rooms, prepare_videos, tmp_path, capsys):
    directory = prepare_videos("ff")
    assert main(["split", str(directory), "--compression", "c23"]) == 0
    path = directory / "splits" / "official-c23.csv"
    before = path.read_bytes(), path.stat().st_mtime_ns
    experiment("cross-compression", {"ff": directory}, tmp_path / "out")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
