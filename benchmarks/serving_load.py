"""Requests to a served model, and many clients that send them; `serving.py` runs it.

Each request is made once and sent again and again, so that what is timed is the server and its
wire. Imports no TensorFlow.
"""

import base64
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import grpc
import numpy as np
import urllib3

from jdfd_keras.client import protos as wire

TIMEOUT_S = 300.0
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass
class Load:
    """What many clients saw.

    Attributes:
        seconds: Of each request that was answered, in the order of the answers.
        failed: What was said in the place of an answer, of each other one.
        took_s: From the first request to the last answer.
    """

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.took_s

    def quantile_ms(self, share: float) -> float:
        """The shortest time within which so many of the requests were answered."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def make_faces(count: int, size: int) -> list[bytes]:
    """Make JPEG files of smooth random pictures, about as large as those of faces."""
    rng = np.random.default_rng(0)
    faces = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (size // 12, size // 12, 3), np.uint8)
        smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        faces.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return faces


class RestClient:
    """JPEG files in base64 over REST, one connection."""

    def __init__(self, address: dict, name: str, faces: list[bytes]):
        """Make the request.

        Args:
            address: `url` and `grpc_target` of a server.
            name: The model.
            faces: The files of one request.
        """
        rows = [{"b64": base64.b64encode(face).decode()} for face in faces]
        self._body = json.dumps({"instances": rows}).encode()
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._url = f"{address['url']}/v1/models/{name}:predict"

    def send(self) -> str:
        """Send it; gives what went wrong, or nothing."""
        try:
            answer = self._pool.request("POST", self._url, body=self._body)
        except urllib3.exceptions.HTTPError as error:
            return repr(error)
        return "" if answer.status == 200 else f"{answer.status}: {answer.data[:200]!r}"

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()


class GrpcClient:
    """JPEG files as they are over gRPC, one connection."""

    def __init__(self, address: dict, name: str, faces: list[bytes]):
        """Make the request; see `RestClient`."""
        request = wire.PredictRequest(model_spec=wire.ModelSpec(name=name))
        tensor = wire.encode_tensor(np.array(faces, object))
        request.inputs["image_bytes"].CopyFrom(tensor)
        self._body = request.SerializeToString()
        # Channels of one process share a connection otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(address["grpc_target"], options)
        self._predict = self._channel.unary_unary(PREDICT)

    def send(self) -> str:
        """Send it; gives what went wrong, or nothing."""
        try:
            self._predict(self._body, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return ""

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


CLIENTS = {"REST": RestClient, "gRPC": GrpcClient}


def run_clients(clients: list, go_on: Callable[[int], bool]) -> Load:
    """Let clients send, each its next request once the last is answered.

    Args:
        clients: Of CLIENTS; each sends once untimed before, to connect.
        go_on: From the number of requests begun so far to whether one more is sent.

    Returns:
        What they saw.
    """
    load = Load()
    lock = threading.Lock()
    begun = 0

    def work(client) -> None:
        nonlocal begun
        while True:
            with lock:
                if not go_on(begun):
                    return
                begun += 1
            start = time.perf_counter()
            failed = client.send()
            took_s = time.perf_counter() - start
            with lock:
                if failed:
                    load.failed.append(failed)
                else:
                    load.seconds.append(took_s)

    for client in clients:
        client.send()
    threads = [threading.Thread(target=work, args=[client]) for client in clients]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.took_s = time.perf_counter() - start
    for client in clients:
        client.close()
    return load


def for_seconds(seconds: float) -> Callable[[int], bool]:
    """Go on for a time from now."""
    end = time.perf_counter() + seconds
    return lambda _: time.perf_counter() < end
