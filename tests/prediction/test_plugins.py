"""Functions of the user that give scores: what they may return, and what costs one file alone."""

import hashlib
import math
import os
import time
from pathlib import Path

import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.io.files import sha256_of
from jdfd_keras.options import LimitOptions
from jdfd_keras.prediction.file_list import read_state
from jdfd_keras.prediction.plugin_run import ANSWERS, ask_plugin, open_answers
from jdfd_keras.prediction.plugins import Plugin, is_plugin, judge_scores

# The name of a file states what the function does with it.
MODULE = """
import asyncio, os, sys, time
from fractions import Fraction
from pathlib import Path

import numpy as np

ANSWERS = {
    "number": 0.25,
    "integer": 1,
    "huge": 10**400,
    "numpy": np.float32(0.5),
    "fraction": Fraction(1, 4),
    "list": [0.25, 0.75],
    "tuple": (0.5,),
    "array": np.array([0.25, 0.5]),
    "scalar_array": np.array(0.75),
    "empty": [],
    "nan": float("nan"),
    "infinite": float("inf"),
    "above": 1.2,
    "below": [0.5, -0.1],
    "bool": True,
    "numpy_bool": np.bool_(False),
    "bool_in_list": [0.5, True],
    "text": "fake",
    "bytes": b"0.5",
    "number_as_text": ["0.5"],
    "none": None,
    "dict": {"score": 0.5},
    "set": {0.5},
    "matrix": np.full((2, 2), 0.5),
    "complex": 0.5 + 0j,
}

def score(path):
    print("printed by the plug-in")
    os.write(1, b"and by its libraries")
    assert os.path.isabs(path)
    name = Path(path).stem
    if name == "raises":
        raise KeyError("no such" + chr(10) + "face")
    if name == "exits":
        sys.exit(0)
    if name == "dies":
        os._exit(7)
    if name == "hangs":
        time.sleep(60)
    if name == "memory":
        raise MemoryError
    if name == "interrupts":
        raise KeyboardInterrupt("by itself")
    if name == "cancels":
        raise asyncio.CancelledError
    return ANSWERS[name]

score.version = "1.2"
score.thresholds = (0.25, 0.75)

def plain(path):
    return 0.5

not_a_function = 3
"""
SCORES = {
    "number": (0.25,),
    "integer": (1.0,),
    "numpy": (0.5,),
    "fraction": (0.25,),
    "list": (0.25, 0.75),
    "tuple": (0.5,),
    "array": (0.25, 0.5),
    "scalar_array": (0.75,),
    "empty": (),
}
# Part of the error, which names the answer.
REFUSED = {
    "nan": "which returned nan.",
    "infinite": "which returned inf.",
    "above": "which returned 1.2.",
    "below": "which returned [0.5, -0.1].",
    "bool": "which returned True (bool).",
    "numpy_bool": "(bool",
    "bool_in_list": "which returned [0.5, True] (bool).",
    "text": "which returned 'fake' (str).",
    "bytes": "which returned b'0.5' (bytes).",
    "number_as_text": "which returned ['0.5'] (str).",
    "none": "which returned None (NoneType).",
    "dict": "which returned {'score': 0.5} (dict).",
    "set": "which returned {0.5} (set).",
    "matrix": "which returned [[0.5, 0.5], [0.5, 0.5]] (list).",
    "complex": "(complex).",
    "raises": "which raised KeyError: 'no such\\nface' (judges.py, line ",
    "exits": "which raised SystemExit: 0 (judges.py, line ",
    "interrupts": "which raised KeyboardInterrupt: by itself (judges.py, line ",
    "cancels": "which raised asyncio.exceptions.CancelledError (judges.py, line ",
    "huge": "which returned 1000000",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module."""
    (tmp_path / "judges.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths_of(names):
    return [Path(f"{name}.mp4") for name in names]


def test_a_plugin_is_a_module_and_a_function_and_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("judges:score", "a.b.judges:score", "_m:_f", "C:score"):
        assert is_plugin(name)
    for name in (
        *("jdfd-faces", "judges", "judges:", ":score", "a..b:score", "a:b:c", "a b:c", "1a:b"),
        *("http://127.0.0.1:8501/v1/models/m", "grpc://127.0.0.1:8500/m", "host:8500/m"),
        *("C:\\models\\a", "C:/models/a", "models/a:b", "./a:b", "a:b.keras", "judges:score()", ""),
    ):
        assert not is_plugin(name)
    (tmp_path / "judges:score").mkdir()
    assert not is_plugin("judges:score")
    (tmp_path / "saved_models" / "a:b").mkdir(parents=True)
    assert not is_plugin("a:b") and is_plugin("a:c")


def test_each_answer_is_scores_or_an_error_that_names_it(folder, capfd):
    with Plugin("judges:score") as plugin:
        plugin.load()
        # Twice, as the processes stay.
        answers = dict(plugin.ask(paths_of(SCORES)))
        answers |= dict(plugin.ask(paths_of(REFUSED)))
    assert {path.stem: answers[path] for path in paths_of(SCORES)} == SCORES
    for path in paths_of(REFUSED):
        text = str(answers[path])
        assert text.startswith(f"Expected scores for {path}; got judges:score, which ")
        assert REFUSED[path.stem] in text and text.endswith(".")
        assert answers[path].code == "plugin_failed"
        assert ("Return P(fake) from 0 to 1" in text) == ("returned" in text)
    printed = capfd.readouterr()
    assert printed.out == "" and "printed by the plug-in" in printed.err
    assert "and by its libraries" in printed.err


def test_a_plugin_that_hangs_or_dies_costs_that_file_alone(folder):
    started = time.monotonic()
    with Plugin("judges:score", limits=LimitOptions(max_seconds=3)) as plugin:
        plugin.load()
        answers = dict(plugin.ask(paths_of(["hangs", "number", "dies", "memory", "list"])))
    assert time.monotonic() - started < 50
    by_name = {path.stem: answer for path, answer in answers.items()}
    assert (by_name["number"], by_name["list"]) == ((0.25,), (0.25, 0.75))
    hung, died, memory = (by_name[name] for name in ("hangs", "dies", "memory"))
    assert (hung.code, died.code, memory.code) == ("too_long", "crashed", "out_of_memory")
    assert "took more than 3 s. Try --max-seconds 6" in str(hung)
    assert "judges:score, whose process died twice (exit code 7). Check the plug-in" in str(died)


def test_the_function_states_its_version_and_thresholds(folder):
    with Plugin("judges:score") as plugin, Plugin("judges:plain") as plain:
        plugin.load()
        plain.load()
    assert plugin.facts.version == "1.2"
    assert plugin.facts.digest == sha256_of(folder / "judges.py") == plain.facts.digest
    own = plugin.choose_thresholds()
    assert (own.uncertain_from, own.uncertain_to) == (0.25, 0.75)
    assert plain.choose_thresholds() == Calibration() and plain.facts.version == ""
    requested = plugin.choose_thresholds(0.6)
    assert (requested.uncertain_from, requested.uncertain_to) == (0.6, 0.6)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("nowhere:score", "", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("own:other", "def score(path): pass", "own.py) has no function other"),
        ("own:score", "score = 3", "own.py) has no function score"),
        ("own:score", "import missing_package", "No module named 'missing_package' (own.py, line"),
        ("own:score", "def score(:", "cannot be imported: File"),
        ("own:score", "1 / 0", "ZeroDivisionError: division by zero (own.py, line 1)"),
        ("own:score", "raise SystemExit(3)", "SystemExit: 3 (own.py, line 1)"),
        ("own:score", "import os; os._exit(3)", "whose process died twice (exit code 3)"),
        ("own:score", "import time; time.sleep(60)", "took more than 3 s"),
        ("own:score", "def score(path): pass\nscore.version = 3", "whose version is 3 and not"),
        ("own:score", "def score(path): pass\nscore.thresholds = 0.9, 0.1", "are (0.9, 0.1) and"),
        ("own:score", "def score(path): pass\nscore.thresholds = 0, 2", "are (0, 2) and not 2"),
        ("own:score", "def score(path): pass\nscore.thresholds = 0.5", "are 0.5 and not 2 num"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(tmp_path, monkeypatch, name, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(source)
    refused = pytest.raises(OSError, match="Expected a plug-in that can be loaded; got ")
    with Plugin(name, limits=LimitOptions(max_seconds=3)) as plugin, refused as caught:
        plugin.load()
    assert f"got {name}, " in str(caught.value) and message in str(caught.value)


def test_a_file_beside_the_examined_ones_does_not_replace_an_installed_module(folder):
    # Modules that the process has not imported before.
    (folder / "colorsys.py").write_text("raise OSError('replaced')")
    (folder / "wave.py").write_text("def score(path): return 1.0")
    (folder / "own.py").write_text("import colorsys\ndef score(path): return 0.25")
    with Plugin("own:score") as plugin:
        plugin.load()
        assert dict(plugin.ask(paths_of(["number"]))) == {Path("number.mp4"): (0.25,)}
    with Plugin("wave:score") as plugin, pytest.raises(OSError, match="has no function score"):
        plugin.load()


def test_the_highest_score_decides_by_the_thresholds():
    thresholds = Calibration(uncertain_from=0.25, uncertain_to=0.75)
    for scores, expected in {
        (0.1, 0.75): ("fake", 0.75),
        (0.74,): ("uncertain", 0.74),
        (0.25, 0.0): ("uncertain", 0.25),
        (0.2, 0.1): ("no_evidence", 0.2),
        (): ("no face", None),
    }.items():
        opinion = judge_scores("mine", scores, thresholds)
        assert (opinion.verdict, opinion.score, opinion.error) == (*expected, "")


COUNTING = """
from pathlib import Path

def score(path):
    with open("asked.txt", "a") as file:
        print(Path(path).stem, file=file)
    if Path(path).stem == "c":
        raise ValueError("not this one")
    return 0.75
"""


def test_a_resumed_run_asks_only_about_new_and_changed_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(COUNTING)
    for name in "abc":
        (tmp_path / name).write_text("1")

    def run():
        (tmp_path / "asked.txt").write_text("")
        states = {name: (os.stat(name).st_size, os.stat(name).st_mtime_ns) for name in "abc"}
        with Plugin("own:score") as plugin:
            plugin.load()
            with open_answers("answers", plugin, states) as folder:
                found = ask_plugin(plugin, "mine", states, {}, folder, Calibration())
        assert [found[name].verdict for name in "abc"] == ["fake", "fake", ""]
        assert "not this one" in found["c"].error
        return (tmp_path / "asked.txt").read_text().split()

    assert sorted(run()) == ["a", "b", "c"]
    assert run() == ["c"]  # a failure is tried again
    (tmp_path / "b").write_text("22")
    assert sorted(run()) == ["b", "c"]
    os.utime("a", ns=(1, 1))
    assert sorted(run()) == ["a", "c"]
    lines = (tmp_path / "answers" / "answers.jsonl").read_bytes()
    (tmp_path / "answers" / "answers.jsonl").write_bytes(lines + b'{"path": "a", "sco')
    assert run() == ["c"]
    (tmp_path / "answers" / "answers.jsonl").write_bytes(b"[1]\nnothing\n" + lines)
    assert run() == ["c"]
    (tmp_path / "own.py").write_text(COUNTING + "score.version = '2'\n")
    assert sorted(run()) == ["a", "b", "c"]
    assert "mine: c: Expected scores for c" in capsys.readouterr().err
    refused = pytest.raises(ValueError, match="name 'own:score' -> 'own:other'")
    with refused, open_answers("answers", Plugin("own:other"), {}):
        pass


@pytest.mark.parametrize(
    "scores", ["[7]", "[NaN]", '["a"]', "[true]", "[[0.1]]", "0.5", "[0.5", f"[1{'0' * 400}]"]
)
def test_a_damaged_answer_is_asked_for_again(folder, scores):
    Path("a.mp4").write_text("x")
    states = {"a.mp4": read_state("a.mp4")}
    for _ in range(2):
        with Plugin("judges:plain") as plugin:
            plugin.load()
            with open_answers("answers", plugin, states) as kept:
                opinions = ask_plugin(plugin, "own", states, {}, kept, Calibration())
        assert opinions["a.mp4"].score == 0.5
        lines = Path("answers", ANSWERS)
        lines.write_text(lines.read_text().replace("[0.5]", scores))


def test_the_digest_is_of_the_module_and_of_the_file_of_the_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = {
        "inner": "def score(path): return 0.5\nclass Model:\n    __call__ = lambda s, path: 0.5",
        "outer": "from inner import score, Model\nmodel = Model()\n"
        "import functools\npart = functools.partial(score)",
        "wrap": "import functools\nfrom inner import score\n"
        "@functools.wraps(score)\ndef wrapped(path): return score(path)",
    }
    for name, text in sources.items():
        (tmp_path / f"{name}.py").write_text(text)

    def digest_of(name):
        with Plugin(name) as plugin:
            plugin.load()
        return plugin.facts.digest

    assert digest_of("inner:score") == sha256_of(tmp_path / "inner.py")
    for name in ("outer:score", "outer:model", "outer:part", "wrap:wrapped"):
        both = sources[name.partition(":")[0]] + sources["inner"]
        assert digest_of(name) == hashlib.sha256(both.encode()).hexdigest(), name


def test_a_file_that_changes_while_it_is_examined_has_no_opinion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "def score(path):\n    open(path, 'a').write('more')\n    return 0.5"
    )
    (tmp_path / "a").write_text("1")
    states = {"a": (1, os.stat("a").st_mtime_ns)}
    with Plugin("own:score") as plugin:
        plugin.load()
        with open_answers(tmp_path / "out", plugin, states) as folder:
            found = ask_plugin(plugin, "mine", states, {}, folder, Calibration())
    assert found["a"].code == "changed" and found["a"].score is None
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == b""


def test_scores_survive_the_way_from_the_process_exactly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("def score(path): return [1 / 3, 5e-324, 1 - 2**-53]")
    with Plugin("own:score") as plugin:
        plugin.load()
        [(_, scores)] = plugin.ask([Path("a")])
    assert scores == (1 / 3, 5e-324, math.nextafter(1, 0))
