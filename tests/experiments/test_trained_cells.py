"""The methods of Table 2 in `cross-dataset`: their trainings, settings and rows."""

import dataclasses
import json

import pytest

from jdfd_keras.experiments.experiment import experiment
from jdfd_keras.experiments.plan import METHOD_NAMES, name_method, parse_methods, read_published
from jdfd_keras.experiments.trained_cells import set_shared_options
from jdfd_keras.io.files import load_options, save_options
from jdfd_keras.options import (
    METHOD_SETTINGS,
    METHODS,
    ExperimentOptions,
    ModelOptions,
    PipelineOptions,
    TrainOptions,
    list_unused,
)

ALL = ExperimentOptions(methods="all")
OTHERS = [method for method in METHODS if method != "jdfd"]


def test_every_method_has_its_name_and_rows_of_table_2():
    assert set(METHOD_NAMES) == set(METHODS)
    published = {row.method_key for row in read_published()}
    assert published == set(METHODS)
    # Two of the paper's references are the same network.
    assert name_method("xception", "ff") == "Xception [27]"
    assert name_method("xception", "uadfv") == "Xception [23]"
    assert name_method("fwa", "celebdf") == "FWA"
    assert name_method("jdfd", "uadfv") == "JDFD"


def test_methods_are_trained_in_the_order_of_table_2():
    assert parse_methods("all") == tuple(METHOD_NAMES)
    assert parse_methods(" fwa, capsule") == ("capsule", "fwa")
    for text in ("", "nope", "capsule,", "all,capsule"):
        with pytest.raises(ValueError, match="xception.*or all; got"):
            parse_methods(text)


def test_all_methods_have_a_run_of_each_dataset_and_are_tested_on_each(rooms, named_sets, tmp_path):
    out = tmp_path / "out"
    report = experiment("cross-dataset", named_sets, out, ALL)
    assert report.failed == ()
    runs = {call["out"].relative_to(out / "runs").as_posix() for call in rooms.trained}
    folders = ["joint" if method == "jdfd" else method for method in METHODS]
    assert runs == {f"{key}/{folder}/seed0" for key in named_sets for folder in folders}
    assert len(rooms.tested) == 7 * 9
    measured = [row for row in report.results if row.kind == "measured"]
    assert len(measured) == 7 * 9 * 2
    for row in measured:
        folder = "joint" if row.method_key == "jdfd" else row.method_key
        assert row.source == f"cells/{row.train}/{folder}/seed0/{row.test}"
        assert (row.method, row.num_faces) == (name_method(row.method_key, row.train), 2)
        auc = rooms.auc(
            out / f"runs/{row.train}/{folder}/seed0", named_sets[row.test], row.metric[:5]
        )
        assert row.percent == pytest.approx(100 * auc.value)


def test_each_published_row_of_table_2_is_beside_the_measured_one_of_its_method(
    rooms, named_sets, tmp_path
):
    report = experiment("cross-dataset", named_sets, tmp_path / "out", ALL)
    setups = [(row.method_key, row.method, row.train, row.test) for row in report.results]
    published = [
        s for s, row in zip(setups, report.results, strict=True) if row.kind == "published"
    ]
    measured = {s for s, row in zip(setups, report.results, strict=True) if row.kind == "measured"}
    assert set(published) <= measured
    assert len(published) == 27 + 9 + 1  # one cell of ours has another AUC in Table 3


def test_methods_that_are_not_trained_are_shown_as_published(rooms, named_sets, tmp_path):
    options = ExperimentOptions(methods="capsule")
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options)
    assert {call["model"].method for call in rooms.trained} == {"capsule"}
    by_kind = {
        kind: {row.method for row in report.results if row.kind == kind}
        for kind in ("measured", "published")
    }
    assert by_kind["measured"] == {"Capsule [26]", "Capsule"}
    assert {"JDFD", "FWA [22]", "Headpose [34]"} < by_kind["published"]
    assert set(report.protocol.methods) == {"capsule"}


def test_a_method_has_the_settings_of_its_source_and_the_budget_of_the_experiment(
    rooms, named_sets, tmp_path
):
    given = {
        "model": ModelOptions(encoder_weights="none", latent_dim=9),
        "train": TrainOptions(epochs=3, batch_size=5, precision="float32", patience=2),
        "pipeline": PipelineOptions(balance=True),
    }
    report = experiment("cross-dataset", named_sets, tmp_path / "out", ALL, **given)
    for call in rooms.trained:
        method = call["model"].method
        if method == "jdfd":
            assert call["model"] == given["model"] and call["train"].batch_size == 5
            continue
        source = METHOD_SETTINGS[method]
        unchanged = ("optimizer", "loss", "pipeline", "augment")
        assert {name: call[name] for name in unchanged} == {n: source[n] for n in unchanged}
        assert call["train"].batch_size == source["train"].batch_size
        if method == "headpose":  # a support vector machine, without passes and initial weights
            assert (call["model"], call["train"]) == (source["model"], source["train"])
            continue
        assert call["model"] == dataclasses.replace(source["model"], encoder_weights="none")
        shared = (call["train"].epochs, call["train"].precision, call["train"].patience)
        assert shared == (3, "float32", 2)
    stored = json.loads(json.dumps(report.to_dict()))["protocol"]["methods"]
    assert list(stored) == list(METHOD_NAMES)
    assert stored["capsule"]["train"]["epochs"] == 3


