"""Which cells an experiment runs, resumes and skips."""

import errno
import json
import re
from itertools import product

import pytest

from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.options import (
    EvaluateOptions,
    ExperimentOptions,
    ModelOptions,
    PipelineOptions,
    TrainOptions,
    TrainRuntime,
)
from jdfd_keras.reporting.experiment_report import write_experiment


def own_name(run):
    return "/".join(run.parts[-3:])


def run_and_write(name, sets, out, options=None, **groups):
    return write_experiment(experiment(name, sets, out, options, **groups), out)


def find_rows(report, train, test, *, kind="measured", metric="frame_auc", method="JDFD"):
    wanted = (train, test, kind, metric, method)
    return [r for r in report.results if (r.train, r.test, r.kind, r.metric, r.method) == wanted]


def test_each_of_nine_cells_has_the_auc_of_its_own_run_and_test_dataset(
    rooms, named_sets, tmp_path
):
    out = tmp_path / "out"
    report = run_and_write("cross-dataset", named_sets, out)
    assert len(rooms.trained) == 3 and len(rooms.tested) == 9
    assert report.failed == ()
    assert json.loads((out / "cross-dataset.json").read_text()) == report.to_dict()
    for train in named_sets:
        for test in named_sets:
            for level in ("frame", "video"):
                auc = rooms.auc(out / "runs" / train / "joint/seed0", named_sets[test], level)
                (row,) = find_rows(report, train, test, metric=f"{level}_auc")
                ours = (row.percent, row.low_percent, row.high_percent)
                assert ours == pytest.approx((100 * auc.value, 100 * auc.low, 100 * auc.high))
                assert (row.seed, row.source) == (0, f"cells/{train}/joint/seed0/{test}")


def test_finished_cells_are_not_run_again(rooms, named_sets, tmp_path):
    first = run_and_write("cross-dataset", named_sets, tmp_path / "out")
    pages = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
    rooms.trained.clear(), rooms.tested.clear()
    assert run_and_write("cross-dataset", named_sets, tmp_path / "out") == first
    assert rooms.trained == rooms.tested == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")} == pages


def cut_report(cells):
    path = cells / "ff/joint/seed0/uadfv/report.json"
    path.write_text(path.read_text()[:-9])


def remove_report(cells):
    (cells / "ff/joint/seed0/uadfv/report.json").unlink()


def remove_done_file(cells):
    (cells / "ff/joint/seed0/uadfv.json").unlink()  # as after a kill during the evaluation


@pytest.mark.parametrize("damage", [cut_report, remove_report, remove_done_file])
def test_only_an_incomplete_cell_is_evaluated_again(rooms, named_sets, tmp_path, damage):
    first = experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.tested.clear()
    damage(tmp_path / "out/cells")
    assert experiment("cross-dataset", named_sets, tmp_path / "out") == first
    assert [(own_name(run), data.name) for run, data in rooms.tested] == [
        ("ff/joint/seed0", "uadfv")
    ]


def test_the_cells_of_a_dataset_that_was_prepared_again_are_evaluated_again(
    rooms, named_sets, tmp_path
):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.tested.clear()
    (named_sets["uadfv"] / "manifest.parquet").write_text("other faces\n")
    experiment("cross-dataset", named_sets, tmp_path / "out")
    # Its column and its row: three cells each, one of them in both.
    assert len(rooms.tested) == 5
    assert all("uadfv" in (data.name, own_name(run).split("/")[0]) for run, data in rooms.tested)


def test_the_cells_of_a_run_with_another_model_are_evaluated_again(rooms, named_sets, tmp_path):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.tested.clear()
    (tmp_path / "out/runs/ff/joint/seed0/best.keras").write_text("trained again")
    experiment("cross-dataset", named_sets, tmp_path / "out")
    assert {own_name(run) for run, _ in rooms.tested} == {"ff/joint/seed0"}
    assert len(rooms.tested) == 3


def test_an_interrupted_experiment_loses_only_the_current_cell(rooms, named_sets, tmp_path):
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
    assert report.failed == ()


def test_several_seeds_have_one_row_each(rooms, named_sets, tmp_path):
    options = ExperimentOptions(seeds=(3, 0, 8))
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options)
    assert sorted(call["train"].seed for call in rooms.trained) == [0, 0, 0, 3, 3, 3, 8, 8, 8]
    for call in rooms.trained:
        assert call["out"].name == f"seed{call['train'].seed}"
    runs = [tmp_path / f"out/runs/ff/joint/seed{seed}" for seed in options.seeds]
    values = [100 * rooms.auc(run, named_sets["uadfv"], "frame").value for run in runs]
    rows = find_rows(report, "ff", "uadfv")
    assert [row.seed for row in rows] == [3, 0, 8]
    assert [row.percent for row in rows] == pytest.approx(values)


