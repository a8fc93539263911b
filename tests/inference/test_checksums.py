import shutil
import subprocess

import pytest

from jdfd_keras.inference.model_files import verify_checksums, write_checksums


@pytest.fixture
def version(tmp_path):
    """A folder as an export writes it, with its list."""
    folder = tmp_path / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "with space.index").write_bytes(b"\0" * 10)
    (folder / "empty").write_bytes(b"")
    write_checksums(folder)
    return folder


def test_what_is_whole_passes_also_somewhere_else(version, tmp_path):
    verify_checksums(version)
    verify_checksums(shutil.copytree(version, tmp_path / "copy"))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_reads_the_list_and_sees_a_change(version):
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    told = subprocess.run(command, cwd=version, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count(": OK\n") == 3
    (version / "empty").write_bytes(b"x")
    told = subprocess.run(command, cwd=version, capture_output=True, text=True)
    assert told.returncode == 1
    assert "empty: FAILED" in told.stdout


def test_list_that_is_written_again_is_the_same(version):
    before = (version / "SHA256SUMS").read_bytes()
    write_checksums(version)
    assert (version / "SHA256SUMS").read_bytes() == before


def test_missing_file_is_named(version):
    (version / "variables" / "with space.index").unlink()
    with pytest.raises(OSError, match=r"with space\.index with the SHA-256 .*got no such file"):
        verify_checksums(version)


def test_changed_file_is_named(version):
    (version / "saved_model.pb").write_bytes(b"grapf")
    with pytest.raises(
        OSError, match=r"saved_model\.pb with the SHA-256 .*as exported; got [0-9a-f]"
    ):
        verify_checksums(version)


def test_list_that_is_none_is_refused(version):
    (version / "SHA256SUMS").write_bytes(b"\xff\xfe no list\n")
    with pytest.raises(OSError, match="Expected lines such as `sha256sum` writes"):
        verify_checksums(version)


def test_without_a_list_there_is_nothing_to_check(version):
    (version / "SHA256SUMS").unlink()
    (version / "saved_model.pb").unlink()
    verify_checksums(version)
