import dataclasses
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jdfd_keras.datasets.manifest import (
    FaceRow,
    ListingSummary,
    VideoOutcome,
    VideoRow,
    media_facts,
    read_faces,
    read_listing,
    read_videos,
    to_rows,
    to_table,
    write_table,
)
from jdfd_keras.datasets.split_tables import write_split_table
from jdfd_keras.faces.media import MediaInfo
from jdfd_keras.io.files import OPTIONS, save_options
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import FaceOptions, SplitOptions

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
    landmarks=tuple(index / 4 for index in range(136)),  # exact in 32 bits
    alignment_residual=0.01234,
    sharpness=1e-7,
    outside=0.25,
    yaw_deg=-12.5,
    phash="0f" * 32,
    shard="00000.tfrecord",
    offset=123456789012,
)
VIDEO = VideoRow(
    video_id="mine/real/cleo",
    path="real/cleo.mp4",
    label=0,
    manipulation="",
    compression="",
    source_ids=("cleo",),
    split="val",
    file_bytes=5_000_000_000,
    sha256="0a" * 32,
    width=1920,
    height=1080,
    container="mp4",
    codec="h264",
    pixel_format="yuv420p",
    frame_rate=30000 / 1001,
    file_frames=3_000_000_000,
    duration_s=100.1,
    interlaced=True,
    sample_aspect_ratio="64:45",
    orientation="mirrored",
    colour="bt709/bt709/bt709, limited",
    bit_rate=8_000_000_000,
    encoder="x264 core 165 \u202e\n",
    jpeg_quality=95,
    num_frames=32,
    num_tracks=1,
    num_faces=0,
    filtered={"sharpness below 40": 2, 'a "quoted", reason': 1},
    warning="cut short",
    reason="no face was found in 32 sampled frames",
    subjects=("cleo smith",),
    frames=("real/cleo/1.png", "real/cleo/2.png"),
)
AWKWARD = [
    "a,b \"c\" 'd'",
    "Ærø 面 анна",
    "",
    " two\nlines ",
    "more\r\nlines\r",
    "None",
    "[1]",
    "=1",
]
NAMES = {FaceRow: "manifest.parquet", VideoRow: "videos.parquet"}


def write(folder, kind, *groups):
    path = folder / NAMES[kind]
    with open(path, "wb") as file:
        write_table(file, kind, (to_table(rows, kind) for rows in groups))
    return path


def read_rows(directory, split=None):
    return to_rows(read_faces(directory, split=split, split_table=""), FaceRow)


def faces_in(*splits):
    """Make a face for each split, all different."""
    return [
        dataclasses.replace(FACE, split=split, frame_index=index, video_id=f"mine/{index // 2}")
        for index, split in enumerate(splits)
    ]


def test_faces_are_read_as_they_were_written(tmp_path):
    rows = [FACE] + [
        dataclasses.replace(
            FACE, video_id=text, manipulation=text, source_ids=(text, "x"), shard=text
        )
        for text in AWKWARD
    ]
    write(tmp_path, FaceRow, rows)
    assert read_rows(tmp_path) == rows


def test_videos_are_read_as_they_were_written(tmp_path):
    rows = [VIDEO] + [
        dataclasses.replace(VIDEO, path=text, source_ids=(text,), filtered={text: 3}, reason=text)
        for text in AWKWARD
    ]
    rows += [dataclasses.replace(VIDEO, source_ids=(), filtered={})]
    write(tmp_path, VideoRow, rows)
    assert read_videos(tmp_path) == rows


def test_the_facts_of_a_file_are_columns_of_its_video():
    info = MediaInfo(
        container="mp4",
        codec="h264",
        pixel_format="yuv420p",
        width=720,
        height=576,
        frame_rate=25.0,
        num_frames=50,
        duration_s=2.0,
        interlaced=True,
        sample_aspect_ratio="64:45",
        orientation="mirrored",
        colour="bt709",
        bit_rate=9,
        encoder="x264",
        jpeg_quality=90,
    )
    video = VideoOutcome(file_bytes=1, width=1024, height=576, num_frames=4, **media_facts(info))
    assert (video.width, video.num_frames, video.file_frames) == (1024, 4, 50)
    same = {field.name for field in dataclasses.fields(MediaInfo)} - {"width", "height"}
    for name in same - {"num_frames"}:
        assert getattr(video, name) == getattr(info, name) != getattr(MediaInfo(), name)
    assert VideoOutcome(file_bytes=1, **media_facts(MediaInfo())) == VideoOutcome(file_bytes=1)


