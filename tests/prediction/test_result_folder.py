"""The table of verdicts as CSV; the folder is tested with `predict_files` in test_predict.py."""

import csv
import dataclasses
import io

import pytest

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.faces.credentials import ContentCredentials, read_trust_anchors
from jdfd_keras.inference.tracks import TrackScore
from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.options import CredentialOptions, FaceOptions
from jdfd_keras.prediction.file_list import read_state
from jdfd_keras.prediction.kept_records import FailedFile
from jdfd_keras.prediction.result_folder import open_folder
from jdfd_keras.prediction.verdict_table import COLUMNS, to_csv
from tests.faces.signed_files import make_chain

METADATA = ModelMetadata(FaceOptions(), None, "detector", 1, "ab")
OPTIONS = {"faces": FaceOptions(), "calibration": Calibration()}
VERDICT = Verdict(
    path="a.mp4",
    sha256="ab",
    verdict="no_evidence",
    score=0.1234567,
    uncertain_from=0.3,
    uncertain_to=0.8,
    num_frames=4,
    duration_s=2.0,
    width=9,
    height=9,
    tracks=(TrackScore(0, 4, 1.0, 0.0, 2.0, 0.1234567, "no_evidence"),),
    faces=(),
    top_faces=(),
    warnings=(),
)


def read_cells(*records):
    text = to_csv(records)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(records) and list(rows[0]) == list(COLUMNS)
    return rows


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a\u202egpj.mp4", r"a\u202egpj.mp4"),
        ("b\x1b[31m.mp4", r"b\x1b[31m.mp4"),
        ("=1+1.mp4", "./=1+1.mp4"),
        ("-a.mp4", "./-a.mp4"),
        ("@a.mp4", "./@a.mp4"),
        ("\uff1d1.mp4", "./\uff1d1.mp4"),
        ("\t=1.mp4", r"\t=1.mp4"),
        ("\r=1\n.mp4", r"\r=1\n.mp4"),
        ("folder/=1+1.mp4", "folder/=1+1.mp4"),
        ('面 שלום, "x".mp4', '面 שלום, "x".mp4'),
    ],
)
def test_a_path_in_the_table_is_no_formula_and_can_be_read(path, shown):
    verdict, failure = read_cells(
        dataclasses.replace(VERDICT, path=path), FailedFile(path, "damaged")
    )
    assert verdict["path"] == failure["path"] == shown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1", "\u202e=1"])
def test_no_other_text_in_the_table_is_a_formula(text):
    verdict, failure = read_cells(
        dataclasses.replace(VERDICT, warnings=(text, text)), FailedFile("a.mp4", text)
    )
    for cell in (verdict["warnings"], failure["error"]):
        assert cell[0] not in "=+-@\t\r" and cell.isprintable()
        assert cell.endswith(text.lstrip("\t\u202e"))


def test_a_verdict_names_its_engine_and_a_failure_has_none():
    name = "OpenVINO 2026.4.1, bfloat16"
    verdict, failure = read_cells(
        dataclasses.replace(VERDICT, engine=name), FailedFile("b.mp4", "damaged")
    )
    assert (verdict["engine"], failure["engine"]) == (name, "")
    # At the end: programs may count the others.
    assert COLUMNS[-4:] == ("engine", "note", "credentials", "ai_claims")


def test_each_verdict_by_a_model_for_demonstration_has_its_note():
    plain, marked, failure = read_cells(
        VERDICT, dataclasses.replace(VERDICT, demonstration=True), FailedFile("b.mp4", "damaged")
    )
    assert marked["note"] == "For demonstration only: this model cannot judge real videos."
    assert plain["note"] == failure["note"] == ""
    assert marked | {"note": ""} == plain


