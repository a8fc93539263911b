"""Results that exist are evidence: no command replaces one, unless it is told to."""

import subprocess
import sys

import pytest

from jdfd_keras.cli.main import main, parse

# Words of a command, and the existing result; {0} is the folder of the test.
COMMANDS = [
    (["evaluate", "{0}/run", "{0}/data", "--out", "{0}/out"], "out/report.json"),
    (["evaluate", "{0}/run", "{0}/data", "--out", "{0}/out"], "out/scores.parquet"),
    (["evaluate-scores", "{0}/scores.csv", "--out", "{0}/out"], "out/report.html"),
    (["calibrate", "{0}/run", "{0}/data"], "run/calibration.json"),
    (["predict", "{0}/clip.mp4", "--model", "{0}/run", "--report", "{0}/out/a.html"], "out/a.html"),
    (["predict", "{0}/clip.mp4", "--model", "{0}/run", "--annotate", "{0}/a.mp4"], "a.mp4"),
    (["inspect", "{0}/clip.mp4", "--out", "{0}/a.png"], "a.png"),
    (["inspect", "{0}/clip.mp4", "--out", "{0}/a.png", "--overlay", "{0}/b.mp4"], "b.mp4"),
    (["audit", "{0}/data", "--out", "{0}/out"], "out/audit.json"),
]


@pytest.fixture
def folder(tmp_path):
    """Inputs that exist but are empty: the work itself would fail."""
    for name in ("run", "data", "out"):
        (tmp_path / name).mkdir()
    for name in ("scores.csv", "clip.mp4"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(("words", "result"), COMMANDS)
def test_an_existing_result_is_kept_and_named_before_any_work(folder, words, result, capsys):
    path = folder / result
    path.write_text("evidence")
    assert main([word.format(folder) for word in words]) == 1
    error = capsys.readouterr().err
    assert f"Expected no existing result at {path}" in error and "Try" in error
    assert "--overwrite" in error and error.count("\n") == 1
    assert path.read_text() == "evidence"


@pytest.mark.parametrize(("words", "result"), COMMANDS)
def test_with_overwrite_the_work_begins(folder, words, result, capsys):
    (folder / result).write_text("evidence")
    words = [*(word.format(folder) for word in words), "--overwrite"]
    assert parse(words).overwrite
    assert main(words) == 1  # the inputs are empty
    assert "no existing result" not in capsys.readouterr().err


def test_a_link_without_a_target_is_a_result_too(folder, capsys):
    (folder / "a.html").symlink_to(folder / "elsewhere.html")
    words = [
        "predict",
        folder / "clip.mp4",
        "--model",
        folder / "run",
        "--report",
        folder / "a.html",
    ]
    assert main([str(word) for word in words]) == 1
    assert "no existing result" in capsys.readouterr().err


def test_tensorflow_is_not_imported_for_a_refusal(folder):
    (folder / "run/calibration.json").write_text("{}")
    code = (
        "import sys; from jdfd_keras.cli.main import main\n"
        "print(main(['calibrate', sys.argv[1], sys.argv[2]]), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, folder / "run", folder / "data"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "1 False\n", done.stderr
