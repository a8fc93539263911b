import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from jdfd_keras.datasets.face_index import COLUMNS, draw_order, join_lists, list_faces
from jdfd_keras.datasets.manifest import FaceRow, read_faces, read_manifest
from jdfd_keras.datasets.pipeline import load_faces, share_faces, stream_faces
from jdfd_keras.datasets.transforms import explain_damage, find_damage
from jdfd_keras.options import AugmentOptions, PipelineOptions


def rows_of(prepared_set, split):
    return [row for row in read_manifest(prepared_set) if row.split == split]


def records_of(prepared_set, split):
    """Read the shards without the code under test: crops and ids, in the order of the files."""
    found = []
    for path in sorted((prepared_set / "shards").glob(f"{split}-*")):
        for record in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            crop = tf.io.decode_png(features["image/encoded"].bytes_list.value[0]).numpy()
            key = (
                features["video_id"].bytes_list.value[0].decode(),
                features["frame_index"].int64_list.value[0],
            )
            found.append((key, crop))
    return found


def images_in(faces):
    return np.concatenate([image.numpy() for image, _ in faces])


def order_in(faces):
    """Name each face by its pixels, which differ from face to face."""
    return [image.tobytes() for image in images_in(faces)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_faces_stand_in_the_order_of_the_manifest(prepared_set, split):
    rows, records = rows_of(prepared_set, split), records_of(prepared_set, split)
    assert [key for key, _ in records] == [(row.video_id, row.frame_index) for row in rows]
    faces = load_faces(prepared_set, split, batch_size=3)
    np.testing.assert_array_equal(images_in(faces), np.stack([crop for _, crop in records]))
    labels = np.concatenate([targets["classification"].numpy() for _, targets in faces])
    assert labels.tolist() == [[row.label] for row in rows]


def test_batches_are_what_the_network_takes(prepared_set):
    faces = load_faces(prepared_set, "train", batch_size=7)
    num_faces = len(rows_of(prepared_set, "train"))
    sizes = [len(image) for image, _ in faces]
    assert sizes == [7] * (num_faces // 7) + [num_faces % 7] * (num_faces % 7 > 0)
    assert len(faces) == len(sizes)
    for image, targets in faces:
        assert image.dtype == tf.float32
        assert image.shape[1:] == (71, 71, 3)
        assert 0 <= image.numpy().min() < 60
        assert 180 < image.numpy().max() <= 255
        assert set(targets) == {"classification", "reconstruction"}
        assert targets["classification"].shape == (len(image), 1)
        assert targets["classification"].dtype == tf.float32
        expected = image.numpy() / 127.5 - 1
        np.testing.assert_allclose(targets["reconstruction"].numpy(), expected, atol=1e-6)


def test_shuffling_mixes_anew_in_every_pass_and_loses_nothing(prepared_set):
    plain = order_in(load_faces(prepared_set, "train", batch_size=4))
    faces = load_faces(prepared_set, "train", batch_size=4, shuffle=True, seed=1)
    passes = [order_in(faces), order_in(faces)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(plain)
    assert passes[0] != plain
    assert passes[0] != passes[1]


def test_labels_are_shuffled_with_their_faces(prepared_set):
    labels = {}
    for image, targets in load_faces(prepared_set, "train", batch_size=1):
        labels[image.numpy().tobytes()] = float(targets["classification"][0, 0])
    for image, targets in load_faces(prepared_set, "train", batch_size=1, shuffle=True):
        assert float(targets["classification"][0, 0]) == labels[image.numpy().tobytes()]


def test_the_seed_gives_the_order_of_every_pass(prepared_set):
    def passes(seed):
        faces = load_faces(prepared_set, "train", batch_size=4, shuffle=True, seed=seed)
        return [order_in(faces), order_in(faces)]

    assert passes(1) == passes(1)
    assert passes(1) != passes(2)


def test_an_empty_split_is_refused(prepared_set, change_table, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    change_table(
        tmp_path / "copy", FaceRow, lambda rows: [row for row in rows if row.split != "val"]
    )
    with pytest.raises(ValueError, match="val split"):
        load_faces(tmp_path / "copy", "val", batch_size=4)


def test_a_folder_that_is_no_prepared_set_is_refused(tmp_path):
    with pytest.raises(OSError, match="jdfd-keras prepare"):
        load_faces(tmp_path, "train", batch_size=4)


@pytest.fixture(scope="module")
def partly_labelled(clips_folder, tmp_path_factory):
    """A prepared set in which the clips of two people are of neither class."""
    from jdfd_keras.datasets.prepare import prepare
    from jdfd_keras.options import FaceOptions

    root = tmp_path_factory.mktemp("unlabelled") / "clips"
    shutil.copytree(clips_folder, root)
    (root / "unlabelled").mkdir()
    for number in (6, 7):
        name = f"person{number:02d}.mp4"
        (root / "real" / name).rename(root / "unlabelled" / name)
    out = root.parent / "prepared"
    prepare(root, out, FaceOptions(frames_per_video=4, face_size=71))
    return out


def split_with_unlabelled(directory):
    """Any split in which some faces are labelled and some are not."""
    labels = {}
    for row in read_manifest(directory):
        labels.setdefault(row.split, set()).add(row.label)
    return next(split for split, found in labels.items() if {-1, 0} <= found)


def test_unlabelled_faces_weigh_nothing_in_the_classification(partly_labelled):
    split = split_with_unlabelled(partly_labelled)
    rows = rows_of(partly_labelled, split)
    faces = load_faces(partly_labelled, split, batch_size=5)
    weights = [w for _, _, w in faces]
    given = np.concatenate([w["classification"].numpy() for w in weights])
    assert given.tolist() == [float(row.label != -1) for row in rows]
    for image, targets, weight in faces:
        assert weight["reconstruction"].shape == (len(image),)
        assert (weight["reconstruction"].numpy() == 1).all()
        assert set(targets["classification"].numpy().ravel()) <= {0.0, 1.0}


def test_unlabelled_faces_are_left_out_where_that_is_asked_for(partly_labelled):
    split = split_with_unlabelled(partly_labelled)
    wanted = [row for row in rows_of(partly_labelled, split) if row.label != -1]
    faces = load_faces(partly_labelled, split, batch_size=3, labelled_only=True)
    assert len(faces) == -(-len(wanted) // 3)
    labels = np.concatenate([targets["classification"].numpy() for _, targets in faces])
    assert labels.ravel().tolist() == [row.label for row in wanted]


def test_the_loss_is_the_mean_over_labelled_faces_alone(partly_labelled, build_tiny):
    from jdfd_keras.training.compile import compile_detector

    model = build_tiny()
    compile_detector(model)
    split = split_with_unlabelled(partly_labelled)
    logs = model.evaluate(
        load_faces(partly_labelled, split, batch_size=64), verbose=0, return_dict=True
    )
    faces = load_faces(partly_labelled, split, batch_size=64, labelled_only=True)
    image, targets = next(iter(faces))
    score = np.clip(model.predict_on_batch(image)["classification"], 1e-7, 1 - 1e-7)
    label = targets["classification"].numpy()
    expected = -np.mean(label * np.log(score) + (1 - label) * np.log(1 - score))
    assert logs["classification_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def unbalanced(prepared_set, change_table, tmp_path_factory):
    """The prepared set with a fake in four real faces of training left, in the shard as well."""
    from jdfd_keras.datasets.records import frame_record

    out = tmp_path_factory.mktemp("unbalanced") / "set"
    shutil.copytree(prepared_set, out)
    rows = read_manifest(out)
    fakes = [index for index, r in enumerate(rows) if (r.split, r.label) == ("train", 1)]
    dropped = set(fakes[4:])
    (shard,) = (out / "shards").glob("train-*")
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    first = next(index for index, row in enumerate(rows) if row.split == "train")
    kept = [frame_record(r) for i, r in enumerate(records) if first + i not in dropped]
    shard.write_bytes(b"".join(kept))
    offsets = iter(np.cumsum([0, *map(len, kept)]).tolist())

    def drop(rows):
        left = [row for index, row in enumerate(rows) if index not in dropped]
        return [
            dataclasses.replace(row, offset=next(offsets)) if row.split == "train" else row
            for row in left
        ]

    change_table(out, FaceRow, drop)
    return out


def test_balanced_classes_are_drawn_equally_often(unbalanced):
    rows = rows_of(unbalanced, "train")
    assert Counter(row.label for row in rows)[1] == 4
    faces = load_faces(
        unbalanced,
        "train",
        batch_size=len(rows),
        shuffle=True,
        options=PipelineOptions(balance=True),
    )
    drawn = [faces.repeat(40)]
    labels = np.concatenate([t["classification"].numpy().ravel() for f in drawn for _, t in f])
    assert len(labels) == 40 * len(rows)
    # 960 draws with chance one half: four standard deviations are 0.065.
    assert abs(labels.mean() - 0.5) < 0.065


def test_balance_is_the_same_for_the_same_seed_and_loses_no_rare_face(unbalanced):
    def passes(seed):
        faces = load_faces(
            unbalanced,
            "train",
            batch_size=4,
            shuffle=True,
            seed=seed,
            options=PipelineOptions(balance=True),
        )
        return [order_in(faces), order_in(faces)]

    assert passes(1) == passes(1)
    assert passes(1)[0] != passes(1)[1]
    assert passes(1) != passes(2)
    fakes = {
        crop.astype(np.float32).tobytes()
        for (key, crop) in records_of(unbalanced, "train")
        if "/fake/" in key[0]
    }
    assert fakes <= set(passes(1)[0])


def test_one_class_cannot_be_balanced(prepared_set, change_table, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    change_table(tmp_path / "copy", FaceRow, lambda rows: [r for r in rows if r.label == 0])
    with pytest.raises(ValueError, match="got none that is fake"):
        load_faces(
            tmp_path / "copy",
            "train",
            batch_size=4,
            shuffle=True,
            options=PipelineOptions(balance=True),
        )


def test_cached_faces_are_the_same_and_outlive_their_shards(prepared_set, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    faces = load_faces(
        tmp_path / "copy", "train", batch_size=4, options=PipelineOptions(cache=True)
    )
    once = order_in(faces)
    assert once == order_in(load_faces(prepared_set, "train", batch_size=4))
    shutil.rmtree(tmp_path / "copy" / "shards")
    assert order_in(faces) == once


def test_changes_are_the_same_for_the_same_seed_and_others_in_every_pass(prepared_set):
    every = AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions)))

    def passes(seed):
        faces = load_faces(prepared_set, "val", batch_size=4, seed=seed, augment=every)
        return [order_in(faces), order_in(faces)]

    assert passes(1) == passes(1)
    assert passes(1)[0] != passes(1)[1]
    assert passes(1) != passes(2)


def test_the_decoder_is_to_rebuild_the_changed_face(prepared_set):
    every = AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions)))
    for image, targets in load_faces(prepared_set, "val", batch_size=4, augment=every):
        expected = image.numpy() / 127.5 - 1
        np.testing.assert_allclose(targets["reconstruction"].numpy(), expected, atol=1e-6)


def flip_a_bit(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 0.9999])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_flipped_bit_in_a_shard_is_found_and_the_shard_named(
    prepared_set, tmp_path, place, shuffle
):
    shutil.copytree(prepared_set, tmp_path / "copy")
    flip_a_bit(tmp_path / "copy/shards/val-00000.tfrecord", place)
    faces = load_faces(tmp_path / "copy", "val", batch_size=4, shuffle=shuffle)
    named = r"Damaged: .*val-00000\.tfrecord has after \d+ faces"
    with pytest.raises(ValueError, match=named), explain_damage(tmp_path / "copy"):
        list(faces)
    assert len(find_damage(tmp_path / "copy")) == 1


def test_shards_that_are_short_of_a_face_or_gone_are_named(prepared_set, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    assert find_damage(tmp_path / "copy") == []
    shards = tmp_path / "copy" / "shards"
    first = next(iter(tf.data.TFRecordDataset(str(shards / "val-00000.tfrecord")))).numpy()
    content = (shards / "val-00000.tfrecord").read_bytes()
    (shards / "val-00000.tfrecord").write_bytes(content[len(first) + 16 :])
    (shards / "test-00000.tfrecord").unlink()
    count = len(rows_of(prepared_set, "val"))
    assert find_damage(tmp_path / "copy") == [
        f"{shards / 'val-00000.tfrecord'} holds {count - 1} of {count} faces",
        f"{shards / 'test-00000.tfrecord'} is not there",
    ]


def list_split(prepared_set, split, count=None, **options):
    table = read_faces(prepared_set, split=split, columns=COLUMNS)
    return list_faces(prepared_set, table.slice(0, count), **options)


@pytest.fixture(scope="module")
def train_faces(prepared_set):
    return list_split(prepared_set, "train")


@pytest.fixture(scope="module")
def places(prepared_set):
    """Of each face of training its position, by its pixels as other code decodes them."""
    crops = [crop for _, crop in records_of(prepared_set, "train")]
    found = {crop.astype(np.float32).tobytes(): place for place, crop in enumerate(crops)}
    assert len(found) == len(crops)
    return found


def take(stream, steps):
    """Read steps of a stream as (images, labels, targets of the decoder)."""
    return [
        (image.numpy(), targets["classification"].numpy(), targets["reconstruction"].numpy())
        for image, targets, *_ in stream.take(steps)
    ]


def positions_in(steps, places):
    return [[places[image.tobytes()] for image in images] for images, *_ in steps]


def assert_same_steps(found, expected):
    """See that steps are the same, bit for bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for value, wanted in zip(one, other, strict=True):
            assert value.tobytes() == wanted.tobytes()
            assert value.shape == wanted.shape


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("batch_size", [1, 6, 17, 50])
def test_a_stream_goes_on_from_pass_to_pass_in_full_batches(
    train_faces, places, batch_size, balance
):
    count, num_steps = len(places), 300 // batch_size  # eight passes or nine
    passes = [
        draw_order(train_faces.label, seed=-4, number=number, balance=balance)
        for number in range(-(-num_steps * batch_size // count))
    ]
    assert len(passes) > 6
    order = np.concatenate(passes)
    options = PipelineOptions(balance=balance)
    stream = stream_faces(train_faces, batch_size=batch_size, seed=-4, options=options)
    steps = take(stream, num_steps)
    assert len(steps) == num_steps
    for step, found in enumerate(positions_in(steps, places)):
        assert found == order[step * batch_size : (step + 1) * batch_size].tolist()
    labels = np.concatenate([label for _, label, _ in steps]).ravel()
    assert labels.tolist() == train_faces.label[order[: len(labels)]].tolist()


EVERY_CHANGE = AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions)))


@pytest.mark.parametrize(("done", "augment"), [(1, None), (4, None), (5, EVERY_CHANGE), (11, None)])
def test_a_stream_from_a_later_step_gives_what_is_left_of_one_from_the_first(
    train_faces, done, augment
):
    # 34 faces by 7: step 4 holds the end of a pass and the begin of the next.
    whole = take(stream_faces(train_faces, batch_size=7, seed=2, augment=augment), done + 6)
    left = take(
        stream_faces(train_faces, batch_size=7, seed=2, start_step=done, augment=augment), 6
    )
    assert_same_steps(left, whole[done:])


def test_a_stream_changes_the_same_face_otherwise_in_each_pass_and_with_each_seed(
    train_faces, places
):
    def read(seed):
        stream = stream_faces(train_faces, batch_size=34, seed=seed, augment=EVERY_CHANGE)
        return [image.tobytes() for images, *_ in take(stream, 2) for image in images]

    found = [read(seed) for seed in (1, 2)]
    assert found[0] == read(1)
    # A face is left as it is by all six ways with a chance of 1 in 64.
    changed = [set(of[part : part + 34]) - set(places) for of in found for part in (0, 34)]
    assert all(len(of) > 17 for of in changed)
    assert len(set.union(*changed)) == sum(map(len, changed))


@pytest.mark.parametrize(
    ("machines", "devices", "start_step", "augment"),
    [(2, 1, 3, None), (2, 2, 3, EVERY_CHANGE), (2, 3, 0, None), (3, 1, 0, None), (1, 3, 0, None)],
)
def test_several_machines_together_get_step_by_step_what_one_gets(
    train_faces, machines, devices, start_step, augment
):
    same = {"batch_size": 12, "seed": 5, "start_step": start_step, "augment": augment}
    one = take(stream_faces(train_faces, **same), 5)
    replicas = machines * devices
    parts = [
        take(
            stream_faces(train_faces, part=part, parts=machines, replicas=replicas, **same),
            5 * devices,
        )
        for part in range(machines)
    ]
    together = []
    for step in range(5):
        batches = [batch for part in parts for batch in part[step * devices : (step + 1) * devices]]
        assert {len(images) for images, *_ in batches} == {12 // replicas}
        together.append(tuple(np.concatenate(values) for values in zip(*batches, strict=True)))
    assert_same_steps(together, one)


@pytest.fixture(scope="module")
def partly_hidden(prepared_set, train_faces):
    """The faces of training, and those of testing with their labels hidden."""
    hidden = list_split(prepared_set, "test", hide_labels=True)
    assert {row.label for row in rows_of(prepared_set, "test")} == {0, 1}
    return join_lists([train_faces, hidden])


def read_weighed(faces, prepared_set, **options):
    """Read a pass: of each face what is known of it, then its target and both weights."""
    known = {}
    for split in ("train", "test"):
        for row, (_, crop) in zip(
            rows_of(prepared_set, split), records_of(prepared_set, split), strict=True
        ):
            known[crop.astype(np.float32).tobytes()] = row
    stream = stream_faces(faces, batch_size=len(faces), seed=0, options=PipelineOptions(**options))
    ((image, targets, weights),) = stream.take(1)
    assert weights["classification"].dtype == weights["reconstruction"].dtype == tf.float32
    columns = (targets["classification"][:, 0], *map(weights.get, sorted(weights)))
    values = zip(*(column.numpy().tolist() for column in columns), strict=True)
    return [(known[one.tobytes()], *of) for one, of in zip(image.numpy(), values, strict=True)]


def test_class_weights_make_both_classes_weigh_half(train_faces, prepared_set):
    counts = Counter(row.label for row in rows_of(prepared_set, "train"))
    assert counts[0] != counts[1]
    total = 0.0
    for row, target, weight, rebuilt in read_weighed(train_faces, prepared_set, class_weights=True):
        assert target == row.label
        assert weight == pytest.approx(sum(counts.values()) / (2 * counts[row.label]), rel=1e-6)
        assert rebuilt == 1
        total += weight
    assert total == pytest.approx(len(train_faces), rel=1e-6)


def test_a_decoder_of_real_faces_gets_no_weight_for_fakes(train_faces, prepared_set):
    for row, target, weight, rebuilt in read_weighed(train_faces, prepared_set, reconstruct="real"):
        assert (target, weight, rebuilt) == (row.label, 1, 1 - row.label)


@pytest.mark.parametrize("class_weights", [False, True])
def test_hidden_labels_weigh_nothing_and_are_not_told(partly_hidden, prepared_set, class_weights):
    counts = Counter(row.label for row in rows_of(prepared_set, "train"))
    share = {c: sum(counts.values()) / (2 * counts[c]) if class_weights else 1 for c in (0, 1)}
    hidden = 0
    for row, target, weight, rebuilt in read_weighed(
        partly_hidden, prepared_set, class_weights=class_weights
    ):
        assert rebuilt == 1
        if row.split == "test":
            hidden += 1
            assert (target, weight) == (0, 0)
        else:
            assert target == row.label
            assert weight == pytest.approx(share[row.label], rel=1e-6)
    assert hidden == len(rows_of(prepared_set, "test"))


def test_balance_and_class_weights_together_are_refused(train_faces):
    both = PipelineOptions(balance=True, class_weights=True)
    with pytest.raises(ValueError, match="balance or class_weights; got both"):
        stream_faces(train_faces, batch_size=4, seed=0, options=both)


def test_one_class_cannot_be_weighed(prepared_set):
    faces = list_split(prepared_set, "train", 4)
    assert set(faces.label) == {0}
    with pytest.raises(ValueError, match="got none that is fake"):
        stream_faces(faces, batch_size=4, seed=0, options=PipelineOptions(class_weights=True))


def test_a_cached_stream_is_the_same_and_outlives_its_shards(prepared_set, train_faces, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    faces = list_split(tmp_path / "copy", "train")
    options = PipelineOptions(cache=True)
    stream = stream_faces(faces, batch_size=34, seed=0, options=options)
    steps = iter(stream)
    first = next(steps)
    shutil.rmtree(tmp_path / "copy" / "shards")
    found = take(stream, 3)
    assert found[0][0].tobytes() == first[0].numpy().tobytes()
    assert_same_steps(found, take(stream_faces(train_faces, batch_size=34, seed=0), 3))


@pytest.mark.parametrize(("count", "most"), [(6, 32), (17, 2), (34, 4), (34, 17), (34, 32)])
@pytest.mark.parametrize(("machines", "devices"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2)])
def test_a_pass_is_shared_out_in_as_many_batches_for_each_device_of_nearly_one_size(
    prepared_set, places, count, most, machines, devices
):
    faces = list_split(prepared_set, "train", count)
    parts = [
        share_faces(faces, most=most, part=part, parts=machines, replicas=machines * devices)
        for part in range(machines)
    ]
    batches = [positions_in(take(part, -1), places) for part in parts]
    assert [len(part) for part in parts] == [len(of) for of in batches]
    assert len({len(of) for of in batches}) == 1
    assert len(batches[0]) % devices == 0
    sizes = {len(batch) for of in batches for batch in of}
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert sorted(p for of in batches for batch in of for p in batch) == list(range(count))
    # No more batches than are needed.
    assert len(batches[0]) // devices == -(-count // (machines * devices * most))
    if machines * devices == 1:
        assert [p for batch in batches[0] for p in batch] == list(range(count))


def test_shared_out_faces_come_with_their_labels_and_weights(partly_hidden):
    batches = list(share_faces(partly_hidden, most=5, part=0, parts=1, replicas=1))
    labels = np.concatenate([targets["classification"] for _, targets, _ in batches]).ravel()
    weights = np.concatenate([weight["classification"] for *_, weight in batches])
    known = partly_hidden.label != -1
    assert weights.tolist() == known.tolist()
    assert labels.tolist() == np.where(known, partly_hidden.label, 0).tolist()
