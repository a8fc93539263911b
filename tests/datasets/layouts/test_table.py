import cv2
import numpy as np
import pytest

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.layouts.table import list_table
from jdfd_keras.datasets.videos import DatasetFiles
from jdfd_keras.io.storage import BeamStore, LocalStore
from jdfd_keras.options import PrepareOptions

FILES = ("clips/anna.mp4", "clips/bob.mp4", "clips/swap.mp4", "crops/x.png")


@pytest.fixture
def listed(tmp_path):
    """Return a function that lists a table of files, none of which is opened."""

    def list_text(*lines, files=FILES, name="", location="/data/mine", hidden=()):
        path = tmp_path / "faces.csv"
        content = lines[0] if isinstance(lines[0], bytes) else "\n".join(lines).encode()
        path.write_bytes(content)
        root = DatasetFiles(LocalStore(location), "mine", tuple(sorted(files)), hidden)
        return list_table(root, path, name)

    return list_text


def test_all_columns_are_read(listed):
    listing = listed(
        "path,label,split,source_id,manipulation,compression",
        "clips/anna.mp4,real,train,anna,none,c23",
        "clips/swap.mp4,fake,test,bob; anna,FaceSwap,c40",
        "clips/bob.mp4,unlabelled,val,,,",
    )
    found = {
        video.path: (video.label, video.split, video.source_ids, video.manipulation)
        for video in listing.videos
    }
    assert found == {
        "clips/anna.mp4": (0, "train", ("anna",), ""),
        "clips/swap.mp4": (1, "test", ("anna", "bob"), "FaceSwap"),
        "clips/bob.mp4": (-1, "val", ("bob",), ""),
    }
    assert [video.compression for video in listing.videos] == ["c23", "", "c40"]
    assert [video.video_id for video in listing.videos] == [
        "faces/clips/anna",
        "faces/clips/bob",
        "faces/clips/swap",
    ]
    assert listing.unrecognized == ["crops/x.png"]
    assert "1 file in /data/mine is not in the table, such as crops/x.png" in listing.notes[0]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_encodings_and_headers_in_any_case_and_order(listed, separator, encoding, end):
    rows = [["Split", " LABEL", "extra", "Path"], ["Valid", "FAKE", "é", "clips/é.mp4"]]
    rows += [[], ["TEST", "0", "", '"clips/b;c,d.mp4"'], ["", "", "", ""]]
    text = end.join(separator.join(row) for row in rows)
    files = ("clips/é.mp4", "clips/b;c,d.mp4")
    listing = listed(text.encode(encoding), files=files, name="own")
    assert [(v.video_id, v.label, v.split) for v in listing.videos] == [
        ("own/clips/b;c,d", 0, "test"),
        ("own/clips/é", 1, "val"),
    ]
    assert listing.videos[1].manipulation == "fake"
    assert listing.notes == ["The table has other columns, which are not used: extra."]


@pytest.mark.parametrize(
    ("word", "label"),
    [("real", 0), ("Real", 0), ("0", 0), ("FAKE", 1), ("1", 1), ("unlabelled", -1)],
)
def test_labels_in_any_case_and_one_is_fake(listed, word, label):
    assert listed("path,label", f"crops/x.png,{word}").videos[0].label == label


@pytest.mark.parametrize(
    "path",
    [
        "clips/anna.mp4",
        "./clips/anna.mp4",
        "clips//anna.mp4",
        "clips/../clips/anna.mp4",
        "/data/mine/clips/anna.mp4",
        "clips\\anna.mp4",
        " clips/anna.mp4 ",
    ],
)
def test_paths_within_the_root_are_found(listed, path):
    listing = listed("path,label", f"{path},0")
    assert [video.path for video in listing.videos] == ["clips/anna.mp4"]


