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
    FAKE_COLUMNS,
    FaceIndex,
    add_fakes,
    concat,
    epoch_order,
    index_faces,
    sample_fraction,
)
from jdfd_keras.datasets.manifest import FaceRow, read_faces, to_rows
from jdfd_keras.datasets.synthetic.fakes import make_fake

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


@pytest.fixture(scope="module")
def fake_columns(prepared_set):
    """The training faces with landmarks and people, without fakes yet."""
    table = read_faces(prepared_set, split="train", columns=FAKE_COLUMNS)
    return index_faces(prepared_set, table)


def test_an_index_has_the_landmarks_and_people_of_the_manifest(prepared_set, fake_columns):
    rows = to_rows(read_faces(prepared_set, split="train"), FaceRow)
    landmarks = [np.reshape(row.landmarks, (68, 2)) for row in rows]
    np.testing.assert_array_equal(fake_columns.landmarks, np.float32(landmarks))
    person_of = {}
    for row, person in zip(rows, fake_columns.person.tolist(), strict=True):
        assert (person == -1) == (row.label == 1)
        if row.label == 0:
            assert person_of.setdefault(row.source_ids, person) == person
    assert len(set(person_of.values())) == len(person_of) > 3


def test_there_is_one_fake_for_each_real_face_and_it_has_no_other_label(fake_columns):
    faces = add_fakes(fake_columns, ("local", "swapped"))
    count = len(fake_columns)
    real = np.flatnonzero(fake_columns.label == 0)
    assert len(faces) % 2 == 0
    assert faces.kinds == ("local", "swapped")
    assert [faces.is_blended(index) for index in range(count)] == [False] * count
    fakes = [index for index in range(len(faces)) if faces.is_blended(index)]
    assert faces.base[fakes].tolist() == real.tolist()
    assert faces.label[fakes].tolist() == [1] * len(real)
    for index in range(count):
        assert faces.label[index] == fake_columns.label[index]
        np.testing.assert_array_equal(faces.read(index), fake_columns.read(index))
    for fake, base in zip(fakes, real, strict=True):
        assert faces.name(fake) == f"{fake_columns.name(base)}, blended"


def test_without_kinds_there_are_no_fakes(fake_columns):
    assert add_fakes(fake_columns, ()) is fake_columns


@pytest.mark.parametrize("num_labelled", [0, 1, 2, 3])
def test_an_odd_face_without_partner_is_repeated(fake_columns, num_labelled):
    labelled = np.flatnonzero(fake_columns.label == 1)[:num_labelled]
    rows = np.concatenate([np.flatnonzero(fake_columns.label == 0)[:5], labelled])
    faces = add_fakes(take_faces(fake_columns, rows), ("local",))
    assert len(faces) == 10 + num_labelled + num_labelled % 2
    stored = [faces.name(index) for index in range(len(faces)) if not faces.is_blended(index)]
    expected = [fake_columns.name(row) for row in rows]
    assert set(stored) == set(expected)
    assert stored[: len(rows)] == expected


def take_faces(faces, rows):
    names = ("shard", "offset", "label", "frame_index", "landmarks", "person")
    arrays = {name: getattr(faces, name)[rows] for name in names}
    return dataclasses.replace(faces, video_id=faces.video_id.take(pa.array(rows)), **arrays)


def test_only_real_faces_with_landmarks_are_blended(fake_columns):
    landmarks = fake_columns.landmarks.copy()
    real = np.flatnonzero(fake_columns.label == 0)
    landmarks[real[1]] = np.nan
    landmarks[real[4], 30, 1] = np.nan
    faces = add_fakes(dataclasses.replace(fake_columns, landmarks=landmarks), ("swapped",))
    assert faces.base[faces.base >= 0].tolist() == np.delete(real, [1, 4]).tolist()


def test_a_fake_is_made_from_its_real_face_and_depends_on_index_seed_and_epoch(fake_columns):
    faces = add_fakes(fake_columns, ("re-rendered",))
    fakes = np.flatnonzero(faces.base >= 0)
    seen = set()
    for fake in fakes[:4]:
        base = faces.base[fake]
        for seed, epoch in ((0, 0), (0, 1), (-3, 0)):
            pixels, mask = faces.blend(fake, faces.read, seed=seed, epoch=epoch)
            rng = np.random.default_rng([seed % 2**32, epoch, base])
            rng.integers(1)  # the kind
            expected = make_fake(
                "re-rendered", fake_columns.read(base), fake_columns.landmarks[base], rng
            )
            np.testing.assert_array_equal(pixels, expected.pixels)
            real = fake_columns.read(base)
            np.testing.assert_array_equal(pixels[mask == 0], real[mask == 0])
            assert (pixels != real).any()
            seen.add(pixels.tobytes())
        first = faces.blend(fake, faces.read, seed=0, epoch=0).pixels
        np.testing.assert_array_equal(faces.read(fake), first)
    assert len(seen) == 12


