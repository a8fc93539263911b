from collections import Counter

import cv2
import numpy as np

from jdfd_keras.datasets.manifest import FaceRow, read_faces, to_rows
from jdfd_keras.datasets.records import choose_evenly, choose_over_videos, read_crops


def test_a_choice_is_evenly_spread():
    assert choose_evenly(list("abcdef"), 3) == ["b", "d", "f"]
    assert choose_evenly([1, 2], 9) == [1, 2]
    assert choose_evenly([], 9) == []


def test_faces_are_chosen_from_every_video_and_evenly_within_one():
    sizes = {"a": 10, "b": 1, "c": 10, "d": 4}
    video_ids = [name for name, size in sizes.items() for _ in range(size)]

    def count(num_faces):
        indices = choose_over_videos(video_ids, list(range(25)), num_faces)
        assert indices == sorted(set(indices))
        return dict(Counter(video_ids[index] for index in indices))

    assert count(4) == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert count(8) == {"a": 2, "b": 1, "c": 2, "d": 3}  # d makes up for what b lacks
    assert count(2) == {"b": 1, "d": 1}
    assert count(25) == sizes


def test_the_crops_are_those_of_the_rows(prepared_set):
    import tensorflow as tf

    rows = to_rows(read_faces(prepared_set), FaceRow)
    wanted = [0, len(rows) // 2, len(rows) - 1]
    crops = read_crops(
        prepared_set, [row.shard for row in rows], [row.offset for row in rows], wanted
    )
    assert sorted(crops) == wanted
    for index in wanted:
        # A second way: search all records of the shard by video and frame, decode with OpenCV.
        for record in tf.data.TFRecordDataset(str(prepared_set / "shards" / rows[index].shard)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            if (
                features["video_id"].bytes_list.value[0].decode() == rows[index].video_id
                and features["frame_index"].int64_list.value[0] == rows[index].frame_index
            ):
                png = np.frombuffer(features["image/encoded"].bytes_list.value[0], np.uint8)
                expected = cv2.imdecode(png, cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(crops[index], expected)
