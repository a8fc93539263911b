import dataclasses
import json

import numpy as np
import pytest

from jdfd_keras.client import InvalidMetadata
from jdfd_keras.client.calibration import Calibration, round_score
from jdfd_keras.client.domain import Domain, Spread
from jdfd_keras.client.metadata import ModelMetadata, read_engine, read_metadata, write_metadata
from jdfd_keras.options import FaceOptions

FACES = FaceOptions(face_size=96, alignment="box", margin=1.7)


@pytest.mark.parametrize("digits", [1, 8, 12])
def test_rounded_scores_are_the_decimals_they_were(digits):
    rng = np.random.default_rng(digits)
    decimals = rng.integers(0, 10**digits, 1000) / 10**digits
    np.testing.assert_array_equal(round_score(decimals * (1 + 1e-16)), decimals)
    np.testing.assert_array_equal(round_score(np.nextafter(decimals, 1)), decimals)


def answer(texts):
    return lambda names: [texts[name.decode()].encode() for name in names]


CALIBRATION = Calibration(
    temperature=1.25,
    bias=-0.5,
    threshold=0.75,
    num_real=2,
    num_fake=1,
    real_scores=(0.1, 0.25),
    fake_scores=(0.9,),
    domain=Domain((Spread("yaw_deg", 10.0, 2.0, 5.0),), 3.5, ("yuv420p",), 3),
)


@pytest.mark.parametrize("demonstration", [False, True])
@pytest.mark.parametrize("calibration", [None, Calibration(), CALIBRATION])
def test_written_metadata_is_read_back(calibration, demonstration):
    metadata = ModelMetadata(FACES, calibration, "detector", 3, "abc", demonstration)
    assert read_metadata(answer(write_metadata(metadata)), "model") == metadata


@pytest.mark.parametrize(
    "wrong",
    [
        {"alignment.json": ""},
        {"alignment.json": "[]"},
        {"alignment.json": '{"format_version": 2, "faces": {"size": 3}}'},
        {"calibration.json": '{"calibration": {"temperatures": 2}}'},
        {"model.json": "{}"},
        {"model.json": "3"},
        {"model.json": '{"name": 3, "version": 1, "digest": ""}'},
        {"model.json": '{"name": "a", "version": true, "digest": ""}'},
        {"model.json": '{"name": "a", "version": 1, "digest": "", "demonstration": "no"}'},
        {"model.json": "[" * 100_000},
        {"calibration.json": '{"calibration": {"temperature": "2"}}'},
        {"calibration.json": '{"calibration": {"temperature": -2}}'},
        {"calibration.json": '{"calibration": {"temperature": 1e999}}'},
        {"calibration.json": '{"calibration": {"bias": NaN}}'},
        {"calibration.json": '{"calibration": {"real_scores": 0.5}}'},
        {"calibration.json": '{"calibration": {"real_scores": ["0.5"]}}'},
        {"calibration.json": '{"calibration": {"real_scores": [0.5, 0.4], "num_real": 2}}'},
        {"calibration.json": '{"calibration": {"fake_scores": [1.5], "num_fake": 1}}'},
        {"calibration.json": '{"calibration": {"fake_scores": [0.5], "num_fake": 2}}'},
        {"calibration.json": '{"calibration": {"domain": {"limit": true}}}'},
        {"calibration.json": '{"calibration": {"domain": {"spreads": [{"centre": "far"}]}}}'},
        {"calibration.json": '{"calibration": {"domain": {"spreads": [3]}}}'},
        {"calibration.json": '{"calibration": {"domain": 3}}'},
        {"calibration.json": '{"calibration": []}'},
        {"calibration.json": "[" * 100_000},
        {"calibration.json": "3"},
    ],
)
def test_invalid_texts_are_an_error(wrong):
    texts = write_metadata(ModelMetadata(FACES, Calibration(), "detector", 3, "abc")) | wrong
    with pytest.raises(InvalidMetadata, match="model"):
        read_metadata(answer(texts), "model")


def test_a_model_of_another_format_version_is_rejected_with_a_way_out():
    texts = write_metadata(ModelMetadata(FACES, None, "detector", 3, "abc"))
    texts["alignment.json"] = texts["alignment.json"].replace(
        '"format_version": 2', '"format_version": 3'
    )
    with pytest.raises(InvalidMetadata, match="format_version 2; got 3"):
        read_metadata(answer(texts), "model")


def test_an_export_of_before_the_mark_has_none():
    texts = write_metadata(ModelMetadata(FACES, None, "detector", 3, "abc"))
    texts["model.json"] = '{"name": "detector", "version": 3, "digest": "abc"}'
    assert not read_metadata(answer(texts), "model").demonstration


def test_a_demonstration_has_a_note_before_that_of_every_model():
    plain = ModelMetadata(FACES, None, "detector", 3, "abc")
    marked = dataclasses.replace(plain, demonstration=True)
    assert marked.notes[1:] == plain.notes and "cannot judge real videos" in marked.notes[0]
    assert len(plain.notes) == 1 and "demonstration" not in plain.notes[0]


def test_too_few_texts_are_an_error():
    with pytest.raises(InvalidMetadata):
        read_metadata(lambda names: [b"{}"], "model")


@pytest.mark.parametrize("engine", [{}, {"backend": "openvino", "precision": "bfloat16"}])
def test_the_engine_of_a_server_is_read_or_empty(engine):
    content = json.dumps(engine).encode() if engine else b""  # as TensorFlow Serving
    assert read_engine(lambda names: [content for _ in names], "model") == engine


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b'{"backend": 3}', b'{"other": "text"}', b"[" * 100_000]
)
def test_an_invalid_engine_is_an_error(content):
    with pytest.raises(InvalidMetadata, match="model to have .* as engine.json; got"):
        read_engine(lambda names: [content], "model")
    with pytest.raises(InvalidMetadata):
        read_engine(lambda names: [], "model")
