import dataclasses
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from jdfd_keras.datasets.face_index import (
    COLUMNS,
    FaceIndex,
    concat,
    epoch_order,
    index_faces,
    sample_fraction,
)
from jdfd_keras.datasets.manifest import FaceRow, read_faces, to_rows

LABELS = np.random.default_rng(0).permutation([0] * 60 + [1] * 30 + [-1] * 10)


@pytest.mark.parametrize(
    ("fraction", "of_each"), [(0.02, 1), (0.04, 2), (0.1, 5), (0.16, 8), (0.3, 15), (0.6, 30)]
)
def test_a_fraction_is_of_all_faces_and_half_real_half_fake(fraction, of_each):
    drawn = sample_fraction(LABELS, fraction, seed=3)
    assert Counter(LABELS[drawn].tolist()) == {0: of_each, 1: of_each}


@pytest.mark.parametrize(("fraction", "real", "fake"), [(0.8, 40, 30), (1, 50, 30)])
def test_a_class_with_too_few_faces_is_sampled_whole_and_the_other_no_more(fraction, real, fake):
    drawn = sample_fraction(LABELS, fraction, seed=3)
    assert Counter(LABELS[drawn].tolist()) == {0: real, 1: fake}


def test_a_sample_is_in_ascending_order_without_duplicates():
    for seed in range(5):
        assert (np.diff(sample_fraction(LABELS, 0.5, seed)) > 0).all()


def test_the_seed_determines_the_sample_and_every_labelled_face_can_be_in_it():
    samples = [sample_fraction(LABELS, 0.2, seed).tolist() for seed in range(60)]
    assert samples == [sample_fraction(LABELS, 0.2, seed).tolist() for seed in range(60)]
    assert len(set(map(tuple, samples))) == 60
    # Some of the 60 real faces is in no sample of 10 with probability 60 * (5/6)^60 = 0.001.
    assert set(sum(samples, [])) == set(np.flatnonzero(LABELS != -1))


@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_without_labels_the_sample_is_of_unlabelled_faces(fraction):
    drawn = sample_fraction(np.full(50, -1), fraction, seed=0)
    assert len(drawn) == fraction * 50
    assert len(set(drawn)) == len(drawn)


def test_with_one_class_the_whole_sample_is_of_it():
    assert len(sample_fraction(np.ones(50, np.int64), 0.2, seed=0)) == 10


