"""The first page, and the code of all pages for readers: what they show can be typed, and works."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jdfd_keras as jk
from jdfd_keras.cli.main import COMMANDS, main, parse
from jdfd_keras.options import CalibrateOptions
from jdfd_keras.prediction.plugins import Plugin

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"),
    *("saved_models/README.md", "serving/README.md", "serving/RUNBOOK.md"),
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(rf"jdfd-keras (?:{'|'.join(COMMANDS)})\b[^\n|>&`]*")
SHELL = re.compile(
    r"(?:\w+=\S+ )?(?:bash|cd|chmod|cosign|cp|curl|docker|find|git|jdfd-keras|kubectl|make|"
    r"minisign|mv|openssl|rsync|sha256sum|source|unzip|(?:\.venv/bin/)?(?:pip|python|python3)) "
)


def read_blocks(page: str) -> list[str]:
    """Return the blocks of a page that may hold commands, fenced or indented."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = [body for language, body in FENCE.findall(text) if language in ("", "bash")]
    indented = re.findall(r"(?:^    .*\n)+", FENCE.sub("", text), flags=re.MULTILINE)
    return [textwrap.dedent(block).replace("\\\n", " ") for block in [*fenced, *indented]]


def read_commands(page: str) -> list[str]:
    """Return the commands of this program in the blocks of a page, with their arguments."""
    found = COMMAND.findall("\n".join(read_blocks(page)))
    # The last one of a script in quotes, as for `bash -c`, ends with the quote.
    return [line.removesuffix("'") if line.count("'") % 2 else line for line in found]