def test_a_seed_can_be_added_later(rooms, named_sets, tmp_path):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.trained.clear(), rooms.tested.clear()
    report = experiment("cross-dataset", named_sets, tmp_path / "out", ExperimentOptions((0, 1)))
    assert {call["train"].seed for call in rooms.trained} == {1}
    assert len(rooms.tested) == 9
    assert len(find_rows(report, "ff", "ff")) == 2


def test_ablation_reuses_the_runs_and_cells_of_cross_dataset(rooms, named_sets, tmp_path):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.trained.clear(), rooms.tested.clear()
    report = experiment("ablation", named_sets, tmp_path / "out")
    assert [call["model"].decoder for call in rooms.trained] == [False] * 3
    assert len(rooms.tested) == 9
    assert {own_name(run).split("/")[1] for run, _ in rooms.tested} == {"no-decoder"}
    published = find_rows(report, "uadfv", "celebdf", kind="published")
    assert [row.percent for row in published] == [64.9, 65.2]
    assert len(find_rows(report, "uadfv", "ff", method="Baseline (no decoder)")) == 1


def test_foreign_data_trains_with_a_share_of_the_other_datasets(rooms, named_sets, tmp_path):
    report = run_and_write("foreign-data", named_sets, tmp_path / "out")
    unlabelled = [call["unlabelled"] for call in rooms.trained]
    others = (str(named_sets["uadfv"]), str(named_sets["celebdf"]))
    assert [(options.unlabelled_share, options.unlabelled) for options in unlabelled[1:]] == [
        (0.05, others),
        (0.1, others),
        (0.15, others),
    ]
    assert unlabelled[0].unlabelled == ()
    assert {str(call["data"]) for call in rooms.trained} == {str(named_sets["ff"])}
    assert len(rooms.tested) == 12
    assert report.foreign == ("uadfv", "celebdf")
    assert "not the paper's experiment" not in (tmp_path / "out/foreign-data.md").read_text()


