"""What an experiment does, does again and does not do again."""

import json

import numpy as np
import pytest

from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.options import (
    EvaluateOptions,
    ExperimentOptions,
    ModelOptions,
    PipelineOptions,
    RunOptions,
    TrainOptions,
)


def own_name(run):
    return "/".join(run.parts[-3:])


def find_cell(report, data, test, **row):
    (found,) = [
        entry
        for entry in report["rows"]
        if entry["data"] == data and all(entry[name] == value for name, value in row.items())
    ]
    return found["cells"][test]


def test_nine_cells_hold_the_figures_of_their_own_run_and_test(rooms, named_sets, tmp_path):
    out = tmp_path / "out"
    report = experiment("cross-dataset", named_sets, out)
    assert len(rooms.trained) == 3 and len(rooms.tested) == 9
    assert "failed" not in report
    assert json.loads((out / "cross-dataset.json").read_text()) == report
    for train in named_sets:
        for test in named_sets:
            cell = find_cell(report, train, test)
            for level in ("frame", "video"):
                auc = rooms.auc(out / "runs" / train / "joint/seed0", named_sets[test], level)
                assert cell[level]["mean_percent"] == pytest.approx(100 * auc["value"])
                assert cell[level]["interval_percent"] == pytest.approx(
                    [100 * auc["low"], 100 * auc["high"]]
                )
                assert cell[level]["spread_percent"] is None
    assert report["rows"][0]["runs"] == [
        {"seed": 0, "run": "runs/ff/joint/seed0", "epochs": 3, "best_epoch": 2}
    ]


def test_what_is_done_is_not_done_again(rooms, named_sets, tmp_path):
    first = experiment("cross-dataset", named_sets, tmp_path / "out")
    pages = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
    rooms.trained.clear(), rooms.tested.clear()
    assert experiment("cross-dataset", named_sets, tmp_path / "out") == first
    assert rooms.trained == rooms.tested == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")} == pages


def cut_report(cells):
    path = cells / "ff/joint/seed0/uadfv/report.json"
    path.write_text(path.read_text()[:-9])


def remove_report(cells):
    (cells / "ff/joint/seed0/uadfv/report.json").unlink()


def remove_mark(cells):
    (cells / "ff/joint/seed0/uadfv.json").unlink()  # as after a kill while it was evaluated


@pytest.mark.parametrize("damage", [cut_report, remove_report, remove_mark])
def test_a_cell_that_is_not_whole_is_done_again_alone(rooms, named_sets, tmp_path, damage):
    first = experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.tested.clear()
    damage(tmp_path / "out/cells")
    assert experiment("cross-dataset", named_sets, tmp_path / "out") == first
    assert [(own_name(run), data.name) for run, data in rooms.tested] == [
        ("ff/joint/seed0", "uadfv")
    ]


def test_a_set_that_was_prepared_again_has_its_cells_done_again(rooms, named_sets, tmp_path):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.tested.clear()
    (named_sets["uadfv"] / "manifest.csv").write_text("other faces\n")
    experiment("cross-dataset", named_sets, tmp_path / "out")
    # The column and the row of it: three and three, one of them in both.
    assert len(rooms.tested) == 5
    assert all("uadfv" in (data.name, own_name(run).split("/")[0]) for run, data in rooms.tested)


def test_another_model_under_the_same_name_is_not_taken_for_the_old_one(
    rooms, named_sets, tmp_path
):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.tested.clear()
    (tmp_path / "out/runs/ff/joint/seed0/best.keras").write_text("trained again")
    experiment("cross-dataset", named_sets, tmp_path / "out")
    assert {own_name(run) for run, _ in rooms.tested} == {"ff/joint/seed0"}
    assert len(rooms.tested) == 3


def test_an_interrupted_experiment_loses_the_cell_under_way_alone(rooms, named_sets, tmp_path):
    def interrupt(kind, run, data):
        if kind == "evaluate" and len(rooms.tested) == 4:
            raise KeyboardInterrupt

    rooms.refuse = interrupt
    with pytest.raises(KeyboardInterrupt):
        experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 4
    rooms.refuse = lambda *_: None
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 9 and len(set(rooms.tested)) == 9
    assert "failed" not in report


def test_of_several_seeds_mean_and_sample_deviation_are_given(rooms, named_sets, tmp_path):
    options = ExperimentOptions(seeds=(3, 0, 8))
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options)
    assert sorted(told["options"].seed for told in rooms.trained) == [0, 0, 0, 3, 3, 3, 8, 8, 8]
    for told in rooms.trained:
        assert told["out"].name == f"seed{told['options'].seed}"
    values = [
        100
        * rooms.auc(tmp_path / f"out/runs/ff/joint/seed{seed}", named_sets["uadfv"], "frame")[
            "value"
        ]
        for seed in options.seeds
    ]
    cell = find_cell(report, "ff", "uadfv")
    assert cell["frame"]["mean_percent"] == pytest.approx(np.mean(values))
    assert cell["frame"]["spread_percent"] == pytest.approx(np.std(values, ddof=1))
    assert cell["frame"]["interval_percent"] is None
    assert [result["seed"] for result in cell["results"]] == [3, 0, 8]


