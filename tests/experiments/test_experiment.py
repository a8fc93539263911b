"""All experiments from the command line to their files, with small datasets and networks."""

import csv
import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jdfd_keras.cli.main import main, parse
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.evaluation.scores_file import read_scores
from jdfd_keras.experiments.plan import METHOD_NAMES
from jdfd_keras.experiments.sets import ExperimentReport
from jdfd_keras.options import EvaluateOptions, FaceOptions, PrepareOptions

SMALL = ["--encoder-weights", "none", "--epochs", "1", "--batch-size", "16", "--n-resamples", "100"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all experiments."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture
def few_figures(monkeypatch):
    """Replace the figures of runs and cells, which take most of the time, by single pixels."""
    save = Figure.savefig

    def save_few(figure, path, **options):
        if {"runs", "cells"} & set(Path(path).parts):
            Image.new("RGB", (1, 1)).save(path, format="png")
        else:
            save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", save_few)


def run_experiment(name, sets, out, *more):
    data = [f"{key}={directory}" for key, directory in sets.items()]
    return main(["experiment", name, "--data", *data, "--out", str(out), *SMALL, *more])


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_experiment_ends_with_its_tables_and_figure(
    three_sets, folder, small_network, few_figures, capsys
):
    for name, cells in (("cross-dataset", 9), ("ablation", 18), ("foreign-data", 12)):
        assert run_experiment(name, three_sets, folder) == 0
        printed = capsys.readouterr()
        assert printed.out.startswith("# ") and str(folder / f"{name}.html") in printed.out
        assert f"cell {cells} of {cells}" in printed.err
        rows = read_csv(folder / f"{name}.csv")
        measured = [r for r in rows if (r["kind"], r["metric"]) == ("measured", "frame_auc")]
        assert len(measured) == cells
        for row in measured:
            assert row["source"].startswith(f"cells/{row['train']}/")
            report = json.loads((folder / row["source"] / "report.json").read_text())
            auc = report["frame"]["auc"]["value"]
            assert float(row["percent"]) == pytest.approx(100 * auc)
        assert r"\toprule" in (folder / f"{name}.tex").read_text()
        assert json.loads((folder / f"{name}.json").read_text())["experiment"] == name
    for name in ("cross-dataset", "foreign-data"):
        assert (folder / f"{name}.png").is_file() and (folder / f"{name}.svg").is_file()
    # With decoder, for all three; without, for ablation; with unlabelled, for foreign-data.
    assert len(list(folder.glob("runs/*/*/seed0/best.keras"))) == 3 + 3 + 3
    for file in ("report.json", "scores.parquet", "report.html"):
        assert len(list(folder.glob(f"cells/*/*/seed0/*/{file}"))) == 9 + 9 + 9


@pytest.mark.slow
def test_every_method_of_table_2_is_trained_and_shown_beside_its_published_auc(
    three_sets, few_figures, tmp_path, capsys
):
    # One dataset: each further one would take as long again. The cells of the others are missing.
    sets, out = {"ff": three_sets["ff"]}, tmp_path / "out"
    more = ["--methods", "all", "--latent-dim", "16", "--decoder-widths", "8,8,8,8"]
    assert run_experiment("cross-dataset", sets, out, *more) == 1
    printed = capsys.readouterr()
    assert "cell 7 of 7: ff -> ff" in printed.err
    report = json.loads((out / "cross-dataset.json").read_text())
    assert all("=DIR was not given" in reason for reason in report["failed"])
    rows = read_csv(out / "cross-dataset.csv")
    frames = [r for r in rows if (r["kind"], r["metric"]) == ("measured", "frame_auc")]
    assert [row["method_key"] for row in frames] == list(METHOD_NAMES)
    # The AUC of each is that of its own evaluation, and its run has the settings of its source.
    for row in frames:
        evaluated = json.loads((out / row["source"] / "report.json").read_text())
        assert float(row["percent"]) == pytest.approx(100 * evaluated["frame"]["auc"]["value"])
        run = out / "runs" / Path(*Path(row["source"]).parts[1:4])
        options = json.loads((run / "options.json").read_text())
        assert options["model"]["method"] == row["method_key"]
        assert options["optimizer"] == report["protocol"]["methods"][row["method_key"]]["optimizer"]
        has_network = row["method_key"] != "headpose"
        assert (run / "best.keras").is_file() == has_network
        assert (run / "headpose.safetensors").is_file() != has_network
    (note,) = report["notes"]
    assert note.startswith("Xception+Reg. on ff, seed 0: masks of ") and note in printed.out
    (table, *_) = re.findall(r"^\| Capsule \[26\] +\| FF\+\+ .*$", printed.out, flags=re.MULTILINE)
    assert table.split("|")[4].strip() == "96.6"
    assert run_experiment("cross-dataset", sets, out, *more) == 1
    assert "experiment: training" not in capsys.readouterr().err


@pytest.mark.slow
def test_experiments_with_own_splits_train_and_test_on_what_they_name(
    three_sets, small_network, few_figures, tmp_path, capsys
):
    clips = three_sets["ff"].parent / "clips/ff"
    lines = ["path,label,split,source_id,manipulation,compression"]
    for path in sorted(clips.rglob("*.mp4")):
        people = path.stem.split("_")
        first = int(people[0].removeprefix("person"))
        split = "train" if first < 4 else ("val" if first < 6 else "test")
        manipulation = ("Deepfakes", "Face Swap")[first % 2] if path.parent.name == "fake" else ""
        for compression in ("c23", "c40"):
            name = f"{path.parent.name}-{path.stem}-{compression}.mp4"
            shutil.copy(path, tmp_path / name)
            sources = ";".join(people)
            lines.append(
                f"{name},{path.parent.name},{split},{sources},{manipulation},{compression}"
            )
    (tmp_path / "videos.csv").write_text("\n".join(lines))
    faces = FaceOptions(detector="none", frames_per_video=2, face_size=71)
    options = PrepareOptions(layout="table", table=str(tmp_path / "videos.csv"), name="ff")
    prepare(tmp_path, tmp_path / "ff", faces, options)

    sets, out = {"ff": tmp_path / "ff"}, tmp_path / "out"
    for name, cells in (("leave-one-out", 2), ("cross-compression", 4)):
        assert run_experiment(name, sets, out) == 0
        printed = capsys.readouterr()
        assert f"cell {cells} of {cells}" in printed.err
        assert str(out / f"{name}.html") in printed.out
        rows = [r for r in read_csv(out / f"{name}.csv") if r["metric"] == "video_auc"]
        assert len(rows) == cells
        for row in rows:
            scores = read_scores(out / row["source"] / "scores.parquet").videos
            run = out / "runs" / Path(*Path(row["source"]).parts[1:4])
            trained = set(pq.read_table(run / "training_faces.parquet")["video_id"].to_pylist())
            assert trained and trained.isdisjoint(scores.video_id)
            if name == "leave-one-out":
                assert set(scores.manipulation.tolist()) == {"", row["held_out"]}
            else:
                assert set(scores.compression.tolist()) == {row["test_compression"]}
                assert all(video.endswith(row["train_compression"]) for video in trained)


@pytest.mark.slow
def test_the_same_command_again_runs_nothing(
    three_sets, folder, small_network, few_figures, capsys
):
    assert run_experiment("cross-dataset", three_sets, folder) == 0
    first = {path: path.stat().st_mtime_ns for path in folder.glob("cells/**/report.json")}
    page = (folder / "cross-dataset.md").read_bytes()
    capsys.readouterr()
    assert run_experiment("cross-dataset", three_sets, folder) == 0
    printed = capsys.readouterr().err
    assert "training" not in printed and "cell 9 of 9" in printed
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert (folder / "cross-dataset.md").read_bytes() == page


@pytest.mark.slow
def test_a_pair_with_leakage_is_refused_and_the_others_run(
    three_sets, small_network, few_figures, tmp_path
):
    # The same faces under another key: it cannot be tested on the training faces of the other.
    twin = tmp_path / "twin"
    shutil.copytree(three_sets["ff"], twin)
    swap_splits(twin / "splits" / "official.csv")
    sets = {"ff": three_sets["ff"], "twin": twin}
    assert run_experiment("cross-dataset", sets, tmp_path / "out") == 1
    report = json.loads((tmp_path / "out/cross-dataset.json").read_text())
    leaking = [reason for reason in report["failed"] if "seed 0" in reason]
    assert [reason.split(":")[0] for reason in leaking] == ["ff -> twin", "twin -> ff"]
    assert all("--allow-leak" in reason for reason in leaking)
    rows = read_csv(tmp_path / "out/cross-dataset.csv")
    measured = {(r["train"], r["test"]) for r in rows if r["kind"] == "measured"}
    assert measured == {("ff", "ff"), ("twin", "twin")}
    # 12 cells of the two datasets of the paper that were not given.
    assert len(report["failed"]) == 12 + 2


def swap_splits(path):
    """Swap train and test in a split table."""
    text = path.read_text().replace(",train,", ",swapped,").replace(",test,", ",train,")
    path.write_text(text.replace(",swapped,", ",test,"))


@pytest.mark.slow
def test_robustness_runs_to_its_page_and_names_what_cannot_be_run(
    three_sets, exported, tmp_path, capsys
):
    data = [f"{key}={three_sets[key]}" for key in ("ff", "uadfv")]
    words = ["experiment", "robustness", "--model", str(exported), "--data", *data]
    words += ["--videos", f"ff={three_sets['ff'].parent / 'clips/ff'}", "--n-resamples", "0"]
    words += ["--degradations", "gamma=1,h264=40", "--out", str(tmp_path)]
    for _ in range(2):  # the second time, finished cells are read
        assert main(words) == 1
        printed = capsys.readouterr()
        assert "missing: uadfv: gamma=1, h264=40: " in printed.out and "--videos" in printed.out
        rows = read_csv(tmp_path / "robustness.csv")
        measured = [(r["data"], r["degradation"]) for r in rows if r["video_auc"]]
        assert measured == [("ff", "none"), ("ff", "gamma"), ("ff", "h264"), ("uadfv", "none")]
        assert rows[0]["frame_auc"] == rows[1]["frame_auc"]  # an exponent of 1 changes nothing
        assert (tmp_path / "robustness.html").is_file() and (tmp_path / "robustness.png").is_file()
    assert "videos, " not in printed.err


def test_a_missing_dataset_makes_the_exit_code_1(three_sets, tmp_path, capsys):
    sets = {"ff": three_sets["ff"], "uadfv": tmp_path / "no"}
    assert run_experiment("statistics", sets, tmp_path / "out") == 1
    assert "| FF++ " in capsys.readouterr().out


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
        ["cross-dataset", "--data", "ff=a", "--out", "x", "--methods", "nope"],
        ["cross-dataset", "--data", "ff=a", "--out", "x", "--methods", ""],
        ["cross-dataset", "--data", "ff=a", "--out", "x", "--method", "capsule"],
    ],
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["experiment", *words])
    assert exit.value.code == 2
    assert "usage: jdfd-keras" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (
            ["ablation", "--engine-precision", "float32"],
            "--engine-precision: an option of robustness",
        ),
        (
            ["leave-one-out", "--model", "m"],
            "--model: an option of robustness, not of leave-one-out",
        ),
        (["robustness", "--model", "m", "--epochs", "3"], "--epochs: robustness trains nothing"),
        (["robustness", "--model", "m", "--methods", "fwa"], "--methods: robustness trains"),
        (
            ["ablation", "--methods", "all"],
            "--methods: an option of cross-dataset, not of ablation",
        ),
        (
            ["cross-dataset", "--methods", "fwa,headpose", "--epochs", "3", "--batch-size", "3"],
            "--batch-size: an option of jdfd, which is not among the methods",
        ),
    ],
)
def test_options_of_other_experiments_are_named(words, flag, capsys):
    with pytest.raises(SystemExit):
        main(["experiment", *words, "--data", "ff=a", "--out", "x"])
    assert flag in capsys.readouterr().err


