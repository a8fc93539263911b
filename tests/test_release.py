"""The version of a release, and its promise on file formats: older folders are read, or refused.

`data/folders-0.1.tar.xz` was written by the development version of 29 November 2026 (commit
e414b54, the first with MesoNet, whose files are small), by its commands `prepare`, `train`,
`calibrate`, `evaluate`, `export` and `predict` on clips of `make_clips`.
"""

import ast
import importlib
import json
import re
import sqlite3
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import jdfd_keras
from jdfd_keras import options
from jdfd_keras.client.calibration import CALIBRATION, read_calibration
from jdfd_keras.client.errors import InvalidMetadata
from jdfd_keras.client.metadata import FILES, read_metadata
from jdfd_keras.datasets.manifest import read_faces, read_videos
from jdfd_keras.datasets.split_tables import read_split_table
from jdfd_keras.evaluation.report import REPORT, load_report
from jdfd_keras.evaluation.scores_file import read_scores_file
from jdfd_keras.inference.dataset_scores import predict_dataset
from jdfd_keras.io.files import FORMAT_VERSION, OPTIONS, load_options
from jdfd_keras.prediction.kept_records import parse_line
from jdfd_keras.prediction.verdict_index import INDEX, open_index
from jdfd_keras.serving.jobs.job_store import JobStore
from jdfd_keras.training.run_folder import read_history, read_provenance

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "release.md").read_text(encoding="utf-8")
FIXTURE = ROOT / "tests" / "data" / "folders-0.1.tar.xz"
NAMED = re.compile(r"`([\w.]+)\.([A-Z_]+)` = (\d+)")
VERSION_NAME = re.compile(r"(?:FORMAT|SCHEMA)(?:_VERSION)?")  # of a constant with a version


def test_the_version_is_the_same_everywhere():
    version = jdfd_keras.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == version
    for name in ("compose.yaml", "RUNBOOK.md"):
        text = (ROOT / "serving" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"jdfd-keras:(\d[\w.]*)", text)) == {version}


def test_the_table_states_every_version_as_it_is():
    stated = {(module, name): int(value) for module, name, value in NAMED.findall(PAGE)}
    for (module, name), value in stated.items():
        assert getattr(importlib.import_module(f"jdfd_keras.{module}"), name) == value
    found = set()
    for path in (ROOT / "jdfd_keras").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT / "jdfd_keras").with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int())) if (
                    VERSION_NAME.fullmatch(name)
                ):
                    found.add((module, name))
    assert found == stated.keys()
    assert len(found) == 3