def test_paths_on_an_object_store_are_found(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,label\ngs://bucket/data/a.mp4,0\nb.mp4,1")
    root = DatasetFiles(BeamStore("gs://bucket/data"), "data", ("a.mp4", "b.mp4"))
    assert [video.path for video in list_table(root, table).videos] == ["a.mp4", "b.mp4"]
    table.write_text("path,label\ngs://bucket/other/a.mp4,0\n/a.mp4,1")
    with pytest.raises(ValueError, match=r"2 problems: line 2: path 'gs://.*; line 3: path '/a"):
        list_table(root, table)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["clips/anna.mp4,genuine,"], "1 problem: line 2: label 'genuine'"),
        (["clips/anna.mp4,2,"], "label '2'"),
        (["clips/anna.mp4,,"], "line 2: label ''"),
        (["clips/anna.mp4,real,dev"], "line 2: split 'dev'"),
        (["clips/anna.mp4,real,train", "clips/bob.mp4,0,"], "line 3: no split, which other rows"),
        ([",real,"], "line 2: path ''"),
        (["../other/a.mp4,real,"], "line 2: path '../other/a.mp4'"),
        (["clips/../../mine2/a.mp4,real,"], "line 2: path"),
        (["/data/mine2/a.mp4,real,"], "line 2: path '/data/mine2/a.mp4'"),
        (["/data/minexclips/anna.mp4,real,"], "line 2: path"),
        (["/data/mine,real,"], "line 2: path '/data/mine'"),
        ([".,real,"], "line 2: path '.'"),
        (
            ["clips/anna.mp4,0,", "clips/bob.mp4,0,", "./clips/anna.mp4,0,"],
            "1 problem: line 4: path 'clips/anna.mp4', as in line 2",
        ),
        (
            ["none.mp4,0,", "none.mp4,0,"],
            "line 3: path 'none.mp4', as in line 2",
        ),
        (
            ["clips/anna.mp4,0,", '"x\ny.mp4",0,', "clips/bob.mp4,7,"],
            "1 problem: line 5: label '7'",
        ),
        (["crops,0,", "crops/x.png,0,"], "line 3: path 'crops/x.png', in the folder of line 2"),
        ([f"{n}.mp4,no," for n in range(7)], "7 problems: line 2: .*line 6: label 'no'; [.]"),
        (["clips/anna.mp4,0,,,"], "1 problem: line 2: 5 cells in 3 columns"),
    ],
)
def test_invalid_rows_are_named_by_line(listed, rows, problem):
    with pytest.raises(ValueError, match=rf"^Expected .*faces\.csv; got {'.*' + problem}"):
        listed("path,label,split", *rows)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "columns path and label.*got an empty file"),
        (b"\n\n", "got an empty file"),
        (b"path,label\n", "Expected rows in .*got the names of columns only"),
        (b"path,class\na.mp4,0", "columns path and label.*got 'path', 'class'"),
        (b"clips/anna.mp4,0", "columns path and label.*got 'clips/anna.mp4', '0'"),
        (b"path,label,Label\na.mp4,0,0", "each once"),
        ("path,label\na.mp4,0".encode("utf-16"), "in UTF-8; got .*faces.csv"),
        (b'path,label\n"a.mp4,0', "in line 2 of"),
    ],
)
def test_an_invalid_table_raises_an_error(listed, content, problem):
    with pytest.raises(ValueError, match=problem):
        listed(content)


def test_a_missing_table_raises_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.csv, which does not exist"):
        list_table(DatasetFiles(LocalStore("."), "mine", ()), tmp_path / "no.csv")


def test_rows_without_a_file_are_missing_and_an_error_if_all_are(listed):
    listing = listed("path,label", "a/z.mp4,0", "crops/x.png,0", "a/frames,1")
    assert listing.missing == ["a/frames (line 4)", "a/z.mp4 (line 2)"]
    assert [video.path for video in listing.videos] == ["crops/x.png"]
    with pytest.raises(ValueError, match=r"got none of 2 paths, such as a/b\.mp4 \(line 3\)"):
        listed("path,label", "a/z.mp4,0", "a/b.mp4,0")


def test_a_folder_is_a_video_of_its_images(listed):
    files = [f"frames/person/{number}.png" for number in (10, 9, 1)]
    files += ["frames/person/notes.txt", "frames/person/deeper/1.png"]
    listing = listed("path,label,split", "frames/person/,fake,train", files=files)
    (video,) = listing.videos
    assert (video.video_id, video.path) == ("faces/frames/person", "frames/person")
    assert video.source_ids == ("person",)
    assert listing.frames == {
        "faces/frames/person": tuple(f"frames/person/{number}.png" for number in (1, 9, 10))
    }
    assert listing.unrecognized == ["frames/person/deeper/1.png", "frames/person/notes.txt"]


def test_rows_of_frames_are_grouped_by_their_names(listed):
    files = [f"all/{person}_frame_{n}.png" for person in ("a", "b") for n in (2, 10)]
    listing = listed("path,label", *(f"{name},{int('b_' in name)}" for name in files), files=files)
    assert listing.frames == {"faces/all/a": tuple(files[:2]), "faces/all/b": tuple(files[2:])}
    assert [video.label for video in listing.videos] == [0, 1]


