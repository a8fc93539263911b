"""The index of a result folder: it fits the lines, whatever happened to either."""

import contextlib
import dataclasses
import json
import os
import sqlite3

import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.options import FaceOptions
from jdfd_keras.prediction import result_folder, verdict_index
from jdfd_keras.prediction.kept_records import FailedFile, KeptRecords
from jdfd_keras.prediction.result_folder import open_folder
from tests.prediction.test_result_folder import VERDICT

SETTINGS = {
    "metadata": ModelMetadata(FaceOptions(), None, "detector", 1, "ab"),
    "faces": FaceOptions(),
    "calibration": Calibration(),
}
STATE = (3, 7)
PATHS = [f"folder/{number}.mp4" for number in range(6)]


@contextlib.contextmanager
def opened(out, paths=PATHS):
    with open_folder(out, ((path, STATE) for path in paths), **SETTINGS) as folder:
        yield folder


def verdict_on(path):
    score = int(path[-5]) / 10
    return dataclasses.replace(VERDICT, path=path, file_bytes=STATE[0], score=score)


def done_in(folder):
    return [path for path in PATHS if folder.has_result(path)]


@pytest.fixture
def out(tmp_path):
    """A folder with a verdict on each file, and its index."""
    with opened(tmp_path / "out") as folder:
        for path in PATHS:
            folder.keep(verdict_on(path), state=STATE)
    return tmp_path / "out"


@pytest.fixture
def read_lines(monkeypatch):
    """The numbers of the lines that were parsed for the index."""
    parsed, parse = [], verdict_index.parse_line
    monkeypatch.setattr(
        verdict_index,
        "parse_line",
        lambda line: parsed.append(int(json.loads(line)["path"][-5])) or parse(line),
    )
    return parsed


def delete_index(out):
    (out / "verdicts.sqlite").unlink()


def damage_header(out):
    (out / "verdicts.sqlite").write_bytes(b"not a database" * 99)


def damage_page(out):
    content = (out / "verdicts.sqlite").read_bytes()
    (out / "verdicts.sqlite").write_bytes(content[:-4096] + bytes(4096))


def cut_index(out):
    os.truncate(out / "verdicts.sqlite", 5000)


def raise_format(out):
    with contextlib.closing(sqlite3.connect(out / "verdicts.sqlite")) as connection:
        facts = {"format": 0, "end": 5}
        connection.execute("REPLACE INTO facts VALUES (?, ?)", ["indexed", json.dumps(facts)])
        connection.commit()


def test_the_lines_of_an_indexed_folder_are_not_read_again(out, read_lines):
    with opened(out) as folder:
        assert done_in(folder) == PATHS
    assert read_lines == []


@pytest.mark.parametrize(
    "harm", [delete_index, damage_header, damage_page, cut_index, raise_format]
)
def test_a_missing_or_damaged_index_is_made_again(out, read_lines, harm):
    harm(out)
    with opened(out) as folder:
        assert done_in(folder) == PATHS
        records, _ = folder.collect()
        assert list(records) == list(map(verdict_on, PATHS))
    assert read_lines == list(range(6))
    with opened(out) as folder:
        assert done_in(folder) == PATHS
    assert len(read_lines) == 6


def test_only_the_lines_behind_the_index_are_read(out, read_lines):
    lines = (out / "verdicts.jsonl").read_bytes().splitlines(keepends=True)
    delete_index(out)
    (out / "verdicts.jsonl").write_bytes(b"".join(lines[:4]))
    with opened(out) as folder:
        assert done_in(folder) == PATHS[:4]
    with open(out / "verdicts.jsonl", "ab") as file:
        file.write(lines[4] + lines[5][:50])
    del read_lines[:]
    with opened(out) as folder:
        assert done_in(folder) == PATHS[:5]
    assert read_lines == [4]
    assert (out / "verdicts.jsonl").read_bytes() == b"".join(lines[:5])
    with opened(out) as folder:
        assert done_in(folder) == PATHS[:5]
    assert read_lines == [4]


@pytest.mark.parametrize("number", [0, 2, 5])
def test_a_line_that_was_deleted_by_hand_is_analysed_again(out, number):
    path = out / "verdicts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    others = PATHS[:number] + PATHS[number + 1 :]
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    with opened(out) as folder:
        assert done_in(folder) == others
        records, _ = folder.collect(lambda path: FailedFile(path, "none"))
        assert [record.path for record in records] == PATHS
        assert records[number] == FailedFile(PATHS[number], "none")
    # Also if so much was written since that the file is longer than before.
    with open(path, "ab") as file:
        file.write(lines[number] * 2)
    with opened(out) as folder:
        assert done_in(folder) == PATHS


def test_a_line_that_was_deleted_before_others_were_added_moves_the_rest(out):
    path = out / "verdicts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:] + lines[:1] * 2))
    with opened(out) as folder:
        records, _ = folder.collect()
        assert list(records) == list(map(verdict_on, PATHS))


def test_a_damaged_line_is_named_by_its_number_also_behind_the_index(out):
    with open(out / "verdicts.jsonl", "ab") as file:
        file.write(b'{"path": "a"}\n')
    for _ in range(2):
        with pytest.raises(ValueError, match="in line 7 of .*: delete that line"), opened(out):
            pass
    with pytest.raises(ValueError, match="in line 2 of "):
        content = (out / "verdicts.jsonl").read_bytes().splitlines(keepends=True)
        changed = content[1].replace(b'"verdict": ', b'"another": ')
        (out / "verdicts.jsonl").write_bytes(b"".join([content[0], changed, *content[2:6]]))
        with opened(out):
            pass


