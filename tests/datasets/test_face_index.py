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
    FaceList,
    draw_order,
    draw_share,
    join_lists,
    list_faces,
)
from jdfd_keras.datasets.manifest import read_faces, read_manifest

LABELS = np.random.default_rng(0).permutation([0] * 60 + [1] * 30 + [-1] * 10)


@pytest.mark.parametrize(
    ("share", "of_each"), [(0.02, 1), (0.04, 2), (0.1, 5), (0.16, 8), (0.3, 15), (0.6, 30)]
)
def test_a_share_is_of_all_faces_and_half_real_half_fake(share, of_each):
    drawn = draw_share(LABELS, share, seed=3)
    assert Counter(LABELS[drawn].tolist()) == {0: of_each, 1: of_each}


@pytest.mark.parametrize(("share", "real", "fake"), [(0.8, 40, 30), (1, 50, 30)])
def test_a_class_with_too_few_faces_gives_all_of_them_and_the_other_no_more(share, real, fake):
    drawn = draw_share(LABELS, share, seed=3)
    assert Counter(LABELS[drawn].tolist()) == {0: real, 1: fake}


def test_a_share_comes_in_ascending_order_without_a_face_twice():
    for seed in range(5):
        assert (np.diff(draw_share(LABELS, 0.5, seed)) > 0).all()


def test_the_seed_gives_the_share_and_each_labelled_face_has_its_chance():
    shares = [draw_share(LABELS, 0.2, seed).tolist() for seed in range(60)]
    assert shares == [draw_share(LABELS, 0.2, seed).tolist() for seed in range(60)]
    assert len(set(map(tuple, shares))) == 60
    # One of the 60 real faces is missed in all draws of 10 with a chance of 60 * (5/6)^60 = 0.001.
    assert set(sum(shares, [])) == set(np.flatnonzero(LABELS != -1))


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_where_no_label_is_known_the_share_is_of_unlabelled_faces(share):
    drawn = draw_share(np.full(50, -1), share, seed=0)
    assert len(drawn) == share * 50
    assert len(set(drawn)) == len(drawn)


def test_where_one_class_is_all_there_is_the_whole_share_is_of_it():
    assert len(draw_share(np.ones(50, np.int64), 0.2, seed=0)) == 10


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=f"share above 0 and up to 1; got {share:g}"):
        draw_share(LABELS, share, seed=0)


@pytest.mark.parametrize("labels", [np.array([0, 1] * 5), np.full(10, -1), np.array([], int)])
def test_a_share_that_is_no_face_is_refused(labels):
    with pytest.raises(ValueError, match=f"one face of each class; got 0.02 of {len(labels)} "):
        draw_share(labels, 0.02, seed=0)


def test_without_balance_a_pass_is_each_face_once():
    for number in range(5):
        order = draw_order(LABELS, seed=1, number=number)
        assert sorted(order.tolist()) == list(range(100))


@pytest.mark.parametrize("balance", [False, True])
def test_an_order_is_a_function_of_seed_and_number_alone(balance):
    def draw(seed, number):
        return draw_order(LABELS, seed=seed, number=number, balance=balance).tolist()

    places = [(seed, number) for seed in (-1, 0, 1, 2, 2**31) for number in (0, 1, 2, 10**6)]
    forwards = [draw(*place) for place in places]
    np.random.seed(5)
    backwards = [draw(*place) for place in reversed(places)][::-1]
    assert forwards == backwards
    assert len(set(map(tuple, forwards))) == len(places), "two passes or seeds have one order"


def test_the_order_of_a_pass_does_not_look_at_labels_without_balance():
    orders = [draw_order(labels, seed=3, number=2) for labels in (LABELS, LABELS[::-1])]
    np.testing.assert_array_equal(*orders)


def count_labels(labels):
    return str(dict(Counter(labels.tolist())))


# Places for labelled faces: even and odd; classes: one rarer, equal, one of a single face.
UNBALANCED = [
    LABELS,
    np.array([0] * 7 + [1] * 4),
    np.array([1] * 9 + [0] * 2 + [-1]),
    np.array([0, 1] * 6),
    np.array([0] * 20 + [1]),
]


@pytest.mark.parametrize("labels", UNBALANCED, ids=count_labels)
def test_balance_gives_as_many_real_as_fake_faces_and_a_pass_of_the_same_length(labels):
    for number in range(20):
        order = draw_order(labels, seed=1, number=number, balance=True)
        counts = Counter(labels[order].tolist())
        assert len(order) == len(labels)
        assert abs(counts[0] - counts[1]) <= 1
        unlabelled = order[labels[order] == -1]
        assert sorted(unlabelled.tolist()) == np.flatnonzero(labels == -1).tolist()


@pytest.mark.parametrize("labels", UNBALANCED, ids=count_labels)
def test_balance_gives_the_faces_of_a_class_equally_often_to_within_one(labels):
    seen = set()
    for number in range(40):
        order = draw_order(labels, seed=-7, number=number, balance=True)
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            often = Counter(order[labels[order] == label].tolist())
            times = [often[member] for member in members.tolist()]
            assert max(times) - min(times) <= 1
            if 2 * len(members) <= np.count_nonzero(labels != -1) - 1:
                assert min(times) >= 1, "a face of the rarer class does not come in a pass"
        seen |= set(order.tolist())
    assert seen == set(range(len(labels))), "faces of the commoner class never come"


