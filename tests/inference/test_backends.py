import functools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jdfd_keras.client import RequestFailed, SignatureMissing, connect
from jdfd_keras.client.calibration import Calibration, save_calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.evaluation.calibrate import digest_model
from jdfd_keras.inference import backends
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.io.files import save_options
from jdfd_keras.options import EngineOptions


@pytest.fixture(scope="module")
def run(detector, tiny_faces, tmp_path_factory):
    """A run folder of the detector."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    directory.mkdir()
    detector.save(directory / "best.keras")
    save_options(directory / "options.json", faces=tiny_faces)
    return directory


@pytest.fixture(scope="module")
def expected_maps(detector, face_batch):
    maps = explain_faces(detector, face_batch).cam
    assert np.ptp(maps) > 0.5, "empty maps would hide a mistake"
    return maps


@pytest.fixture(
    params=[
        "run",
        pytest.param("keras", marks=pytest.mark.slow),
        "export",
        pytest.param("version", marks=pytest.mark.slow),
        "rest",
        "grpc",
    ]
)
def predictor(request, run, exported, model_url, grpc_target):
    """A predictor of the same detector in float32, for each kind of model."""
    float32 = EngineOptions(precision="float32")
    loaders = {
        "run": lambda: load_predictor(run),
        "keras": lambda: load_predictor(run / "best.keras"),
        "export": lambda: load_predictor(exported.parent, float32),
        "version": lambda: load_predictor(exported, float32),
        "rest": lambda: load_predictor(model_url),
        "grpc": lambda: load_predictor(f"grpc://{grpc_target}/tiny"),
    }
    return loaders[request.param]()


def test_scores_and_maps_are_the_same_for_all_kinds_of_models(
    predictor, model_url, face_batch, expected_scores, expected_maps, tiny_faces, monkeypatch
):
    np.testing.assert_allclose(predictor(face_batch), expected_scores, atol=1e-5)
    assert predictor(face_batch).dtype == np.float64
    np.testing.assert_allclose(predictor.explain(face_batch), expected_maps, atol=1e-5)
    monkeypatch.setattr(backends, "BATCH_SIZE", 3)  # fewer than there are faces
    np.testing.assert_allclose(predictor(face_batch), expected_scores, atol=1e-5)
    np.testing.assert_allclose(predictor.explain(face_batch), expected_maps, atol=1e-5)
    assert predictor(face_batch[:0]).shape == (0,)
    assert predictor.explain(face_batch[:0]).shape == (0, 71, 71)
    assert predictor.metadata.faces == tiny_faces
    assert predictor.metadata.calibration is None
    with connect(model_url) as client:
        assert predictor.metadata.digest == client.metadata.digest
    assert predictor.engine.precision == "float32"
    predictor.close()


def test_reconstruction_errors_are_the_same_for_all_kinds_of_models(
    predictor, detector, face_batch, monkeypatch
):
    scaled = face_batch / 127.5 - 1
    reconstruction = detector.predict(face_batch.astype(np.float32), verbose=0)["reconstruction"]
    expected = np.square(reconstruction - scaled).mean(axis=(1, 2, 3))
    monkeypatch.setattr(backends, "BATCH_SIZE", 3)  # fewer than there are faces
    np.testing.assert_allclose(predictor.reconstruct_error(face_batch), expected, rtol=1e-4)
    assert predictor.reconstruct_error(face_batch[:0]).shape == (0,)
    predictor.close()


def test_a_model_without_a_decoder_has_no_reconstruction_errors(detector):
    import keras

    classifier = keras.Model(detector.input, {"classification": detector.output["classification"]})
    assert backends.make_reconstruct_error(classifier) is None


def test_a_remote_predictor_stays_with_the_version_that_it_finds(monkeypatch, tiny_faces):
    closed = []

    def connect_to(served, url, **_):
        if url not in served:
            raise OSError(f"nothing at {url}")
        metadata = ModelMetadata(tiny_faces, None, "m", 2, served[url])
        return SimpleNamespace(
            url=url, metadata=metadata, engine={}, signatures={}, close=lambda: closed.append(url)
        )

    base = "http://h/v1/models/m"
    for served, requested, found in (
        ({base: "new", f"{base}/versions/2": "new"}, base, f"{base}/versions/2"),
        ({f"{base}/labels/a": "new", f"{base}/versions/2": "new"}, f"{base}/labels/a", None),
        ({f"{base}/versions/1": "new"}, f"{base}/versions/1", f"{base}/versions/1"),
        # Served under another number than it was exported with, alone and beside another model.
        ({base: "new"}, base, base),
        ({base: "new", f"{base}/versions/2": "old"}, base, base),
    ):
        closed.clear()
        monkeypatch.setattr("jdfd_keras.client.connect", functools.partial(connect_to, served))
        predictor = load_predictor(requested)
        assert predictor.name == (found or f"{base}/versions/2")
        assert predictor.metadata.digest == "new" and predictor.name not in closed
        predictor.close()
        assert set(closed) == set(served)


def test_a_password_in_a_url_is_not_in_the_error():
    with pytest.raises(ValueError, match="http://...@h/v1/models/m") as caught:
        load_predictor("http://me:se@cret@h/v1/models/m")
    assert "cret" not in str(caught.value) and "me:" not in str(caught.value)


def test_the_client_scores_every_face_except_the_invalid_ones(
    model_url, grpc_target, encoded_faces, expected_scores
):
    # A truncated JPEG and PNG, whose first bytes are valid.
    _, jpeg = cv2.imencode(".jpg", np.zeros((71, 71, 3), np.uint8))
    broken = encoded_faces[0][: len(encoded_faces[0]) // 2]
    faces = [
        b"not an image",
        *encoded_faces[:2],
        broken,
        *encoded_faces[2:],
        jpeg.tobytes()[:-40],
        b"",
    ]
    expected = [np.nan, *expected_scores[:2], np.nan, *expected_scores[2:], np.nan, np.nan]
    for url in (model_url, f"{model_url}/versions/1/", f"grpc://{grpc_target}/tiny/labels/stable"):
        with connect(url) as client:
            np.testing.assert_allclose(client.predict_faces(faces), expected, atol=1e-5)


def test_a_missing_model_version_or_label_of_a_real_server_is_an_error(model_url, grpc_target):
    for url in (f"grpc://{grpc_target}/none", model_url.replace("tiny", "none")):
        with pytest.raises(RequestFailed, match="Check the name"):
            connect(url)
    for kind in ("versions/9", "labels/no"):
        for url in (f"grpc://{grpc_target}/tiny/{kind}", f"{model_url}/{kind}"):
            with pytest.raises(RequestFailed, match="Expected .*got "):
                connect(url)


@pytest.mark.slow
def test_faces_beyond_the_size_limit_of_a_server_are_split(model_url, grpc_target, face_batch):
    crops = np.concatenate([face_batch] * 20)  # over 1 MiB, both as JSON and as bytes
    assert crops.nbytes > 2**20
    expected = None
    for url in (model_url, f"grpc://{grpc_target}/tiny"):
        with connect(url, batch_size=80, retries=0) as client:
            maps = client.explain(crops)
        expected = maps if expected is None else expected
        assert len(maps) == 80
        np.testing.assert_allclose(maps, expected, atol=1e-5)
        np.testing.assert_allclose(maps, np.tile(maps[:4], (20, 1, 1)), atol=1e-5)


@pytest.mark.slow
def test_a_calibrated_run_scores_with_its_calibration(run, face_batch, expected_scores, tmp_path):
    for name in ("best.keras", "options.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    scores = {"num_real": 1, "num_fake": 1, "real_scores": (0.2,), "fake_scores": (0.9,)}
    calibration = Calibration(temperature=0.5, bias=0.5, model=digest_model(tmp_path), **scores)
    save_calibration(tmp_path / "calibration.json", calibration)
    predictor = load_predictor(tmp_path)
    assert predictor.metadata.calibration == calibration
    # sigmoid(2 * logit + 0.5) has the odds p^2 / (1 - p)^2 * sqrt(e).
    odds = (expected_scores / (1 - expected_scores)) ** 2 * np.sqrt(np.e)
    np.testing.assert_allclose(predictor(face_batch), odds / (1 + odds), atol=1e-5)


def test_a_path_that_is_not_a_model_is_an_error(tmp_path):
    with pytest.raises(OSError, match="none .*exported model"):
        load_predictor(tmp_path / "none")
    with pytest.raises(OSError, match="Expected"):
        load_predictor(tmp_path / "none.keras")


def test_an_export_without_metadata_is_refused(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.double = tf.function(
        lambda x: {"y": x * 2}, input_signature=[tf.TensorSpec([None], name="x")]
    )
    tf.saved_model.save(module, tmp_path / "1", signatures={"serving_default": module.double})
    with pytest.raises(SignatureMissing, match="signature 'metadata'; got .*serving_default"):
        load_predictor(tmp_path)