def test_a_resumed_folder_keeps_its_mark_and_refuses_another(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    path = str(tmp_path / "a.mp4")
    states = {path: read_state(path)}
    marked, plain = (
        {"metadata": dataclasses.replace(METADATA, demonstration=mark)} | OPTIONS
        for mark in (True, False)
    )
    with open_folder(tmp_path / "out", states.items(), **marked) as folder:
        verdict = dataclasses.replace(VERDICT, path=path, file_bytes=1, demonstration=True)
        folder.keep(verdict, state=states[path])
    with open_folder(tmp_path / "out", states.items(), **marked) as folder:
        assert folder.collect()[0][0].demonstration
    with (
        pytest.raises(ValueError, match="demonstration True -> False"),
        open_folder(tmp_path / "out", states.items(), **plain),
    ):
        pass


def test_a_resumed_folder_keeps_the_engine_of_each_verdict(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    settings = {"metadata": METADATA} | OPTIONS
    states = {str(path): read_state(path) for path in paths}
    engines = ["TensorFlow 2.21.0, float32", ""]
    with open_folder(tmp_path / "out", states.items(), **settings) as folder:
        for path, engine in zip(paths, engines, strict=True):
            facts = {"path": str(path), "file_bytes": 1, "engine": engine}
            folder.keep(dataclasses.replace(VERDICT, **facts), state=states[str(path)])
    lines = tmp_path / "out" / "verdicts.jsonl"
    # A verdict of a version that did not record it.
    lines.write_text(lines.read_text().replace(', "engine": ""', ""))
    with open_folder(tmp_path / "out", states.items(), **settings) as folder:
        assert [record.engine for record in folder.collect()[0]] == engines


def test_a_file_that_was_checked_with_other_trust_anchors_is_analysed_again(tmp_path):
    anchors = tmp_path / "a.pem"
    anchors.write_bytes(make_chain().authority)
    options = OPTIONS | {"metadata": METADATA}
    _, trust_list = read_trust_anchors(anchors)
    for credentials, anchors_of, is_done in (
        (None, "", True),  # a verdict of an earlier version
        (ContentCredentials("none", ""), "", True),
        (ContentCredentials("none", ""), str(anchors), False),
        (ContentCredentials("none", "", trust_list=trust_list), str(anchors), True),
        (ContentCredentials("none", "", trust_list=trust_list), "", False),
    ):
        (tmp_path / "a.mp4").write_text("a")
        path = str(tmp_path / "a.mp4")
        states = {path: read_state(path)}
        verdict = dataclasses.replace(VERDICT, path=path, file_bytes=1, credentials=credentials)
        with open_folder(tmp_path / "out", states.items(), **options) as folder:
            folder.keep(verdict, state=states[path])
        options["credentials"] = CredentialOptions(anchors_of)
        with open_folder(tmp_path / "out", states.items(), **options) as folder:
            assert folder.has_result(path) == is_done


def test_a_file_that_was_not_checked_is_analysed_again_once_c2pa_can_be_used(tmp_path, monkeypatch):
    options = OPTIONS | {"metadata": METADATA}
    path = tmp_path / "a.mp4"
    path.write_text("a")
    states = {str(path): read_state(path)}
    credentials = ContentCredentials("not_checked", "c2pa-python is not installed.")
    facts = {"path": str(path), "file_bytes": 1, "credentials": credentials}
    with open_folder(tmp_path / "out", states.items(), **options) as folder:
        folder.keep(dataclasses.replace(VERDICT, **facts), state=states[str(path)])
    for reason, is_done in (("c2pa-python is not installed.", True), ("", False)):
        monkeypatch.setattr(
            "jdfd_keras.faces.credentials.load_c2pa", lambda reason=reason: (None, reason)
        )
        with open_folder(tmp_path / "out", states.items(), **options) as folder:
            assert folder.has_result(str(path)) == is_done


def test_numbers_are_rounded_and_stay_numbers():
    (row,) = read_cells(dataclasses.replace(VERDICT, score=-0.5, duration_s=1 / 3))
    assert (row["score"], row["duration_s"], row["width"]) == ("-0.5", "0.333333", "9")
