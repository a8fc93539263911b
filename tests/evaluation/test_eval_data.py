"""Evaluation data of real prepared datasets: split tables, all faces, leakage."""

import csv
import shutil

import pyarrow as pa
import pytest

from jdfd_keras.datasets.manifest import read_faces, read_videos
from jdfd_keras.datasets.split_dataset import split_dataset
from jdfd_keras.evaluation.eval_data import check_leakage, load_eval_sets
from jdfd_keras.evaluation.evaluate import evaluate
from jdfd_keras.io.files import save_options
from jdfd_keras.options import EvaluateOptions, SplitOptions, TrainOptions
from jdfd_keras.training.run_folder import DataFacts, write_provenance


@pytest.fixture
def folds(prepared_set, tmp_path):
    """A copy of the prepared clips with the split tables of three folds."""
    shutil.copytree(prepared_set, tmp_path / "clips")
    split_dataset(tmp_path / "clips", SplitOptions(strategy="kfold", folds=3))
    return tmp_path / "clips"


@pytest.fixture
def run(folds, tmp_path):
    """A run folder as if trained on the first fold, without a model."""
    return write_run(tmp_path / "run", folds, "kfold-0-of-3")


def write_run(run, directory, split_table):
    columns = ["video_id", "source_ids", "phash", "split"]
    seen = read_faces(directory, split_table=split_table, columns=columns).to_pandas()
    seen = seen[seen["split"].isin(["train", "val"])].reset_index(drop=True)
    run.mkdir()
    write_provenance(run, pa.Table.from_pandas(seen, preserve_index=False))
    facts = DataFacts(directory.name, "", len(seen), 0, 0, "none")
    save_options(run / "options.json", train=TrainOptions(split_table=split_table), data=facts)
    return run


def videos_in(path, split):
    with open(path, newline="") as file:
        return {row["video_id"] for row in csv.DictReader(file) if row["split"] == split}


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_the_videos_of_a_split_are_those_of_its_table(folds, fold):
    name = f"kfold-{fold}-of-3"
    (one,) = load_eval_sets([folds], "test", name)
    expected = videos_in(folds / "splits" / f"{name}.csv", "test")
    assert {video.video_id for video in one.videos} == expected
    with_faces = {video.video_id for video in one.videos if video.num_faces}
    assert set(one.rows["video_id"].to_pylist()) == with_faces
    assert set(one.rows["split"].to_pylist()) == {"test"}


def test_an_excluded_video_without_a_face_is_in_no_split(folds):
    (without,) = [video for video in read_videos(folds) if not video.num_faces]
    path = folds / "splits" / "official.csv"
    lines = path.read_text().splitlines()
    kept = [f"{without.video_id},,own" if without.video_id in line else line for line in lines]
    path.write_text("\n".join(kept) + "\n")
    for split in ("train", "val", "test"):
        (one,) = load_eval_sets([folds], split)
        assert without.video_id not in {video.video_id for video in one.videos}
    (one,) = load_eval_sets([folds], "all")
    assert without.video_id in {video.video_id for video in one.videos}


def test_a_table_of_faces_shows_a_video_in_each_split_of_its_faces(folds):
    split_dataset(folds, SplitOptions(strategy="paper", val_share=0.2, test_share=0.3))
    faces = read_faces(folds, split_table="paper", columns=["video_id", "split"]).to_pandas()
    (without,) = [video.video_id for video in read_videos(folds) if not video.num_faces]
    for split in ("train", "val", "test"):
        (one,) = load_eval_sets([folds], split, "paper")
        shown = set(faces[faces["split"] == split]["video_id"])
        assert {video.video_id for video in one.videos} == shown | {without}
        assert {video.split for video in one.videos} == {split}


