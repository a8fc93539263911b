"""What the README shows works as it stands there."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_lines_of_python_run(prepared_set, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    for large, small in {
        "image_size=faces.face_size": "image_size=71, latent_dim=16, encoder_weights='none'",
        "batch_size=4": "batch_size=16",
        "epochs=20": "epochs=1",
    }.items():
        assert large in code
        code = code.replace(large, small)
    shutil.copytree(prepared_set, tmp_path / "prepared")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})

    lines = capsys.readouterr().out.splitlines()
    assert 0 <= float(lines[-2]) <= 1
    assert lines[-1] == "saved_models/detector/1"
    assert (tmp_path / "saved_models/detector/1/saved_model.pb").is_file()
    assert (tmp_path / "report/report.html").is_file()


@pytest.mark.parametrize("page", ["README.md", "serving/README.md", "saved_models/README.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
