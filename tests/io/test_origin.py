import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version

import av
import dlib
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.io.origin import Origin, collect_versions, describe_origin, recorded_command


def test_versions_are_those_that_the_packages_state():
    found = collect_versions()
    assert found["python"] == platform.python_version()
    assert found["jdfd_keras"] == version("jdfd-keras")
    assert (found["numpy"], found["av"]) == (np.__version__, av.__version__)
    assert found["dlib"].startswith(dlib.__version__)


def test_engines_are_named_only_if_they_were_used():
    code = (
        "import json, sys; from jdfd_keras.io.origin import collect_versions as f\n"
        "before = f(); import openvino; print(json.dumps([before, f(), openvino.__version__]))\n"
        "assert 'av' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, number = json.loads(done.stdout)
    assert "openvino" not in before and number.startswith(after["openvino"])
    assert after.keys() - before.keys() == {"openvino"}


def test_a_result_is_made_now_and_from_python_by_no_command():
    before = datetime.now(UTC).replace(microsecond=0)
    origin = Origin(**describe_origin())
    assert before <= datetime.fromisoformat(origin.created_at) <= datetime.now(UTC)
    assert origin.command == ""
    assert Origin.from_dict(origin.to_dict()).to_dict() == origin.to_dict()
    assert origin == Origin(), "results with the same content are equal"


def test_a_command_is_quoted_for_a_shell_and_forgotten_after_a_failure():
    with pytest.raises(OSError), recorded_command(["predict", "a b.mp4", "--model", "run"]):
        assert describe_origin()["command"] == "jdfd-keras predict 'a b.mp4' --model run"
        raise OSError
    assert describe_origin()["command"] == ""


def test_a_report_of_scores_states_its_own_origin_and_that_of_the_scores(tmp_path, capsys):
    table = tmp_path / "other scores.csv"
    table.write_text("video_id,label,score\na,0,0.1\nb,1,0.9\n")
    words = ["evaluate-scores", str(table), "--out", str(tmp_path / "one"), "--n-resamples", "0"]
    assert main(words) == 0
    first = json.loads((tmp_path / "one/report.json").read_text())["protocol"]
    assert first["command"] == (
        f"jdfd-keras evaluate-scores '{table}' --out {tmp_path}/one --n-resamples 0"
    )
    digest = subprocess.run(["sha256sum", table], capture_output=True, text=True, check=True)
    assert first["scores_digest"] == digest.stdout.split()[0]
    assert first["scores_origin"] is None and first["versions"]["numpy"] == np.__version__
    stored = str(tmp_path / "one/scores.parquet")
    assert main(["evaluate-scores", stored, "--out", str(tmp_path / "two")]) == 0
    second = json.loads((tmp_path / "two/report.json").read_text())["protocol"]
    assert "--out " + str(tmp_path / "two") in second["command"]
    keys = ("command", "versions", "created_at")
    assert second["scores_origin"] == {key: first[key] for key in keys}
    page = (tmp_path / "two/report.md").read_text()
    assert f"| scores origin: command | jdfd-keras evaluate-scores '{table}'" in page
    capsys.readouterr()