def test_a_seed_may_be_added_later(rooms, named_sets, tmp_path):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.trained.clear(), rooms.tested.clear()
    report = experiment("cross-dataset", named_sets, tmp_path / "out", ExperimentOptions((0, 1)))
    assert {told["options"].seed for told in rooms.trained} == {1}
    assert len(rooms.tested) == 9
    assert find_cell(report, "ff", "ff")["frame"]["seeds"] == 2


def test_ablation_goes_on_with_the_runs_and_cells_of_cross_dataset(rooms, named_sets, tmp_path):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.trained.clear(), rooms.tested.clear()
    report = experiment("ablation", named_sets, tmp_path / "out")
    assert [told["model"].decoder for told in rooms.trained] == [False] * 3
    assert len(rooms.tested) == 9
    assert {own_name(run).split("/")[1] for run, _ in rooms.tested} == {"no-decoder"}
    joint = find_cell(report, "uadfv", "celebdf", decoder=True)
    assert [figure["percent"] for figure in joint["published"]] == [64.9, 65.2]


def test_foreign_data_gives_train_the_share_and_the_other_folders(rooms, named_sets, tmp_path):
    report = experiment("foreign-data", named_sets, tmp_path / "out")
    told = [entry["unlabelled"] for entry in rooms.trained]
    others = (str(named_sets["uadfv"]), str(named_sets["celebdf"]))
    assert [(entry.unlabelled_share, entry.unlabelled) for entry in told[1:]] == [
        (0.05, others),
        (0.1, others),
        (0.15, others),
    ]
    assert told[0].unlabelled == ()
    assert {str(entry["data"]) for entry in rooms.trained} == {str(named_sets["ff"])}
    assert len(rooms.tested) == 12
    assert any("drops by around 0.8%" in note for note in report["notes"])
    assert not any("not the paper's experiment" in note for note in report["notes"])


def test_foreign_data_with_one_set_missing_says_that_it_is_another_experiment(
    rooms, named_sets, tmp_path
):
    del named_sets["uadfv"]
    report = experiment("foreign-data", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 8
    assert any("of Celeb-DF alone, not of UADFV" in note for note in report["notes"])
    assert len(report["failed"]) == 4


def test_options_reach_train_and_evaluate(rooms, named_sets, tmp_path, monkeypatch):
    asked = []
    stand_in = rooms.evaluate
    monkeypatch.setattr(
        "jdfd_keras.evaluation.evaluate.evaluate",
        lambda run, data, out, options: asked.append(options) or stand_in(run, data, out, options),
    )
    experiment(
        "cross-dataset",
        named_sets,
        tmp_path / "out",
        model=ModelOptions(latent_dim=9),
        train=TrainOptions(epochs=2, seed=5),
        pipeline=PipelineOptions(balance=True),
        run=RunOptions(checkpoint_steps=3),
        evaluate=EvaluateOptions(split="val"),
    )
    for told in rooms.trained:
        assert told["model"] == ModelOptions(latent_dim=9)
        assert told["options"] == TrainOptions(epochs=2, seed=0)
        assert told["pipeline"].balance and told["run"].checkpoint_steps == 3
    assert {options.split for options in asked} == {"val"}


def test_what_the_experiment_sets_itself_is_not_asked_of_the_options(rooms, named_sets, tmp_path):
    out = tmp_path / "out"
    experiment("cross-dataset", named_sets, out, train=TrainOptions(seed=5))
    own = {"train": TrainOptions(seed=6), "model": ModelOptions(decoder=False)}
    experiment("cross-dataset", named_sets, out, **own)
    assert len(rooms.trained) == 3
    assert all(told["model"].decoder for told in rooms.trained)


@pytest.mark.parametrize(
    "other", [{"train": TrainOptions(epochs=3)}, {"evaluate": EvaluateOptions(split="val")}]
)
def test_other_options_are_not_mixed_into_a_folder(rooms, named_sets, tmp_path, other):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    with pytest.raises(ValueError, match=r"the options that .*(epochs 20 -> 3|split 'test' -> )"):
        experiment("ablation", named_sets, tmp_path / "out", **other)
    assert len(rooms.trained) == 3


def test_without_a_set_the_others_are_run_and_its_cells_named(rooms, named_sets, tmp_path):
    del named_sets["celebdf"]
    named_sets["uadfv"] = tmp_path / "nowhere"
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.trained) == len(rooms.tested) == 1
    assert len(report["failed"]) == 8
    text = "\n".join(report["failed"])
    assert "ff -> celebdf: data set celebdf is missing: celebdf=DIR was not given" in text
    assert f"uadfv -> ff: data set uadfv is missing: {tmp_path / 'nowhere'} is not there" in text
    assert find_cell(report, "ff", "celebdf")["frame"] is None
    page = (tmp_path / "out/cross-dataset.md").read_text()
    assert all(reason in page for reason in report["failed"])
    # It is given later, and the cell that was done stays.
    (tmp_path / "nowhere").symlink_to(tmp_path / "sets/uadfv")
    experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 4


