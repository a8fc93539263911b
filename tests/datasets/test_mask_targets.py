"""Masks of the faces of a training: of the dataset, of the difference to a real frame, or none."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.datasets.face_index import (
    FAKE_COLUMNS,
    FaceIndex,
    add_fakes,
    concat,
    epoch_order,
    index_faces,
)
from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.manipulation_masks import MASK_COLUMNS
from jdfd_keras.datasets.mask_targets import MaskCounts, add_masks
from jdfd_keras.datasets.pipeline import read_epoch, stream_faces
from jdfd_keras.datasets.prepare import prepare
from jdfd_keras.datasets.records import encode_face, frame_record
from jdfd_keras.options import AugmentOptions, FaceOptions, PipelineOptions, PrepareOptions

SIZE, CELLS = 60, 6
CHANGED = np.s_[20:40, 10:40]  # cells 2 and 3 of the rows, 1 to 3 of the columns
EXPECTED = np.zeros((CELLS, CELLS))
EXPECTED[2:4, 1:4] = 1
# Label, footage and frame of each face; only `stored` has a mask in its record.
FACES = [
    ("real/anna", 0, ("anna",), 0),
    ("real/anna", 0, ("anna",), 1),
    ("real/bob", 0, ("bob",), 0),
    ("fake/anna_bob", 1, ("anna", "bob"), 1),  # differs from the second face
    ("fake/anna_bob", 1, ("anna", "bob"), 2),  # of a frame without a real face
    ("fake/stored", 1, ("bob", "anna"), 0),
]
DIFFERS, ALONE, STORED = 3, 4, 5


def draw_face(seed):
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(127 + 40 * smooth / smooth.std(), 60, 195).astype(np.uint8)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """The faces and their rows of a manifest; both fakes with a mask are changed alike."""
    shard, body, offsets = tmp_path_factory.mktemp("set") / "shards" / "0.tfrecord", b"", []
    shard.parent.mkdir()
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[CHANGED] = 255
    for index, (name, label, sources, frame_index) in enumerate(FACES):
        crop = draw_face(["anna", "bob"].index(sources[0]) * 10 + frame_index)
        if label:
            crop[CHANGED] += 50
        offsets.append(len(body))
        png = cv2.imencode(".png", mask)[1].tobytes() if index == STORED else b""
        record = encode_face(
            crop, label=label, video_id=f"made/{name}", frame_index=frame_index, mask=png
        )
        body += frame_record(record)
    shard.write_bytes(body)
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = 30 + np.stack([18 * np.cos(turn), 20 * np.sin(turn)], axis=1)
    columns = [*zip(*FACES, strict=True)]
    names = pa.chunked_array([[f"made/{name}" for name in columns[0]]])
    index = FaceIndex(
        face_size=SIZE,
        shards=(str(shard),),
        shard=np.zeros(len(FACES), np.int64),
        offset=np.array(offsets),
        label=np.array(columns[1]),
        video_id=names,
        frame_index=np.array(columns[3]),
        landmarks=np.repeat(points[None], len(FACES), axis=0).astype(np.float32),
        person=np.array([0, 0, 1, -1, -1, -1]),
    )
    table = pa.table(
        {
            "video_id": names,
            "label": columns[1],
            "compression": [""] * len(FACES),
            "source_ids": columns[2],
            "frame_index": columns[3],
            "box": [[0, 0, SIZE, SIZE]] * len(FACES),
        }
    )
    return index, table


@pytest.fixture(scope="module")
def masked(faces):
    return add_masks(*faces, CELLS)[0]


def test_masks_are_those_of_the_dataset_or_of_the_difference_to_the_real_frame(faces, capsys):
    index, table = faces
    found, counts = add_masks(index, table, CELLS)
    assert found.masks.dtype == np.uint8
    assert found.has_mask.tolist() == [True, True, True, True, False, True]
    np.testing.assert_array_equal(found.masks[STORED], 255 * EXPECTED)
    # The difference is found with soft edges, since both crops are registered first.
    np.testing.assert_allclose(found.masks[DIFFERS] / 255, EXPECTED, atol=0.2)
    assert not found.masks[[0, 1, 2, ALONE]].any()
    assert counts == MaskCounts(dataset=1, difference=1, unknown=1)
    assert str(counts) == (
        "masks of 1 fake from the dataset, 1 from the difference to the real frame, 1 without"
    )
    assert "finding masks: 3/3 fakes" in capsys.readouterr().err
    np.testing.assert_array_equal(found.read(DIFFERS), index.read(DIFFERS))


def test_without_landmarks_no_difference_is_computed(faces):
    index, table = faces
    unknown = replace(index, landmarks=np.full_like(index.landmarks, np.nan))
    assert add_masks(unknown, table, CELLS)[1] == MaskCounts(1, 0, 2)


def stack(stream):
    batches = list(stream)
    images = np.concatenate([image for image, *_ in batches]).astype(np.uint8)
    parts = [
        {
            name: np.concatenate([batch[part][name] for batch in batches])
            for name in batches[0][part]
        }
        for part in (1, 2)
    ]
    return images, *parts


def test_faces_have_their_masks_as_targets_and_unknown_ones_no_weight(masked):
    hidden = replace(masked, label=np.full(len(FACES), -1), masks=None, has_mask=None)
    both = concat([masked, hidden])
    order = epoch_order(both.label, seed=4, epoch=0)
    augment = AugmentOptions(jpeg=True, colour=True, noise=True)
    stream = stream_faces(both, batch_size=4, seed=4, augment=augment).take(3)
    _, targets, weights = stack(stream)
    expected = np.concatenate([masked.masks, np.zeros_like(masked.masks)])[order] / 255
    assert targets["manipulation_map"].shape == (12, CELLS, CELLS, 1)
    np.testing.assert_allclose(targets["manipulation_map"][..., 0], expected, atol=1e-6)
    is_known = np.array([True, True, True, True, False, True, *[False] * 6])[order]
    assert weights["manipulation_map"].tolist() == is_known.tolist()
    assert weights["classification"].tolist() == (both.label[order] >= 0).tolist()
    assert weights["reconstruction"].tolist() == [1] * 12


def test_faces_of_validation_have_masks_in_their_order(masked):
    batches = read_epoch(masked, max_batch_size=4, worker_index=0, num_workers=1, replicas=1)
    images, targets, weights = stack(batches)
    np.testing.assert_array_equal(images[STORED], masked.read(STORED))
    np.testing.assert_allclose(targets["manipulation_map"][..., 0], masked.masks / 255, atol=1e-6)
    assert weights["manipulation_map"].tolist() == masked.has_mask.tolist()


@pytest.mark.parametrize("kind", ["re-rendered", "warped"])
def test_a_blended_fake_has_its_own_mask(masked, kind):
    """Three labelled fakes have no partner, so that one of them is repeated, with its mask."""
    both = add_fakes(masked, (kind,))
    assert both.base.tolist() == [-1] * 7 + [0, 1, 2]
    images, targets, weights = stack(stream_faces(both, batch_size=10, seed=2).take(1))
    order = epoch_order(both.label, seed=2, epoch=0, base=both.base)
    for index, image, mask in zip(order, images, targets["manipulation_map"][..., 0], strict=True):
        if index < 7:
            expected = np.append(masked.masks, masked.masks[DIFFERS][None], axis=0)[index] / 255
        else:
            fake = both.blend(int(index), both.read, seed=2, epoch=0)
            np.testing.assert_array_equal(image, fake.pixels)
            expected = fake.mask.reshape(CELLS, 10, CELLS, 10).mean(axis=(1, 3))
            assert expected.any()
        np.testing.assert_allclose(mask, expected, atol=0.5 / 255 + 1e-6)
    assert weights["manipulation_map"].tolist() == (order != ALONE).tolist()


@pytest.mark.parametrize("augment", [AugmentOptions(flip=True), AugmentOptions(affine=True)])
def test_augmentations_that_move_pixels_are_refused_with_masks(faces, masked, augment):
    with pytest.raises(ValueError, match="Expected neither flip nor affine .* Omit both"):
        stream_faces(masked, batch_size=2, seed=0, augment=augment)
    stream_faces(faces[0], batch_size=2, seed=0, augment=augment)


def test_faces_without_masks_have_no_map(faces):
    for options in (PipelineOptions(), PipelineOptions(reconstruct="real")):
        (batch,) = stream_faces(faces[0], batch_size=6, seed=0, options=options).take(1)
        assert all("manipulation_map" not in part for part in batch[1:])


def test_masks_of_mask_videos_are_prepared_and_used(clips_folder, write_video, tmp_path):
    """The clip of a fake is that of its real video; its mask marks the left half of the face."""
    real = clips_folder / "real" / "person00.mp4"
    for path in ("original_sequences/youtube/c23", "manipulated_sequences/Deepfakes/c23"):
        name = "000.mp4" if "youtube" in path else "000_003.mp4"
        (tmp_path / "ff" / path / "videos").mkdir(parents=True)
        shutil.copyfile(real, tmp_path / "ff" / path / "videos" / name)
    marked = np.zeros((6, 160, 160, 3), np.uint8)
    marked[:, 20:140, 15:80] = 255
    mask = tmp_path / "ff/manipulated_sequences/Deepfakes/masks/videos/000_003.mp4"
    mask.parent.mkdir(parents=True)
    write_video(mask, marked)
    options = FaceOptions(frames_per_video=3, face_size=71)
    prepare(tmp_path / "ff", tmp_path / "set", options, PrepareOptions(layout="faceforensics"))
    columns = sorted({*FAKE_COLUMNS, *MASK_COLUMNS})
    table = read_faces(tmp_path / "set", columns=columns)
    found, counts = add_masks(index_faces(tmp_path / "set", table), table, 2)
    assert counts == MaskCounts(dataset=3, difference=0, unknown=0)
    left, right = found.masks[found.label == 1].mean(axis=1).T
    # The face is in the middle of the frame, up to 6 of 160 pixels; its crop has about 100.
    assert (left > 200).all() and (right < 55).all()