@pytest.mark.parametrize("method", OTHERS)
def test_the_options_of_a_method_are_accepted_by_train(method):
    groups = set_shared_options(
        method, ModelOptions(encoder_weights="weights.h5"), TrainOptions(epochs=3, seed=1)
    )
    for group in groups.values():
        for kind, name in list_unused(method):
            if isinstance(group, kind):
                source = next(g for g in METHOD_SETTINGS[method].values() if isinstance(g, kind))
                assert getattr(group, name) == getattr(source, name)
    # A file has weights of Xception.
    weights = "weights.h5" if method.startswith("xception") else "imagenet"
    assert groups["model"].encoder_weights == weights


def test_split_table_and_seeds_are_those_of_all_methods(rooms, named_sets, tmp_path):
    options = ExperimentOptions(seeds=(0, 4), methods="headpose,jdfd")
    train = TrainOptions(split_table="own")
    report = experiment("cross-dataset", named_sets, tmp_path / "out", options, train=train)
    assert report.failed == ()
    found = {(c["model"].method, c["train"].seed, c["train"].split_table) for c in rooms.trained}
    assert found == {(method, seed, "own") for method in ("headpose", "jdfd") for seed in (0, 4)}


def test_methods_can_be_added_to_the_folder_of_ours(rooms, named_sets, tmp_path):
    experiment("cross-dataset", named_sets, tmp_path / "out")
    rooms.trained.clear(), rooms.tested.clear()
    options = ExperimentOptions(methods="jdfd,fwa")
    experiment("cross-dataset", named_sets, tmp_path / "out", options)
    assert {call["model"].method for call in rooms.trained} == {"fwa"}
    assert len(rooms.tested) == 9


def test_options_of_ours_count_for_its_own_runs_only(rooms, named_sets, tmp_path):
    out, own = tmp_path / "out", TrainOptions(batch_size=8)
    others, both = ExperimentOptions(methods="capsule"), ExperimentOptions(methods="capsule,jdfd")
    experiment("cross-dataset", named_sets, out, others)
    experiment("cross-dataset", named_sets, out, both, train=own)  # no run has ours of before
    ours = [call for call in rooms.trained if call["model"].method == "jdfd"]
    assert {call["train"].batch_size for call in ours} == {8}
    for call in ours:  # as a real training does
        save_options(call["out"] / "options.json", model=call["model"])
    assert load_options(out / "runs/options.json", "train", TrainOptions).batch_size == 8
    with pytest.raises(ValueError, match="batch_size 8 -> 4"):
        experiment("cross-dataset", named_sets, out, both)

    rooms.trained.clear()
    report = experiment("cross-dataset", named_sets, out, others)  # ours is not trained, nor shown
    assert not rooms.trained and not report.failed
    with pytest.raises(ValueError, match="epochs 20 -> 3"):  # of all methods
        experiment("cross-dataset", named_sets, out, others, train=TrainOptions(epochs=3))
    assert load_options(out / "runs/options.json", "train", TrainOptions).batch_size == 8


def test_a_method_that_fails_does_not_stop_the_others(rooms, named_sets, tmp_path):
    def refuse(kind, run, data):
        if kind == "train" and run.parent.name == "xception-regression":
            raise ValueError("Expected masks.")

    rooms.refuse = refuse
    report = experiment("cross-dataset", named_sets, tmp_path / "out", ALL)
    assert len(report.failed) == 9
    expected = "Xception+Reg. on ff -> uadfv: seed 0: training: Expected masks."
    assert expected in report.failed
    assert len(rooms.tested) == 6 * 9


def test_masks_of_a_training_are_in_the_report(rooms, named_sets, tmp_path, monkeypatch):
    text = "masks of 12 fakes from the dataset, 2 without"
    train = rooms.train

    def train_with_masks(data, out, **options):
        train(data, out, **options)
        (out / "options.json").write_text(
            json.dumps({"format_version": 2, "data": {"name": "ff", "masks": text}})
        )

    monkeypatch.setattr("jdfd_keras.training.train.train", train_with_masks)
    options = ExperimentOptions(methods="xception-regression")
    report = experiment("cross-dataset", {"ff": named_sets["ff"]}, tmp_path / "out", options)
    assert report.notes == (f"Xception+Reg. on ff, seed 0: {text}",)


@pytest.mark.parametrize(
    ("name", "options", "model", "message"),
    [
        ("cross-dataset", ExperimentOptions(methods="nope"), None, "or all; got 'nope'"),
        ("ablation", ALL, None, "cross-dataset for the methods xception, .*'ablation'"),
        ("cross-dataset", None, ModelOptions(method="capsule"), "got the method 'capsule'"),
    ],
)
def test_unsuitable_methods_are_refused_before_anything_is_written(
    rooms, named_sets, tmp_path, name, options, model, message
):
    with pytest.raises(ValueError, match=message):
        experiment(name, named_sets, tmp_path / "out", options, model=model)
    assert not (tmp_path / "out").exists() and not rooms.trained
