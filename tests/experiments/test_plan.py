"""The trainings and cells of each experiment."""

from pathlib import Path

import pytest

from jdfd_keras.experiments.plan import Cell, Training, plan_experiment

PAPER = ("ff", "celebdf", "uadfv")


def test_cross_dataset_has_three_trainings_and_nine_cells():
    plan = plan_experiment("cross-dataset", PAPER, {})
    assert [training.data for training in plan.trainings] == ["ff", "uadfv", "celebdf"]
    assert len(plan.cells) == len(set(plan.cells)) == 9
    assert {(cell.training.data, cell.test) for cell in plan.cells} == {
        (train, test) for train in PAPER for test in PAPER
    }
    assert not plan.blocked


def test_ablation_has_each_training_with_and_without_decoder():
    plan = plan_experiment("ablation", PAPER, {})
    assert {(t.data, t.decoder) for t in plan.trainings} == {
        (key, decoder) for key in PAPER for decoder in (True, False)
    }
    assert len(plan.cells) == 18


def test_equal_trainings_have_the_same_folder_in_all_experiments():
    folders = [
        {str(training.folder) for training in plan_experiment(name, PAPER, {}).trainings}
        for name in ("cross-dataset", "ablation", "foreign-data")
    ]
    assert folders[0] < folders[1]
    assert folders[0] & folders[2] == {str(Path("ff/joint"))}
    assert len(set.union(*folders)) == 3 + 3 + 3


def test_foreign_data_adds_a_share_of_each_other_dataset():
    plan = plan_experiment("foreign-data", ("uadfv", "ff", "celebdf"), {})
    assert [(t.data, t.share_percent, t.foreign) for t in plan.trainings] == [
        ("ff", 0, ()),
        ("ff", 5, ("uadfv", "celebdf")),
        ("ff", 10, ("uadfv", "celebdf")),
        ("ff", 15, ("uadfv", "celebdf")),
    ]


def test_foreign_data_on_a_dataset_of_the_paper_adds_only_datasets_of_the_paper():
    plan = plan_experiment("foreign-data", ("mine", *PAPER), {})
    assert {t.foreign for t in plan.trainings if t.share_percent} == {("uadfv", "celebdf")}
    assert "mine" in plan.tests
    plan = plan_experiment(
        "foreign-data", ("mine", "other", "uadfv"), {"ff": "no", "celebdf": "no"}
    )
    assert plan.trainings[1].foreign == ("uadfv", "other")


def test_foreign_data_without_ff_trains_on_the_first_dataset():
    plan = plan_experiment("foreign-data", ("mine", "uadfv"), {"ff": "no ff", "celebdf": "no c"})
    assert {training.data for training in plan.trainings} == {"mine"}
    assert plan.trainings[1].foreign == ("uadfv",)
    assert {cell.test for cell in plan.blocked} == {"ff", "celebdf"}


def test_foreign_data_with_a_single_dataset_blocks_all_shares():
    plan = plan_experiment("foreign-data", ("ff",), {"uadfv": "no u", "celebdf": "no c"})
    tested = [cell for cell in plan.cells if cell.test == "ff"]
    own = {cell.training.share_percent: plan.blocked.get(cell) for cell in tested}
    assert own[0] is None
    assert all("no other dataset" in own[share] for share in (5, 10, 15))


def test_a_missing_dataset_blocks_its_own_cells_only():
    plan = plan_experiment("cross-dataset", ("ff", "celebdf"), {"uadfv": "uadfv does not exist"})
    assert len(plan.cells) == 9
    assert {cell for cell in plan.cells if "uadfv" not in (cell.training.data, cell.test)} == set(
        plan.cells
    ) - set(plan.blocked)
    assert set(plan.blocked.values()) == {"uadfv does not exist"}


def test_other_datasets_are_added_to_the_papers():
    plan = plan_experiment("cross-dataset", ("mine", *PAPER), {})
    assert plan.tests == ("ff", "uadfv", "celebdf", "mine")
    assert Cell(Training("mine"), "ff") in plan.cells and len(plan.cells) == 16


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ValueError, match="cross-dataset, ablation or foreign-data; got 'table'"):
        plan_experiment("table", PAPER, {})
