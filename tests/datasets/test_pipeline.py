import csv
import dataclasses
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from jdfd_keras.datasets.face_index import COLUMNS, concat, epoch_order, index_faces
from jdfd_keras.datasets.manifest import VIDEOS, FaceRow, VideoRow, read_faces, to_rows
from jdfd_keras.datasets.pipeline import load_faces, read_epoch, stream_faces
from jdfd_keras.datasets.transforms import find_damage, reraise_damaged_shards
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.options import (
    AugmentOptions,
    FaceOptions,
    FilterOptions,
    PipelineOptions,
    PrepareOptions,
)


def rows_of(prepared_set, split):
    return [row for row in to_rows(read_faces(prepared_set), FaceRow) if row.split == split]


def records_of(prepared_set, split):
    """Read ids and crops without the code under test, in the order of the shards."""
    with open(prepared_set / "splits" / "official.csv", newline="") as file:
        of_split = {row["video_id"] for row in csv.DictReader(file) if row["split"] == split}
    found = []
    for path in sorted((prepared_set / "shards").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            crop = tf.io.decode_png(features["image/encoded"].bytes_list.value[0]).numpy()
            key = (
                features["video_id"].bytes_list.value[0].decode(),
                features["frame_index"].int64_list.value[0],
            )
            if key[0] in of_split:
                found.append((key, crop))
    return found


def images_in(faces):
    return np.concatenate([image.numpy() for image, _ in faces])


def order_in(faces):
    """Return the pixels of each face, which differ from face to face."""
    return [image.tobytes() for image in images_in(faces)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_faces_are_in_the_order_of_the_manifest(prepared_set, split):
    rows, records = rows_of(prepared_set, split), records_of(prepared_set, split)
    assert [key for key, _ in records] == [(row.video_id, row.frame_index) for row in rows]
    faces = load_faces(prepared_set, split, batch_size=3)
    np.testing.assert_array_equal(images_in(faces), np.stack([crop for _, crop in records]))
    labels = np.concatenate([targets["classification"].numpy() for _, targets in faces])
    assert labels.tolist() == [[row.label] for row in rows]


def test_training_reads_the_crops_that_prediction_extracts(clips_folder, prepared_set):
    rows = rows_of(prepared_set, "train")
    faces = index_faces(prepared_set, read_faces(prepared_set, split="train", columns=COLUMNS))
    videos = to_rows(pq.read_table(prepared_set / VIDEOS), VideoRow)
    paths = {video.video_id: clips_folder / video.path for video in videos}
    images = images_in(load_faces(prepared_set, "train", batch_size=8))
    np.testing.assert_array_equal(images, [faces.read(index) for index in range(len(rows))])

    video_id = rows[0].video_id
    extracted = extract_faces(
        paths[video_id], FaceOptions(frames_per_video=4, face_size=71), FilterOptions()
    )
    own = [row.video_id == video_id for row in rows]
    np.testing.assert_array_equal(images[own], [face.crop for face in extracted.faces])


def test_batches_have_the_inputs_and_targets_of_the_network(prepared_set):
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


def test_shuffling_differs_in_every_epoch_and_loses_no_face(prepared_set):
    plain = order_in(load_faces(prepared_set, "train", batch_size=4))
    faces = load_faces(prepared_set, "train", batch_size=4, shuffle=True, seed=1)
    epochs = [order_in(faces), order_in(faces)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(plain)
    assert epochs[0] != plain
    assert epochs[0] != epochs[1]


def test_labels_are_shuffled_with_their_faces(prepared_set):
    labels = {}
    for image, targets in load_faces(prepared_set, "train", batch_size=1):
        labels[image.numpy().tobytes()] = float(targets["classification"][0, 0])
    for image, targets in load_faces(prepared_set, "train", batch_size=1, shuffle=True):
        assert float(targets["classification"][0, 0]) == labels[image.numpy().tobytes()]


def test_the_seed_determines_the_order_of_every_epoch(prepared_set):
    def epochs(seed):
        faces = load_faces(prepared_set, "train", batch_size=4, shuffle=True, seed=seed)
        return [order_in(faces), order_in(faces)]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)


def test_an_empty_split_is_an_error(prepared_set, change_table, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    of_val = {row.video_id for row in rows_of(prepared_set, "val")}
    change_table(
        tmp_path / "copy", FaceRow, lambda rows: [r for r in rows if r.video_id not in of_val]
    )
    with pytest.raises(ValueError, match="val split"):
        load_faces(tmp_path / "copy", "val", batch_size=4)


def test_a_folder_that_is_not_a_prepared_set_is_an_error(tmp_path):
    with pytest.raises(OSError, match="jdfd-keras prepare"):
        load_faces(tmp_path, "train", batch_size=4)


def test_a_set_of_another_format_version_is_an_error(prepared_set, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    path = tmp_path / "copy" / "options.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(ValueError, match="Expected format_version 2 in .*; got 1"):
        load_faces(tmp_path / "copy", "train", batch_size=4)


@pytest.fixture(scope="module")
def partly_labelled(clips_folder, tmp_path_factory):
    """A prepared set in which the clips of two subjects are unlabelled."""
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
    """Return a split in which some faces are labelled and some are not."""
    labels = {}
    for row in to_rows(read_faces(directory), FaceRow):
        labels.setdefault(row.split, set()).add(row.label)
    return next(split for split, found in labels.items() if {-1, 0} <= found)


def test_unlabelled_faces_have_no_weight_in_the_classification(partly_labelled):
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


def test_labelled_only_omits_unlabelled_faces(partly_labelled):
    split = split_with_unlabelled(partly_labelled)
    wanted = [row for row in rows_of(partly_labelled, split) if row.label != -1]
    faces = load_faces(partly_labelled, split, batch_size=3, labelled_only=True)
    assert len(faces) == -(-len(wanted) // 3)
    labels = np.concatenate([targets["classification"].numpy() for _, targets in faces])
    assert labels.ravel().tolist() == [row.label for row in wanted]


def test_the_loss_is_the_mean_over_labelled_faces(partly_labelled, build_tiny):
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
    """The prepared set with four fake faces in training, in the shard as well."""
    from jdfd_keras.datasets.records import frame_record

    out = tmp_path_factory.mktemp("unbalanced") / "set"
    shutil.copytree(prepared_set, out)
    rows = to_rows(read_faces(out), FaceRow)
    fakes = [index for index, r in enumerate(rows) if (r.split, r.label) == ("train", 1)]
    removed = set(fakes[4:])
    (shard,) = (out / "shards").iterdir()
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    kept = [frame_record(r) for i, r in enumerate(records) if i not in removed]
    shard.write_bytes(b"".join(kept))
    offsets = iter(np.cumsum([0, *map(len, kept)]).tolist())

    def remove(rows):
        remaining = [row for index, row in enumerate(rows) if index not in removed]
        return [dataclasses.replace(row, offset=next(offsets)) for row in remaining]

    change_table(out, FaceRow, remove)
    return out


def test_balanced_classes_are_sampled_equally_often(unbalanced):
    rows = rows_of(unbalanced, "train")
    assert Counter(row.label for row in rows)[1] == 4
    faces = load_faces(
        unbalanced,
        "train",
        batch_size=len(rows),
        shuffle=True,
        options=PipelineOptions(balance=True),
    )
    labels = np.concatenate([t["classification"].numpy().ravel() for _, t in faces.repeat(40)])
    assert len(labels) == 40 * len(rows)
    # 960 draws with probability one half: four standard deviations are 0.065.
    assert abs(labels.mean() - 0.5) < 0.065


def test_balance_depends_on_the_seed_alone_and_loses_no_face_of_the_rarer_class(unbalanced):
    def epochs(seed):
        faces = load_faces(
            unbalanced,
            "train",
            batch_size=4,
            shuffle=True,
            seed=seed,
            options=PipelineOptions(balance=True),
        )
        return [order_in(faces), order_in(faces)]

    assert epochs(1) == epochs(1)
    assert epochs(1)[0] != epochs(1)[1]
    assert epochs(1) != epochs(2)
    fakes = {
        crop.astype(np.float32).tobytes()
        for (key, crop) in records_of(unbalanced, "train")
        if "/fake/" in key[0]
    }
    assert fakes <= set(epochs(1)[0])


def test_balancing_one_class_is_an_error(prepared_set, change_table, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    change_table(tmp_path / "copy", FaceRow, lambda rows: [r for r in rows if r.label == 0])
    with pytest.raises(ValueError, match="got no fake"):
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


def test_augmentation_depends_on_the_seed_and_differs_in_every_epoch(prepared_set):
    every = AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions)))

    def epochs(seed):
        faces = load_faces(prepared_set, "val", batch_size=4, seed=seed, augment=every)
        return [order_in(faces), order_in(faces)]

    assert epochs(1) == epochs(1)
    assert epochs(1)[0] != epochs(1)[1]
    assert epochs(1) != epochs(2)


def test_the_reconstruction_target_is_the_augmented_face(prepared_set):
    every = AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions)))
    for image, targets in load_faces(prepared_set, "val", batch_size=4, augment=every):
        expected = image.numpy() / 127.5 - 1
        np.testing.assert_allclose(targets["reconstruction"].numpy(), expected, atol=1e-6)