def test_a_table_without_these_facts_is_refused(tmp_path):
    # As an earlier version wrote it.
    table = to_table([VIDEO], VideoRow)
    facts = ["sha256", "codec", "pixel_format", "encoder"]
    pq.write_table(table.drop_columns(facts), tmp_path / "videos.parquet")
    with pytest.raises(ValueError, match="sha256.*of another version: prepare the dataset again"):
        read_videos(tmp_path)


def test_landmarks_are_stored_to_a_hundredth_of_a_pixel(tmp_path):
    landmarks = tuple(round(index * 2.1973, 2) for index in range(136))
    write(tmp_path, FaceRow, [dataclasses.replace(FACE, landmarks=landmarks)])
    (row,) = read_rows(tmp_path)
    assert row.landmarks == pytest.approx(landmarks, abs=1e-4)


def test_rows_are_converted_to_a_table_and_back():
    assert to_rows(to_table([FACE, FACE], FaceRow), FaceRow) == [FACE, FACE]
    assert to_table(iter([VIDEO]), VideoRow)["filtered"].to_pylist() == [json.dumps(VIDEO.filtered)]


def test_an_empty_table_has_no_rows(tmp_path):
    for kind in (FaceRow, VideoRow):
        write(tmp_path, kind)
    assert read_rows(tmp_path) == []
    assert read_rows(tmp_path, split="train") == []
    assert read_videos(tmp_path) == []
    write(tmp_path, FaceRow, [], [])
    assert read_rows(tmp_path) == []


def test_tables_are_written_one_after_the_other(tmp_path):
    rows = faces_in(*["train"] * 9)
    write(tmp_path, FaceRow, rows[:4], [], rows[4:5], rows[5:])
    assert read_rows(tmp_path) == rows


def test_some_columns_can_be_read(tmp_path):
    write(tmp_path, FaceRow, faces_in("train", "val"), faces_in("test"))
    table = read_faces(tmp_path, columns=["frame_index", "video_id", "source_ids"])
    assert table.column_names == ["frame_index", "video_id", "source_ids"]
    assert table.to_pydict() == {
        "frame_index": [0, 1, 0],
        "video_id": ["mine/0"] * 3,
        "source_ids": [["anna", "bob"]] * 3,
    }


def test_one_split_can_be_read(tmp_path):
    rows = faces_in("train", "val", "train", "test", "val")
    write(tmp_path, FaceRow, rows[:2], rows[2:])
    assert read_rows(tmp_path, split="all") == rows
    assert read_rows(tmp_path, split="val") == [rows[1], rows[4]]
    assert read_rows(tmp_path, split="") == []
    for columns in (["frame_index"], ["frame_index", "split"], ["split", "frame_index"]):
        table = read_faces(tmp_path, split="val", split_table="", columns=columns)
        assert table.column_names == columns
        assert table["frame_index"].to_pylist() == [1, 4]


def test_a_split_table_replaces_the_published_splits(tmp_path):
    faces = faces_in("test", "test", "train", "train", "val", "val")
    videos = [dataclasses.replace(VIDEO, video_id=f"mine/{index}") for index in range(4)]
    write(tmp_path, FaceRow, faces)
    write(tmp_path, VideoRow, videos)
    splits = ["val", "", "test", "train"]  # the second is excluded, the fourth has no face
    ids = [video.video_id for video in videos]
    rows = pd.DataFrame({"video_id": ids, "split": splits, "reason": ""})
    write_split_table(LocalStore(str(tmp_path)), "own", rows, SplitOptions())
    table = read_faces(tmp_path, split_table="own", columns=["split", "frame_index"])
    assert table["split"].to_pylist() == ["val", "val", "", "", "test", "test"]
    table = read_faces(tmp_path, split="test", split_table="own", columns=["frame_index"])
    assert table.to_pydict() == {"frame_index": [4, 5]}
    assert [video.split for video in read_videos(tmp_path, split_table="own")] == splits
    assert read_videos(tmp_path) == videos
    # Of another dataset: it lacks a video, or has another one.
    for others in (rows[1:], pd.concat([rows, rows.replace("mine/3", "mine/4")[3:]])):
        write_split_table(LocalStore(str(tmp_path)), "other", others, SplitOptions())
        for read in (read_faces, read_videos):
            with pytest.raises(ValueError, match=r"other.csv, which has .* of another dataset"):
                read(tmp_path, split_table="other")


