"""The steps of the Dockerfile work one by one, and its image would be small, non-root and pinned.

No engine runs here: a virtual environment of this machine's Python stands in for the image's, and
a folder for its root. Steps that change the system (accounts, Debian packages) are not run.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

import jdfd_keras
from tests.dockerfile import (
    IgnoreFile,
    copy_context,
    expand,
    read_instructions,
    read_pairs,
    split_stages,
)

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + 64 * "a"
USER = 10001
# The folders of the image that the steps name.
FOLDERS = re.compile(r"(?<![\w.])/(opt|src|data|state|tmp)\b")
TOKEN = "0123456789abcdef"
START_S, STOP_S = 60, 40


@pytest.fixture(scope="module")
def instructions():
    return read_instructions(ROOT / "Dockerfile")


@pytest.fixture(scope="module")
def final(instructions):
    """Instructions of the last stage by name; one that is repeated has all its texts."""
    _, (_, stage) = split_stages(instructions)
    found = {}
    for name, text in stage:
        found.setdefault(name, []).append(text)
    return found


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_base_is_pinned_by_a_digest_that_must_be_given(instructions):
    before, stages = split_stages(instructions)
    assert before == [("ARG", "PYTHON_DIGEST")]
    bases = [stage[0][1].split()[0] for stage in stages]
    assert {expand(base, {"PYTHON_DIGEST": DIGEST}) for base in bases} == {
        f"python:3.12-slim-trixie@{DIGEST}"
    }
    for base in bases:
        for given in ({}, {"PYTHON_DIGEST": ""}):
            with pytest.raises(ValueError, match="PYTHON_DIGEST.*--build-arg_PYTHON_DIGEST=sha256"):
                expand(base, given)


def test_the_image_is_not_run_as_root_and_has_no_compiler(final, instructions):
    assert final["USER"] == [f"{USER}:{USER}"]  # a number: Kubernetes checks runAsNonRoot by it
    packages = [
        word
        for name, text in instructions
        if name == "RUN"
        for words in re.findall(r"apt-get install ([^&|;]+)", text)
        for word in words.split()
        if not word.startswith("-")
    ]
    assert packages == ["chromium", "fonts-dejavu-core"]  # and these only if asked for
    assert 'if [ "$CHROMIUM" = yes ]' in final["RUN"][0]
    assert final["ARG"][0] == "CHROMIUM=no"
    assert not any("pip install" in text for text in final["RUN"])
    assert final["COPY"] == ["--from=build /opt/jdfd-keras /opt/jdfd-keras"]


def test_the_image_writes_to_its_volumes_and_tmp_alone(final):
    environment = read_pairs(" ".join(final["ENV"]), {"PATH": "/usr/bin"})
    written = {"HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "MPLCONFIGDIR", "KERAS_HOME"}
    assert written <= set(environment)
    for name in written:
        assert environment[name].startswith(("/state", "/tmp")), name
    assert json.loads(final["VOLUME"][0]) == ["/data", "/state"]
    assert final["WORKDIR"] == ["/data"]


def test_labels_follow_the_image_specification(final):
    labels = read_pairs(" ".join(final["LABEL"]), {"VERSION": "1", "REVISION": "abc"})
    assert all(name.startswith("org.opencontainers.image.") for name in labels)
    assert {name.rpartition(".")[2] for name in labels} >= {"title", "version", "licenses"}
    assert labels["org.opencontainers.image.version"] == "1"


def test_the_context_has_the_package_and_nothing_else(tmp_path):
    ignore = IgnoreFile(ROOT / ".dockerignore")
    for path in (
        ".git/config",
        ".env",
        "serving/.env",
        "token.txt",
        "jdfd_keras/.env",
        "saved_models/jdfd-faces/.netrc",
        "saved_models/detector/1/saved_model.pb",
        "tests/conftest.py",
        "demo/videos/real/a.mp4",
        "jdfd_keras/cli/__pycache__/main.cpython-312.pyc",
        ".venv/bin/python",
        "Dockerfile",
    ):
        assert not ignore.includes(path), path
    for path in ("setup.cfg", "jdfd_keras/cli/main.py", "saved_models/jdfd-faces/1/saved_model.pb"):
        assert ignore.includes(path), path
    (tmp_path / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())
    for path in ("jdfd_keras/a.py", "jdfd_keras/.b", "tests/a.py", "README.md", "secret"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert sorted(copy_context(tmp_path, tmp_path / "out")) == ["README.md", "jdfd_keras/a.py"]


def test_git_ignores_the_secrets_of_compose():
    command = ["git", "check-ignore", "--quiet", "serving/.env"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if b"not a git repository" in done.stderr:
        pytest.skip("not a checkout")
    assert done.returncode == 0


class Image:
    """The folder that stands in for the root of the image, and what its instructions set."""

    def __init__(self, root, context):
        self.root, self.context = root, context
        self.environment = {"PATH": f"{root / 'base'}:{os.environ['PATH']}", "HOME": str(root)}
        # Registries and proxies of this machine.
        self.environment |= {
            name: value
            for name, value in os.environ.items()
            if name.startswith("PIP_") or name.lower().endswith("_proxy")
        }
        self.folder = root
        self.not_run, self.settings = [], {}
        (root / "base").mkdir()
        # The Python below the environment of the tests: `python` of the base image.
        (root / "base" / "python").symlink_to(Path(sys._base_executable).resolve())

    def path(self, text):
        """Return a text with the folders of the image below the root of the stand-in."""
        return FOLDERS.sub(lambda match: f"{self.root}/{match[1]}", text)

    def run_stage(self, stage):
        for name, text in stage:
            match name:
                case "FROM" | "LABEL" | "USER" | "EXPOSE" | "VOLUME":
                    pass
                case "ARG":
                    self.settings |= read_pairs(text, {})
                case "ENV":
                    self.environment |= read_pairs(self.path(text), self.environment)
                case "WORKDIR":
                    self.folder = Path(self.path(text))
                    self.folder.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(text)
                case "RUN":
                    self._run(text)
                case "HEALTHCHECK" | "ENTRYPOINT" | "CMD" | "STOPSIGNAL":
                    self.settings[name] = text
                case _:
                    raise AssertionError(name)

    def _copy(self, text):
        if text.startswith("--from="):
            _, source, target = text.split()
            assert source == target  # the same folder here
            assert Path(self.path(source)).is_dir()
            return
        *sources, target = text.split()
        for source in sources:
            path = self.context / source
            assert path.exists(), f"{source} is not in the context"
            is_file = path.is_file() and len(sources) > 1
            out = self.folder / target / (path.name if is_file else "")
            out.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", path, out], check=True)

    def _run(self, text):
        if re.search(r"\b(useradd|apt-get)\b", text):
            self.not_run.append(text)
            return
        subprocess.run(
            ["sh", "-c", self.path(text)],
            cwd=self.folder,
            env=self.environment | self.settings,
            check=True,
        )

    def start(self, command, **environment):
        """Start a command as the user of the image, if this process may."""
        account = {}
        # Only if others can read the Python that stands in: not one in the home of root.
        python = Path(sys._base_executable).resolve()
        if os.geteuid() == 0 and all(path.stat().st_mode & 0o001 for path in python.parents):
            account = {"user": USER, "group": USER, "extra_groups": []}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **account,
        )

    def call(self, *command, timeout_s=120, **environment):
        """Run a command to its end; return its exit code and both outputs."""
        process = self.start(command, **environment)
        try:
            out, errors = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        return process.returncode, out, errors

    def check_health(self, url):
        _, command = self.settings["HEALTHCHECK"].split(" CMD ")
        return self.call(*json.loads(command), JDFD_KERAS_HEALTH_URL=url)[0]


@pytest.fixture
def image(instructions):
    """The image, built as far as it can be; anyone can read its folder."""
    with tempfile.TemporaryDirectory(prefix="jdfd-image-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        copied = copy_context(ROOT, root / "context", (".venv", ".git", "build"))
        assert {path.split("/")[0] for path in copied} == {
            *("LICENSE", "LICENSE-weights", "README.md", "constraints.txt", "pyproject.toml"),
            *("setup.cfg", "jdfd_keras", "saved_models"),
        }
        built = Image(root, root / "context")
        _, (build, final) = split_stages(instructions)
        built.run_stage(build)
        for name in ("data", "state", "tmp"):
            (root / name).mkdir()
            (root / name).chmod(0o1777)  # as the step that is not run does
        built.environment = {"PATH": f"{root}/base:/usr/bin:/bin", "LANG": "C.UTF-8"}  # a new stage
        built.run_stage(final)
        yield built


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_make_a_working_image(image):
    # Not run: Chromium, which is only installed if asked for, and the account with its folders.
    assert ["apt-get" in text or "useradd" in text for text in image.not_run] == [True, True]
    entrypoint = json.loads(image.settings["ENTRYPOINT"])
    program = image.root / "opt" / "jdfd-keras" / "bin" / entrypoint[0]
    assert image.call(*entrypoint, "--version")[1].split()[-1] == jdfd_keras.__version__
    assert program.is_file()
    installed = time.time()

    # The extra `provenance`, and TensorFlow for `prepare` and `train`.
    code, _, errors = image.call("python", "-c", "import c2pa, keras, tensorflow")
    assert code == 0, errors
    for command in ("prepare", "train"):
        assert image.call(*entrypoint, command, "--help")[0] == 0

    # `predict` finds the shipped detector in the image.
    from PIL import Image as Picture
    from skimage import data

    portrait = image.root / "data" / "portrait.png"
    Picture.fromarray(data.astronaut()).save(portrait)
    code, out, errors = image.call(*entrypoint, "predict", "portrait.png", "--format", "json")
    assert code == 0, errors
    assert json.loads(out)["files"][0]["verdict"] in ("fake", "uncertain", "no_evidence")

    # The service: not without a token; healthy with one; files need it; it stops when asked to.
    command = [*entrypoint, *json.loads(image.settings["CMD"])]
    code, _, errors = image.call(*command)
    assert (code, "Expected a --token" in errors) == (1, True), errors
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    assert image.check_health(url) != 0
    server = image.start([*command, f"--port={port}"], JDFD_KERAS_TOKEN=TOKEN)
    try:
        deadline = time.monotonic() + START_S
        while image.check_health(url) != 0:
            assert server.poll() is None, server.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}v1/files")
        request = urllib.request.Request(f"{url}v1/files")
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request) as response:
            assert json.load(response) == {"files": [], "total": 0}
        server.send_signal(getattr(signal, image.settings["STOPSIGNAL"]))
        assert server.wait(STOP_S) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        server.communicate()
    assert (image.root / "state" / "jdfd-keras" / "jobs.sqlite").is_file()

    # Nothing was written but to /data, /state and /tmp, so that the root may be read-only.
    written = [
        path
        for folder, _, names in os.walk(image.root / "opt")
        for path in (Path(folder, name) for name in names)
        if not path.is_symlink() and path.stat().st_mtime > installed
    ]
    assert written == []


def test_the_health_check_is_an_argument_list_of_python(final):
    options, command = final["HEALTHCHECK"][0].split(" CMD ")
    assert {word.split("=")[0] for word in shlex.split(options)} == {
        "--interval",
        "--timeout",
        "--start-period",
        "--retries",
    }
    assert json.loads(command)[:2] == ["python", "-c"]
