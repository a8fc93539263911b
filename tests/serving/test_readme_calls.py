"""The calls that the README shows are answered as it says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jdfd_keras.serving.model_config import configure_directory

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_curl_lines_are_answered(exported, encoded_faces, start_server, tmp_path):
    (block,) = re.findall(r"```bash\n(curl .*?)```", README, flags=re.DOTALL)
    # A line that ends in a pipe goes on in the next.
    lines = re.sub(r"\|\n\s+", "| ", block).splitlines()
    assert len(lines) == 5
    shutil.copytree(exported, tmp_path / "detector" / "1")
    (tmp_path / "face.jpg").write_bytes(encoded_faces[0])
    server = start_server([configure_directory(tmp_path / "detector")])
    answers = []
    for line in lines:
        assert "http://127.0.0.1:8501/" in line
        line = line.replace("http://127.0.0.1:8501", server.url)
        ran = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        answers.append(ran.stdout)

    status, metadata, predicted, classified = map(json.loads, answers[:4])
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert "serving_default" in metadata["metadata"]["signature_def"]["signature_def"]
    ((row,),) = predicted.values()
    assert row["valid"]
    ((real, fake),) = classified["results"]
    assert (real[0], fake[0]) == ("real", "fake")
    assert fake[1] == pytest.approx(row["scores"], abs=1e-6)
    assert ":tensorflow:serving:request_count" in answers[4]
