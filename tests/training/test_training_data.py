"""What is gathered to learn from: own faces, and foreign ones whose labels are not looked at."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jdfd_keras.datasets.manifest import FaceRow, read_manifest
from jdfd_keras.options import UnlabelledOptions
from jdfd_keras.training.training_data import gather


def rows_of(directory, split):
    return [row for row in read_manifest(directory) if row.split == split]


def gather_with(data, *foreign, share=0.3, seed=0, allow_leak=False):
    told = UnlabelledOptions(tuple(map(str, foreign)), share)
    return gather(data, told, seed=seed, allow_leak=allow_leak)


@pytest.fixture
def copy_set(prepared_set, change_table, tmp_path):
    """A function that copies the prepared set with other rows; `change` takes row and position."""

    def copy(name, change=lambda row, index: row):
        out = tmp_path / name
        shutil.copytree(prepared_set, out)

        def change_all(rows):
            changed = [change(row, index) for index, row in enumerate(rows)]
            return [row for row in changed if row is not None]

        change_table(out, FaceRow, change_all)
        return out

    return copy


def replace(row, **values):
    return dataclasses.replace(row, **values)


@pytest.fixture
def foreign(copy_set):
    """The prepared set as one of other people: of a family of data sets of its own."""
    return copy_set("other", lambda row, _: replace(row, video_id=f"other/{row.video_id}"))


def keys_of(faces, start=0):
    return [faces.name(index) for index in range(start, len(faces))]


def test_without_foreign_faces_the_material_is_the_training_and_validation_split(prepared_set):
    material = gather_with(prepared_set)
    for faces, split in ((material.train, "train"), (material.val, "val")):
        rows = rows_of(prepared_set, split)
        assert keys_of(faces) == [f"{row.video_id} frame {row.frame_index}" for row in rows]
        assert faces.label.tolist() == [row.label for row in rows]
        assert not faces.is_hidden.any()
    assert (material.facts.train_faces, material.facts.unlabelled_faces) == (34, 0)
    assert material.facts.val_faces == len(rows_of(prepared_set, "val"))
    assert material.facts.name == "prepared"
    assert material.directories == (prepared_set,)


def test_foreign_faces_are_drawn_of_their_training_split_alone_and_hidden(prepared_set, foreign):
    own = len(rows_of(prepared_set, "train"))
    material = gather_with(prepared_set, foreign)
    train = material.train
    assert keys_of(train)[:own] == keys_of(gather_with(prepared_set).train)
    assert train.label[:own].tolist() == [row.label for row in rows_of(prepared_set, "train")]
    assert not train.is_hidden[:own].any()

    labels = {
        f"{row.video_id} frame {row.frame_index}": row.label for row in rows_of(foreign, "train")
    }
    drawn = keys_of(train, own)
    # 0.3 of 34 faces is 10.2, a half of it 5.1.
    assert Counter(labels[key] for key in drawn) == {0: 5, 1: 5}
    assert len(set(drawn)) == 10
    assert train.label[own:].tolist() == [-1] * 10
    assert train.is_hidden[own:].all()
    for index in range(len(train)):
        place = foreign if index >= own else prepared_set
        assert Path(train.shards[train.shard[index]]).parent == place / "shards"
    assert material.directories == (prepared_set, foreign)


def test_foreign_faces_are_read_from_their_own_place(prepared_set, foreign):
    train = gather_with(prepared_set, foreign).train
    own = gather_with(prepared_set).train
    same = {own.name(index): own.read(index) for index in range(len(own))}
    for index in range(len(own), len(train)):
        # The copy holds the faces of the set that it was made of.
        np.testing.assert_array_equal(train.read(index), same[train.name(index)[len("other/") :]])


def test_foreign_faces_are_counted_in_the_facts_and_not_validated(prepared_set, foreign, copy_set):
    third = copy_set("third", lambda row, _: replace(row, video_id=f"third/{row.video_id}"))
    material = gather_with(prepared_set, foreign, third)
    assert material.facts.train_faces == len(material.train) == 34 + 20
    assert material.facts.unlabelled_faces == 20
    assert material.facts.val_faces == len(material.val) == len(rows_of(prepared_set, "val"))
    heads = Counter(key.split("/")[0] for key in keys_of(material.train))
    assert heads == {"clips": 34, "other": 10, "third": 10}
    assert {key.split("/")[0] for key in keys_of(material.val)} == {"clips"}


def test_the_seed_draws_the_foreign_faces(prepared_set, foreign):
    def drawn(seed):
        return keys_of(gather_with(prepared_set, foreign, seed=seed).train, 34)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_unlabelled_faces_of_the_data_set_itself_are_learned_from_and_not_validated(copy_set):
    first = {}

    def forget(row, index):
        return replace(row, label=-1) if first.setdefault(row.split, index) == index else row

    data = copy_set("partly", forget)
    material = gather_with(data)
    assert material.facts.train_faces == 34
    assert material.facts.unlabelled_faces == 1
    assert material.train.label[0] == -1
    assert material.facts.val_faces == len(material.val) == len(rows_of(data, "val")) - 1
    assert -1 not in material.val.label


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("label", "counts"), [(0, "[1-9][0-9]* real and 0"), (1, "0 real and")])
def test_one_class_is_refused_and_the_split_named(copy_set, split, label, counts):
    data = copy_set(
        "one", lambda row, _: None if row.split == split and row.label == 1 - label else row
    )
    with pytest.raises(ValueError, match=f"the {split} split of {data}; got {counts}"):
        gather_with(data)


def test_a_foreign_set_of_another_size_is_refused_and_named(prepared_set, foreign):
    told = json.loads((foreign / "options.json").read_text(encoding="utf-8"))
    told["faces"]["face_size"] = 96
    (foreign / "options.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValueError, match=f"71 pixels .*got 96 in {foreign}\\. .*--face-size 71"):
        gather_with(prepared_set, foreign)


def test_a_foreign_set_without_training_faces_is_refused_and_named(prepared_set, copy_set):
    other = copy_set("other", lambda row, _: None if row.split == "train" else row)
    with pytest.raises(ValueError, match=f"training faces in {other}.*got none"):
        gather_with(prepared_set, other)


def test_a_foreign_folder_that_is_no_data_set_is_refused_and_named(prepared_set, tmp_path):
    with pytest.raises(OSError, match=f"prepared data set in {tmp_path}"):
        gather_with(prepared_set, tmp_path)


def test_a_foreign_share_of_no_face_is_refused(prepared_set, foreign):
    with pytest.raises(ValueError, match="one face of each class; got 0.001 of 34 faces"):
        gather_with(prepared_set, foreign, share=0.001)


@pytest.mark.parametrize("split", ["val", "test"])
def test_foreign_faces_of_people_of_a_later_split_are_refused(prepared_set, copy_set, split):
    # Other videos, but of the family of data sets in which this is the same person.
    person = rows_of(prepared_set, split)[0].source_ids[0]
    other = copy_set(
        "other",
        lambda row, _: replace(
            row, video_id=row.video_id.replace("clips/", "clips/more/"), source_ids=(person,)
        ),
    )
    with pytest.raises(
        ValueError,
        match=f"and the unlabelled faces to share no footage; got 1 shared source.*"
        f"source clips/{person} in train and {split}.*--allow-leak",
    ):
        gather_with(prepared_set, other)
    allowed = gather_with(prepared_set, other, allow_leak=True)
    assert allowed.facts.unlabelled_faces == 10
    assert allowed.facts.leaks.startswith("1 source shared")


def test_foreign_faces_that_look_like_validation_are_refused(prepared_set, copy_set):
    alike = rows_of(prepared_set, "val")[0].phash
    other = copy_set(
        "other", lambda row, _: replace(row, video_id=f"other/{row.video_id}", phash=alike)
    )
    with pytest.raises(ValueError, match=r"near-duplicate faces: other/.* \(train\) looks like"):
        gather_with(prepared_set, other)


def test_people_of_one_name_in_another_family_of_data_sets_are_others(prepared_set, copy_set):
    person = rows_of(prepared_set, "val")[0].source_ids[0]
    other = copy_set(
        "other",
        lambda row, _: replace(row, video_id=f"other/{row.video_id}", source_ids=(person,)),
    )
    assert gather_with(prepared_set, other).facts.leaks.startswith("none between")


def test_what_a_foreign_set_keeps_for_validation_and_testing_is_not_looked_at(prepared_set):
    # As foreign to itself, its own people of validation and testing would else lie on two sides.
    material = gather_with(prepared_set, prepared_set)
    assert material.facts.leaks.startswith("none between")
    assert material.facts.unlabelled_faces == 10


def test_a_run_has_seen_all_faces_that_it_learned_from_or_was_chosen_on(prepared_set, foreign):
    material = gather_with(prepared_set, foreign)
    seen = material.seen.to_pylist()
    rows = {
        (row.video_id, row.phash): row for d in (prepared_set, foreign) for row in read_manifest(d)
    }
    expected = keys_of(material.train) + keys_of(material.val)
    assert len(seen) == len(expected) == 34 + 10 + len(material.val)
    for entry, key in zip(seen, expected, strict=True):
        row = rows[entry["video_id"], entry["phash"]]
        assert key.startswith(f"{entry['video_id']} frame ")
        assert tuple(entry["source_ids"]) == row.source_ids
        assert entry["split"] == row.split
        assert entry["label"] == (-1 if key.startswith("other/") else row.label)
    assert Counter(entry["split"] for entry in seen) == {"train": 44, "val": len(material.val)}


def test_seen_faces_include_unlabelled_ones_of_validation(copy_set):
    # They are no faces that a run is chosen on, but lie in the split that it was given.
    data = copy_set("partly", lambda row, index: replace(row, label=-1) if index == 40 else row)
    assert read_manifest(data)[40].split == "val"
    material = gather_with(data)
    assert len(material.seen) == len(material.train) + len(material.val) + 1


def first_of(split, **values):
    """Make the function that changes the first face of a split; drops it if nothing is given."""
    done = []

    def change(row, index):
        if row.split != split or done:
            return row
        done.append(index)
        return replace(row, **values) if values else None

    return change


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    "values", [{"label": 1}, {"phash": "0" * 64}, {"video_id": "clips/new"}, {}], ids=str
)
def test_the_digest_is_another_where_a_face_is(prepared_set, copy_set, split, values):
    row = rows_of(prepared_set, split)[0]
    assert all(getattr(row, name) != value for name, value in values.items())
    facts = gather_with(copy_set("changed", first_of(split, **values))).facts
    assert facts.digest != gather_with(prepared_set).facts.digest


def test_the_digest_is_the_same_for_the_same_faces_wherever_they_lie(prepared_set, copy_set):
    assert gather_with(copy_set("moved")).facts.digest == gather_with(prepared_set).facts.digest


def test_the_digest_is_another_with_other_foreign_faces(prepared_set, foreign, copy_set):
    relabelled = copy_set(
        "relabelled",
        lambda row, _: replace(
            row, video_id=f"other/{row.video_id}", label=1 if row.split == "train" else row.label
        ),
    )
    digests = [
        gather_with(prepared_set).facts.digest,
        gather_with(prepared_set, foreign).facts.digest,
        gather_with(prepared_set, foreign, share=0.2).facts.digest,
        gather_with(prepared_set, foreign, seed=1).facts.digest,
        gather_with(prepared_set, relabelled).facts.digest,
    ]
    assert len(set(digests)) == len(digests)
    assert gather_with(prepared_set, foreign).facts.digest == digests[1]