def test_leakage_names_the_table_that_the_run_was_trained_with(folds, run):
    own = load_eval_sets([folds], "test", "kfold-0-of-3")
    assert check_leakage(run, own, "test", allow_leak=False).startswith("none between")
    for other in ("kfold-1-of-3", "official", str(folds / "splits" / "kfold-2-of-3.csv")):
        sets = load_eval_sets([folds], "test", other)
        message = (
            "run was trained with the split table kfold-0-of-3 of clips, not "
            f"{other}: try --split-table kfold-0-of-3"
        )
        with pytest.raises(ValueError, match=message):
            check_leakage(run, sets, "test", allow_leak=False)
    with pytest.raises(ValueError, match="Expected all faces of .*/clips and the") as error:
        check_leakage(run, load_eval_sets([folds], "all"), "all", allow_leak=False)
    assert "--split-table" not in str(error.value)


def test_leakage_of_another_dataset_does_not_name_the_table_of_the_run(folds, tmp_path):
    run = write_run(tmp_path / "run", folds, "kfold-0-of-3")
    other = tmp_path / "other"
    shutil.copytree(folds, other)
    with pytest.raises(ValueError, match="to share no footage") as error:
        check_leakage(run, load_eval_sets([other], "test"), "test", allow_leak=False)
    assert "was trained with" not in str(error.value)


def test_an_empty_name_of_a_split_table_is_an_error(folds):
    with pytest.raises(ValueError, match="name of a split table; got an empty one"):
        load_eval_sets([folds], "test", "")


def test_a_table_given_by_path_is_the_one_that_the_run_was_trained_with(
    folds, tmp_path, monkeypatch
):
    shutil.copy(folds / "splits" / "kfold-1-of-3.csv", tmp_path / "mine.csv")
    run = write_run(tmp_path / "run", folds, str(tmp_path / "mine.csv"))
    monkeypatch.chdir(tmp_path)
    sets = load_eval_sets([folds], "test", "mine.csv")
    assert check_leakage(run, sets, "test", allow_leak=False).startswith("none between")
    leaking = load_eval_sets([folds], "test", "kfold-0-of-3")
    with pytest.raises(ValueError, match=r"the split table .*mine\.csv of clips, not kfold-0"):
        check_leakage(run, leaking, "test", allow_leak=False)
    with pytest.raises(ValueError, match="1 shared source") as error:
        write_faces_of_one_test_video(run, folds)
        check_leakage(run, sets, "test", allow_leak=False)
    assert "was trained with" not in str(error.value)  # the same table, under another path


def write_faces_of_one_test_video(run, directory):
    columns = ["video_id", "source_ids", "phash", "split"]
    path = str(directory / "splits" / "kfold-1-of-3.csv")
    write_provenance(
        run, read_faces(directory, split="test", split_table=path, columns=columns)[:1]
    )


def test_a_path_that_fits_one_of_two_datasets_is_an_error(folds, three_sets):
    path = str(folds / "splits" / "official.csv")
    load_eval_sets([folds], "test", path)
    with pytest.raises(ValueError, match=r"official\.csv, which has no row for .*another dataset"):
        load_eval_sets([folds, three_sets["ff"]], "test", path)


def test_a_folder_that_is_not_a_prepared_dataset_is_named_as_such(tmp_path):
    for split in ("test", "all"):
        with pytest.raises(OSError, match="Expected a prepared dataset in"):
            load_eval_sets([tmp_path], split)


def test_leave_one_out_states_what_is_held_out(folds, tmp_path, build_stand_in):
    from jdfd_keras.options import ModelOptions

    path = folds / "splits" / "mine"
    shutil.copy(folds / "splits" / "kfold-0-of-3.csv", f"{path}.csv")
    save_options(f"{path}.json", split=SplitOptions(strategy="leave-one-out", fold=0))
    build_stand_in(ModelOptions(image_size=71)).save(tmp_path / "model.keras")
    options = EvaluateOptions(n_resamples=0, split_table="mine")
    report = evaluate(tmp_path / "model.keras", folds, options)
    # All fakes of the clips are of the manipulation `fake`.
    assert report.protocol.data["clips"].held_out == "fake"
    options = EvaluateOptions(n_resamples=0, split="all")
    report = evaluate(tmp_path / "model.keras", folds, options)
    assert report.protocol.data["clips"].held_out == ""
    assert report.coverage.num_videos == 16
