import dataclasses
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.datasets.videos import (
    LABEL_NAMES,
    SPLITS,
    Video,
    count_by,
    qualified_sources,
    read_dataset_files,
)
from jdfd_keras.io.storage import LocalStore

COLUMNS = ("split", "label", "manipulation", "compression")


@pytest.fixture
def faces():
    """Return columns of 200 random faces."""
    rng = np.random.default_rng(0)
    return {
        "video_id": rng.choice(["a", "b", "c", "d", "e"], 200).tolist(),
        "split": rng.choice(SPLITS, 200).tolist(),
        "label": rng.choice(list(LABEL_NAMES), 200).tolist(),
        "manipulation": rng.choice(["", "FaceSwap", "Deepfakes"], 200).tolist(),
        "compression": rng.choice(["c23", "raw"], 200).tolist(),
    }


@pytest.mark.parametrize(
    "columns", [COLUMNS, ("split", "label"), ("label",), ("compression", "split")]
)
@pytest.mark.parametrize("is_encoded", [False, True])
def test_counts_equal_those_of_a_loop_over_the_faces(faces, columns, is_encoded):
    members = defaultdict(list)
    for index, video_id in enumerate(faces["video_id"]):
        members[tuple(faces[name][index] for name in columns)].append(video_id)
    table = pa.table(faces)
    if is_encoded:
        encoded = table["split"].dictionary_encode()
        table = table.set_column(table.column_names.index("split"), "split", encoded)
    found = {}
    for group in count_by(table, *columns):
        values = group.to_dict()
        if "label" in columns:
            values["label"] = {"real": 0, "fake": 1, "unlabelled": -1}[group.label]
        key = tuple(values[name] for name in columns)
        found[key] = (group.num_videos, group.num_faces)
        assert [values[name] for name in COLUMNS if name not in columns] == [None] * (
            4 - len(columns)
        )
    assert found == {key: (len(set(ids)), len(ids)) for key, ids in members.items()}


def test_faces_without_a_split_are_counted_after_the_others():
    rows = {"video_id": ["a", "b", "b", "c"], "split": ["", "test", "test", "train"]}
    found = [(group.split, group.num_faces) for group in count_by(pa.table(rows), "split")]
    assert found == [("train", 1), ("test", 2), ("", 1)]


def test_sources_have_the_namespace_of_their_video_and_are_none_if_unknown():
    one = Video("ffpp/a/b", "b.mp4", 0, "", "", ("b", "c"), "")
    assert qualified_sources(one) == ("ffpp/b", "ffpp/c")
    assert qualified_sources(dataclasses.replace(one, source_ids=())) == ()


def test_groups_are_sorted_by_split_and_class(faces):
    found = [(group.split, group.label) for group in count_by(pa.table(faces), "label", "split")]
    labels = ("real", "fake", "unlabelled")
    assert found == [(split, label) for split in SPLITS for label in labels]


def test_hidden_files_are_listed_by_themselves(tmp_path):
    names = ["a.mp4", "b/.c/d.mp4", "b/.hidden", ".git/x", "b/e.f.txt"]
    root = read_dataset_files(LocalStore(str(tmp_path)), names)
    assert root.files == ("a.mp4", "b/e.f.txt")
    assert root.hidden == (".git/x", "b/.c/d.mp4", "b/.hidden")
