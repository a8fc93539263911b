"""Faces of a training: those of its dataset, and others with hidden labels."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jdfd_keras.datasets.manifest import (
    MANIFEST,
    VIDEOS,
    FaceRow,
    VideoRow,
    read_faces,
    to_rows,
    to_table,
    write_table,
)
from jdfd_keras.datasets.split_tables import FACE_KEY, write_split_table
from jdfd_keras.datasets.videos import Video
from jdfd_keras.io.files import OPTIONS
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PipelineOptions, SplitOptions, UnlabelledOptions
from jdfd_keras.training.training_data import load_training_data


def rows_of(directory, split):
    return [row for row in to_rows(read_faces(directory), FaceRow) if row.split == split]


def load(directory, *others, share=0.3, seed=0, allow_leak=False):
    unlabelled = UnlabelledOptions(tuple(map(str, others)), share)
    return load_training_data(directory, unlabelled, seed=seed, allow_leak=allow_leak)


@pytest.fixture
def copy_set(prepared_set, tmp_path):
    """A function that copies the prepared set with changed rows; `change` gets row and index.

    The split table of the copy has the split of each row.
    """

    def copy(name, change=lambda row, index: row):
        out = tmp_path / name
        shutil.copytree(prepared_set, out)
        rows = enumerate(to_rows(read_faces(prepared_set), FaceRow))
        rows = [changed for index, row in rows if (changed := change(row, index))]
        videos = {row.video_id: row for row in rows}
        names = [field.name for field in dataclasses.fields(Video)]
        video_rows = [
            VideoRow(**{name: getattr(row, name) for name in names}, file_bytes=1)
            for row in videos.values()
        ]
        for kind, values in ((FaceRow, rows), (VideoRow, video_rows)):
            with open(out / (MANIFEST if kind is FaceRow else VIDEOS), "wb") as file:
                write_table(file, kind, [to_table(values, kind)])
        table = pd.DataFrame(
            [(row.video_id, row.frame_index, row.track_id, row.split, "") for row in rows],
            columns=[*FACE_KEY, "split", "reason"],
        )
        write_split_table(LocalStore(str(out)), "official", table, SplitOptions())
        return out

    return copy


def replace(row, **values):
    return dataclasses.replace(row, **values)


@pytest.fixture
def foreign(copy_set):
    """A copy of the prepared set in another dataset namespace, so of other people."""
    return copy_set("other", lambda row, _: replace(row, video_id=f"other/{row.video_id}"))


def keys_of(faces, start=0):
    return [faces.name(index) for index in range(start, len(faces))]


def test_without_unlabelled_faces_the_data_are_the_training_and_validation_split(prepared_set):
    loaded = load(prepared_set)
    for faces, split in ((loaded.train, "train"), (loaded.val, "val")):
        rows = rows_of(prepared_set, split)
        assert keys_of(faces) == [f"{row.video_id} frame {row.frame_index}" for row in rows]
        assert faces.label.tolist() == [row.label for row in rows]
    assert (loaded.facts.train_faces, loaded.facts.unlabelled_faces) == (34, 0)
    assert loaded.facts.val_faces == len(rows_of(prepared_set, "val"))
    assert loaded.facts.name == "prepared"
    assert loaded.directories == (prepared_set,)


def load_masked(directory, *others, cells=5, **pipeline):
    return load_training_data(
        directory,
        UnlabelledOptions(tuple(map(str, others)), 0.3),
        seed=0,
        allow_leak=False,
        pipeline=PipelineOptions(**pipeline),
        mask_cells=cells,
    )


def test_the_masks_of_both_splits_are_counted(prepared_set, foreign, capsys):
    loaded = load_masked(prepared_set, foreign)
    found = re.fullmatch(
        r"masks of 0 fakes from the dataset, (\d+) from the difference to the real frame, (\d+) "
        r"without; in validation: masks of 0 fakes from the dataset, (\d+) from the difference to "
        r"the real frame, (\d+) without",
        loaded.facts.masks,
    )
    assert f"{loaded.facts.masks}\n" in capsys.readouterr().err
    counts = list(map(int, found.groups()))
    for faces, (known, unknown) in ((loaded.train, counts[:2]), (loaded.val, counts[2:])):
        assert faces.masks.shape == (len(faces), 5, 5)
        is_fake = faces.label == 1
        assert is_fake.sum() == known + unknown and known > 0
        assert faces.has_mask[is_fake].sum() == known
        assert faces.has_mask[faces.label == 0].all() and not faces.has_mask[faces.label < 0].any()
        assert not faces.masks[~(faces.has_mask & is_fake)].any()
    plain = load(prepared_set)
    assert (plain.facts.masks, plain.train.masks, plain.val.masks) == ("", None, None)
    assert plain.facts.digest == load_masked(prepared_set).facts.digest


def test_without_any_mask_a_training_that_needs_them_is_refused(copy_set):
    """The boxes of the fakes are elsewhere in the frame, so that no real face is that of a fake."""
    moved = copy_set("set", lambda row, _: replace(row, box=(0, 0, 9, 9)) if row.label else row)
    message = "Expected masks .* got masks of 0 fakes from the dataset, 0 .* 14 without. Prepare"
    with pytest.raises(ValueError, match=message):
        load_masked(moved)
    blended = load_masked(moved, fakes="local")  # these have masks of their own
    assert blended.facts.blended_fakes == (blended.train.base >= 0).sum() > 0


def test_unlabelled_faces_are_sampled_from_the_training_split_and_their_labels_hidden(
    prepared_set, foreign
):
    count = len(rows_of(prepared_set, "train"))
    loaded = load(prepared_set, foreign)
    train = loaded.train
    assert keys_of(train)[:count] == keys_of(load(prepared_set).train)
    assert train.label[:count].tolist() == [row.label for row in rows_of(prepared_set, "train")]

    labels = {
        f"{row.video_id} frame {row.frame_index}": row.label for row in rows_of(foreign, "train")
    }
    sampled = keys_of(train, count)
    # 0.3 of 34 faces is 10.2, half of which is 5.1.
    assert Counter(labels[key] for key in sampled) == {0: 5, 1: 5}
    assert len(set(sampled)) == 10
    assert train.label[count:].tolist() == [-1] * 10
    for index in range(len(train)):
        directory = foreign if index >= count else prepared_set
        assert Path(train.shards[train.shard[index]]).parent == directory / "shards"
    assert loaded.directories == (prepared_set, foreign)


def test_unlabelled_faces_are_read_from_their_own_data_set(prepared_set, foreign):
    train = load(prepared_set, foreign).train
    own = load(prepared_set).train
    same = {own.name(index): own.read(index) for index in range(len(own))}
    for index in range(len(own), len(train)):
        # The copy has the faces of the prepared set.
        np.testing.assert_array_equal(train.read(index), same[train.name(index)[len("other/") :]])


def test_unlabelled_faces_by_other_landmarks_are_refused(prepared_set, foreign):
    options = foreign / OPTIONS
    options.write_text(options.read_text().replace('"detector": "dlib"', '"detector": "mesh"'))
    with pytest.raises(ValueError, match="got mesh, whose landmarks"):
        load(prepared_set, foreign)


def test_unlabelled_faces_are_counted_in_the_facts_and_not_validated(
    prepared_set, foreign, copy_set
):
    third = copy_set("third", lambda row, _: replace(row, video_id=f"third/{row.video_id}"))
    loaded = load(prepared_set, foreign, third)
    assert loaded.facts.train_faces == len(loaded.train) == 34 + 20
    assert loaded.facts.unlabelled_faces == 20
    assert loaded.facts.val_faces == len(loaded.val) == len(rows_of(prepared_set, "val"))
    namespaces = Counter(key.split("/")[0] for key in keys_of(loaded.train))
    assert namespaces == {"clips": 34, "other": 10, "third": 10}
    assert {key.split("/")[0] for key in keys_of(loaded.val)} == {"clips"}


def test_the_seed_determines_the_unlabelled_faces(prepared_set, foreign):
    def sample(seed):
        return keys_of(load(prepared_set, foreign, seed=seed).train, 34)

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_unlabelled_faces_of_the_data_set_itself_are_trained_on_and_not_validated(copy_set):
    first = {}

    def remove_first_label(row, index):
        return replace(row, label=-1) if first.setdefault(row.split, index) == index else row

    data = copy_set("partly", remove_first_label)
    loaded = load(data)
    assert loaded.facts.train_faces == 34
    assert loaded.facts.unlabelled_faces == 1
    assert loaded.train.label[0] == -1
    assert loaded.facts.val_faces == len(loaded.val) == len(rows_of(data, "val")) - 1
    assert -1 not in loaded.val.label


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("label", "counts"), [(0, "[1-9][0-9]* real and 0"), (1, "0 real and")])
def test_one_class_is_rejected_with_the_split(copy_set, split, label, counts):
    data = copy_set(
        "one", lambda row, _: None if row.split == split and row.label == 1 - label else row
    )
    with pytest.raises(ValueError, match=f" {split} split of {data}; got {counts}"):
        load(data)


def test_unlabelled_faces_of_another_size_are_rejected_with_their_folder(prepared_set, foreign):
    options = json.loads((foreign / "options.json").read_text(encoding="utf-8"))
    options["faces"]["face_size"] = 96
    (foreign / "options.json").write_text(json.dumps(options), encoding="utf-8")
    with pytest.raises(ValueError, match=f"71 pixels .*got 96 in {foreign}\\. .*--face-size 71"):
        load(prepared_set, foreign)


def test_an_unlabelled_set_without_training_faces_is_rejected_with_its_folder(
    prepared_set, copy_set
):
    other = copy_set("other", lambda row, _: None if row.split == "train" else row)
    with pytest.raises(ValueError, match=f"faces in {other}.*got none"):
        load(prepared_set, other)


def test_an_unlabelled_folder_that_is_not_a_data_set_is_rejected_with_its_path(
    prepared_set, tmp_path
):
    with pytest.raises(OSError, match=f"prepared dataset in {tmp_path}"):
        load(prepared_set, tmp_path)


def test_all_faces_of_a_set_that_is_not_split_are_for_training(prepared_set, foreign):
    shutil.rmtree(foreign / "splits")
    labels = Counter(read_faces(foreign, split_table="", columns=["label"])["label"].to_pylist())
    count = round(0.5 * labels.total() / 2)
    loaded = load(prepared_set, foreign, share=0.5, allow_leak=True)
    assert loaded.facts.unlabelled_faces == sum(min(count, labels[label]) for label in (0, 1))
    assert set(loaded.provenance["split"].to_pylist()) == {"train", "val"}


def test_a_share_too_small_for_one_face_is_rejected(prepared_set, foreign):
    with pytest.raises(ValueError, match="each class; got 0.001 of 34 faces"):
        load(prepared_set, foreign, share=0.001)


@pytest.mark.parametrize("split", ["val", "test"])
def test_unlabelled_faces_of_people_in_validation_or_test_are_rejected(
    prepared_set, copy_set, split
):
    # Other videos, but in the same dataset namespace, so of the same person.
    person = rows_of(prepared_set, split)[0].source_ids[0]
    other = copy_set(
        "other",
        lambda row, _: replace(
            row, video_id=row.video_id.replace("clips/", "clips/more/"), source_ids=(person,)
        ),
    )
    with pytest.raises(
        ValueError,
        match=f"unlabelled .*: source clips/{person} in train and {split}.*--allow-leak",
    ):
        load(prepared_set, other)
    allowed = load(prepared_set, other, allow_leak=True)
    assert allowed.facts.unlabelled_faces == 10
    assert allowed.facts.leakage.startswith("1 source shared")


def test_unlabelled_near_duplicates_of_validation_faces_are_rejected(prepared_set, copy_set):
    phash = rows_of(prepared_set, "val")[0].phash
    other = copy_set(
        "other", lambda row, _: replace(row, video_id=f"other/{row.video_id}", phash=phash)
    )
    with pytest.raises(ValueError, match=r"near-duplicate faces: other/.* \(train\) looks like"):
        load(prepared_set, other)


def test_the_same_source_id_in_another_namespace_is_another_person(prepared_set, copy_set):
    person = rows_of(prepared_set, "val")[0].source_ids[0]
    other = copy_set(
        "other",
        lambda row, _: replace(row, video_id=f"other/{row.video_id}", source_ids=(person,)),
    )
    assert load(prepared_set, other).facts.leakage.startswith("none between")


def test_validation_and_test_faces_of_an_unlabelled_set_are_not_read(prepared_set):
    # Used with itself, its people of validation and test would otherwise also be in training.
    loaded = load(prepared_set, prepared_set)
    assert loaded.facts.leakage.startswith("none between")
    assert loaded.facts.unlabelled_faces == 10


def test_provenance_has_all_training_and_validation_faces(prepared_set, foreign):
    loaded = load(prepared_set, foreign)
    provenance = loaded.provenance.to_pylist()
    rows = {
        (row.video_id, row.phash): row
        for directory in (prepared_set, foreign)
        for row in to_rows(read_faces(directory), FaceRow)
    }
    expected = keys_of(loaded.train) + keys_of(loaded.val)
    assert len(provenance) == len(expected) == 34 + 10 + len(loaded.val)
    for entry, key in zip(provenance, expected, strict=True):
        row = rows[entry["video_id"], entry["phash"]]
        assert key.startswith(f"{entry['video_id']} frame ")
        assert tuple(entry["source_ids"]) == row.source_ids
        assert entry["split"] == row.split
        assert entry["label"] == (-1 if key.startswith("other/") else row.label)
    assert Counter(entry["split"] for entry in provenance) == {"train": 44, "val": len(loaded.val)}


def test_provenance_includes_unlabelled_validation_faces(copy_set):
    # They are not validated, but belong to the validation split of the run.
    data = copy_set("partly", lambda row, index: replace(row, label=-1) if index == 40 else row)
    assert to_rows(read_faces(data), FaceRow)[40].split == "val"
    loaded = load(data)
    assert len(loaded.provenance) == len(loaded.train) + len(loaded.val) + 1


def first_of(split, **values):
    """Return a function that changes the first face of a split, or removes it without values."""
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
def test_the_digest_changes_with_any_face(prepared_set, copy_set, split, values):
    row = rows_of(prepared_set, split)[0]
    assert all(getattr(row, name) != value for name, value in values.items())
    facts = load(copy_set("changed", first_of(split, **values))).facts
    assert facts.digest != load(prepared_set).facts.digest


def test_the_digest_does_not_depend_on_the_folder(prepared_set, copy_set):
    assert load(copy_set("moved")).facts.digest == load(prepared_set).facts.digest


def test_the_digest_changes_with_the_unlabelled_faces(prepared_set, foreign, copy_set):
    relabelled = copy_set(
        "relabelled",
        lambda row, _: replace(
            row, video_id=f"other/{row.video_id}", label=1 if row.split == "train" else row.label
        ),
    )
    digests = [
        load(prepared_set).facts.digest,
        load(prepared_set, foreign).facts.digest,
        load(prepared_set, foreign, share=0.2).facts.digest,
        load(prepared_set, foreign, seed=1).facts.digest,
        load(prepared_set, relabelled).facts.digest,
    ]
    assert len(set(digests)) == len(digests)
    assert load(prepared_set, foreign).facts.digest == digests[1]
