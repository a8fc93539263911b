import subprocess
import sys

import psutil
import pytest

from jdfd_keras.io.beam import read_beam_flags, run_on_beam
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.io.workers import LimitExceeded, WorkerCrashed
from jdfd_keras.options import LimitOptions


def test_an_unknown_runner_or_option_of_beam_is_refused():
    with pytest.raises(ValueError, match="available runner.*got NoSuchRunner"):
        read_beam_flags("NoSuchRunner", [])
    with pytest.raises(ValueError, match="Apache Beam; got --no_such_option"):
        read_beam_flags("DirectRunner", ["--no_such_option=1"])


def children():
    """Return this process's children; some, such as a decoder of JSON, are of earlier tests."""
    return set(psutil.Process().children())


def test_beam_gives_every_item_its_result_and_a_crash_fails_alone(functions, tmp_path):
    options = read_beam_flags("DirectRunner", ["--direct_running_mode=in_memory"])
    items = [(number, "SIGSEGV" if number == 2 else "") for number in range(20)]
    others = children()
    store = LocalStore(str(tmp_path))
    results = dict(run_on_beam(functions.kill, items, options=options, store=store, folder="beam"))
    crashed = results.pop((2, "SIGSEGV"))
    assert isinstance(crashed, WorkerCrashed) and "twice (SIGSEGV)" in str(crashed)
    assert results == {(number, ""): number for number in range(20) if number != 2}
    assert not children() - others


def test_an_item_beyond_a_limit_fails_alone_on_beam_too(functions, tmp_path):
    options = read_beam_flags("DirectRunner", ["--direct_running_mode=in_memory"])
    store, limits = LocalStore(str(tmp_path)), LimitOptions(max_seconds=0.5, max_memory=0)
    results = dict(
        run_on_beam(
            functions.sleep, [0, 60], options=options, store=store, folder="beam", limits=limits
        )
    )
    assert results.pop(0) == 0
    assert isinstance(results.pop(60), LimitExceeded)


def test_an_exception_on_beam_is_raised_with_its_message(functions, tmp_path):
    options = read_beam_flags("DirectRunner", ["--direct_running_mode=in_memory"])
    store, others = LocalStore(str(tmp_path)), children()
    with pytest.raises(OSError, match="no file 3"):
        list(run_on_beam(functions.fail_at, [3], options=options, store=store, folder="beam"))
    assert not children() - others


def test_beam_is_imported_only_to_run_on_it():
    code = "import sys, jdfd_keras.io.beam; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