def test_other_programs_can_read_the_parquet_table(tmp_path):
    table = pq.read_table(write(tmp_path, FaceRow, [FACE], [FACE]))
    assert table.column_names == [field.name for field in dataclasses.fields(FaceRow)]
    first, _ = table.to_pylist()
    assert {name: first[name] for name in ("video_id", "source_ids", "box", "sharpness")} == {
        "video_id": "mine/fake/anna_bob",
        "source_ids": ["anna", "bob"],
        "box": [-3, 10, 84, 97],
        "sharpness": 1e-7,
    }
    assert table.schema.field("label").type == pa.int64()
    assert table.schema.field("landmarks").type.value_type == pa.float32()
    (video,) = pq.read_table(write(tmp_path, VideoRow, [VIDEO])).to_pylist()
    assert json.loads(video["filtered"]) == VIDEO.filtered


@pytest.mark.parametrize("content", [b"", b"video_id,path\na,b\n"])
def test_a_table_of_other_columns_or_none_is_an_error(tmp_path, content):
    (tmp_path / "manifest.parquet").write_bytes(content)
    with pytest.raises(ValueError, match="Parquet table .*manifest.parquet; got .*prepare"):
        read_rows(tmp_path)


def test_a_parquet_table_of_other_columns_is_an_error(tmp_path):
    table = to_table([FACE], FaceRow)
    label = table.column_names.index("label")
    others = [
        table.drop_columns(["phash"]),
        table.rename_columns(["name", *table.column_names[1:]]),
        table.set_column(label, "label", table["label"].cast(pa.string())),
        table.append_column("more", table["label"]),
        to_table([VIDEO], VideoRow),
    ]
    for other in others:
        pq.write_table(other, tmp_path / "manifest.parquet")
        for columns in (None, ["video_id"]):
            with pytest.raises(ValueError, match="Parquet table .*manifest.parquet; got .*prepare"):
                read_faces(tmp_path, split_table="", columns=columns)


def test_a_truncated_parquet_table_is_an_error(tmp_path):
    path = write(tmp_path, VideoRow, [VIDEO])
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 50):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="Parquet table .*videos.parquet; got .*prepare"):
            read_videos(tmp_path)


@pytest.mark.slow
def test_a_wrong_byte_in_a_parquet_table_is_an_error_or_harmless(tmp_path):
    rows = [
        dataclasses.replace(VIDEO, video_id=f"mine/{index}", file_bytes=1000 * index)
        for index in range(20)
    ]
    path = write(tmp_path, VideoRow, rows)
    content = path.read_bytes()
    for position in range(0, len(content), 11):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            assert read_videos(tmp_path) == rows
        except ValueError as error:
            assert "prepare" in str(error)


@pytest.mark.parametrize("read", [read_faces, read_videos])
@pytest.mark.parametrize("kind", [str, LocalStore])
def test_a_folder_without_a_table_is_not_a_prepared_data_set(tmp_path, read, kind):
    with pytest.raises(OSError, match=r"Expected .*; got .*`jdfd-keras prepare`"):
        read(kind(str(tmp_path)))


def write_set(folder, version):
    """Write the tables, the listing and options.json with a format version."""
    write(folder, FaceRow, [FACE])
    write(folder, VideoRow, [VIDEO])
    listing = {"missing": ["a.mp4"], "unrecognized": ["b.jpg"], "excluded": {"mine/c": "why"}}
    listing["notes"] = ["grouped by number"]
    (folder / "listing.json").write_text(json.dumps(listing))
    save_options(folder / OPTIONS, faces=FaceOptions())
    options = json.loads((folder / OPTIONS).read_text())
    (folder / OPTIONS).write_text(json.dumps(options | {"format_version": version}))


@pytest.mark.parametrize("read", [read_faces, read_videos, read_listing])
@pytest.mark.parametrize("version", [1, 3, None])
def test_a_data_set_of_another_format_version_is_an_error(tmp_path, read, version):
    write_set(tmp_path, version)
    with pytest.raises(ValueError, match=f"Expected format_version 2 in .*; got {version}"):
        read(tmp_path)


def test_a_data_set_of_this_format_version_is_read(tmp_path):
    write_set(tmp_path, 2)
    assert read_rows(tmp_path) == [FACE]
    assert read_videos(tmp_path) == [VIDEO]
    expected = ListingSummary(["a.mp4"], ["b.jpg"], {"mine/c": "why"}, ["grouped by number"])
    assert read_listing(tmp_path) == expected


@pytest.mark.parametrize("text", ["", "[]", '{"missing": []}', '{"missing": [], "unknown": []}'])
def test_a_damaged_listing_is_an_error(tmp_path, text):
    write_set(tmp_path, 2)
    (tmp_path / "listing.json").write_text(text)
    with pytest.raises(ValueError, match="missing, unrecognized and .*listing.json; got"):
        read_listing(tmp_path)