def test_foreign_data_without_a_dataset_notes_that_it_differs_from_the_paper(
    rooms, named_sets, tmp_path
):
    del named_sets["uadfv"]
    report = run_and_write("foreign-data", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 8
    page = (tmp_path / "out/foreign-data.md").read_text()
    assert "Celeb-DF, not from UADFV" in page
    assert len(report.failed) == 4


def test_options_reach_train_and_evaluate(rooms, named_sets, tmp_path, monkeypatch):
    given = []
    evaluate = rooms.evaluate
    monkeypatch.setattr(
        "jdfd_keras.evaluation.evaluate.evaluate",
        lambda run, data, options: given.append(options) or evaluate(run, data, options),
    )
    experiment(
        "cross-dataset",
        named_sets,
        tmp_path / "out",
        model=ModelOptions(latent_dim=9),
        train=TrainOptions(epochs=2, seed=5, precision="float32"),
        pipeline=PipelineOptions(balance=True),
        runtime=TrainRuntime(checkpoint_steps=3),
        evaluate=EvaluateOptions(split="val"),
    )
    for call in rooms.trained:
        assert call["model"] == ModelOptions(latent_dim=9)
        assert call["train"] == TrainOptions(epochs=2, seed=0, precision="float32")
        assert call["pipeline"].balance and call["runtime"].checkpoint_steps == 3
    assert {options.split for options in given} == {"val"}


def test_one_split_table_is_that_of_all_trainings_evaluations_and_datasets(
    rooms, named_sets, tmp_path, monkeypatch
):
    given, evaluate = [], rooms.evaluate
    monkeypatch.setattr(
        "jdfd_keras.evaluation.evaluate.evaluate",
        lambda run, data, options: given.append(options) or evaluate(run, data, options),
    )
    (named_sets["uadfv"] / "splits" / "own.csv").unlink()
    train = TrainOptions(split_table="own")
    report = run_and_write("cross-dataset", named_sets, tmp_path / "out", train=train)
    assert {call["train"].split_table for call in rooms.trained} == {"own"}
    assert {options.split_table for options in given} == {"own"}
    assert report.protocol.evaluate.split_table == "own"
    assert len(given) == 4
    (reason,) = {row.source for row in report.results if row.kind == "failed"}
    assert "dataset uadfv cannot be used: Expected the split table 'own'" in reason
    assert report.datasets["ff"]["split"]["table"] == "own"
    assert report.datasets["ff"]["split"]["strategy"] == "kfold"
    page = (tmp_path / "out/cross-dataset.md").read_text()
    assert "- FF++ (ff): split table own: strategy kfold, fold 2 of 5, 32 frames per" in page


def test_the_cells_of_a_dataset_with_another_split_table_are_evaluated_again(
    rooms, named_sets, tmp_path
):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.tested.clear()
    path = named_sets["celebdf"] / "splits" / "official.csv"
    path.write_text(path.read_text().replace("test", "val"))
    experiment("cross-dataset", named_sets, tmp_path / "out")
    names = {(own_name(run).split("/")[0], data.name) for run, data in rooms.tested}
    assert names == {pair for pair in product(named_sets, named_sets) if "celebdf" in pair}
    with pytest.raises(ValueError, match="split_table 'official' -> 'own'"):
        train = TrainOptions(split_table="own")
        experiment("cross-dataset", named_sets, tmp_path / "out", train=train)


def test_the_experiment_overrides_the_options_that_it_sets(rooms, named_sets, tmp_path):
    out = tmp_path / "out"
    experiment("cross-dataset", named_sets, out, train=TrainOptions(seed=5))
    own = {"train": TrainOptions(seed=6), "model": ModelOptions(decoder=False)}
    experiment("cross-dataset", named_sets, out, **own)
    assert len(rooms.trained) == 3
    assert all(call["model"].decoder for call in rooms.trained)


@pytest.mark.parametrize(
    "other", [{"train": TrainOptions(epochs=3)}, {"evaluate": EvaluateOptions(split="val")}]
)
def test_a_folder_of_other_options_is_refused(rooms, named_sets, tmp_path, other):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    with pytest.raises(ValueError, match=r"the options that .*(epochs 20 -> 3|split 'test' -> )"):
        experiment("ablation", named_sets, tmp_path / "out", **other)
    assert len(rooms.trained) == 3


def test_without_a_dataset_the_other_cells_run_and_its_own_are_listed(
    rooms, named_sets, tmp_path, snapshot
):
    del named_sets["celebdf"]
    named_sets["uadfv"] = tmp_path / "nowhere"
    report = run_and_write("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.trained) == len(rooms.tested) == 1
    assert len(report.failed) == 8
    text = "\n".join(report.failed)
    assert text.replace(str(tmp_path), "DIR") == snapshot
    assert find_rows(report, "ff", "celebdf") == []
    page = (tmp_path / "out/cross-dataset.md").read_text()
    assert all(reason in page for reason in report.failed)
    # It is given later, and the finished cell stays.
    (tmp_path / "nowhere").symlink_to(tmp_path / "sets/uadfv")
    experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 4


def test_a_damaged_dataset_counts_as_missing(rooms, named_sets, tmp_path):
    (named_sets["uadfv"] / "options.json").write_text("{")
    (named_sets["celebdf"] / "manifest.parquet").unlink()
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 1
    text = "\n".join(report.failed)
    assert re.search("ff -> uadfv: .* JSON in .*uadfv/options.json", text)
    assert "has no manifest" in text


def test_a_failed_cell_does_not_stop_the_others_and_is_tried_again(rooms, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "evaluate" and (own_name(run), data.name) == ("ff/joint/seed0", "uadfv"):
            raise ValueError("Expected no leakage.")

    rooms.refuse = refuse
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 8
    assert report.failed == ("ff -> uadfv: seed 0: evaluation: Expected no leakage.",)
    assert find_rows(report, "ff", "uadfv") == []
    rooms.tested.clear()
    rooms.refuse = lambda *_: None
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert report.failed == () and len(rooms.tested) == 1


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_full_disk_is_not_a_failed_cell_and_the_experiment_resumes(
    rooms, named_sets, tmp_path, kind
):
    def refuse(called, run, data):
        if called == kind and len(rooms.tested) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    rooms.refuse = refuse
    with pytest.raises(OSError, match="No space left"):
        experiment("cross-dataset", named_sets, tmp_path / "out")
    num_tested = len(rooms.tested)
    assert num_tested < 9
    rooms.refuse = lambda *_: None
    assert experiment("cross-dataset", named_sets, tmp_path / "out").failed == ()
    assert len(rooms.tested) == 9


def test_only_the_cells_of_a_failed_training_are_missing(rooms, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "train" and data.name == "celebdf":
            raise OSError("no space left")

    rooms.refuse = refuse
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(rooms.tested) == 6
    assert [reason.split(":")[0] for reason in report.failed] == [
        f"celebdf -> {test}" for test in ("ff", "uadfv", "celebdf")
    ]
    assert all("training: no space left" in reason for reason in report.failed)


def test_the_mean_without_a_failed_seed_states_the_number_of_seeds(rooms, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "train" and run.name == "seed1":
            raise ValueError("NaN loss")

    rooms.refuse = refuse
    report = run_and_write("cross-dataset", named_sets, tmp_path / "out", ExperimentOptions((0, 1)))
    (failed,) = find_rows(report, "ff", "ff", kind="failed")
    assert (failed.seed, failed.source) == (1, "training: NaN loss")
    assert len(find_rows(report, "ff", "ff")) == 1
    assert "(1 of 2 seeds); paper" in (tmp_path / "out/cross-dataset.md").read_text()


def test_a_test_dataset_of_one_class_is_a_failure_without_an_auc(rooms, named_sets, tmp_path):
    rooms.auc = lambda run, data, level: Estimate(None if data.name == "uadfv" else 0.75)
    report = experiment("cross-dataset", named_sets, tmp_path / "out")
    assert len(report.failed) == 3
    assert all("one class only" in reason for reason in report.failed)
    assert find_rows(report, "ff", "uadfv") == []
    assert find_rows(report, "ff", "ff")[0].percent == 75


def test_the_tables_are_written_when_the_figure_fails(rooms, named_sets, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("scores are missing")

    monkeypatch.setattr("jdfd_keras.reporting.experiment_report.draw_figure", fail)
    report = run_and_write("cross-dataset", named_sets, tmp_path / "out")
    assert report.failed == ("figure: scores are missing",)
    assert (tmp_path / "out/cross-dataset.tex").is_file()
    stored = json.loads((tmp_path / "out/cross-dataset.json").read_text())
    assert stored["failed"] == ["figure: scores are missing"]


def test_progress_counts_cells_on_stderr(rooms, named_sets, tmp_path, capsys):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "experiment: training ff, seed 0\n" in printed.err
    assert ": cell 9 of 9: celebdf -> celebdf, seed 0: frame AUC " in printed.err


@pytest.mark.parametrize(
    ("name", "options", "runtime", "message"),
    [
        ("table-2", ExperimentOptions(), TrainRuntime(), "cross-dataset.*got 'table-2'"),
        ("ablation", ExperimentOptions(()), TrainRuntime(), "seeds from 0"),
        ("ablation", ExperimentOptions((1, 1)), TrainRuntime(), "each once; got .1, 1"),
        ("ablation", ExperimentOptions((-1,)), TrainRuntime(), "seeds from 0"),
        ("ablation", ExperimentOptions(), TrainRuntime(strategy="multiworker"), "on one machine"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(
    rooms, named_sets, tmp_path, name, options, runtime, message
):
    with pytest.raises(ValueError, match=message):
        experiment(name, named_sets, tmp_path / "out", options, runtime=runtime)
    assert not (tmp_path / "out").exists() and not rooms.trained


@pytest.mark.parametrize("key", ["", "a/b", "..", "a b", "ä"])
def test_a_key_that_cannot_name_a_folder_is_refused(rooms, named_sets, tmp_path, key):
    with pytest.raises(ValueError, match=f"letters, digits.*; got '{key}'"):
        experiment("ablation", named_sets | {key: tmp_path}, tmp_path / "out")


def test_a_folder_given_under_two_keys_is_refused(rooms, named_sets, tmp_path):
    twice = named_sets | {"mine": named_sets["ff"]}
    with pytest.raises(ValueError, match="sets/ff for ff and .*mine"):
        experiment("ablation", twice, tmp_path / "out")


def test_mesonet_is_not_the_network_of_the_papers_experiments(rooms, named_sets, tmp_path):
    with pytest.raises(ValueError, match="in the paper's experiments; got 'meso4'"):
        experiment("ablation", named_sets, tmp_path / "out", model=ModelOptions(network="meso4"))
    assert not (tmp_path / "out").exists() and not rooms.trained


def test_a_baseline_without_decoder_has_no_attention(rooms, named_sets, tmp_path):
    attended = ModelOptions(attention="residual")
    experiment("ablation", named_sets, tmp_path / "out", model=attended)
    used = {(call["model"].decoder, call["model"].attention) for call in rooms.trained}
    assert used == {(True, "residual"), (False, "none")}


def test_the_protocol_states_what_goes_beyond_the_paper(rooms, named_sets, tmp_path):
    run_and_write("ablation", named_sets, tmp_path / "plain")
    assert "Beyond the paper" not in (tmp_path / "plain/ablation.md").read_text()
    run_and_write(
        "ablation",
        named_sets,
        tmp_path / "blended",
        pipeline=PipelineOptions(fakes="mixed", reconstruct="clean"),
    )
    (line,) = re.findall(r"Beyond the paper: .*", (tmp_path / "blended/ablation.md").read_text())
    assert "attention none, blended fakes mixed (in validation: auto), " in line
    assert line.endswith("reconstructed faces clean.")
