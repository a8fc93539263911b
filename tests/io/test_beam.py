import multiprocessing
import subprocess
import sys

import pytest

from jdfd_keras.io.beam import read_beam_flags, run_on_beam
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.io.workers import WorkerCrashed


def test_an_unknown_runner_or_option_of_beam_is_refused():
    with pytest.raises(ValueError, match="available runner.*got NoSuchRunner"):
        read_beam_flags("NoSuchRunner", [])
    with pytest.raises(ValueError, match="Apache Beam; got --no_such_option"):
        read_beam_flags("DirectRunner", ["--no_such_option=1"])


def test_beam_gives_every_item_its_result_and_a_crash_fails_alone(functions, tmp_path):
    options = read_beam_flags("DirectRunner", ["--direct_running_mode=in_memory"])
    items = [(number, "SIGSEGV" if number == 2 else "") for number in range(20)]
    store = LocalStore(str(tmp_path))
    results = dict(run_on_beam(functions.kill, items, options=options, store=store, folder="beam"))
    assert results.pop((2, "SIGSEGV")) == WorkerCrashed("SIGSEGV")
    assert results == {(number, ""): number for number in range(20) if number != 2}
    assert multiprocessing.active_children() == []


def test_an_exception_on_beam_is_raised_with_its_message(functions, tmp_path):
    options = read_beam_flags("DirectRunner", ["--direct_running_mode=in_memory"])
    store = LocalStore(str(tmp_path))
    with pytest.raises(OSError, match="no file 3"):
        list(run_on_beam(functions.fail_at, [3], options=options, store=store, folder="beam"))
    assert multiprocessing.active_children() == []


def test_beam_is_imported_only_to_run_on_it():
    code = "import sys, jdfd_keras.io.beam; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