def test_balance_mixes_the_classes_within_a_pass():
    halves = []
    for number in range(50):
        order = draw_order(LABELS, seed=0, number=number, balance=True)
        halves += [np.mean(LABELS[order[:50]] == label) for label in (0, 1, -1)]
    # 45 of each class and 10 unlabelled in two halves: their means over 50 passes err by 0.01.
    np.testing.assert_allclose(
        np.reshape(halves, (50, 3)).mean(axis=0), [0.45, 0.45, 0.1], atol=0.05
    )


def made_list(folder, shards, shard, label):
    """Make a list of faces that lie nowhere."""
    count = len(shard)
    names = pa.chunked_array([[f"{folder}/{index}" for index in range(count)]])
    return FaceList(
        face_size=71,
        shards=tuple(f"/data/{folder}/shards/{name}" for name in shards),
        shard=np.array(shard),
        offset=np.arange(count) * 10,
        label=np.array(label),
        is_hidden=np.full(count, folder == "c"),
        video_id=names,
        frame_index=np.arange(count) + 5,
    )


def test_joined_faces_keep_their_files_places_labels_and_names():
    lists = [
        made_list("a", ["x", "y"], [1, 0, 1], [0, 1, 1]),
        made_list("b", ["x"], [0, 0], [1, 0]),
        made_list("c", ["u", "v", "w"], [2, 0, 1, 2], [-1, -1, -1, -1]),
    ]
    joined = join_lists(lists)
    assert len(joined) == 9
    assert [joined.shards[position] for position in joined.shard] == [
        *("/data/a/shards/y", "/data/a/shards/x", "/data/a/shards/y"),
        *("/data/b/shards/x", "/data/b/shards/x"),
        *("/data/c/shards/w", "/data/c/shards/u", "/data/c/shards/v", "/data/c/shards/w"),
    ]
    assert joined.offset.tolist() == [0, 10, 20, 0, 10, 0, 10, 20, 30]
    assert joined.label.tolist() == [0, 1, 1, 1, 0, -1, -1, -1, -1]
    assert joined.is_hidden.tolist() == [False] * 5 + [True] * 4
    assert [joined.name(index) for index in (0, 2, 3, 8)] == [
        "a/0 frame 5",
        "a/2 frame 7",
        "b/0 frame 5",
        "c/3 frame 8",
    ]


def test_lists_of_another_face_size_are_refused_and_their_data_set_is_named():
    fits = made_list("a", ["x"], [0], [0])
    larger = dataclasses.replace(made_list("b", ["x"], [0], [0]), face_size=96)
    with pytest.raises(ValueError, match="71 pixels.*got 96 in /data/b\\. .*--face-size 71"):
        join_lists([fits, fits, larger])


@pytest.fixture(scope="module")
def sharded(clips_folder, tmp_path_factory):
    """A prepared set whose training faces lie in several shards, and its crops decoded by TF."""
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


def test_a_face_is_read_from_its_place_and_named_by_its_video_and_frame(sharded):
    directory, crops = sharded
    lists = [
        list_faces(directory, read_faces(directory, split=split, columns=COLUMNS))
        for split in ("val", "train")
    ]
    assert len(lists[1].shards) > 1
    rows = [row for split in ("val", "train") for row in read_manifest(directory, split=split)]
    joined = join_lists(lists)
    for index, row in enumerate(rows):
        assert joined.name(index) == f"{row.video_id} frame {row.frame_index}"
        assert Path(joined.shards[joined.shard[index]]).name == row.shard
        np.testing.assert_array_equal(joined.read(index), crops[row.video_id, row.frame_index])
    assert joined.label.tolist() == [row.label for row in rows]
    assert not joined.is_hidden.any()
    assert joined.face_size == 71


def test_faces_of_a_video_are_told_apart_by_their_pixels(sharded):
    # Else the tests above could not see that a neighbour was read.
    pictures = [crop.tobytes() for crop in sharded[1].values()]
    assert all(one != other for one, other in pairwise(sorted(pictures)))


def test_hidden_labels_are_those_of_unlabelled_faces(prepared_set):
    table = read_faces(prepared_set, split="train", columns=COLUMNS)
    hidden = list_faces(prepared_set, table, hide_labels=True)
    assert hidden.label.tolist() == [-1] * len(table)
    assert hidden.is_hidden.all()
    np.testing.assert_array_equal(hidden.read(3), list_faces(prepared_set, table).read(3))


def test_faces_of_a_folder_that_does_not_say_how_it_was_made_are_refused(prepared_set, tmp_path):
    table = read_faces(prepared_set, split="train", columns=COLUMNS)
    shutil.copytree(prepared_set / "shards", tmp_path / "shards")
    with pytest.raises(OSError, match=r"options\.json"):
        list_faces(tmp_path, table)
