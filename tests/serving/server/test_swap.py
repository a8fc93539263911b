"""Versions come, fail and go under load, and no request notices but by its scores."""

import contextlib
import shutil
import threading
import time

import numpy as np
import pytest

from jdfd_keras.client import connect
from jdfd_keras.options import EngineOptions, ServeOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.model_server import ModelServer

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def sharper(detector, tiny_faces, tmp_path_factory):
    """Another version of the model with a temperature that moves scores away from 0.5."""
    from jdfd_keras.client.calibration import Calibration
    from jdfd_keras.serving.export.exporter import export_detector

    directory = tmp_path_factory.mktemp("sharper") / "tiny"
    calibration = Calibration(temperature=0.2)
    return export_detector(detector, directory, faces=tiny_faces, calibration=calibration).path


class Load:
    """Threads that continuously request the same scores, over REST and gRPC."""

    def __init__(self, urls, faces):
        self.answers, self.errors = [], []
        self._faces = faces
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[url]) for url in urls]

    def _ask(self, url):
        try:
            with connect(url, retries=0, timeout_s=30) as client:
                while not self._over.is_set():
                    self.answers.append(client.predict_faces(self._faces))
        except (OSError, ValueError) as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def settle(self, expected):
        """Wait until answers are those of one version, and some more have come."""
        end = time.monotonic() + 60
        while time.monotonic() < end and not self.errors:
            self.answers.clear()
            time.sleep(0.5)
            answers = list(self.answers)
            if len(answers) > 3 and all(np.allclose(a, expected, atol=TOLERANCE) for a in answers):
                return
        pytest.fail(f"no such scores: {self.errors or answers[-1:]}, expected {expected}")


def test_no_request_fails_while_versions_are_replaced(
    exported, sharper, encoded_faces, expected_scores, tmp_path, capfd
):
    directory = tmp_path / "tiny"
    shutil.copytree(exported, directory / "1")
    odds = expected_scores.astype(np.float64) / (1 - expected_scores)
    sharp_scores = odds**5 / (1 + odds**5)
    assert np.abs(sharp_scores - expected_scores).max() > 100 * TOLERANCE

    def put(version, source):
        shutil.copytree(source, directory / "copying")
        (directory / "copying").rename(directory / version)

    options = ServeOptions(port=0, grpc_port=0)
    engine = EngineOptions(backend="tensorflow")
    with ModelServer([ModelConfig("tiny", directory)], options, engine) as server:
        urls = [f"{server.url}/v1/models/tiny", f"grpc://{server.grpc_target}/tiny"] * 2
        with Load(urls, encoded_faces) as load:
            load.settle(expected_scores)
            put("2", sharper)
            load.settle(sharp_scores)

            broken = tmp_path / "broken"
            shutil.copytree(sharper, broken)
            weights = next((broken / "variables").glob("*.data*"))
            weights.write_bytes(weights.read_bytes()[:-1000])
            put("3", broken)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: "3" in capfd.readouterr().err, 30)
            load.settle(sharp_scores)

            (directory / "2").rename(tmp_path / "rolled-back")
            load.settle(expected_scores)
            time.sleep(1)
            assert load.errors == []
        assert load.errors == []


def wait_for(claim, timeout_s):
    end = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)