def test_a_folder_that_is_no_prepared_set_is_missing_too(rooms, named_sets, tmp_path):
    (named_sets["uadfv"] / "options.json").write_text("{")
    (named_sets["celebdf"] / "manifest.csv").unlink()
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 1
    text = "\n".join(report["failed"])
    assert "ff -> uadfv: data set uadfv is missing: Expected options as JSON" in text
    assert "holds no manifest" in text


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(rooms, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "evaluate" and (own_name(run), data.name) == ("ff/joint/seed0", "uadfv"):
            raise ValueError("Expected no leak; got source 605 on both sides.")

    rooms.refuse = refuse
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 8
    assert report["failed"] == [
        "ff -> uadfv: seed 0: evaluation: Expected no leak; got source 605 on both sides."
    ]
    cell = find_cell(report, "ff", "uadfv")
    assert cell["frame"] is cell["video"] is None and cell["results"] == []
    rooms.tested.clear()
    rooms.refuse = lambda *_: None
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert "failed" not in report and len(rooms.tested) == 1


def test_a_training_that_fails_takes_its_own_cells_alone_with_it(rooms, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "train" and data.name == "celebdf":
            raise OSError("no space left")

    rooms.refuse = refuse
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 6
    assert [reason.split(":")[0] for reason in report["failed"]] == [
        f"celebdf -> {test}" for test in ("ff", "uadfv", "celebdf")
    ]
    assert all("training: no space left" in reason for reason in report["failed"])


def test_a_seed_that_fails_leaves_the_mean_of_the_others_and_says_so(rooms, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "train" and run.name == "seed1":
            raise ValueError("the loss is no number")

    rooms.refuse = refuse
    report = experiment("cross-dataset", named_sets, tmp_path / "out", ExperimentOptions((0, 1)))
    cell = find_cell(report, "ff", "ff")
    assert (cell["frame"]["seeds"], cell["frame"]["spread_percent"]) == (1, None)
    assert cell["failed"] == ["seed 1: training: the loss is no number"]
    assert "(1 of 2 seeds); paper" in (tmp_path / "out/cross-dataset.md").read_text()


def test_a_test_of_one_class_is_a_failure_and_no_number(rooms, named_sets, tmp_path):
    rooms.auc = lambda run, data, level: {"value": None if data.name == "uadfv" else 0.75}
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(report["failed"]) == 3
    assert all("one class alone" in reason for reason in report["failed"])
    assert find_cell(report, "ff", "uadfv")["frame"] is None
    assert find_cell(report, "ff", "ff")["frame"]["mean_percent"] == 75


def test_a_figure_that_fails_leaves_the_tables(rooms, named_sets, tmp_path, monkeypatch):
    def draw(*_):
        raise OSError("scores are gone")

    monkeypatch.setattr("jdfd_keras.reporting.experiment_report.draw", draw)
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert report["failed"] == ["figure: scores are gone"]
    assert (tmp_path / "out/cross-dataset.tex").is_file()


def test_progress_counts_cells_on_stderr(rooms, named_sets, tmp_path, capsys):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    told = capsys.readouterr()
    assert told.out == ""
    assert "experiment: training ff, seed 0\n" in told.err
    assert "experiment: cell 9 of 9: celebdf -> celebdf, seed 0: frame AUC " in told.err


@pytest.mark.parametrize(
    ("name", "options", "run", "told"),
    [
        ("table-2", ExperimentOptions(), RunOptions(), "cross-dataset.*got 'table-2'"),
        ("ablation", ExperimentOptions(()), RunOptions(), "seeds from 0"),
        ("ablation", ExperimentOptions((1, 1)), RunOptions(), "each once; got .1, 1"),
        ("ablation", ExperimentOptions((-1,)), RunOptions(), "seeds from 0"),
        ("ablation", ExperimentOptions(), RunOptions(strategy="multiworker"), "one machine"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything(
    rooms, named_sets, tmp_path, name, options, run, told
):
    with pytest.raises(ValueError, match=told):
        experiment(name, named_sets, tmp_path / "out", options, run=run)
    assert not (tmp_path / "out").exists() and not rooms.trained


@pytest.mark.parametrize("key", ["", "a/b", "..", "a b", "ä"])
def test_a_key_that_cannot_name_a_folder_is_refused(rooms, named_sets, tmp_path, key):
    with pytest.raises(ValueError, match="a key of letters, digits"):
        experiment("ablation", named_sets | {key: tmp_path}, tmp_path / "out")


def test_a_folder_given_under_two_keys_is_refused(rooms, named_sets, tmp_path):
    twice = named_sets | {"mine": named_sets["ff"]}
    with pytest.raises(ValueError, match="another folder for each.*for ff and for mine"):
        experiment("ablation", twice, tmp_path / "out")