def slug(heading: str) -> str:
    """Return the anchor of a heading, as hosts of code and the site make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", "")).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def test_the_first_page_is_short_and_in_order():
    lines = README.splitlines()
    assert len(lines) <= 180
    parts = ["# jdfd-keras", "<img src=", "**Status.**", "## Install", "## Three short paths"]
    parts += ["**Analyst**", "**Researcher**", "**Operator**", "## Results", "**Protocol.**"]
    parts += ["## Python", "## Commands", "## Limits", "## Citation", "## Licence"]
    found = [next(i for i, line in enumerate(lines) if line.startswith(part)) for part in parts]
    assert found == sorted(found)
    assert set(re.findall(r"^\| `([\w-]+)` \|", README, flags=re.MULTILINE)) == set(COMMANDS)
    assert not re.search(r"\btargets?\b|\d passed|\d tests", README)
    first = read_blocks("README.md")[0].splitlines()  # from nothing to a verdict
    assert [line.split()[:2] for line in first] == [
        ["git", "clone"],
        ["make", "demo"],
        [".venv/bin/jdfd-keras", "predict"],
    ]


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_typed(page):
    for line in read_commands(page):
        assert parse(shlex.split(line)[1:]).command in COMMANDS, line
    for block in filter(SHELL.match, read_blocks(page)):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert checked.returncode == 0, f"{checked.stderr} in {block}"


def test_every_command_is_shown_in_a_block():
    shown = {line.split()[1] for page in PAGES for line in read_commands(page)}
    assert shown == set(COMMANDS)


def test_targets_extras_and_scripts_exist():
    blocks = "\n".join(block for page in PAGES for block in read_blocks(page))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([\w-]+)", blocks, flags=re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert targets <= set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8").split("[options.extras_require]")[1]
    extras = set(re.findall(r'(?:"\.|jdfd-keras)\[([\w,-]+)\]', blocks))
    assert "provenance" in extras
    assert extras <= set(re.findall(r"^(\w+) =", setup, flags=re.MULTILINE))
    scripts = re.findall(r"^(?:python|bash) (\w+/\w+\.(?:py|sh))(.*)$", blocks, flags=re.MULTILINE)
    assert len(scripts) > 5
    for name, words in scripts:
        source = (ROOT / name).read_text(encoding="utf-8")
        assert [flag for flag in re.findall(r"--[a-z-]+", words) if flag not in source] == [], name


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles_and_uses_public_names(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, body in FENCE.findall(text):
        if language == "python":
            ast.parse(body)
    assert set(re.findall(r"\bjk\.(\w+)", text)) <= set(jk.__all__)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for name, anchor in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), name
        if anchor and (target.is_dir() or target.suffix == ".md"):
            target = target / "README.md" if target.is_dir() else target
            text = FENCE.sub("", target.read_text(encoding="utf-8"))
            headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
            assert anchor in map(slug, headings), f"{name}#{anchor}"


def test_each_finding_has_a_row_with_the_version_that_it_states():
    page = (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8")
    rows = dict(
        reversed(re.findall(r"^\| ([^|]+) \|.*\| `(\w+\.sh)` \|$", line)[0])
        for line in page.splitlines()
        if line.endswith(".sh` |")
    )
    scripts = {path.name: path for path in (ROOT / "findings").glob("*.sh")}
    assert rows.keys() == scripts.keys()
    for name, path in scripts.items():
        head = path.read_text(encoding="utf-8").split("# Guess")[0]
        versions = re.findall(r"\d+\.\d+\.\d+", rows[name])
        assert versions and [version for version in versions if version not in head] == [], name


@pytest.mark.slow
def test_python_of_the_first_page_runs(prepared_set, clips_folder, stand_in, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    for large, small in {
        "epochs=20": "epochs=1, allow_leak=True",
        'jk.calibrate("run", "prepared")': 'jk.calibrate("run", "prepared", LEAK)',
        'jk.evaluate("run", "prepared")': 'jk.evaluate("run", "prepared", ALLOW)',
    }.items():
        assert large in code
        code = code.replace(large, small)
    shutil.copytree(prepared_set, tmp_path / "prepared")
    shutil.copy(next((clips_folder / "fake").glob("*.mp4")), tmp_path / "suspect.mp4")
    monkeypatch.chdir(tmp_path)
    names = {
        "LEAK": CalibrateOptions(allow_leak=True),  # subjects are varied from one portrait
        "ALLOW": jk.EvaluateOptions(allow_leak=True),
    }
    exec(compile(code, "README.md", "exec"), names)
    assert names["verdict"].verdict in ("no_evidence", "uncertain", "fake")
    assert 0 <= names["report"].video.auc.value <= 1


@pytest.mark.slow
def test_the_path_of_a_researcher_runs_when_pasted(clips_folder, stand_in, tmp_path, monkeypatch):
    block = README.split("**Researcher**")[1].split("**Operator**")[0]
    demo, *lines = COMMAND.findall(block)
    assert demo == "jdfd-keras demo --train" and len(lines) == 8
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clips_folder, "demo-train/videos")  # as that demo makes them, but fewer
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "split":  # of 8 subjects
            words[-1] = "3"
        assert main(words) == 0, line
    assert Path("saved_models/detector/1/saved_model.pb").is_file()
    assert Path("report/report.html").is_file() and Path("faces.png").is_file()


@pytest.mark.slow
def test_the_path_of_an_operator_runs_when_pasted(clips_folder, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    block = README.split("**Operator**")[1].split("## Results")[0]
    serve, *lines = [line.strip() for line in block.splitlines() if line.startswith("    ")]
    assert len(lines) == 3
    clip = tmp_path / "demo/videos/fake/astronaut_person00.mp4"
    clip.parent.mkdir(parents=True)
    shutil.copy(min((clips_folder / "fake").glob("*.mp4")), clip)
    program = str(Path(sys.executable).with_name("jdfd-keras"))
    words = shlex.split(serve.removesuffix(" &").replace("jdfd-keras", program))
    words += ["--port", "0", "--grpc-port", "0", "--engine", "embedded", "--state", "state"]
    answers = []
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            assert server.stderr
            ready = next(line for line in server.stderr if line.startswith("Ready: "))
            url = re.findall(r"http://127\.0\.0\.1:\d+", ready)[0]
            for line in lines:
                line = line.replace("http://127.0.0.1:8501", url).replace(
                    "jdfd-keras ", f"{program} "
                )
                words = ["bash", "-c", line]
                done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                answers.append(done.stdout)
        finally:
            server.terminate()
    status, job, verdict = answers
    assert json.loads(status)["model_version_status"][0]["state"] == "AVAILABLE"
    assert json.loads(job)["name"] == clip.name
    assert "model: jdfd-faces, version 1" in verdict


@pytest.mark.slow
def test_the_loop_of_the_page_on_training_runs(prepared_set, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    for large, small in {
        "image_size=faces.face_size": "image_size=71, latent_dim=16, encoder_weights='none'",
        "batch_size=4": "batch_size=16",
        "epochs=20": "epochs=1",
    }.items():
        assert large in code
        code = code.replace(large, small)
    shutil.copytree(prepared_set, tmp_path / "prepared")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "training.md", "exec"), {})

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


def test_commands_of_the_page_on_opinions_ask_several_models():
    lines = [line for line in read_commands("docs/opinions.md") if " predict " in line]
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
