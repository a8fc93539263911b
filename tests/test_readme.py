"""The examples of the README and of docs/ work as shown."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from jdfd_keras.options import CalibrateOptions
from jdfd_keras.prediction.plugins import Plugin
from tests.cli.test_main import commands_in, parse

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


@pytest.mark.slow
def test_python_of_the_docs_runs(prepared_set, clips_folder, tmp_path, monkeypatch):
    code = "\n".join(
        re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text("utf-8"), re.DOTALL)
    )
    for large, small in {
        "face_size=299": "face_size=71",
        "latent_dim=256": "latent_dim=16",
        "image_size=faces.face_size,": "image_size=faces.face_size, latent_dim=16,",
        "epochs=20, batch_size=4": "epochs=1, batch_size=16, allow_leak=True",
        'jk.calibrate("run", "prepared")': 'jk.calibrate("run", "prepared", LEAK)',
        'aggregation="track"': 'aggregation="track", allow_leak=True',
    }.items():
        assert large in code
        code = code.replace(large, small)
    shutil.copytree(clips_folder, tmp_path / "videos")
    shutil.copy(next((clips_folder / "fake").glob("*.mp4")), tmp_path / "suspect.mp4")
    monkeypatch.chdir(tmp_path)
    names = {"LEAK": CalibrateOptions(allow_leak=True)}  # subjects are varied from one portrait
    exec(compile(code, "docs/python.md", "exec"), names)

    assert names["verdict"].verdict in ("no_evidence", "uncertain", "fake")
    assert names["predictions"].files[0].score == pytest.approx(names["verdict"].score, abs=0.5)
    assert names["explanation"].cam.shape[1:] == (71, 71)
    assert names["trained"].best_epoch == 1
    assert names["same"].video.num_real == names["report"].video.num_real
    assert (tmp_path / "report/report.html").is_file()


PAGES = ["README.md", "serving/README.md", "serving/RUNBOOK.md", "saved_models/README.md"]


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        *(f"docs/{name}.md" for name in ("design", "python", "detector", "service", "opinions")),
        *("docs/trust.md", "SECURITY.md", "CONTRIBUTING.md"),
    ],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_commands_of_the_page_on_opinions_are_parsed():
    lines = commands_in((ROOT / "docs/opinions.md").read_text(encoding="utf-8"))
    assert len(lines) >= 4
    assert all(len(parse(shlex.split(line)[1:]).models) > 1 for line in lines)


def test_the_plugin_of_the_docs_runs(clips_folder, tmp_path, monkeypatch):
    text = (ROOT / "docs/opinions.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "lab.py").write_text(code, encoding="utf-8")
    clip = min((clips_folder / "real").glob("*.mp4"))
    shutil.copy(clip, tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    with Plugin("lab:blur") as plugin:
        plugin.load()
        [(_, scores)] = plugin.ask([Path("clip.mp4")])
    assert plugin.facts.version == "0.1" and plugin.facts.thresholds == (0.4, 0.6)
    assert len(scores) == 1 and 0 < scores[0] < 1  # one person