@pytest.mark.parametrize("fraction", [0, -1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_an_error(fraction):
    with pytest.raises(ValueError, match=f"fraction above 0 .* 1; got {fraction:g}"):
        sample_fraction(LABELS, fraction, seed=0)


@pytest.mark.parametrize("labels", [np.array([0, 1] * 5), np.full(10, -1), np.array([], int)])
def test_a_fraction_of_less_than_one_face_is_an_error(labels):
    with pytest.raises(ValueError, match=f"face of each class; got 0.02 of {len(labels)} "):
        sample_fraction(labels, 0.02, seed=0)


def test_without_balance_an_epoch_has_each_face_once():
    for epoch in range(5):
        order = epoch_order(LABELS, seed=1, epoch=epoch)
        assert sorted(order.tolist()) == list(range(100))


@pytest.mark.parametrize("balance", [False, True])
def test_the_order_depends_on_seed_and_epoch_alone(balance):
    def draw(seed, epoch):
        return epoch_order(LABELS, seed=seed, epoch=epoch, balance=balance).tolist()

    keys = [(seed, epoch) for seed in (-1, 0, 1, 2, 2**31) for epoch in (0, 1, 2, 10**6)]
    forwards = [draw(*key) for key in keys]
    np.random.seed(5)
    backwards = [draw(*key) for key in reversed(keys)][::-1]
    assert forwards == backwards
    assert len(set(map(tuple, forwards))) == len(keys), "two epochs or seeds have the same order"


def test_without_balance_the_order_does_not_depend_on_labels():
    orders = [epoch_order(labels, seed=3, epoch=2) for labels in (LABELS, LABELS[::-1])]
    np.testing.assert_array_equal(*orders)


def count_labels(labels):
    return str(dict(Counter(labels.tolist())))


# Even and odd numbers of labelled faces; one class rarer, equal, or with a single face.
UNBALANCED = [
    LABELS,
    np.array([0] * 7 + [1] * 4),
    np.array([1] * 9 + [0] * 2 + [-1]),
    np.array([0, 1] * 6),
    np.array([0] * 20 + [1]),
]


@pytest.mark.parametrize("labels", UNBALANCED, ids=count_labels)
def test_a_balanced_epoch_has_as_many_real_as_fake_faces_and_its_usual_length(labels):
    for epoch in range(20):
        order = epoch_order(labels, seed=1, epoch=epoch, balance=True)
        counts = Counter(labels[order].tolist())
        assert len(order) == len(labels)
        assert abs(counts[0] - counts[1]) <= 1
        unlabelled = order[labels[order] == -1]
        assert sorted(unlabelled.tolist()) == np.flatnonzero(labels == -1).tolist()


@pytest.mark.parametrize("labels", UNBALANCED, ids=count_labels)
def test_balance_repeats_the_faces_of_a_class_equally_often_to_within_one(labels):
    seen = set()
    for epoch in range(40):
        order = epoch_order(labels, seed=-7, epoch=epoch, balance=True)
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            counts = Counter(order[labels[order] == label].tolist())
            times = [counts[member] for member in members.tolist()]
            assert max(times) - min(times) <= 1
            if 2 * len(members) <= np.count_nonzero(labels != -1) - 1:
                assert min(times) >= 1, "a face of the rarer class is missing in an epoch"
        seen |= set(order.tolist())
    assert seen == set(range(len(labels))), "some faces of the commoner class never occur"


def test_balance_mixes_the_classes_within_an_epoch():
    halves = []
    for epoch in range(50):
        order = epoch_order(LABELS, seed=0, epoch=epoch, balance=True)
        halves += [np.mean(LABELS[order[:50]] == label) for label in (0, 1, -1)]
    # 45 of each class and 10 unlabelled in two halves: their means over 50 epochs vary by 0.01.
    np.testing.assert_allclose(
        np.reshape(halves, (50, 3)).mean(axis=0), [0.45, 0.45, 0.1], atol=0.05
    )


def make_index(folder, shards, shard, label):
    """Make an index of faces that do not exist."""
    count = len(shard)
    names = pa.chunked_array([[f"{folder}/{index}" for index in range(count)]])
    return FaceIndex(
        face_size=71,
        shards=tuple(f"/data/{folder}/shards/{name}" for name in shards),
        shard=np.array(shard),
        offset=np.arange(count) * 10,
        label=np.array(label),
        video_id=names,
        frame_index=np.arange(count) + 5,
    )


def test_concatenated_faces_keep_their_files_offsets_labels_and_names():
    indexes = [
        make_index("a", ["x", "y"], [1, 0, 1], [0, 1, 1]),
        make_index("b", ["x"], [0, 0], [1, 0]),
        make_index("c", ["u", "v", "w"], [2, 0, 1, 2], [-1, -1, -1, -1]),
    ]
    both = concat(indexes)
    assert len(both) == 9
    assert [both.shards[position] for position in both.shard] == [
        *("/data/a/shards/y", "/data/a/shards/x", "/data/a/shards/y"),
        *("/data/b/shards/x", "/data/b/shards/x"),
        *("/data/c/shards/w", "/data/c/shards/u", "/data/c/shards/v", "/data/c/shards/w"),
    ]
    assert both.offset.tolist() == [0, 10, 20, 0, 10, 0, 10, 20, 30]
    assert both.label.tolist() == [0, 1, 1, 1, 0, -1, -1, -1, -1]
    assert [both.name(index) for index in (0, 2, 3, 8)] == [
        "a/0 frame 5",
        "a/2 frame 7",
        "b/0 frame 5",
        "c/3 frame 8",
    ]


def test_different_face_sizes_are_an_error_that_names_the_data_set():
    first = make_index("a", ["x"], [0], [0])
    larger = dataclasses.replace(make_index("b", ["x"], [0], [0]), face_size=96)
    with pytest.raises(ValueError, match="71 pixels.*got 96 in /data/b\\. .*--face-size 71"):
        concat([first, first, larger])


@pytest.fixture(scope="module")
def sharded(clips_folder, tmp_path_factory):
    """A prepared set with several shards of training faces, and its crops decoded by TF."""
    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.options import FaceOptions, PrepareOptions

    out = tmp_path_factory.mktemp("sharded") / "set"
    small = PrepareOptions(faces_per_shard=10)
    prepare(clips_folder, out, FaceOptions(frames_per_video=4, face_size=71), small)
    crops = {}
    for path in (out / "shards").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            key = (
                features["video_id"].bytes_list.value[0].decode(),
                features["frame_index"].int64_list.value[0],
            )
            crops[key] = tf.io.decode_png(features["image/encoded"].bytes_list.value[0]).numpy()
    return out, crops


def test_a_face_is_read_from_its_shard_and_named_by_its_video_and_frame(sharded):
    directory, crops = sharded
    indexes = [
        index_faces(directory, read_faces(directory, split=split, columns=COLUMNS))
        for split in ("val", "train")
    ]
    assert len(indexes[1].shards) > 1
    rows = [
        row
        for split in ("val", "train")
        for row in to_rows(read_faces(directory, split=split), FaceRow)
    ]
    both = concat(indexes)
    for index, row in enumerate(rows):
        assert both.name(index) == f"{row.video_id} frame {row.frame_index}"
        assert Path(both.shards[both.shard[index]]).name == row.shard
        np.testing.assert_array_equal(both.read(index), crops[row.video_id, row.frame_index])
    assert both.label.tolist() == [row.label for row in rows]
    assert both.face_size == 71


def test_faces_of_a_video_differ_in_their_pixels(sharded):
    # Otherwise the tests above would not detect that another face was read.
    crops = [crop.tobytes() for crop in sharded[1].values()]
    assert all(one != other for one, other in pairwise(sorted(crops)))


def test_faces_with_hidden_labels_are_unlabelled(prepared_set):
    table = read_faces(prepared_set, split="train", columns=COLUMNS)
    hidden = index_faces(prepared_set, table, hide_labels=True)
    assert hidden.label.tolist() == [-1] * len(table)
    np.testing.assert_array_equal(hidden.read(3), index_faces(prepared_set, table).read(3))


def test_a_folder_without_options_is_an_error(prepared_set, tmp_path):
    table = read_faces(prepared_set, split="train", columns=COLUMNS)
    shutil.copytree(prepared_set / "shards", tmp_path / "shards")
    with pytest.raises(OSError, match=r"options\.json"):
        index_faces(tmp_path, table)