def test_flags_of_training_and_evaluation_are_separated(monkeypatch, tmp_path):
    given = {}

    def experiment(name, data, out, options, **groups):
        given.update(groups, name=name, data=data, options=options)
        out.mkdir()
        (out / f"{name}.md").write_text("page")
        return ExperimentReport(
            experiment=name, title="", versions={}, datasets={}, failed=("a cell",)
        )

    monkeypatch.setattr("jdfd_keras.experiments.experiment.experiment", experiment)
    monkeypatch.setattr(
        "jdfd_keras.reporting.experiment_report.write_experiment", lambda report, out: report
    )
    words = ["experiment", "ablation", "--data", "ff=a=b", "--data", "mine=c", "--seeds", "2,3"]
    words += ["--batch-size", "7", "--allow-leak", "--split", "val", "--balance"]
    words += ["--split-table", "strict"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    assert {key: str(path) for key, path in given["data"].items()} == {"ff": "a=b", "mine": "c"}
    assert given["options"].seeds == (2, 3)
    assert (given["train"].batch_size, given["train"].allow_leak) == (7, True)
    assert given["train"].split_table == "strict"  # which is the one of the evaluation, too
    assert given["evaluate"] == EvaluateOptions(split="val", allow_leak=True)
    assert given["pipeline"].balance and given["model"].decoder
    assert parse([*words, "--out", "x"]).command == "experiment"
