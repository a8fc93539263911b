"""The example requests of the pages on serving work."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(server, encoded_faces, tmp_path):
    """A function that runs the requests of a page on a real server and yields their output."""
    if not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    (tmp_path / "face.jpg").write_bytes(encoded_faces[0])

    def run(page):
        text = (ROOT / page).read_text(encoding="utf-8")
        (block,) = re.findall(r"```bash\n(curl .*?)```", text, flags=re.DOTALL)
        # A line that ends in a pipe or a backslash continues in the next.
        for line in re.sub(
            r"(\||\\)\n\s+", lambda end: end[1].strip("\\") + " ", block
        ).splitlines():
            assert "http://127.0.0.1:8501/" in line
            line = line.replace("http://127.0.0.1:8501", server.url)
            line = line.replace("/models/detector", "/models/tiny")
            ran = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            yield ran.stdout

    return run


def test_the_requests_of_the_page_on_serving_work(call, expected_scores):
    *answers, metrics = call("docs/serving.md")
    status, metadata, predicted, classified = map(json.loads, answers)
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert "serving_default" in metadata["metadata"]["signature_def"]["signature_def"]
    (row,) = predicted["predictions"]
    assert row == {"valid": True, "scores": pytest.approx(expected_scores[0], abs=1e-5)}
    ((real, fake),) = classified["results"]
    assert (real[0], fake[0]) == ("real", "fake")
    assert fake[1] == pytest.approx(row["scores"], abs=1e-6)
    assert ":tensorflow:serving:request_count" in metrics


def test_the_requests_of_the_serving_readme_work(call):
    metadata, predicted, described = map(json.loads, call("serving/README.md"))
    assert "metadata" in metadata["metadata"]["signature_def"]["signature_def"]
    assert predicted["predictions"][0]["valid"]
    alignment, calibration = described["predictions"]
    assert json.loads(alignment)["faces"]["face_size"] == 71
    assert calibration == ""