def flip_a_bit(path, position):
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("position", "shuffle"), [(0.0, True), (0.3, False), (0.9999, True)])
def test_a_flipped_bit_in_a_shard_is_an_error_that_names_the_shard(
    prepared_set, tmp_path, position, shuffle
):
    shutil.copytree(prepared_set, tmp_path / "copy")
    flip_a_bit(tmp_path / "copy/shards/00000.tfrecord", position)
    faces = load_faces(tmp_path / "copy", "all", batch_size=4, shuffle=shuffle)
    message = r"Damaged: .*/00000\.tfrecord has, after \d+ faces?,"
    with pytest.raises(ValueError, match=message), reraise_damaged_shards(tmp_path / "copy"):
        list(faces)
    assert len(find_damage(tmp_path / "copy")) == 1


def test_missing_and_incomplete_shards_are_found(clips_folder, tmp_path):
    from jdfd_keras.datasets.prepare import prepare

    options = PrepareOptions(faces_per_shard=20)
    prepare(clips_folder, tmp_path / "set", FaceOptions(frames_per_video=4, face_size=71), options)
    assert find_damage(tmp_path / "set") == []
    counts = Counter(row.shard for row in to_rows(read_faces(tmp_path / "set"), FaceRow))
    assert sorted(counts) == ["00000.tfrecord", "00001.tfrecord", "00002.tfrecord"]
    shards = tmp_path / "set" / "shards"
    first = next(iter(tf.data.TFRecordDataset(str(shards / "00000.tfrecord")))).numpy()
    content = (shards / "00000.tfrecord").read_bytes()
    (shards / "00000.tfrecord").write_bytes(content[len(first) + 16 :])
    (shards / "00002.tfrecord").unlink()
    count = counts["00000.tfrecord"]
    assert find_damage(tmp_path / "set") == [
        f"{shards / '00000.tfrecord'} has {count - 1} of {count} faces",
        f"{shards / '00002.tfrecord'} does not exist",
    ]


