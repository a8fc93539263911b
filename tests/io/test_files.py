"""Files are written whole or not at all, and folders keep to their options."""

import dataclasses
import hashlib
import json
import os

import pytest

from jdfd_keras.io.files import (
    FORMAT_VERSION,
    OPTIONS,
    atomic_path,
    check_same_options,
    init_folder,
    load_options,
    save_options,
    sha256_of,
    to_json,
    write_text_atomically,
)
from jdfd_keras.options import FaceOptions, ModelOptions

FACES = FaceOptions(face_size=71)


def test_a_file_is_replaced_once_the_block_succeeds(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        assert unfinished.suffix == ".txt"
        assert unfinished.name.startswith(".unfinished-")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_the_same_file_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as one:
        one.write_text("one")
        with atomic_path(path) as other:
            other.write_text("the other")
        assert path.read_text() == "the other"
        with open(one, "a") as file:
            file.write(" and more")
    assert path.read_text() == "one and more"
    assert list(tmp_path.iterdir()) == [path]


def test_options_of_another_kind_of_folder_are_named(tmp_path):
    init_folder(tmp_path, faces=FACES)
    with pytest.raises(ValueError, match=r"got the groups? faces"):
        load_options(tmp_path / OPTIONS, "model", ModelOptions)


def test_what_a_killed_run_left_is_removed_when_an_hour_later_another_resumes(tmp_path):
    init_folder(tmp_path, faces=FACES)
    old, new = tmp_path / ".unfinished-0123abcd-a", tmp_path / ".unfinished-4567abcd-a"
    for left in (old, new):
        left.write_text("half")
    os.utime(old, times=(0, 0))
    init_folder(tmp_path, faces=FACES)
    assert set(tmp_path.iterdir()) == {tmp_path / OPTIONS, new}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for target in (path, tmp_path / "b.txt"):
        with pytest.raises(error), atomic_path(target) as unfinished:
            unfinished.write_text("half")
            raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_text_is_written_as_utf_8(tmp_path):
    write_text_atomically(tmp_path / "a.txt", "Ærø, 面\n")
    assert (tmp_path / "a.txt").read_bytes() == "Ærø, 面\n".encode()
    with pytest.raises(OSError, match="a.txt"):
        write_text_atomically(tmp_path / "no folder" / "a.txt", "text")


def test_the_digest_is_that_of_fips_180(tmp_path):
    # NIST, "Secure Hash Standard", examples of SHA-256; of the empty file and of "abc".
    (tmp_path / "empty").touch()
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "empty") == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert sha256_of(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_the_digest_of_a_large_file_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "large").write_bytes(content)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_options_come_back_as_they_were_saved(tmp_path):
    model = ModelOptions(decoder_widths=(8, 4))
    save_options(tmp_path / OPTIONS, faces=FACES, model=model)
    assert load_options(tmp_path / OPTIONS, "faces", FaceOptions) == FACES
    assert load_options(tmp_path / OPTIONS, "model", ModelOptions) == model
    stored = json.loads((tmp_path / OPTIONS).read_text())
    assert list(stored) == ["format_version", "faces", "model"]
    assert stored["format_version"] == FORMAT_VERSION
    assert stored["faces"] == dataclasses.asdict(FACES)


def test_a_folder_is_created_and_may_be_resumed_with_the_same_options(tmp_path):
    folder = tmp_path / "a" / "run"
    init_folder(folder, faces=FACES)
    (folder / "last.keras").touch()
    init_folder(folder, faces=FACES)
    assert load_options(folder / OPTIONS, "faces", FaceOptions) == FACES


def test_a_folder_with_other_options_is_refused_and_they_are_named(tmp_path):
    init_folder(tmp_path / "run", faces=FACES)
    with pytest.raises(ValueError, match="face_size 71 -> 299, margin 1.3 -> "):
        init_folder(tmp_path / "run", faces=FaceOptions(margin=2.0))


def test_a_folder_with_an_option_that_no_longer_exists_is_refused(tmp_path):
    init_folder(tmp_path / "run", faces=FACES)
    path = tmp_path / "run" / OPTIONS
    stored = json.loads(path.read_text())
    stored["faces"]["rotate"] = True
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="rotate True -> not"):
        init_folder(tmp_path / "run", faces=FACES)


def test_an_option_that_is_younger_than_the_folder_had_its_default(tmp_path):
    init_folder(tmp_path / "run", faces=FACES)
    path = tmp_path / "run" / OPTIONS
    stored = json.loads(path.read_text())
    assert stored["faces"].pop("margin") == FaceOptions().margin
    path.write_text(json.dumps(stored))
    init_folder(tmp_path / "run", faces=FACES)
    with pytest.raises(ValueError, match="margin 1.3 -> 2.0"):
        init_folder(tmp_path / "run", faces=dataclasses.replace(FACES, margin=2.0))


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(ValueError, match=f"empty folder.*{tmp_path}, which holds"):
        init_folder(tmp_path, faces=FACES)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


def test_a_folder_whose_creation_was_killed_is_new(tmp_path):
    (tmp_path / f".unfinished-0-{OPTIONS}").write_text("{")
    init_folder(tmp_path, faces=FACES)
    assert load_options(tmp_path / OPTIONS, "faces", FaceOptions) == FACES


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, str(FORMAT_VERSION), None, "missing"])
def test_another_or_missing_format_version_is_refused(tmp_path, version):
    stored = json.loads(to_json({"faces": FACES}))
    del stored["format_version"]
    if version != "missing":
        stored["format_version"] = version
    path = tmp_path / OPTIONS
    path.write_text(json.dumps(stored))
    refused = f"Expected format_version {FORMAT_VERSION} in .*; got "
    with pytest.raises(ValueError, match=refused):
        load_options(path, "faces", FaceOptions)
    with pytest.raises(ValueError, match=refused):
        init_folder(tmp_path, faces=FACES)
    with pytest.raises(ValueError, match=refused):
        check_same_options(path.read_text(), tmp_path, {"faces": FACES})
    with pytest.raises(ValueError, match=refused):
        check_same_options(path.read_text(), tmp_path, {})


@pytest.mark.parametrize("text", ["", "{", "[]", "1"])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / OPTIONS).write_text(text)
    with pytest.raises(ValueError, match=f"JSON in {tmp_path / OPTIONS}.*damaged"):
        load_options(tmp_path / OPTIONS, "faces", FaceOptions)
    with pytest.raises(ValueError, match=f"JSON in {tmp_path / OPTIONS}.*damaged"):
        init_folder(tmp_path, faces=FACES)


@pytest.mark.parametrize("groups", [{}, {"faces": 3}, {"faces": {"rotate": True}}])
def test_a_missing_group_or_an_unknown_option_is_refused(tmp_path, groups):
    path = tmp_path / OPTIONS
    path.write_text(json.dumps({"format_version": FORMAT_VERSION} | groups))
    with pytest.raises(ValueError, match=f"Expected {path} .* group 'faces'"):
        load_options(path, "faces", FaceOptions)