def test_verdicts_that_a_killed_run_did_not_index_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(verdict_index.LineIndex, "commit", lambda self: None)
    with opened(tmp_path / "killed") as folder:
        for path in PATHS:
            folder.keep(verdict_on(path), state=STATE)
    monkeypatch.undo()
    with opened(tmp_path / "killed") as folder:
        assert done_in(folder) == PATHS


def test_a_run_commits_the_index_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(verdict_index, "LINES_PER_COMMIT", 4)
    with opened(tmp_path / "out") as folder:
        for path in PATHS:
            folder.keep(verdict_on(path), state=STATE)
        monkeypatch.setattr(verdict_index.LineIndex, "commit", lambda self: None)  # a kill
    monkeypatch.undo()
    parsed, parse = [], verdict_index.parse_line
    monkeypatch.setattr(verdict_index, "parse_line", lambda one: parsed.append(1) or parse(one))
    with opened(tmp_path / "out") as folder:
        assert done_in(folder) == PATHS
    assert len(parsed) == 2


def test_the_last_line_of_a_file_counts_and_its_state(out):
    with opened(out) as folder:
        folder.keep(dataclasses.replace(verdict_on(PATHS[1]), score=0.9), state=STATE)
        folder.keep(FailedFile(PATHS[2], "damaged"), state=STATE)
        folder.keep(verdict_on(PATHS[3]), state=(3, 8))
    with opened(out) as folder:
        assert done_in(folder) == [PATHS[0], PATHS[1], *PATHS[4:]]
        assert folder.collect()[0][1].score == 0.9


def test_a_folder_whose_index_cannot_be_written_has_a_temporary_one(out, monkeypatch):
    connect = sqlite3.connect

    def refuse(path):
        if path:
            raise sqlite3.OperationalError("database is locked")
        return connect(path)

    monkeypatch.setattr(verdict_index.sqlite3, "connect", refuse)
    with opened(out) as folder:
        assert done_in(folder) == PATHS
    assert not (out / "verdicts.sqlite").exists()


def test_a_folder_in_place_of_the_index_is_left_alone(out):
    delete_index(out)
    (out / "verdicts.sqlite").mkdir()
    with opened(out) as folder:
        assert done_in(folder) == PATHS
    assert (out / "verdicts.sqlite").is_dir()


def test_a_damaged_row_of_the_index_is_named_and_what_to_do_helps(out):
    with contextlib.closing(sqlite3.connect(out / "verdicts.sqlite")) as connection:
        connection.execute("UPDATE lines SET start = start + 5")
        connection.commit()
    with opened(out) as folder, pytest.raises(ValueError, match=r"delete verdicts\.sqlite beside"):
        list(folder.collect()[0])
    delete_index(out)
    with opened(out) as folder:
        assert list(folder.collect()[0]) == list(map(verdict_on, PATHS))


def test_records_are_read_also_after_a_change_of_the_current_folder(out, monkeypatch):
    monkeypatch.chdir(out.parent)
    with opened(out.name) as folder:
        records, _ = folder.collect()
    monkeypatch.chdir("/")
    assert list(records) == list(map(verdict_on, PATHS))


def test_an_index_that_fails_during_a_run_costs_no_verdict(tmp_path, monkeypatch):
    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    with opened(tmp_path / "out") as folder:
        monkeypatch.setattr(verdict_index.LineIndex, "_insert", fail)
        for path in PATHS:
            folder.keep(verdict_on(path), state=STATE)
        assert list(folder.collect()[0]) == list(map(verdict_on, PATHS))
    monkeypatch.undo()
    with opened(tmp_path / "out") as folder:
        assert done_in(folder) == PATHS


def test_the_table_is_written_again_only_if_its_lines_or_it_changed(out, monkeypatch):
    made = []
    rows = result_folder.csv_lines
    monkeypatch.setattr(result_folder, "csv_lines", lambda found: made.append(1) or rows(found))

    def finish():
        with opened(out) as folder:
            folder.finish(folder.collect()[0])
        return (out / "verdicts.csv").read_text().splitlines()

    first = finish()
    assert len(first) == 7 and finish() == first and len(made) == 1
    (out / "verdicts.csv").write_text("changed")
    assert finish() == first and len(made) == 2
    with opened(out) as folder:
        folder.keep(dataclasses.replace(verdict_on(PATHS[1]), score=0.9), state=STATE)
    assert finish() != first and len(made) == 3
    (out / "verdicts.csv").unlink()
    assert finish() != first and len(made) == 4


def test_kept_records_are_a_sequence_and_name_a_changed_file(out):
    with opened(out) as folder:
        records, is_verdict = folder.collect()
    expected = tuple(map(verdict_on, PATHS))
    assert records == expected and expected == tuple(records) and records[1:3] == expected[1:3]
    assert records != expected[:5] and records[-1] == expected[-1] and list(is_verdict) == [1] * 6
    assert records.select([0, 1, 0, 0, 0, 1]) == (expected[1], expected[5])
    assert isinstance(records, KeptRecords) and not records.select([0] * 6)
    content = (out / "verdicts.jsonl").read_bytes()
    (out / "verdicts.jsonl").write_bytes(content[3:])
    with pytest.raises(ValueError, match="record of folder/2.mp4 at byte .* was changed"):
        _ = records[2]
