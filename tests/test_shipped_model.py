"""The detector that comes with the project: its files and scores, and how it is found.

The golden scores are those of pictures/scores.json, which `pictures/update.py` writes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from jdfd_keras import __version__
from jdfd_keras.cli.main import main
from jdfd_keras.client.signatures import find_model
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.options import EngineOptions
from jdfd_keras.serving.model_config import configure_directory
from tests.pictures.update import judge_pictures

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "saved_models" / "jdfd-faces"
VERSION = MODEL / "1"
PICTURES = ROOT / "tests" / "pictures"
GOLDEN = json.loads((PICTURES / "scores.json").read_text(encoding="utf-8"))
MAX_BYTES = 50 * 10**6
SHARE = "share/jdfd-keras/saved_models/jdfd-faces"


@pytest.mark.parametrize(
    ("backend", "tolerance"),
    [pytest.param("tensorflow", 1e-4, marks=pytest.mark.slow), ("openvino", 1e-3)],
)
def test_scores_of_two_pictures_are_the_golden_ones(backend, tolerance):
    found = judge_pictures(backend)
    assert found["digest"] == GOLDEN["digest"]
    assert found["scores"].keys() == {"astronaut.png", "swapped.png"}
    assert found["scores"] == pytest.approx(GOLDEN["scores"], abs=tolerance)


def test_the_files_are_those_that_were_exported():
    listed = {}
    for line in (VERSION / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
    files = {path.relative_to(VERSION).as_posix(): path for path in find_files(VERSION)}
    assert files.keys() - {"SHA256SUMS"} == listed.keys()
    assert {name: hash_file(files[name]) for name in listed} == listed


def test_the_files_are_small_enough_for_hosts_of_code():
    sizes = {str(path): path.stat().st_size for path in find_files(MODEL)}
    assert len(sizes) > 10
    assert max(sizes.values()) < MAX_BYTES
    assert sum(sizes.values()) > MAX_BYTES, "the limit of one file is of no use"


def test_its_metadata_states_the_name_the_version_and_the_golden_weights():
    facts = json.loads((VERSION / "openvino" / "engine.json").read_text(encoding="utf-8"))
    stated = json.loads(facts["metadata"]["model.json"])
    assert (stated["name"], stated["version"]) == ("jdfd-faces", 1)
    assert stated["digest"] == facts["digest"] == GOLDEN["digest"]
    assert facts["files"].keys() < {
        path.relative_to(VERSION).as_posix() for path in find_files(VERSION)
    }


@pytest.mark.slow
def test_it_answers_its_warm_up_requests_through_the_version_1_session_loader(tmp_path):
    import tensorflow as tf

    from jdfd_keras.inference.saved_model import read_warmup

    # A copy, without the empty folders that neither git nor a wheel keeps.
    for path in find_files(VERSION):
        copy = tmp_path / path.relative_to(VERSION)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    requests = list(read_warmup(tmp_path / "assets.extra/tf_serving_warmup_requests"))
    answered = {}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        for name, inputs in requests:
            signature = loaded.signature_def[name]
            feed = {signature.inputs[key].name: value for key, value in inputs.items()}
            fetched = {key: info.name for key, info in signature.outputs.items()}
            answered[name] = session.run(fetched, feed)
    signatures = {"serving_default", "classify", "faces", "explain", "metadata", "reconstruct"}
    assert answered.keys() == signatures
    score = answered["faces"]["scores"]
    assert score.shape == (1,) and 0 <= score[0] <= 1
    np.testing.assert_allclose(answered["serving_default"]["scores"], score, atol=1e-5)
    np.testing.assert_allclose(answered["classify"]["scores"][:, 1], score, atol=1e-5)
    texts = [json.loads(text) for text in answered["metadata"]["contents"] if text]
    assert GOLDEN["digest"] in [text.get("digest") for text in texts]


def test_without_a_name_it_is_found_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert find_model() == find_model("jdfd-faces") == MODEL.resolve()
    assert configure_directory(find_model("jdfd-faces")).name == "jdfd-faces"
    predictor = load_predictor(engine=EngineOptions("openvino", "float32"))
    assert predictor.metadata.digest == GOLDEN["digest"]
    predictor.close()
    assert main(["predict", str(PICTURES / "astronaut.png"), "--precision", "float32"]) == 0
    assert "\nmodel: jdfd-faces, version 1\n" in f"{capsys.readouterr().out}\n"


@pytest.mark.slow
def test_the_built_packages_judge_a_clip_outside_the_checkout(clips_folder, tmp_path):
    """The source distribution builds the wheel, which is installed into a new environment.

    Installing all dependencies there would take minutes, so it sees those of this environment, but
    not the package of the checkout: Python ignores the .pth file of an editable installation in a
    folder that another .pth file adds.
    """
    source, built, env = tmp_path / "source", tmp_path / "built", tmp_path / "env"
    for name in ("jdfd_keras", "saved_models/jdfd-faces"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "LICENSE-weights"):
        shutil.copy(ROOT / name, source)
    # Without --sdist or --wheel, the wheel is built from the source distribution.
    run([sys.executable, "-m", "build", "--outdir", built, source], tmp_path)
    shutil.rmtree(source)
    stem = f"jdfd_keras-{__version__}"
    wheel = built / f"{stem}-py3-none-any.whl"
    assert {path.name for path in built.iterdir()} == {f"{stem}.tar.gz", wheel.name}

    venv.create(env, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", env / "bin" / "python"]
    run([*pip, "install", "--no-deps", "--no-index", wheel], tmp_path)
    installed = {path.relative_to(env / SHARE) for path in find_files(env / SHARE)}
    assert installed == {path.relative_to(MODEL) for path in find_files(MODEL)}
    (packages,) = env.glob("lib/python*/site-packages")
    files = {path.relative_to(packages) for path in find_files(packages / "jdfd_keras")}
    ours = {path.relative_to(ROOT) for path in find_files(ROOT / "jdfd_keras")}
    assert {path for path in files ^ ours if "__pycache__" not in path.parts} == set()
    (packages / "others.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    found = run([env / "bin/python", "-c", "import jdfd_keras; print(jdfd_keras.__file__)"], env)
    assert Path(found.strip()).resolve() == (packages / "jdfd_keras/__init__.py").resolve()

    clip = min((clips_folder / "fake").glob("*.mp4"))
    command = [env / "bin" / "jdfd-keras", "predict", clip, "--format", "json"]
    result = json.loads(run([*command, "--precision", "float32"], tmp_path))
    provenance = result["provenance"]
    assert (provenance["model"], provenance["version"]) == ("jdfd-faces", 1)
    assert provenance["versions"]["jdfd_keras"] == __version__
    assert provenance["digest"] == GOLDEN["digest"]
    assert provenance["where"] == str(env.resolve() / SHARE / "1")
    assert provenance["engine"]["backend"] == "openvino"
    assert [verdict["path"] for verdict in result["files"]] == [str(clip)]


def find_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def hash_file(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(command, folder):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
