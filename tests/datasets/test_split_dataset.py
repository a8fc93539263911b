"""A prepared dataset is split by any number of tables, which cost no second extraction."""

import dataclasses
import json
import shutil
from collections import Counter

import pandas as pd
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.datasets import prepare_tasks
from jdfd_keras.datasets.audit import audit
from jdfd_keras.datasets.manifest import FaceRow, VideoRow, read_faces, read_videos
from jdfd_keras.datasets.pipeline import load_faces
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.datasets.split_dataset import split_dataset, summarize_split
from jdfd_keras.datasets.split_tables import list_split_tables, read_split_table
from jdfd_keras.datasets.splits import CannotSplitError, assign_splits
from jdfd_keras.datasets.videos import Listing, Video
from jdfd_keras.options import FaceOptions, SplitOptions, UnlabelledOptions

SPLITS = ("train", "val", "test")
FACES = FaceOptions(frames_per_video=2, face_size=71)


@pytest.fixture
def dataset(prepared_set, tmp_path):
    """A copy of the prepared clips of 8 subjects, to write tables into."""
    return shutil.copytree(prepared_set, tmp_path / "set")


@pytest.fixture
def add_manipulation(dataset, change_table):
    """A function that adds fakes of another manipulation, with the faces of the chosen ones."""

    def add(is_chosen):
        def extend(rows):
            return rows + [
                dataclasses.replace(
                    row,
                    video_id=row.video_id.replace("/fake/", "/Face Swap/"),
                    manipulation="Face Swap",
                )
                for row in rows
                if row.label and is_chosen(row)
            ]

        for kind in (FaceRow, VideoRow):
            change_table(dataset, kind, extend)
        for path in (dataset / "splits").iterdir():  # of the videos before
            path.unlink()
        return dataset

    return add


def files_of(dataset):
    return {path.name: path.read_bytes() for path in (dataset / "splits").iterdir()}


def test_every_video_is_tested_once_over_the_folds_and_validated_in_the_one_before(dataset):
    tables = split_dataset(dataset, SplitOptions(strategy="kfold", folds=4, seed=2))
    assert [table.name for table in tables] == [f"kfold-{n}-of-4-seed-2" for n in range(4)]
    splits = [read_split_table(dataset, table.name).split_of for table in tables]
    videos = [row.video_id for row in read_videos(dataset)]
    for name in videos:
        own = [split[name] for split in splits]
        assert Counter(own) == {"train": 2, "val": 1, "test": 1}
        assert own[own.index("test") - 1] == "val"
    for table, split in zip(tables, splits, strict=True):
        labels = {row.video_id: ("real", "fake")[row.label] for row in read_videos(dataset)}
        counts = Counter((split[name], labels[name]) for name in videos)
        assert table.counts == {s: {c: counts[s, c] for c in ("real", "fake")} for s in SPLITS}
        assert (table.shared_sources, table.unknown_sources, table.excluded) == ([], 0, {})
        assert table.options.fold == int(table.name.split("-")[1])


def test_leave_one_out_has_a_table_for_each_manipulation(add_manipulation):
    dataset = add_manipulation(lambda row: True)
    tables = split_dataset(dataset, SplitOptions(strategy="leave-one-out", seed=3))
    names = ["leave-one-out-Face-Swap-seed-3", "leave-one-out-fake-seed-3"]
    assert [table.name for table in tables] == names
    for table, held_out in zip(tables, ("Face Swap", "fake"), strict=True):
        rows = read_videos(dataset, split_table=table.name)
        for split in SPLITS:
            shown = {row.manipulation for row in rows if row.label and row.split == split}
            assert shown == ({held_out} if split == "test" else {"Face Swap", "fake"} - {held_out})
        assert sum(table.excluded.values()) == sum(not row.split for row in rows) == 8


def test_paper_splits_single_faces_and_not_videos(dataset):
    (table,) = split_dataset(dataset, SplitOptions(strategy="paper", val_share=0.2))
    faces = read_faces(dataset, split_table="paper", columns=["split", "video_id"]).to_pandas()
    num_val, num_test = round(0.2 * len(faces)), round(0.15 * len(faces))
    assert Counter(faces["split"]) == {
        "val": num_val,
        "test": num_test,
        "train": len(faces) - num_val - num_test,
    }
    assert table.of_faces and sum(map(sum, (c.values() for c in table.counts.values()))) == len(
        faces
    )
    assert faces.groupby("video_id")["split"].nunique().max() > 1
    assert table.shared_sources
    assert {row.split for row in read_videos(dataset, split_table="paper")} == {""}


