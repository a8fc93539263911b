import io
import os
import subprocess
import sys
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

from jdfd_keras.io.storage import (
    PARTS,
    BeamStore,
    LocalStore,
    exclusive_lock,
    local_path,
    read_text,
    write_text,
)


class FlatFileSystem(FileSystem):
    """Names and bytes without folders, as the stores of Google and Amazon are in Beam 2.77.

    In particular `delete` treats a path that ends with `/` as a folder, and any other as one file.
    """

    files: ClassVar[dict[str, bytes]] = {}

    @classmethod
    def scheme(cls):
        return "flat"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def mkdirs(self, path):
        pass

    def has_dirs(self):
        return False

    def _list(self, prefix):
        for path in sorted(self.files):
            if path.startswith(prefix):
                yield self.metadata(path)

    def create(self, path, mime_type="", compression_type=None):
        class Upload(io.BytesIO):
            def close(upload):  # noqa: N805, the store is the other self
                if not upload.closed:
                    self.files[path] = upload.getvalue()
                super().close()

        return Upload()

    def open(self, path, mime_type="", compression_type=None):
        if path not in self.files:
            raise FileNotFoundError(path)
        return io.BytesIO(self.files[path])

    def copy(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            self.files[destination] = self.files[source]

    def rename(self, source_file_names, destination_file_names):
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path):
        return path in self.files

    def size(self, path):
        return len(self.files[path])

    def last_updated(self, path):
        return 0.0

    def metadata(self, path):
        if path not in self.files:
            raise BeamIOError(path)
        return FileMetadata(path, self.size(path))

    def delete(self, paths):
        for path in paths:
            if path.endswith("/"):
                for name in [name for name in self.files if name.startswith(path)]:
                    del self.files[name]
            else:
                self.files.pop(path, None)


@pytest.fixture(params=["local", "Beam"])
def store(request, tmp_path):
    FlatFileSystem.files.clear()
    is_local = request.param == "local"
    return LocalStore(str(tmp_path / "set")) if is_local else BeamStore("flat://bucket/set")


def write(store, name, content):
    with store.create(name) as file:
        file.write(content)


def read(store, name):
    with store.open(name) as file:
        return file.read()


def finished(store):
    """Name to content of all files but the unfinished ones, which the next run removes."""
    return {
        name: read(store, name)
        for name in store.list()
        if not name.startswith(f"{PARTS}/unfinished")
    }


def test_files_are_listed_with_their_sizes(store):
    for name, content in {"a.txt": b"abc", "b/empty": b"", "b/c/анна 1.mp4": b"12345"}.items():
        write(store, name, content)
    assert store.list() == {"a.txt": 3, "b/empty": 0, "b/c/анна 1.mp4": 5}


def test_files_in_a_subfolder_are_listed_by_their_full_names(store):
    for name in ("b/1", "b/c/2", "bc/3", "b.txt", "a/b/4"):
        write(store, name, b"x")
    assert store.list("b") == {"b/1": 1, "b/c/2": 1}
    assert store.list("b/c") == {"b/c/2": 1}


def test_a_missing_folder_is_empty(store):
    assert store.list() == {}
    write(store, "a.txt", b"x")
    assert store.list("b") == {}


def test_files_of_other_programs_are_listed(tmp_path):
    local_store = LocalStore(str(tmp_path / "set"))
    (tmp_path / "set" / "real").mkdir(parents=True)
    (tmp_path / "set" / "real" / ".hidden [1].mp4").write_bytes(b"12")
    (tmp_path / "set" / "empty folder").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "set" / "broken link")
    os.symlink("itself", tmp_path / "set" / "itself")
    os.symlink("/dev/null", tmp_path / "set" / "device")
    os.mkfifo(tmp_path / "set" / "pipe")
    assert local_store.list() == {"real/.hidden [1].mp4": 2}
    assert read(local_store, "real/.hidden [1].mp4") == b"12"


def test_linked_folders_are_listed_and_a_link_to_a_parent_folder_is_followed_once(tmp_path):
    store = LocalStore(str(tmp_path / "set"))
    write(store, "real/a.mp4", b"12")
    write(LocalStore(str(tmp_path / "other disk")), "b/c.mp4", b"123")
    os.symlink(tmp_path / "other disk", tmp_path / "set" / "fake")
    os.symlink(tmp_path / "set", tmp_path / "set" / "real" / "back")
    assert store.list() == {"real/a.mp4": 2, "fake/b/c.mp4": 3}
    assert store.list("fake") == {"fake/b/c.mp4": 3}


@pytest.mark.parametrize("location", ["set/", "./set", "set/../set"])
def test_a_location_may_be_spelt_in_several_ways(tmp_path, monkeypatch, location):
    monkeypatch.chdir(tmp_path)
    write(LocalStore("set"), "a/b.txt", b"x")
    assert LocalStore(location).list() == {"a/b.txt": 1}
    assert LocalStore(location).exists("a/b.txt")


@pytest.mark.parametrize("name", ["clips [old]", "what?", "all*"])
def test_a_local_folder_may_have_any_name(tmp_path, name):
    store = LocalStore(str(tmp_path / name))
    write(store, "parts/a.txt", b"x")
    write(store, "b.txt", b"x")
    assert store.list() == {"parts/a.txt": 1, "b.txt": 1}
    store.remove("parts")
    assert store.list() == {"b.txt": 1}


