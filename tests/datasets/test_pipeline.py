import csv
import dataclasses
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from jdfd_keras.datasets.face_index import (
    COLUMNS,
    FAKE_COLUMNS,
    add_fakes,
    concat,
    epoch_order,
    index_faces,
)
from jdfd_keras.datasets.manifest import VIDEOS, FaceRow, VideoRow, read_faces, to_rows
from jdfd_keras.datasets.pipeline import load_faces, read_epoch, stream_faces
from jdfd_keras.datasets.transforms import find_damage, reraise_damaged_shards
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.options import (
    FAKE_KINDS,
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    # No augmentation is applied with a probability of 1/128.
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


def index_with_fakes(prepared_set, split, kinds):
    table = read_faces(prepared_set, split=split, columns=FAKE_COLUMNS)
    return add_fakes(index_faces(prepared_set, table), kinds)


@pytest.fixture(scope="module")
def blended_faces(prepared_set):
    """The training faces with blended fakes of every kind."""
    return index_with_fakes(prepared_set, "train", FAKE_KINDS)


@pytest.fixture(scope="module")
def several_groups(prepared_set, blended_faces):
    """Real faces and their blended fakes, labelled fakes, and unlabelled faces."""
    table = read_faces(prepared_set, split="train", columns=FAKE_COLUMNS)
    hidden = index_split(prepared_set, "test", 5, hide_labels=True)
    return add_fakes(concat([index_faces(prepared_set, table), hidden]), FAKE_KINDS)


def test_each_batch_holds_pairs_of_a_real_face_and_its_fake(prepared_set, blended_faces, positions):
    count = len(blended_faces)
    labels = [row.label for row in rows_of(prepared_set, "train")]
    steps = take(stream_faces(blended_faces, batch_size=count // 3, seed=3), 6)
    for epoch in range(2):
        seen, num_pairs = [], 0
        for images, found_labels, _ in steps[3 * epoch : 3 * epoch + 3]:
            for start in range(0, len(images), 2):
                pair = images[start : start + 2]
                keys = [positions.get(image.tobytes()) for image in pair]
                if None in keys:  # a blended fake, beside its real face
                    assert keys[1] is None and labels[keys[0]] == 0
                    index = np.flatnonzero(blended_faces.base == keys[0])[0]
                    fake = blended_faces.blend(index, blended_faces.read, seed=3, epoch=epoch)
                    np.testing.assert_array_equal(pair[1], fake.pixels)
                    np.testing.assert_array_equal(pair[1][fake.mask == 0], pair[0][fake.mask == 0])
                    assert found_labels[start : start + 2].ravel().tolist() == [0, 1]
                    num_pairs += 1
                else:
                    assert [labels[key] for key in keys] == [1, 1]
                    assert found_labels[start : start + 2].ravel().tolist() == [1, 1]
                seen += [key for key in keys if key is not None]
        assert set(seen) == set(range(len(labels)))
        assert Counter(labels[key] for key in seen)[0] == num_pairs == labels.count(0)


def test_with_balance_half_of_each_batch_is_real_and_labelled_fakes_have_a_real_partner(
    prepared_set, blended_faces, positions
):
    labels = [row.label for row in rows_of(prepared_set, "train")]
    options = PipelineOptions(balance=True)
    stream = stream_faces(blended_faces, batch_size=len(blended_faces), seed=0, options=options)
    for images, found_labels, _ in take(stream, 3):
        assert found_labels.ravel().tolist() == [0, 1] * (len(images) // 2)
        keys = [positions.get(image.tobytes()) for image in images]
        assert all(labels[key] == 0 for key in keys[::2])
        assert {labels[key] for key in keys[1::2] if key is not None} == {1}
        assert set(keys[::2]) == set(np.flatnonzero(np.array(labels) == 0))


@pytest.mark.parametrize("reconstruct", ["all", "real", "clean"])
def test_weights_and_targets_of_the_reconstruction(several_groups, reconstruct):
    faces = several_groups
    options = PipelineOptions(reconstruct=reconstruct)
    stream = stream_faces(faces, batch_size=len(faces), seed=0, options=options)
    ((image, targets, weights),) = stream.take(1)
    order = epoch_order(faces.label, seed=0, epoch=0, base=faces.base)
    blended = faces.base[order] >= 0
    label = np.where(blended, 2, faces.label[order])
    assert set(label) == {-1, 0, 1, 2}
    learnt = {"all": (-1, 0, 1, 2), "real": (0,), "clean": (0, 2)}[reconstruct]
    assert weights["reconstruction"].numpy().tolist() == np.isin(label, learnt).tolist()
    assert weights["classification"].numpy().tolist() == (label != -1).tolist()
    image, target = image.numpy(), targets["reconstruction"].numpy()
    own = image / np.float32(127.5) - 1
    assert (own[blended] != own[np.flatnonzero(blended) - 1]).any(axis=(1, 2, 3)).all()
    expected = own.copy()
    if reconstruct == "clean":
        expected[blended] = own[np.flatnonzero(blended) - 1]
    np.testing.assert_allclose(target, expected, atol=1e-6)


def test_a_fake_is_augmented_like_its_real_face_and_the_clean_target_is_that_of_it(blended_faces):
    clean = PipelineOptions(reconstruct="clean")
    count = len(blended_faces)
    stream = stream_faces(
        blended_faces, batch_size=count, seed=0, options=clean, augment=EVERY_AUGMENTATION
    )
    for epoch, (images, _, targets) in enumerate(take(stream, 3)):
        order = epoch_order(blended_faces.label, seed=0, epoch=epoch, base=blended_faces.base)
        changed = 0
        for position in np.flatnonzero(blended_faces.base[order] >= 0):
            real, fake = targets[position - 1], targets[position]
            assert real.tobytes() == fake.tobytes()
            np.testing.assert_allclose(real, images[position - 1] / 127.5 - 1, atol=1e-6)
            assert (images[position] != images[position - 1]).any()
            changed += not np.array_equal(
                images[position - 1], blended_faces.read(blended_faces.base[order[position]])
            )
        assert changed > 10


def test_a_fake_is_mirrored_with_its_real_face(blended_faces):
    flip = AugmentOptions(flip=True)
    size = len(blended_faces)
    (plain,) = take(stream_faces(blended_faces, batch_size=size, seed=0), 1)
    (flipped,) = take(stream_faces(blended_faces, batch_size=size, seed=0, augment=flip), 1)
    is_mirrored = [not np.array_equal(*pair) for pair in zip(plain[0], flipped[0], strict=True)]
    order = epoch_order(blended_faces.label, seed=0, epoch=0, base=blended_faces.base)
    blended = np.flatnonzero(blended_faces.base[order] >= 0)
    assert [is_mirrored[i] for i in blended] == [is_mirrored[i - 1] for i in blended]
    assert 0 < sum(is_mirrored) < size
    for index in np.flatnonzero(is_mirrored):
        np.testing.assert_array_equal(flipped[0][index], plain[0][index][:, ::-1])


@pytest.mark.parametrize(
    ("done", "augment", "reconstruct"),
    [(0, EVERY_AUGMENTATION, "clean"), (3, None, "all"), (7, EVERY_AUGMENTATION, "clean")],
)
@pytest.mark.slow
def test_a_stream_with_fakes_has_the_same_bytes_again_and_from_any_step(
    several_groups, done, augment, reconstruct
):
    same = {"batch_size": 14, "seed": -2, "augment": augment}
    same["options"] = PipelineOptions(reconstruct=reconstruct, balance=True)
    whole = take(stream_faces(several_groups, **same), done + 5)
    rest = take(stream_faces(several_groups, start_step=done, **same), 5)
    assert_same_steps(rest, whole[done:])


def test_several_workers_together_get_the_same_pairs_as_one(several_groups):
    same = {"batch_size": 24, "seed": 5, "augment": EVERY_AUGMENTATION}
    one = take(stream_faces(several_groups, **same), 4)
    streams = [
        take(stream_faces(several_groups, worker_index=i, num_workers=2, replicas=4, **same), 8)
        for i in range(2)
    ]
    together = []
    for step in range(4):
        batches = [batch for stream in streams for batch in stream[2 * step : 2 * step + 2]]
        assert {len(images) for images, *_ in batches} == {6}
        together.append(tuple(np.concatenate(values) for values in zip(*batches, strict=True)))
    assert_same_steps(together, one)


@pytest.mark.parametrize(("batch_size", "replicas"), [(7, 1), (6, 2), (10, 2)])
def test_an_odd_batch_on_a_device_is_an_error_with_fakes(
    blended_faces, train_faces, batch_size, replicas
):
    message = f"even batch_size .*; got {batch_size // replicas}"
    with pytest.raises(ValueError, match=message):
        stream_faces(blended_faces, batch_size=batch_size, seed=0, replicas=replicas)
    stream_faces(train_faces, batch_size=batch_size, seed=0, replicas=replicas)


def test_fakes_of_other_epochs_and_seeds_differ(blended_faces):
    found = []
    for seed in (0, 1):
        steps = take(stream_faces(blended_faces, batch_size=len(blended_faces), seed=seed), 2)
        for epoch, (images, *_) in enumerate(steps):
            order = epoch_order(
                blended_faces.label, seed=seed, epoch=epoch, base=blended_faces.base
            )
            blended = np.flatnonzero(blended_faces.base[order] >= 0)
            found += [images[position].tobytes() for position in blended]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_loaded_without_shuffling_each_fake_follows_its_real_face_and_stays_the_same(
    prepared_set, split
):
    options = PipelineOptions(fakes="swapped")
    plain = load_faces(prepared_set, split, batch_size=5)
    stored = np.concatenate([image for image, _ in plain])
    labels = np.concatenate([targets["classification"] for _, targets in plain]).ravel()
    faces = load_faces(prepared_set, split, batch_size=5, options=options)
    images = [images_in(faces), images_in(faces)]
    np.testing.assert_array_equal(*images)
    found = np.concatenate([targets["classification"] for _, targets in faces]).ravel().tolist()
    expected, positions = [], []
    for label in labels:
        positions.append(len(expected))
        expected += [0, 1] if label == 0 else [1]
    odd = int((labels == 1).sum()) % 2
    assert len(faces) == -(-len(found) // 5)
    assert len(found) == len(expected) + odd
    if not odd:
        assert found == expected
        np.testing.assert_array_equal(images[0][positions], stored)
        for position, label in zip(positions, labels, strict=True):
            if label == 0:
                real, fake = images[0][position : position + 2]
                assert (real != fake).any()
                # All faces are upright and centred: the corners are outside of any mask.
                corners = (np.s_[:3, :3], np.s_[:3, -3:])
                assert all((real[corner] == fake[corner]).all() for corner in corners)


def test_loaded_with_shuffling_batches_hold_other_pairs_in_each_epoch(prepared_set):
    options = PipelineOptions(fakes="mixed", balance=True)
    faces = load_faces(prepared_set, "train", batch_size=8, shuffle=True, seed=4, options=options)
    epochs = [order_in(faces), order_in(faces)]
    again = load_faces(prepared_set, "train", batch_size=8, shuffle=True, seed=4, options=options)
    assert [order_in(again), order_in(again)] == epochs
    assert epochs[0] != epochs[1]
    for _, targets in faces:
        labels = targets["classification"].numpy().ravel().tolist()
        assert labels == [0, 1] * (len(labels) // 2)


def test_an_epoch_to_validate_on_has_the_same_fakes_each_time(prepared_set):
    faces = index_with_fakes(prepared_set, "val", ("local", "re-rendered"))
    dataset = read_epoch(faces, max_batch_size=7, worker_index=0, num_workers=1, replicas=1)
    images = [images_in(dataset), images_in(dataset)]
    np.testing.assert_array_equal(*images)
    order = np.argsort(np.where(faces.base < 0, np.arange(len(faces)), faces.base), kind="stable")
    np.testing.assert_array_equal(images[0], [faces.read(index) for index in order])


def test_a_cached_stream_with_fakes_is_the_same_and_outlives_its_shards(prepared_set, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    faces = index_with_fakes(tmp_path / "copy", "train", ("swapped",))
    same = {"batch_size": len(faces), "seed": 0}
    stream = stream_faces(faces, options=PipelineOptions(cache=True), **same)
    (first,) = take(stream, 1)
    expected = take(stream_faces(faces, **same), 3)
    shutil.rmtree(tmp_path / "copy" / "shards")
    found = take(stream, 3)
    assert found[0][0].tobytes() == first[0].tobytes()
    assert_same_steps(found, expected)


def test_without_real_faces_there_are_no_fakes_to_load(prepared_set, change_table, tmp_path):
    shutil.copytree(prepared_set, tmp_path / "copy")
    change_table(tmp_path / "copy", FaceRow, lambda rows: [r for r in rows if r.label == 1])
    with pytest.raises(ValueError, match="Expected real faces with landmarks"):
        load_faces(tmp_path / "copy", "train", batch_size=4, options=PipelineOptions(fakes="local"))
    with pytest.raises(ValueError, match="Expected fakes none, mixed"):
        load_faces(prepared_set, "train", batch_size=4, options=PipelineOptions(fakes="swap"))