def test_rows_of_one_video_in_two_splits_are_two_videos_with_one_source(listed):
    files = [f"all/{person}_frame_{n}.png" for person in ("a", "b") for n in (1, 2, 3)]
    rows = [f"{name},0,{'test' if name.endswith('a_frame_3.png') else 'train'}" for name in files]
    listing = listed("path,label,split", *rows, files=files)
    found = {video.video_id: (video.split, video.source_ids) for video in listing.videos}
    assert found == {
        "faces/all/a/word/train": ("train", ("a",)),
        "faces/all/a/word/test": ("test", ("a",)),
        "faces/all/b": ("train", ("b",)),
    }


def test_frames_of_different_stated_sources_are_different_videos(listed):
    files = [f"all/a_frame_{n}.png" for n in (1, 2, 3)]
    rows = [f"{name},0,{source}" for name, source in zip(files, "xxy", strict=True)]
    listing = listed("path,label,source_id", *rows, files=files)
    assert sorted(listing.frames.values()) == [tuple(files[:2]), (files[2],)]
    assert [video.source_ids for video in listing.videos] == [("x",), ("y",)]


@pytest.mark.parametrize("form", ["all/{}_frame_{}.png", "all/{}_{}.png"])
def test_a_video_with_frames_of_both_classes_raises_an_error(listed, form):
    files = [form.format(person, number) for person in ("a", "b") for number in range(4)]
    rows = [f"{name},{int(name.endswith('a_3.png') or name == files[3])}" for name in files]
    with pytest.raises(ValueError, match=r"all/a \(real in line 2; fake in .*line 5\).*source_id"):
        listed("path,label", *rows, files=files)
    rows = [f"{row},{source}" for row, source in zip(rows, "xxxyzzzz", strict=True)]
    listing = listed("path,label,source_id", *rows, files=files)
    # The only image of its source is a frame if its name has the word.
    expected = [3, 1, 4] if "frame" in form else [3, 4]
    assert [len(frames) for frames in listing.frames.values()] == expected


def test_numbered_images_of_both_classes_in_one_folder_are_no_video(listed):
    files = [f"data/celeb/{number:05d}.jpg" for number in range(4)]
    listing = listed(
        "path,label", *(f"{name},{i % 2}" for i, name in enumerate(files)), files=files
    )
    assert [video.path for video in listing.videos] == files
    assert {video.source_ids for video in listing.videos} == {()}


def test_files_of_unknown_suffixes_are_probed_and_listed_all_the_same(tmp_path):
    image = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    for name, content in {"a": image, "f_frame_1.x": image, "f_frame_2.x": image, "b": b""}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "t.csv").write_text("path,label\na,0\nf_frame_1.x,1\nf_frame_2.x,1\nb,0\n")
    options = PrepareOptions(layout="table", table=str(tmp_path / "t.csv"))
    listing = list_videos(LocalStore(str(tmp_path)), options)
    assert listing.frames == {"t/f": ("f_frame_1.x", "f_frame_2.x")}
    assert [(video.path, video.source_ids) for video in listing.videos] == [
        ("a", ()),
        ("b", ("b",)),  # extraction says why it cannot be read
        ("f", ("f",)),
    ]


def test_files_without_a_row_are_listed_only_if_they_are_fewer_than_the_others(listed):
    others = [f"other/{number}.mp4" for number in range(9)]
    listing = listed("path,label", "crops/x.png,0", files=[*FILES, *others])
    assert listing.unrecognized == []
    assert "12 files in /data/mine are not in the table, such as clips/anna.mp4" in listing.notes[1]


def test_the_table_in_its_own_root_and_hidden_files(tmp_path):
    (tmp_path / ".clips").mkdir()
    for name in ("a.mp4", ".clips/b.mp4", ".other"):
        (tmp_path / name).touch()
    table = tmp_path / "faces.csv"
    table.write_text("path,label\na.mp4,0\n.clips/b.mp4,1\n")
    options = PrepareOptions(layout="table", table=str(table))
    listing = list_videos(LocalStore(str(tmp_path)), options)
    assert [video.path for video in listing.videos] == [".clips/b.mp4", "a.mp4"]
    assert (listing.missing, listing.unrecognized) == ([], [])


def test_the_layout_needs_a_table(tmp_path):
    with pytest.raises(ValueError, match="Expected a table"):
        list_videos(LocalStore(str(tmp_path)), PrepareOptions(layout="table"))