def test_an_existing_file_is_told_from_a_missing_one(store):
    assert not store.exists("a/b.txt")
    write(store, "a/b.txt", b"x")
    assert store.exists("a/b.txt")
    assert not store.exists("a/c.txt")


def test_a_local_folder_is_not_a_file(tmp_path):
    store = LocalStore(str(tmp_path))
    write(store, "manifest.parquet/b.txt", b"x")
    assert not store.exists("manifest.parquet")


def test_content_is_unchanged_whatever_the_suffix(store):
    content = bytes(range(256)) * 300 + b"\r\n\n"
    for name in ("a.bin", "a.gz", "a.bz2"):
        write(store, name, content)
        assert read(store, name) == content


def test_an_open_file_is_seekable(store):
    write(store, "a.bin", b"0123456789")
    with store.open("a.bin") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
        file.seek(1)
        assert file.read(2) == b"12"


def test_a_file_appears_once_it_is_complete(store):
    with store.create("a/b.txt") as file:
        file.write(b"half")
        file.flush()
        assert not store.exists("a/b.txt")
        assert finished(store) == {}
    assert finished(store) == {"a/b.txt": b"half"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file(store, error):
    write(store, "old.txt", b"old")
    for name in ("old.txt", "new.txt", "folder/new.txt"):
        with pytest.raises(error), store.create(name) as file:
            file.write(b"half")
            raise error("disk full")
    assert finished(store) == {"old.txt": b"old"}


def test_a_file_is_replaced(store):
    write(store, "a/b.txt", b"the first, which is longer")
    write(store, "a/b.txt", b"second")
    assert store.list() == {"a/b.txt": 6}
    assert read(store, "a/b.txt") == b"second"


def test_two_writers_of_the_same_file_do_not_mix(store):
    with store.create("a.txt") as one:
        one.write(b"one")
        with store.create("a.txt") as other:
            other.write(b"the other")
        assert read(store, "a.txt") == b"the other"
        one.write(b" and more")
    assert finished(store) == {"a.txt": b"one and more"}


def test_writing_leaves_no_other_file(store):
    write(store, "a.txt", b"x")
    write(store, "a.txt", b"y")
    assert list(store.list()) == ["a.txt"]


def test_a_fetched_file_is_on_this_machine(store):
    write(store, "real/anna.mp4", b"frames")
    with local_path(store, "real/anna.mp4") as path:
        assert path.read_bytes() == b"frames"
        assert path.suffix == ".mp4"  # which decoders depend on
    assert read(store, "real/anna.mp4") == b"frames"


def test_a_subfolder_is_removed_with_its_files_and_nothing_else(store):
    for name in ("parts/a", "parts/00/b", "parts.txt", "parts2/c", "kept/parts/d"):
        write(store, name, b"x")
    store.remove("parts")
    assert set(store.list()) == {"parts.txt", "parts2/c", "kept/parts/d"}
    store.remove("parts")  # a missing folder is no error


def test_a_missing_file_is_an_oserror(store):
    write(store, "a.txt", b"x")
    with pytest.raises(OSError, match="b.txt"):
        store.open("b.txt")
    with pytest.raises(OSError, match="b.txt"):
        read_text(store, "b.txt")
    with pytest.raises(OSError, match="b.txt"), local_path(store, "b.txt") as path:
        path.read_bytes()


def test_text_is_utf_8_without_its_byte_order_mark(store):
    write_text(store, "a.txt", "Ærø, 面\r\nanna\n")
    assert read(store, "a.txt") == "Ærø, 面\r\nanna\n".encode()
    assert read_text(store, "a.txt") == "Ærø, 面\r\nanna\n"
    write(store, "b.txt", b"\xef\xbb\xbfanna")  # as Windows programs write it
    assert read_text(store, "b.txt") == "anna"
    write(store, "c.txt", b"\xff\xfe")
    with pytest.raises(ValueError, match="utf-8"):
        read_text(store, "c.txt")


def test_stores_import_neither_beam_nor_tensorflow_for_a_local_folder(tmp_path):
    code = f"""
import sys
from jdfd_keras.io.storage import BeamStore, LocalStore, read_text, write_text
store = LocalStore({str(tmp_path)!r})
write_text(store, "a.txt", "x")
assert read_text(store, "a.txt") == "x"
BeamStore("gs://bucket/videos")
sys.exit(bool({{"apache_beam", "tensorflow"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_second_run_is_refused_until_the_first_is_done(tmp_path):
    store = LocalStore(str(tmp_path))
    refused = pytest.raises(OSError, match="only run .*; got another")
    with exclusive_lock(store), refused, exclusive_lock(store):
        pass
    with pytest.raises(KeyError), exclusive_lock(store):
        raise KeyError
    with exclusive_lock(store):
        pass


def test_an_object_store_is_not_locked():
    FlatFileSystem.files.clear()
    with exclusive_lock(BeamStore("flat://bucket/set")):
        assert FlatFileSystem.files == {}