def test_paper_splits_a_dataset_with_a_video_without_a_face(dataset, change_table):
    without = {row.video_id for row in read_videos(dataset) if not row.num_faces}
    first = read_videos(dataset)[0].video_id
    without.add(first)
    change_table(dataset, FaceRow, lambda rows: [row for row in rows if row.video_id != first])
    split_dataset(dataset, SplitOptions(strategy="paper"))
    assert without == {row.video_id for row in read_videos(dataset)} - set(
        read_split_table(dataset, "paper").split_of
    )
    assert len(read_videos(dataset, split_table="paper")) == 16
    assert "test" in read_faces(dataset, split_table="paper")["split"].to_pylist()


def test_paper_says_which_faces_a_split_lacks(dataset):
    options = SplitOptions(strategy="paper", val_share=0.0001, test_share=0.15)
    with pytest.raises(ValueError, match="no real faces in val, no fake faces in val"):
        split_dataset(dataset, options)
    assert list_split_tables(dataset) == ["official"]


@pytest.fixture
def add_compression(dataset, change_table):
    """Add a copy of every video of the dataset, so that it has the compressions c23 and c40."""

    def extend(rows):
        def copy(row, name):
            return dataclasses.replace(row, video_id=f"{row.video_id}/{name}", compression=name)

        return [copy(row, name) for name in ("c23", "c40") for row in rows]

    for kind in (FaceRow, VideoRow):
        change_table(dataset, kind, extend)
    for path in (dataset / "splits").iterdir():
        path.unlink()
    return dataset


def test_a_table_of_one_compression_is_named_after_it_and_excludes_the_others(add_compression):
    dataset = add_compression
    (table,) = split_dataset(dataset, SplitOptions(compression="c23"))
    assert (table.name, table.excluded) == ("official-c23", {"of another compression": 16})
    (folds, *_) = split_dataset(dataset, SplitOptions("kfold", folds=3, seed=2, compression="c40"))
    assert folds.name == "kfold-0-of-3-c40-seed-2"
    rows = read_videos(dataset, split_table="official-c23")
    assert {row.compression for row in rows if row.split} == {"c23"}


def test_paper_splits_the_faces_of_one_compression_alone(add_compression):
    split_dataset(add_compression, SplitOptions("paper", compression="c40"))
    columns = ["split", "compression"]
    faces = read_faces(add_compression, split_table="paper-c40", columns=columns).to_pandas()
    own = faces["split"][faces["compression"] == "c40"]
    assert set(faces["split"][faces["compression"] == "c23"]) <= {""}
    num_test = round(0.15 * len(own))
    assert Counter(own) == {"val": num_test, "test": num_test, "train": len(own) - 2 * num_test}


def test_a_table_from_before_compressions_is_that_of_all(dataset):
    path = dataset / "splits" / "official.json"
    stored = json.loads(path.read_text())
    assert stored["split"].pop("compression") == "all"
    path.write_text(json.dumps(stored))
    assert read_split_table(dataset, "official").options == SplitOptions()
    assert split_dataset(dataset)[0].name == "official"  # which is left unchanged
    with pytest.raises(ValueError, match="compression 'all' -> 'c23'"):
        split_dataset(dataset, SplitOptions(compression="c23"), name="official")


def test_options_that_a_strategy_has_no_use_for_are_refused_or_not_stored(dataset):
    with pytest.raises(ValueError, match="kfold and leave-one-out only; got fold=2 with strict"):
        split_dataset(dataset, SplitOptions(strategy="strict", fold=2))
    (first,) = split_dataset(dataset, SplitOptions(strategy="strict", folds=7))
    (second,) = split_dataset(dataset, SplitOptions(strategy="strict"))
    assert first == second
    assert not (dataset / "parts").exists()


def test_leave_one_out_names_the_manipulation_that_it_holds_out(tmp_path):
    """The only fake of A is excluded from the official split: it is of both sides."""
    people = [Video(f"v/r{n}", f"r{n}", 0, "", "", (f"p{n}",), "train") for n in range(8)]
    people += [Video("v/t", "t", 0, "", "", ("t",), "test")]
    fakes = [Video(f"v/f{n}", f"f{n}", 1, "B", "", (f"p{n}",), "train") for n in range(8)]
    fakes += [Video("v/ft", "ft", 1, "B", "", ("t",), "test")]
    fakes += [Video("v/a", "a", 1, "A", "", tuple(f"p{n}" for n in range(8)), "train")]
    options = SplitOptions(strategy="leave-one-out", fold=0)
    with pytest.raises(CannotSplitError, match="only A is tested: B"):
        assign_splits(Listing(people + fakes), options)


