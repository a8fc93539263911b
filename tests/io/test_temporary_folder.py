"""Temporary folders: removed at the end, and after a kill by the next process that makes one."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jdfd_keras.io import temporary_folder
from jdfd_keras.io.temporary_folder import TemporaryFolder, remove_abandoned

PACKAGE = Path(temporary_folder.__file__).parent.parent
HOLDER = """
import sys
from pathlib import Path
from jdfd_keras.io.temporary_folder import TemporaryFolder
folder = TemporaryFolder()
Path(folder.name, "inner").mkdir()
Path(folder.name, "inner", "crop.npy").write_bytes(b"x" * 9)
print(folder.name, flush=True)
sys.stdin.read()
"""
# Makes and removes folders as many processes do, each time as the first of its process.
MAKER = """
from pathlib import Path
from jdfd_keras.io import temporary_folder
for number in range(150):
    temporary_folder._cleaned.clear()
    with temporary_folder.TemporaryFolder() as folder:
        file = Path(folder, "crop.npy")
        file.write_bytes(b"x")
        temporary_folder.remove_abandoned(Path(folder).parent)
        assert file.read_bytes() == b"x", number
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "temporary"


def start(code=HOLDER):
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_it_is_removed_at_the_end_of_its_block_by_cleanup_and_with_its_process(temporary):
    with TemporaryFolder() as folder:
        assert os.listdir(temporary) == [Path(folder).name]
        assert os.stat(folder).st_mode & 0o777 == 0o700
    other = TemporaryFolder()
    other.cleanup()
    other.cleanup()  # nothing happens
    process = start()
    assert Path(process.stdout.readline().strip()).is_dir()
    process.communicate("")
    assert (process.returncode, os.listdir(temporary)) == (0, [])


def test_that_of_a_killed_process_is_removed_by_the_next_one_and_a_used_one_is_not(temporary):
    killed, living = start(), start()
    folders = [Path(process.stdout.readline().strip()) for process in (killed, living)]
    assert all(folder.is_dir() for folder in folders)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with TemporaryFolder() as own:  # in this process
        assert set(temporary.iterdir()) == {folders[1], Path(own)}
    assert (folders[1] / "inner/crop.npy").read_bytes() == b"x" * 9
    living.communicate("")
    assert list(temporary.iterdir()) == []


def test_a_process_looks_for_them_once(temporary, monkeypatch):
    calls = []
    monkeypatch.setattr(temporary_folder, "remove_abandoned", calls.append)
    monkeypatch.setattr(temporary_folder, "_cleaned", set())
    for _ in range(3):
        TemporaryFolder().cleanup()
    assert calls == [str(temporary)]


def test_folders_with_other_names_links_and_files_are_kept(temporary, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for name in ("jdfd-keras-results", "jdfd-keras-temporary-mine", "jdfd-keras-ab12cd34"):
        (temporary / name).mkdir()
    (temporary / "jdfd-keras-temporary-file0000").write_text("a file")
    (temporary / "jdfd-keras-temporary-link0000").symlink_to(results)
    (temporary / "jdfd-keras-temporary-dead0000").mkdir()
    remove_abandoned(temporary)
    names = {path.name for path in temporary.iterdir()}
    assert "jdfd-keras-temporary-dead0000" not in names and len(names) == 5
    assert results.is_dir()


@pytest.mark.parametrize("harm", ["of another user", "that others may write to"])
def test_a_folder_that_may_be_somebody_elses_is_kept(temporary, monkeypatch, harm):
    folder = temporary / "jdfd-keras-temporary-dead0000"
    folder.mkdir()
    if harm == "of another user":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    else:
        folder.chmod(0o777)
    remove_abandoned(temporary)
    assert folder.is_dir()


def test_where_nothing_can_be_locked_nothing_is_removed(temporary, monkeypatch):
    def fail(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    (temporary / "jdfd-keras-temporary-dead0000").mkdir()
    with TemporaryFolder() as folder:
        remove_abandoned(temporary)
        assert Path(folder).is_dir()
    assert os.listdir(temporary) == ["jdfd-keras-temporary-dead0000"]


def test_many_processes_at_once_never_lose_a_folder(temporary):
    makers = [start(MAKER) for _ in range(6)]
    assert [maker.communicate()[0] for maker in makers] == [""] * 6
    assert [maker.returncode for maker in makers] == [0] * 6
    assert os.listdir(temporary) == []


def test_thousands_of_other_entries_cost_little(temporary):
    import time

    for number in range(5000):
        (temporary / f"other-{number}").touch()
    begun = time.process_time()
    remove_abandoned(temporary)
    assert time.process_time() - begun < 0.2


def test_no_module_makes_temporary_folders_in_another_way():
    others = [
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"TemporaryDirectory\(|mkdtemp", path.read_text(encoding="utf-8"))
    ]
    assert set(others) - {"temporary_folder.py"} == set()
