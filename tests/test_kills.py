"""The short form of kills.py: a few kills of each command; and the page of the long form."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kills
from tests.kill_commands import COMMANDS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return kills.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="process groups")
@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.name)
def test_a_command_that_is_killed_loses_and_doubles_nothing(kind, inputs, tmp_path):
    print("seed", seed := random.randrange(10**6))  # shown if the test fails
    found = kills.run_kills(kind(*inputs), tmp_path / "runs", 2, random.Random(seed))
    assert found["kills"] == 2
    assert (found["lost"], found["doubled"], found["different"]) == ([], [], [])


def test_the_page_shows_the_latest_result(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    report = json.loads((BENCHMARKS / "results/kills.json").read_text(encoding="utf-8"))
    page = kills.render(report)
    assert page == (BENCHMARKS / "results/kills.md").read_text(encoding="utf-8")
    (table,) = [block for block in page.strip().split("\n\n") if block.startswith("| ")]
    assert table in (BENCHMARKS / "README.md").read_text(encoding="utf-8")


class Broken:
    """A command that loses one item, makes another again, and has another result."""

    name = "broken"
    states = ({"a": 1, "b": 1}, {"b": 2, "c": 1})
    starts = 0

    def start(self, out):
        self.starts += 1
        return subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE, start_new_session=True)

    def finish(self, out):
        out.mkdir(exist_ok=True)

    def finished(self, out):
        return self.states[self.starts - 1]

    def check(self, out, whole):
        return ["table"]


class Twice(random.Random):
    """Two kills of one run, each at once."""

    def randint(self, first, last):
        return 2 if last == kills.MOST_KILLS else 0

    def uniform(self, first, last):
        return 0.0


def test_what_is_lost_doubled_or_different_is_found(tmp_path):
    found = kills.run_kills(Broken(), tmp_path / "runs", 2, Twice())
    assert (found["kills"], found["runs"]) == (2, 1)
    assert (found["lost"], found["doubled"]) == (["run 1: a"], ["run 1: b"])
    assert found["different"] == ["run 1: table"]