def test_strict_and_official_are_equal_without_shared_sources(dataset):
    strict, official = (
        split_dataset(dataset, SplitOptions(strategy=s))[0] for s in ("strict", "official")
    )
    rows = [read_split_table(dataset, table.name).rows for table in (strict, official)]
    assert rows[0].to_dict("list") == rows[1].to_dict("list")
    assert official.path == str(dataset / "splits" / "official.csv")


def test_the_same_options_leave_a_table_unchanged(dataset):
    split_dataset(dataset, SplitOptions(strategy="kfold", folds=3, fold=1), "mine")
    path = dataset / "splits" / "mine.csv"
    edited = path.read_text().replace(",train,", ",,by hand", 1)
    path.write_text(edited)
    (again,) = split_dataset(dataset, SplitOptions(strategy="kfold", folds=3, fold=1), "mine")
    assert path.read_text() == edited
    assert again.excluded == {"by hand": 1}


def test_a_name_with_other_options_is_refused_and_nothing_is_written(dataset, capsys):
    split_dataset(dataset, SplitOptions(strategy="kfold", folds=3, fold=2), "mine-2")
    before = files_of(dataset)
    with pytest.raises(ValueError, match=r"got mine-2, which .* \(folds 3 -> 4\). Choose another"):
        split_dataset(dataset, SplitOptions(strategy="kfold", folds=4), "mine")
    words = ["split", str(dataset), "--strategy", "kfold", "--folds", "4", "--name", "mine"]
    assert main(words) == 1
    assert "Expected a new name for a split table with other options" in capsys.readouterr().err
    (dataset / "splits" / "own.csv").write_text(before["official.csv"].decode())
    with pytest.raises(ValueError, match="strategy 'own table' -> 'official'"):
        split_dataset(dataset, name="own")
    assert files_of(dataset) == before | {"own.csv": before["official.csv"]}


@pytest.mark.parametrize("name", ["a/b", "../a", "a b", "a.csv", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(dataset, name):
    before = files_of(dataset)
    with pytest.raises(ValueError, match="Expected a name of letters, digits"):
        split_dataset(dataset, name=name)
    assert files_of(dataset) == before


def test_no_table_is_written_if_one_of_the_folds_is_impossible(dataset, add_manipulation, capsys):
    tested = {
        row.video_id for row in read_videos(dataset, split_table="official") if row.split == "test"
    }
    add_manipulation(lambda row: row.video_id not in tested)
    assert main(["split", str(dataset), "--strategy", "leave-one-out"]) == 1
    assert "fake videos that remain in test" in capsys.readouterr().err
    assert files_of(dataset) == {}
    # The other fold is possible.
    assert main(["split", str(dataset), "--strategy", "leave-one-out", "--fold", "1"]) == 0
    assert files_of(dataset).keys() == {"leave-one-out-fake.csv", "leave-one-out-fake.json"}


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [
        ("kfold", "got 8 real and 8 fake in 6 groups"),
        ("leave-one-out", "two or more manipulations for leave-one-out; got 1"),
    ],
)
def test_split_states_what_a_dataset_lacks(dataset, capsys, strategy, complaint):
    before = files_of(dataset)
    assert main(["split", str(dataset), "--strategy", strategy, "--folds", "9"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jdfd-keras split: Expected ") and complaint in line
    assert files_of(dataset) == before


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        (["fake/person02", "fake/person03", "fake/person06"], "got 0 real and 3 fake in 3 groups"),
        (["real/person02", "fake/person02"], "got 1 real and 1 fake in 1 group by source"),
    ],
    ids=["of fakes alone", "too small"],
)
def test_a_set_that_cannot_be_split_is_prepared_and_split_states_what_it_lacks(
    clips_folder, tmp_path, capsys, in_this_process, names, lacking
):
    root, out = tmp_path / "clips", tmp_path / "prepared"
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips_folder / f"{name}.mp4", root / f"{name}.mp4")
    result = prepare(root, out, FACES)
    assert result.videos == len(names) and sum(result.faces.values()) > 0
    assert (result.splits, list_split_tables(out)) == ({}, [])
    assert lacking in result.not_split
    assert f"warning: not split. {result.not_split}" in capsys.readouterr().err
    assert main(["split", str(out)]) == 1
    assert lacking in capsys.readouterr().err
    assert list_split_tables(out) == []
    # All of it can be read, by `all` or by a table of one's own.
    assert len(read_faces(out, split="all", split_table="")) == sum(result.faces.values())
    rows = pd.DataFrame({"video_id": [row.video_id for row in read_videos(out)], "split": "test"})
    rows.to_csv(tmp_path / "own.csv", index=False)
    faces = read_faces(out, split="test", split_table=str(tmp_path / "own.csv"))
    assert len(faces) == sum(result.faces.values())
    assert audit([out], str(tmp_path / "own.csv")).datasets[0].strategy == "own table"