@pytest.fixture
def old(tmp_path):
    """The folders of version 0.1, in a folder of their own."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_a_prepared_dataset_of_0_1_is_read(old):
    faces = read_faces(old / "prepared", split="val")
    assert faces.num_rows == 4 and set(faces["label"].to_pylist()) == {0, 1}
    videos = read_videos(old / "prepared", split_table="official")
    assert len(videos) == 16 and {row.split for row in videos} == {"train", "val", "test"}
    assert sum(row.num_faces for row in videos) == 13
    assert len(read_split_table(old / "prepared", "official").rows) == 16
    faces = load_options(old / "prepared" / OPTIONS, "faces", options.FaceOptions)
    assert (faces.face_size, faces.detector) == (64, "dlib")


def test_options_and_tables_of_a_run_of_0_1_are_read(old):
    model = load_options(old / "run" / OPTIONS, "model", options.ModelOptions)
    assert (model.network, model.method, model.decoder) == ("meso4", "jdfd", False)
    train = load_options(old / "run" / OPTIONS, "train", options.TrainOptions)
    assert train.epochs == 1 and not train.demonstration
    assert len(read_history(old / "run")) == 1
    assert read_provenance(old / "run").num_rows == 11


def test_scores_and_verdicts_of_0_1_are_read(old):
    scores = read_scores_file(old / "report" / "scores.parquet")
    assert len(scores.scores) == 2 and scores.metadata["protocol"]["model"] == "run"
    with pytest.raises(ValueError, match=r"report\.json .*Evaluate again\."):
        load_report(old / "report")
    lines = (old / "verdicts" / "verdicts.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    for line in lines:
        with pytest.raises(ValueError, match="Expected"):
            parse_line(line)


def test_a_calibration_of_0_1_is_read_only_where_it_suffices(old):
    with pytest.raises(ValueError, match=r"states no error rates.* calibrate again\."):
        read_calibration(old / "run" / CALIBRATION)


@pytest.mark.slow
def test_models_of_0_1_score_as_they_did(old):
    from jdfd_keras.datasets.pipeline import load_faces
    from jdfd_keras.inference.backends import load_predictor
    from jdfd_keras.training.checkpoint import load_checkpoint
    from jdfd_keras.training.run_folder import load_run_model

    expected = read_scores_file(old / "report" / "scores.parquet").scores.score
    faces = load_faces(old / "prepared", "test", batch_size=8)
    loaded = load_run_model(old / "run")
    assert loaded.faces.face_size == 64 and not loaded.demonstration
    assert load_checkpoint(old / "run").epoch == 1
    raw = predict_dataset(loaded.model, faces).score
    predictor = load_predictor(old / "saved_models" / "old")
    images = np.concatenate([np.asarray(batch[0]) for batch in faces]).astype(np.uint8)
    served = predictor(images)
    assert raw.shape == served.shape == expected.shape == (2,)
    # A short training: the scores are close to 0.5, so their logits are compared.
    logit = np.log(expected / (1 - expected))
    temperature = predictor.metadata.calibration.temperature
    np.testing.assert_allclose(np.log(served / (1 - served)), logit, rtol=1e-2)
    np.testing.assert_allclose(np.log(raw / (1 - raw)) / temperature, logit, rtol=1e-2)
    predictor.close()


@pytest.mark.parametrize("version", [None, 1, FORMAT_VERSION + 1])
def test_other_versions_of_a_folder_are_refused_with_advice(old, version):
    def set_version(path):
        values = json.loads(path.read_text(encoding="utf-8")) | {"format_version": version}
        path.write_text(json.dumps(values), encoding="utf-8")
        return path.parent

    advice = rf"Expected format_version {FORMAT_VERSION} in .*; got {version}\..*create it again"
    with pytest.raises(ValueError, match=advice):
        read_faces(set_version(old / "prepared" / OPTIONS))
    with pytest.raises(ValueError, match=advice):
        load_options(set_version(old / "run" / OPTIONS) / OPTIONS, "model", options.ModelOptions)
    with pytest.raises(ValueError, match=f"{advice}.* Evaluate again"):
        load_report(set_version(old / "report" / REPORT))
    with pytest.raises(ValueError, match=advice):
        read_calibration(set_version(old / "run" / CALIBRATION) / CALIBRATION)
    extra = set_version(old / "saved_models/old/1/assets.extra/alignment.json")
    texts = dict.fromkeys(FILES, b"") | {"alignment.json": (extra / "alignment.json").read_bytes()}
    with pytest.raises(InvalidMetadata, match="Export it again with this version"):
        read_metadata(lambda names: np.array([texts[name.decode()] for name in names]), "model")


def test_an_index_of_another_version_is_made_again(old):
    lines, path = old / "empty.jsonl", old / INDEX
    lines.touch()
    with open_index(lines, path) as index:
        index.commit()
    with sqlite3.connect(path) as connection:
        [(text,)] = connection.execute("SELECT value FROM facts WHERE name = 'indexed'")
        facts = json.loads(text) | {"format": 0, "num_lines": 99}
        connection.execute("UPDATE facts SET value = ? WHERE name = 'indexed'", [json.dumps(facts)])
    with open_index(lines, path) as index:
        index.commit()
    with sqlite3.connect(path) as connection:
        [(text,)] = connection.execute("SELECT value FROM facts WHERE name = 'indexed'")
    assert json.loads(text)["format"] == 1 and json.loads(text)["num_lines"] == 0


def test_jobs_of_another_version_are_refused_with_advice(tmp_path):
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with (
        pytest.raises(OSError, match=r"got 99\..*use that version, or try another state folder"),
        JobStore(tmp_path / "jobs.sqlite", max_queued=1),
    ):
        pass
