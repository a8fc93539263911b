import functools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jdfd_keras.client import connect
from jdfd_keras.client.metadata import Calibration, Description, save_calibration
from jdfd_keras.evaluation.calibrate import digest_model
from jdfd_keras.inference import backends as scorers
from jdfd_keras.inference.backends import local_scorer, remote_scorer
from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.io.files import save_options


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
    maps = explain_faces(detector, face_batch).activation
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
def scorer(request, run, exported, model_url, grpc_target):
    """The same detector, in each place that it can be in."""
    ways = {
        "run": lambda: local_scorer(run),
        "keras": lambda: local_scorer(run / "best.keras"),
        "export": lambda: local_scorer(exported.parent),
        "version": lambda: local_scorer(exported),
        "rest": lambda: remote_scorer(model_url),
        "grpc": lambda: remote_scorer(f"grpc://{grpc_target}/tiny"),
    }
    return ways[request.param]()


def test_scores_and_maps_are_the_same_wherever_the_model_is(
    scorer, model_url, face_batch, expected_scores, expected_maps, tiny_faces, monkeypatch
):
    np.testing.assert_allclose(scorer(face_batch), expected_scores, atol=1e-5)
    assert scorer(face_batch).dtype == np.float64
    np.testing.assert_allclose(scorer.explain(face_batch), expected_maps, atol=1e-5)
    monkeypatch.setattr(scorers, "BATCH_SIZE", 3)  # less than there are
    np.testing.assert_allclose(scorer(face_batch), expected_scores, atol=1e-5)
    np.testing.assert_allclose(scorer.explain(face_batch), expected_maps, atol=1e-5)
    assert scorer(face_batch[:0]).shape == (0,)
    assert scorer.explain(face_batch[:0]).shape == (0, 71, 71)
    assert scorer.description.faces == tiny_faces
    assert scorer.description.calibration is None
    with connect(model_url) as client:
        assert scorer.description.digest == client.description.digest
    scorer.close()


def test_remote_scorer_stays_with_the_version_that_it_found(monkeypatch, tiny_faces):
    closed = []

    def connect_to(served, url, **_):
        if url not in served:
            raise OSError(f"nothing at {url}")
        known = Description(tiny_faces, None, "m", 2, served[url])
        return SimpleNamespace(
            url=url, description=known, signatures={}, close=lambda: closed.append(url)
        )

    base = "http://h/v1/models/m"
    for served, asked, found in (
        ({base: "new", f"{base}/versions/2": "new"}, base, f"{base}/versions/2"),
        ({f"{base}/labels/a": "new", f"{base}/versions/2": "new"}, f"{base}/labels/a", None),
        ({f"{base}/versions/1": "new"}, f"{base}/versions/1", f"{base}/versions/1"),
        # Served under another number than it was exported with, alone and beside another model.
        ({base: "new"}, base, base),
        ({base: "new", f"{base}/versions/2": "old"}, base, base),
    ):
        closed.clear()
        monkeypatch.setattr(scorers, "connect", functools.partial(connect_to, served))
        scorer = remote_scorer(asked)
        assert scorer.name == (found or f"{base}/versions/2")
        assert scorer.description.digest == "new" and scorer.name not in closed
        scorer.close()
        assert set(closed) == set(served)


def test_a_password_in_a_url_is_not_told():
    with pytest.raises(ValueError, match="http://...@h/v1/models/m") as caught:
        remote_scorer("http://me:se@cret@h/v1/models/m")
    assert "cret" not in str(caught.value) and "me:" not in str(caught.value)


def test_client_gives_every_face_its_score_but_the_bad_one(
    model_url, grpc_target, encoded_faces, expected_scores
):
    # A JPEG and a PNG that break off: what the first bytes do not tell.
    _, jpeg = cv2.imencode(".jpg", np.zeros((71, 71, 3), np.uint8))
    broken = encoded_faces[0][: len(encoded_faces[0]) // 2]
    faces = [b"no image", *encoded_faces[:2], broken, *encoded_faces[2:], jpeg.tobytes()[:-40], b""]
    expected = [np.nan, *expected_scores[:2], np.nan, *expected_scores[2:], np.nan, np.nan]
    for url in (model_url, f"{model_url}/versions/1/", f"grpc://{grpc_target}/tiny/labels/stable"):
        with connect(url) as client:
            np.testing.assert_allclose(client.score(faces), expected, atol=1e-5)


def test_client_is_told_what_a_real_server_lacks(model_url, grpc_target):
    for url in (f"grpc://{grpc_target}/none", model_url.replace("tiny", "none")):
        with pytest.raises(OSError, match="Expected .*got .*Servable not found.* Check the name"):
            connect(url)
    for url in (f"grpc://{grpc_target}/tiny/versions/9", f"{model_url}/versions/9"):
        with pytest.raises(OSError, match="Expected .*got .*Servable not found"):
            connect(url)
    for url in (f"grpc://{grpc_target}/tiny/labels/no", f"{model_url}/labels/no"):
        with pytest.raises(OSError, match="Expected .*got .*label"):
            connect(url)


@pytest.mark.slow
def test_faces_beyond_the_limit_of_a_server_are_sent_in_parts(model_url, grpc_target, face_batch):
    crops = np.concatenate([face_batch] * 20)  # over 1 MiB, as text and as bytes
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
def test_calibrated_run_scores_with_its_calibration(run, face_batch, expected_scores, tmp_path):
    for name in ("best.keras", "options.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    calibration = Calibration(temperature=0.5, model=digest_model(tmp_path))
    save_calibration(tmp_path / "calibration.json", calibration)
    scorer = local_scorer(tmp_path)
    assert scorer.description.calibration == calibration
    # sigmoid(2 * logit) is p^2 / (p^2 + (1 - p)^2).
    expected = expected_scores**2 / (expected_scores**2 + (1 - expected_scores) ** 2)
    np.testing.assert_allclose(scorer(face_batch), expected, atol=1e-5)


def test_path_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(OSError, match="Expected .* to be an exported model"):
        local_scorer(tmp_path / "none")
    with pytest.raises(OSError, match="Expected"):
        local_scorer(tmp_path / "none.keras")


def test_export_that_does_not_describe_itself_is_refused(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.double = tf.function(
        lambda x: {"y": x * 2}, input_signature=[tf.TensorSpec([None], name="x")]
    )
    tf.saved_model.save(module, tmp_path / "1", signatures={"serving_default": module.double})
    with pytest.raises(OSError, match="the signature 'describe'; got .*Export the model again"):
        local_scorer(tmp_path)