def test_five_folds_cost_one_extraction(clips_folder, tmp_path, in_this_process, monkeypatch):
    from jdfd_keras.evaluation.eval_data import load_eval_sets
    from jdfd_keras.faces.video import VideoReader
    from jdfd_keras.training.training_data import load_training_data

    extracted, decoded = [], []
    extract, read = prepare_tasks.extract_faces, VideoReader.read

    def count_extraction(path, *arguments, **options):
        extracted.append(path.name)
        return extract(path, *arguments, **options)

    def count_reading(self, *arguments, **options):
        decoded.append(self.file.path.name)
        yield from read(self, *arguments, **options)

    monkeypatch.setattr(prepare_tasks, "extract_faces", count_extraction)
    monkeypatch.setattr(VideoReader, "read", count_reading)
    root, out = tmp_path / "clips", tmp_path / "prepared"
    for label in ("real", "fake"):  # in all of these a face is found
        shutil.copytree(clips_folder / "real", root / label)
    prepare(root, out, FACES)
    clips = sorted(path.name for path in root.rglob("*.mp4"))
    assert len(clips) == 16 and sorted(extracted) == sorted(decoded) == clips
    monkeypatch.setattr(prepare_tasks, "extract_faces", None)
    monkeypatch.setattr(VideoReader, "read", None)
    tables = split_dataset(out, SplitOptions(strategy="kfold", folds=5))
    shards = {path.name: path.read_bytes() for path in (out / "shards").iterdir()}
    tested = Counter()
    for table in tables:
        data = load_training_data(
            out, UnlabelledOptions(), seed=0, allow_leak=False, split_table=table.name
        )
        assert len(data.train) and len(data.val)
        assert audit([out], table.name).leakage == "none"
        (one,) = load_eval_sets([out], "test", table.name)
        tested.update(one.rows["video_id"].to_pylist())
        batches = load_faces(out, "test", batch_size=4, split_table=table.name)
        assert sum(len(image) for image, _ in batches) == len(one.rows)
    assert tested == Counter(read_faces(out, columns=["video_id"])["video_id"].to_pylist())
    assert {path.name: path.read_bytes() for path in (out / "shards").iterdir()} == shards


def test_the_command_prints_counts_and_json(dataset, capsys):
    assert main(["split", str(dataset), "--strategy", "kfold", "--folds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "kfold-0-of-3, videos:" and lines[1].split() == ["real", "fake"]
    assert lines[-1].endswith(f"train {dataset} --split-table kfold-0-of-3 --out run")
    assert main(["split", str(dataset), "--strategy", "paper", "--format", "json"]) == 0
    captured = capsys.readouterr()
    (table,) = json.loads(captured.out)["tables"]
    assert (table["name"], table["of_faces"]) == ("paper", True)
    assert captured.err.startswith("warning: the strategy paper assigns single faces")


def test_shared_footage_and_unknown_sources_are_stated(dataset, change_table, capsys):
    def publish(rows):  # real videos and their fakes are in two splits
        return [
            dataclasses.replace(
                row,
                split=("train", "test")[row.label],
                source_ids=() if row.video_id.endswith("person07") else row.source_ids,
            )
            for row in rows
        ]

    for kind in (FaceRow, VideoRow):
        change_table(dataset, kind, publish)
    rows = "".join(f"{row.video_id},{row.split}\n" for row in read_videos(dataset))
    (dataset / "splits" / "own.csv").write_text("video_id,split\n" + rows)
    summary = summarize_split(read_split_table(dataset, "own"), read_videos(dataset))
    assert [shared.source for shared in summary.shared_sources] == [
        f"clips/person0{number}" for number in range(7)
    ]
    assert summary.unknown_sources == 2
    assert main(["split", str(dataset), "--strategy", "paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sources unknown: 2 videos, which may share footage across splits" in lines


@pytest.mark.parametrize("strategy", ["official", "kfold", "strict", "paper"])
def test_real_videos_alone_are_split_for_fakes_that_training_makes(
    clips_folder, tmp_path, capsys, in_this_process, strategy
):
    out = tmp_path / "prepared"
    shutil.copytree(clips_folder / "real", tmp_path / "clips" / "real")
    assert main(["prepare", "folder", str(tmp_path / "clips"), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "no fakes: train with --fakes" in printed.out and "not split" not in printed.err
    assert main(["split", str(out), "--strategy", strategy, "--folds", "3"]) == 0
    assert "--fakes mixed --out run" in capsys.readouterr().out
    for name in list_split_tables(out):
        faces = read_faces(out, split_table=name, columns=["split", "label"]).to_pydict()
        assert set(faces["split"]) == {"train", "val", "test"} and set(faces["label"]) == {0}
