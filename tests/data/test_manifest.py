import csv
import dataclasses

import pytest

from jdfd_keras.data.manifest import (
    MANIFEST,
    VIDEOS,
    FaceRow,
    VideoRow,
    read_manifest,
    read_videos,
    write_rows,
)

FACE = FaceRow(
    video_id="mine/fake/anna_bob",
    path="fake/anna_bob.mp4",
    label=1,
    manipulation="Deepfakes",
    compression="c23",
    source_ids=("anna", "bob"),
    split="train",
    frame_index=12,
    time_s=0.4804,
    track_id=1,
    box=(-3, 10, 84, 97),
    detector="dlib",
    detector_score=1.5341,
    landmarks=tuple(index / 3 for index in range(136)),
    alignment_residual=0.01234,
    sharpness=1e-7,
    outside=0.25,
    yaw_deg=-12.5,
    shard="train-00000.tfrecord",
)
VIDEO = VideoRow(
    video_id="mine/real/cleo",
    path="real/cleo.mp4",
    label=0,
    manipulation="",
    compression="",
    source_ids=("cleo",),
    split="val",
    num_frames=32,
    num_tracks=1,
    num_faces=0,
    dropped={"sharpness below 40": 2, 'a "quoted", reason': 1},
    warning="cut short",
    reason="no face was found in any frame looked at",
)
AWKWARD = ["a,b \"c\" 'd'", "Ærø 面 анна", "", " two\nlines ", "None", "[1]", "=1+1"]


def test_faces_come_back_as_they_were(tmp_path):
    rows = [FACE] + [
        dataclasses.replace(
            FACE, video_id=text, manipulation=text, source_ids=(text, "x"), shard=text
        )
        for text in AWKWARD
    ]
    write_rows(tmp_path / MANIFEST, rows, FaceRow)
    assert read_manifest(tmp_path) == rows


def test_videos_come_back_as_they_were(tmp_path):
    rows = [VIDEO] + [dataclasses.replace(VIDEO, path=text, reason=text) for text in AWKWARD]
    write_rows(tmp_path / VIDEOS, rows, VideoRow)
    assert read_videos(tmp_path) == rows


def test_an_empty_table_has_no_rows(tmp_path):
    write_rows(tmp_path / MANIFEST, [], FaceRow)
    assert read_manifest(tmp_path) == []


def test_other_programs_can_read_the_table(tmp_path):
    write_rows(tmp_path / VIDEOS, [VIDEO], VideoRow)
    with open(tmp_path / VIDEOS, encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["video_id"] == "mine/real/cleo"
    assert row["source_ids"] == '["cleo"]'
    assert row["num_faces"] == "0"


def test_writing_that_fails_leaves_the_old_table(tmp_path):
    write_rows(tmp_path / VIDEOS, [VIDEO], VideoRow)

    def rows():
        yield VIDEO
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_rows(tmp_path / VIDEOS, rows(), VideoRow)
    assert read_videos(tmp_path) == [VIDEO]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",32,1,0,", ",32,one,0,"),
        (",no face was found in any frame looked at", ""),
        (",no face", ",extra,no face"),
        ('"[""cleo""]"', "cleo"),
        ('"[""cleo""]"', "7"),
        ("no face was", '"no face was'),
    ],
    ids=["number", "cell lost", "cell more", "no list", "no list but a number", "open quote"],
)
def test_a_damaged_row_is_named_by_its_line(tmp_path, old, new):
    write_rows(tmp_path / VIDEOS, [dataclasses.replace(VIDEO, reason=""), VIDEO], VideoRow)
    first, second, damaged = (tmp_path / VIDEOS).read_text(encoding="utf-8").splitlines()
    assert old in damaged
    text = "\n".join([first, second, damaged.replace(old, new)]) + "\n"
    (tmp_path / VIDEOS).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"in line 3 of .*videos\.csv.*prepare the data set again"):
        read_videos(tmp_path)


@pytest.mark.parametrize("content", [b"", b"video_id,path\na,b\n", b"\x80\xff\x00\n1\n"])
def test_a_table_of_other_columns_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match="damaged or of another version"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("read", [read_manifest, read_videos])
def test_a_folder_without_a_table_is_no_prepared_data_set(tmp_path, read):
    with pytest.raises(OSError, match="jdfd-keras prepare"):
        read(tmp_path)
