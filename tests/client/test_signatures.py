import shutil
import subprocess

import pytest

from jdfd_keras.client.signatures import verify_checksums, write_checksums


@pytest.fixture
def version(tmp_path):
    """An exported version with its list of checksums."""
    folder = tmp_path / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "with space.index").write_bytes(b"\0" * 10)
    (folder / "empty").write_bytes(b"")
    write_checksums(folder)
    return folder


def test_a_complete_copy_passes(version, tmp_path):
    verify_checksums(version)
    verify_checksums(shutil.copytree(version, tmp_path / "copy"))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_reads_the_list_and_detects_a_change(version):
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=version, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK\n") == 3
    (version / "empty").write_bytes(b"x")
    checked = subprocess.run(command, cwd=version, capture_output=True, text=True)
    assert checked.returncode == 1
    assert "empty: FAILED" in checked.stdout


def test_a_list_that_is_written_again_is_the_same(version):
    before = (version / "SHA256SUMS").read_bytes()
    write_checksums(version)
    assert (version / "SHA256SUMS").read_bytes() == before


def test_a_missing_file_is_named(version):
    (version / "variables" / "with space.index").unlink()
    with pytest.raises(OSError, match=r"with space\.index with the SHA-256 .*no such"):
        verify_checksums(version)


def test_a_changed_file_is_named(version):
    (version / "saved_model.pb").write_bytes(b"grapf")
    with pytest.raises(
        OSError, match=r"saved_model\.pb with the SHA-256 .*as exported; got [0-9a-f]"
    ):
        verify_checksums(version)


def test_a_file_that_is_not_a_list_is_refused(version):
    (version / "SHA256SUMS").write_bytes(b"\xff\xfe not a list\n")
    with pytest.raises(OSError, match="`sha256sum` in .*SHA256SUMS; got"):
        verify_checksums(version)


def test_without_a_list_nothing_is_checked(version):
    (version / "SHA256SUMS").unlink()
    (version / "saved_model.pb").unlink()
    verify_checksums(version)
