"""All experiments from the command line to their files, on small sets and with small networks."""

import csv
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from jdfd_keras.cli.main import main, parse
from jdfd_keras.options import EvaluateOptions

SMALL = ["--encoder-weights", "none", "--epochs", "1", "--batch-size", "16", "--rounds", "100"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all experiments."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture
def few_pictures(monkeypatch):
    """Leave the pictures of single runs and reports out: they are most of the time."""
    save = Figure.savefig

    def save_few(figure, path, **told):
        if {"runs", "cells"} & set(Path(path).parts):
            Image.new("RGB", (1, 1)).save(path, format="png")
        else:
            save(figure, path, **told)

    monkeypatch.setattr(Figure, "savefig", save_few)


def run_experiment(name, sets, out, *more):
    data = [f"{key}={directory}" for key, directory in sets.items()]
    return main(["experiment", name, "--data", *data, "--out", str(out), *SMALL, *more])


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_experiment_ends_with_its_tables_and_figure(
    three_sets, folder, small_network, few_pictures, capsys
):
    for name, cells in (("cross-dataset", 9), ("ablation", 18), ("foreign-data", 12)):
        assert run_experiment(name, three_sets, folder) == 0
        told = capsys.readouterr()
        assert told.out.startswith("# ") and str(folder / f"{name}.html") in told.out
        assert f"cell {cells} of {cells}" in told.err
        measured = [r for r in read_csv(folder / f"{name}.csv") if r["kind"] == "measured"]
        assert len(measured) == cells
        for row in measured:
            assert row["source"].startswith(f"cells/{row['train']}/")
            report = json.loads((folder / row["source"] / "report.json").read_text())
            auc = report["frame"]["auc"]["value"]
            assert float(row["frame_auc_percent"]) == pytest.approx(100 * auc)
        assert r"\toprule" in (folder / f"{name}.tex").read_text()
        assert json.loads((folder / f"{name}.json").read_text())["experiment"] == name
    for name in ("cross-dataset", "foreign-data"):
        assert (folder / f"{name}.png").is_file() and (folder / f"{name}.svg").is_file()
    # With decoder: once for all three; without: of ablation; with unlabelled: of foreign-data.
    assert len(list(folder.glob("runs/*/*/seed0/best.keras"))) == 3 + 3 + 3
    assert len(list(folder.glob("cells/*/*/seed0/*/report.json"))) == 9 + 9 + 9


@pytest.mark.slow
def test_the_same_command_does_nothing_again(
    three_sets, folder, small_network, few_pictures, capsys
):
    assert run_experiment("cross-dataset", three_sets, folder) == 0
    first = {path: path.stat().st_mtime_ns for path in folder.glob("cells/**/report.json")}
    page = (folder / "cross-dataset.md").read_bytes()
    capsys.readouterr()
    assert run_experiment("cross-dataset", three_sets, folder) == 0
    told = capsys.readouterr().err
    assert "training" not in told and "cell 9 of 9" in told
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert (folder / "cross-dataset.md").read_bytes() == page


@pytest.mark.slow
def test_a_leaking_pair_is_refused_and_the_others_run(
    three_sets, small_network, few_pictures, tmp_path
):
    # The same faces under another key: it cannot be tested on what the other was trained on.
    twin = tmp_path / "twin"
    twin.mkdir()
    for part in three_sets["ff"].iterdir():
        (twin / part.name).symlink_to(part)
    table = next(twin.glob("manifest.*"))
    assert table.is_symlink()
    swapped = read_swapped(three_sets["ff"])
    table.unlink()
    swapped(table)
    sets = {"ff": three_sets["ff"], "twin": twin}
    assert run_experiment("cross-dataset", sets, tmp_path / "out") == 1
    report = json.loads((tmp_path / "out/cross-dataset.json").read_text())
    leaking = [reason for reason in report["failed"] if "seed 0" in reason]
    assert [reason.split(":")[0] for reason in leaking] == ["ff -> twin", "twin -> ff"]
    assert all("--allow-leak" in reason for reason in leaking)
    rows = read_csv(tmp_path / "out/cross-dataset.csv")
    measured = {(r["train"], r["test"]) for r in rows if r["kind"] == "measured"}
    assert measured == {("ff", "ff"), ("twin", "twin")}
    # 12 of the two sets of the paper that were not given.
    assert len(report["failed"]) == 12 + 2


def read_swapped(directory):
    """Read a manifest and give a function that writes it with training and testing swapped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (path,) = directory.glob("manifest.parquet")
    rows = pq.read_table(path)
    other = {"train": "test", "test": "train", "val": "val"}
    split = pa.array([other[name] for name in rows["split"].to_pylist()], pa.string())
    table = rows.set_column(rows.schema.get_field_index("split"), "split", split)
    return lambda to: pq.write_table(table, to, compression="zstd", write_page_checksum=True)


def test_a_missing_set_makes_the_exit_code_1(three_sets, tmp_path, capsys):
    sets = {"ff": three_sets["ff"], "uadfv": tmp_path / "no"}
    assert run_experiment("statistics", sets, tmp_path / "out") == 1
    assert "| FF++ | train |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["ablation", "--out", "x"],
        ["ablation", "--data", "ff=a"],
        ["ablation", "--data", "--out", "x"],
        ["ablation", "--data", "ff", "--out", "x"],
        ["ablation", "--data", "ff=", "--out", "x"],
        ["ablation", "--data", "=a", "--out", "x"],
        ["ablation", "--data", "ff=a", "ff=b", "--out", "x"],
        ["ablation", "--data", "ff=a", "--data", "ff=b", "--out", "x"],
        ["table-2", "--data", "ff=a", "--out", "x"],
        ["ablation", "--data", "ff=a", "--out", "x", "--seeds", "one"],
        ["ablation", "--data", "ff=a", "--out", "x", "--decoder"],
        ["ablation", "--data", "ff=a", "--out", "x", "--seed", "1"],
        ["foreign-data", "--data", "ff=a", "--out", "x", "--unlabelled", "b"],
    ],
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["experiment", *words])
    assert exit.value.code == 2
    assert "usage: jdfd-keras" in capsys.readouterr().err


def test_flags_of_training_and_evaluation_are_told_apart(monkeypatch, tmp_path):
    told = {}

    def experiment(name, data, out, options, **groups):
        told.update(groups, name=name, data=data, options=options)
        out.mkdir()
        (out / f"{name}.md").write_text("page")
        return {"failed": ["a cell"]}

    monkeypatch.setattr("jdfd_keras.experiments.experiment.experiment", experiment)
    words = ["experiment", "ablation", "--data", "ff=a=b", "--data", "mine=c", "--seeds", "2,3"]
    words += ["--batch-size", "7", "--allow-leak", "--split", "val", "--balance"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    assert {key: str(path) for key, path in told["data"].items()} == {"ff": "a=b", "mine": "c"}
    assert told["options"].seeds == (2, 3)
    assert (told["train"].batch_size, told["train"].allow_leak) == (7, True)
    assert told["evaluate"] == EvaluateOptions(split="val", allow_leak=True)
    assert told["pipeline"].balance and told["model"].decoder
    assert parse([*words, "--out", "x"]).command == "experiment"
