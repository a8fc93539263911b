"""A split table assigns every video, or face, of its own dataset, and names what is wrong."""

import pandas as pd
import pyarrow as pa
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.datasets.manifest import read_faces, read_videos
from jdfd_keras.datasets.split_tables import (
    list_split_tables,
    read_split_table,
    write_split_table,
)
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import SplitOptions


@pytest.fixture
def write(tmp_path):
    """A function that writes the text of a table, and returns its path."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def faces(*keys):
    """Return a table of faces from video ids, frame indices and track ids."""
    ids, frames, tracks = zip(*keys, strict=True)
    return pa.table({"video_id": ids, "frame_index": frames, "track_id": tracks})


def test_a_written_table_is_read_with_its_options(tmp_path):
    rows = pd.DataFrame(
        {
            "video_id": ["a/,", 'a/"é', "a/3", "NA"],
            "split": ["train", "", "test", "val"],
            "reason": ["", "x: y", "", ""],
        }
    )
    options = SplitOptions(strategy="kfold", folds=7, fold=2, seed=3)
    store = LocalStore(str(tmp_path))
    write_split_table(store, "one", rows, options)
    assert list_split_tables(tmp_path) == ["one"]
    for directory in (tmp_path, str(tmp_path), store):
        table = read_split_table(directory, "one")
        assert (table.name, table.options) == ("one", options)
        assert table.rows.to_dict("list") == rows.to_dict("list")
        assert table.split_of == dict(zip(rows["video_id"], rows["split"], strict=True))
        assert table.excluded == {'a/"é': "x: y"}
        assert not table.of_faces


def test_a_table_of_your_own_needs_no_more_than_a_csv_file(tmp_path, write):
    path = write("\ufeffsplit,comment,video_id\r\ntest,x,a/1\r\n,,a/2\r\n\r\nval,z,a/3\r\n\r\n")
    table = read_split_table(tmp_path / "set", path)
    assert (table.name, table.path, table.options.strategy) == (path, path, "own table")
    assert table.split_of == {"a/1": "test", "a/2": "", "a/3": "val"}
    assert table.excluded == {"a/2": ""}
    (tmp_path / "set" / "splits").mkdir(parents=True)
    (tmp_path / "mine.csv").rename(tmp_path / "set" / "splits" / "mine.csv")
    assert list_split_tables(tmp_path / "set") == ["mine"]
    assert read_split_table(tmp_path / "set", "mine").split_of == table.split_of


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "columns video_id, split in .*mine.csv; got no video_id, split"),
        ("video_id\na\n", "got no split"),
        ("video_id;split\na;train\n", "got no video_id, split"),
        ("video_id,frame_index,split\na,1,train\n", "got no track_id"),
        (
            "video_id,split\na,train\n\nb,Train\nc,valid\n",
            "line 4: split 'Train', line 5: split 'va",
        ),
        ("video_id,split\na,train\nb,val\na,test\n", "got 1 invalid: line 4: a second row for a"),
        (
            "video_id,frame_index,track_id,split\na,1,0,train\na,x,0,val\na,1,0,test\na,1,-1,test\n",
            "got 3 invalid: line 3: frame_index 'x', line 5: track_id '-1', line 4: a second row",
        ),
        ("video_id,split\n" + "a,no\n" * 9, "got 17 invalid: .* and 12 more"),
        ("video_id,split\na,train\nb\n", "'line 3: 1 field'"),
        ("video_id,split\na,train,\n", "'line 2: 3 fields'"),
        ("video_id,split,split\na,train,val\n", "'line 1: video_id, split, split'"),
        ('video_id,split\n"a,train\n', "unexpected end"),
        (b"video_id,split\n\xff,train\n", "can't decode byte 0xff"),
    ],
)
def test_a_bad_table_is_an_error_that_names_file_and_line(tmp_path, write, text, complaint):
    path = write(text)
    with pytest.raises(ValueError, match=complaint) as error:
        read_split_table(tmp_path, path)
    assert path in str(error.value)


def test_a_table_that_does_not_exist_is_an_error_with_the_existing_ones(tmp_path, write):
    with pytest.raises(FileNotFoundError, match="'strict' of .*; got none, as it has not been"):
        read_split_table(tmp_path, "strict")
    (tmp_path / "splits").mkdir()
    write("video_id,split\n", "splits/b")
    write("video_id,split\n", "splits/a")
    with pytest.raises(FileNotFoundError, match="got a, b"):
        read_split_table(tmp_path, "strict")
    with pytest.raises(FileNotFoundError, match="'no.csv'"):
        read_split_table(tmp_path, "no.csv")


def test_a_table_of_videos_assigns_their_faces(tmp_path, write):
    table = read_split_table(tmp_path, write("video_id,split\nb,val\na,\nc,test\n"))
    assigned = table.assign(faces(("a", 0, 0), ("c", 1, 0), ("b", 0, 1), ("c", 0, 0)))
    assert assigned.tolist() == ["", "test", "val", "test"]
    with pytest.raises(ValueError, match="mine.csv, which has no row for d, e"):
        table.assign(faces(("e", 0, 0), ("d", 0, 0), ("a", 0, 0)))
    table.check_videos(["a", "c"])
    with pytest.raises(ValueError, match="rows for other videos, b"):
        table.check_videos(["a", "c"], is_all=True)


def test_a_table_of_faces_assigns_each_of_them(tmp_path, write):
    header = "video_id,frame_index,track_id,split\n"
    path = write(header + "a,10,0,val\na,2,0,train\na,2,1,\nb,2,0,test\n")
    table = read_split_table(tmp_path, path)
    assert table.of_faces and table.split_of == {"a": "", "b": ""}
    assigned = table.assign(faces(("a", 2, 1), ("b", 2, 0), ("a", 2, 0), ("a", 10, 0)))
    assert assigned.tolist() == ["", "test", "train", "val"]
    with pytest.raises(ValueError, match="no row for frame 3, track 0 of a"):
        table.assign(faces(("a", 3, 0), ("b", 2, 0), ("a", 2, 0), ("a", 10, 0)))
    with pytest.raises(ValueError, match="rows for 2 other faces"):
        table.assign(faces(("a", 2, 1), ("b", 2, 0)))


def test_faces_and_videos_have_the_split_of_the_table(prepared_set, tmp_path, write):
    names = [row.video_id for row in read_videos(prepared_set)]
    expected = {name: ("train", "val", "test", "")[number % 4] for number, name in enumerate(names)}
    text = "".join(f"{name},{split}\n" for name, split in reversed(expected.items()))
    path = write("video_id,split\n" + text)
    rows = read_faces(prepared_set, split_table=path, columns=["split", "video_id"])
    plain = read_faces(prepared_set, split_table="", columns=["video_id"])
    assert rows["video_id"].to_pylist() == plain["video_id"].to_pylist()
    assert rows["split"].to_pylist() == [expected[name] for name in rows["video_id"].to_pylist()]
    for split in ("train", "val", "test"):
        found = read_faces(prepared_set, split=split, split_table=path, columns=["video_id"])
        assert set(found["video_id"].to_pylist()) == {
            name for name in rows["video_id"].to_pylist() if expected[name] == split
        }
    videos = read_videos(prepared_set, split_table=path)
    assert {row.video_id: row.split for row in videos} == expected


def test_a_bad_table_fails_a_command_with_one_line(prepared_set, write, capsys):
    path = write("video_id,split\nother/1,train\n")
    assert main(["audit", str(prepared_set), "--split-table", path]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert f"got {path}, which has no row for clips/" in captured.err