def index_split(prepared_set, split, count=None, **options):
    table = read_faces(prepared_set, split=split, columns=COLUMNS)
    return index_faces(prepared_set, table.slice(0, count), **options)


@pytest.fixture(scope="module")
def train_faces(prepared_set):
    return index_split(prepared_set, "train")


@pytest.fixture(scope="module")
def positions(prepared_set):
    """Pixels, decoded by other code, to the position of each training face."""
    crops = [crop for _, crop in records_of(prepared_set, "train")]
    found = {crop.astype(np.float32).tobytes(): index for index, crop in enumerate(crops)}
    assert len(found) == len(crops)
    return found


def take(stream, steps):
    """Read steps of a stream as (images, labels, reconstruction targets)."""
    return [
        (image.numpy(), targets["classification"].numpy(), targets["reconstruction"].numpy())
        for image, targets, *_ in stream.take(steps)
    ]


def positions_in(steps, positions):
    return [[positions[image.tobytes()] for image in images] for images, *_ in steps]


def assert_same_steps(found, expected):
    """Check that steps are the same, bit for bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for value, wanted in zip(one, other, strict=True):
            assert value.tobytes() == wanted.tobytes()
            assert value.shape == wanted.shape


@pytest.mark.parametrize(
    ("batch_size", "balance"), [(1, False), (6, True), (17, False), (50, True)]
)
def test_a_stream_continues_from_epoch_to_epoch_in_full_batches(
    train_faces, positions, batch_size, balance
):
    count, num_steps = len(positions), 300 // batch_size  # eight or nine epochs
    epochs = [
        epoch_order(train_faces.label, seed=-4, epoch=epoch, balance=balance)
        for epoch in range(-(-num_steps * batch_size // count))
    ]
    assert len(epochs) > 6
    order = np.concatenate(epochs)
    options = PipelineOptions(balance=balance)
    stream = stream_faces(train_faces, batch_size=batch_size, seed=-4, options=options)
    steps = take(stream, num_steps)
    assert len(steps) == num_steps
    for step, found in enumerate(positions_in(steps, positions)):
        assert found == order[step * batch_size : (step + 1) * batch_size].tolist()
    labels = np.concatenate([label for _, label, _ in steps]).ravel()
    assert labels.tolist() == train_faces.label[order[: len(labels)]].tolist()


EVERY_AUGMENTATION = AugmentOptions(*[True] * len(dataclasses.fields(AugmentOptions)))


@pytest.mark.parametrize(
    ("done", "augment"), [(1, None), (4, None), (5, EVERY_AUGMENTATION), (11, None)]
)
def test_a_stream_from_a_later_step_equals_the_rest_of_one_from_the_first(
    train_faces, done, augment
):
    # 34 faces, 7 per step: step 4 has the end of an epoch and the start of the next.
    whole = take(stream_faces(train_faces, batch_size=7, seed=2, augment=augment), done + 6)
    rest = take(
        stream_faces(train_faces, batch_size=7, seed=2, start_step=done, augment=augment), 6
    )
    assert_same_steps(rest, whole[done:])


def test_augmentation_of_a_face_differs_with_epoch_and_seed(train_faces, positions):
    def read(seed):
        stream = stream_faces(train_faces, batch_size=34, seed=seed, augment=EVERY_AUGMENTATION)
        return [image.tobytes() for images, *_ in take(stream, 2) for image in images]

    found = [read(seed) for seed in (1, 2)]
    assert found[0] == read(1)
    # No augmentation is applied with a probability of 1/64.
    changed = [set(of[start : start + 34]) - set(positions) for of in found for start in (0, 34)]
    assert all(len(of) > 17 for of in changed)
    assert len(set.union(*changed)) == sum(map(len, changed))


@pytest.mark.parametrize(
    ("workers", "devices", "start_step", "augment"),
    [
        (2, 1, 3, None),
        (2, 2, 3, EVERY_AUGMENTATION),
        (2, 3, 0, None),
        (3, 1, 0, None),
        (1, 3, 0, None),
    ],
)
def test_several_workers_together_get_the_same_steps_as_one(
    train_faces, workers, devices, start_step, augment
):
    same = {"batch_size": 12, "seed": 5, "start_step": start_step, "augment": augment}
    one = take(stream_faces(train_faces, **same), 5)
    replicas = workers * devices
    streams = [
        take(
            stream_faces(
                train_faces, worker_index=index, num_workers=workers, replicas=replicas, **same
            ),
            5 * devices,
        )
        for index in range(workers)
    ]
    together = []
    for step in range(5):
        batches = [b for stream in streams for b in stream[step * devices : (step + 1) * devices]]
        assert {len(images) for images, *_ in batches} == {12 // replicas}
        together.append(tuple(np.concatenate(values) for values in zip(*batches, strict=True)))
    assert_same_steps(together, one)


@pytest.fixture(scope="module")
def partly_hidden(prepared_set, train_faces):
    """The training faces, and the test faces with hidden labels."""
    hidden = index_split(prepared_set, "test", hide_labels=True)
    assert {row.label for row in rows_of(prepared_set, "test")} == {0, 1}
    return concat([train_faces, hidden])


def read_weighted(faces, prepared_set, **options):
    """Read an epoch; return the row of each face, its target and both weights."""
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


def test_class_weights_give_both_classes_half_of_the_weight(train_faces, prepared_set):
    counts = Counter(row.label for row in rows_of(prepared_set, "train"))
    assert counts[0] != counts[1]
    total = 0.0
    for row, target, weight, reconstruction in read_weighted(
        train_faces, prepared_set, class_weights=True
    ):
        assert target == row.label
        assert weight == pytest.approx(sum(counts.values()) / (2 * counts[row.label]), rel=1e-6)
        assert reconstruction == 1
        total += weight
    assert total == pytest.approx(len(train_faces), rel=1e-6)


def test_with_reconstruct_real_fakes_have_no_weight_in_the_reconstruction(
    train_faces, prepared_set
):
    for row, target, weight, reconstruction in read_weighted(
        train_faces, prepared_set, reconstruct="real"
    ):
        assert (target, weight, reconstruction) == (row.label, 1, 1 - row.label)


@pytest.mark.parametrize("class_weights", [False, True])
def test_hidden_labels_have_no_weight_and_are_not_in_the_targets(
    partly_hidden, prepared_set, class_weights
):
    counts = Counter(row.label for row in rows_of(prepared_set, "train"))
    share = {c: sum(counts.values()) / (2 * counts[c]) if class_weights else 1 for c in (0, 1)}
    hidden = 0
    for row, target, weight, reconstruction in read_weighted(
        partly_hidden, prepared_set, class_weights=class_weights
    ):
        assert reconstruction == 1
        if row.split == "test":
            hidden += 1
            assert (target, weight) == (0, 0)
        else:
            assert target == row.label
            assert weight == pytest.approx(share[row.label], rel=1e-6)
    assert hidden == len(rows_of(prepared_set, "test"))


def test_balance_and_class_weights_together_are_an_error(train_faces):
    both = PipelineOptions(balance=True, class_weights=True)
    with pytest.raises(ValueError, match="balance or .*; got both"):
        stream_faces(train_faces, batch_size=4, seed=0, options=both)


def test_class_weights_of_one_class_are_an_error(prepared_set):
    faces = index_split(prepared_set, "train", 4)
    assert set(faces.label) == {0}
    with pytest.raises(ValueError, match="got no fake"):
        stream_faces(faces, batch_size=4, seed=0, options=PipelineOptions(class_weights=True))


def test_a_cached_stream_is_the_same_and_outlives_its_shards(prepared_set, train_faces, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    faces = index_split(tmp_path / "copy", "train")
    options = PipelineOptions(cache=True)
    stream = stream_faces(faces, batch_size=34, seed=0, options=options)
    steps = iter(stream)
    first = next(steps)
    shutil.rmtree(tmp_path / "copy" / "shards")
    found = take(stream, 3)
    assert found[0][0].tobytes() == first[0].numpy().tobytes()
    assert_same_steps(found, take(stream_faces(train_faces, batch_size=34, seed=0), 3))


@pytest.mark.parametrize(
    ("count", "max_batch_size", "workers", "devices"),
    [(34, 17, 1, 1), (17, 2, 1, 3), (34, 4, 2, 1), (34, 32, 2, 2), (6, 32, 3, 2)],
)
def test_an_epoch_has_equally_many_batches_of_nearly_one_size_for_each_device(
    prepared_set, positions, count, max_batch_size, workers, devices
):
    faces = index_split(prepared_set, "train", count)
    datasets = [
        read_epoch(
            faces,
            max_batch_size=max_batch_size,
            worker_index=index,
            num_workers=workers,
            replicas=workers * devices,
        )
        for index in range(workers)
    ]
    batches = [positions_in(take(dataset, -1), positions) for dataset in datasets]
    assert [len(dataset) for dataset in datasets] == [len(of) for of in batches]
    assert len({len(of) for of in batches}) == 1
    assert len(batches[0]) % devices == 0
    sizes = {len(batch) for of in batches for batch in of}
    assert max(sizes) <= max_batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(p for of in batches for batch in of for p in batch) == list(range(count))
    # As few batches as possible.
    assert len(batches[0]) // devices == -(-count // (workers * devices * max_batch_size))
    if workers * devices == 1:
        assert [p for batch in batches[0] for p in batch] == list(range(count))


def test_the_faces_of_an_epoch_have_their_labels_and_weights(partly_hidden):
    batches = list(
        read_epoch(partly_hidden, max_batch_size=5, worker_index=0, num_workers=1, replicas=1)
    )
    labels = np.concatenate([targets["classification"] for _, targets, _ in batches]).ravel()
    weights = np.concatenate([weight["classification"] for *_, weight in batches])
    known = partly_hidden.label != -1
    assert weights.tolist() == known.tolist()
    assert labels.tolist() == np.where(known, partly_hidden.label, 0).tolist()