def test_the_kind_of_a_fake_varies(fake_columns, monkeypatch):
    drawn = []

    def note(kind, *arguments):
        drawn.append(kind)
        return make_fake(kind, *arguments)

    monkeypatch.setattr("jdfd_keras.datasets.face_index.make_fake", note)
    kinds = ("self-blended", "re-rendered", "local")
    faces = add_fakes(fake_columns, kinds)
    fake = len(faces) - 1
    for epoch in range(90):
        faces.blend(fake, faces.read, seed=0, epoch=epoch)
    counts = Counter(drawn)
    # 90 draws with probability one third: 30 +- 4 standard deviations of 4.5.
    assert set(counts) == set(kinds)
    assert all(12 <= count <= 48 for count in counts.values())


def test_a_face_is_swapped_with_one_of_another_person(fake_columns):
    faces = add_fakes(fake_columns, ("swapped",))
    for fake in np.flatnonzero(faces.base >= 0):
        for epoch in range(5):
            read = []

            def note(index, read=read):
                read.append(index)
                return faces.read(index)

            faces.blend(fake, note, seed=1, epoch=epoch)
            (donor,) = set(read) - {faces.base[fake]}
            assert faces.label[donor] == 0
            video, other = (faces.name(i).split(" frame")[0] for i in (fake, donor))
            assert video != other
            assert faces.person[donor] != faces.person[faces.base[fake]]


def test_without_real_faces_with_landmarks_there_is_an_error(prepared_set, fake_columns):
    fakes = take_faces(fake_columns, np.flatnonzero(fake_columns.label == 1))
    nowhere = dataclasses.replace(
        fake_columns, landmarks=np.full_like(fake_columns.landmarks, np.nan)
    )
    plain = index_faces(prepared_set, read_faces(prepared_set, columns=COLUMNS))
    hidden = index_faces(
        prepared_set, read_faces(prepared_set, columns=FAKE_COLUMNS), hide_labels=True
    )
    for faces in (fakes, nowhere, plain, hidden):
        with pytest.raises(ValueError, match="real faces with landmarks in .*; got none"):
            add_fakes(faces, ("local",))


def test_one_person_cannot_be_swapped(fake_columns):
    video = fake_columns.name(np.flatnonzero(fake_columns.label == 0)[0]).split(" frame")[0]
    names = np.array(fake_columns.video_id.to_pylist())
    faces = take_faces(fake_columns, np.flatnonzero(names == video))
    assert len(faces) == 4
    for kinds in (("swapped",), ("self-blended", "swapped", "re-rendered", "local")):
        message = "two or more people .*; got .* one.* fakes: self-blended,re-rendered,local"
        with pytest.raises(ValueError, match=message):
            add_fakes(faces, kinds)
    assert len(add_fakes(faces, ("self-blended", "re-rendered", "local"))) == 8


def test_concatenated_faces_keep_landmarks_and_people(prepared_set, fake_columns):
    table = read_faces(prepared_set, split="val", columns=COLUMNS)
    plain = index_faces(prepared_set, table, hide_labels=True)
    both = concat([fake_columns, plain, fake_columns])
    start = len(fake_columns) + len(plain)
    np.testing.assert_array_equal(both.landmarks[: len(fake_columns)], fake_columns.landmarks)
    np.testing.assert_array_equal(both.landmarks[start:], fake_columns.landmarks)
    assert both.person.tolist() == [
        *fake_columns.person.tolist(),
        *[-1] * len(plain),
        *fake_columns.person.tolist(),
    ]
    assert np.isnan(both.landmarks[len(fake_columns) : start]).all()
    assert both.landmarks.dtype == np.float32
    assert concat([plain, plain]).landmarks is None


def test_an_epoch_with_fakes_depends_on_seed_and_epoch_alone(fake_columns):
    faces = add_fakes(fake_columns, ("local",))

    def draw(seed, epoch):
        return epoch_order(faces.label, seed=seed, epoch=epoch, base=faces.base).tolist()

    keys = [(seed, epoch) for seed in (-1, 0, 1) for epoch in (0, 1, 2)]
    orders = [draw(*key) for key in keys]
    assert orders[::-1] == [draw(*key) for key in reversed(keys)]
    assert len(set(map(tuple, orders))) == len(keys)
