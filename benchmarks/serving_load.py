"""Load generator of `serving.py`: concurrent REST and gRPC clients.

Each request is encoded once and sent repeatedly, so that only the server and the transport are
timed. Imports no TensorFlow.
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

from jdfd_keras.client import protos

TIMEOUT_S = 300.0
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass
class Load:
    """Measurements of a group of clients.

    Attributes:
        latencies_s: Latency of each successful request, in order of the responses.
        errors: Message of each failed request.
        duration_s: Time from the first request to the last response.
    """

    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Return the successful requests per second."""
        return len(self.latencies_s) / self.duration_s

    def quantile_ms(self, share: float) -> float:
        """Compute a quantile of the latency in milliseconds."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def make_faces(count: int, size: int) -> list[bytes]:
    """Create JPEG files of smooth random images, about as large as those of faces."""
    rng = np.random.default_rng(0)
    faces = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (size // 12, size // 12, 3), np.uint8)
        smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        faces.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return faces


class RestClient:
    """Sends JPEG files in base64 over one REST connection."""

    def __init__(self, address: dict, name: str, faces: list[bytes]):
        """Encode the request.

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
        """Send the request; return the error message, or ""."""
        try:
            response = self._pool.request("POST", self._url, body=self._body)
        except urllib3.exceptions.HTTPError as error:
            return repr(error)
        return "" if response.status == 200 else f"{response.status}: {response.data[:200]!r}"

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()


class GrpcClient:
    """Sends JPEG files over one gRPC connection."""

    def __init__(self, address: dict, name: str, faces: list[bytes]):
        """Encode the request; see `RestClient`."""
        request = protos.PredictRequest(model_spec=protos.ModelSpec(name=name))
        tensor = protos.encode_tensor(np.array(faces, object))
        request.inputs["image_bytes"].CopyFrom(tensor)
        self._body = request.SerializeToString()
        # Otherwise the channels of one process share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(address["grpc_target"], options)
        self._predict = self._channel.unary_unary(PREDICT)

    def send(self) -> str:
        """Send the request; return the error message, or ""."""
        try:
            self._predict(self._body, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return ""

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


CLIENTS = {"REST": RestClient, "gRPC": GrpcClient}


def run_clients(clients: list, should_continue: Callable[[int], bool]) -> Load:
    """Run clients concurrently; each sends its next request after the last response.

    Args:
        clients: Of CLIENTS; each first sends one untimed request, to connect.
        should_continue: Maps the number of started requests to whether to send another one.

    Returns:
        The measurements.
    """
    load = Load()
    lock = threading.Lock()
    num_started = 0

    def run(client) -> None:
        nonlocal num_started
        while True:
            with lock:
                if not should_continue(num_started):
                    return
                num_started += 1
            start = time.perf_counter()
            error = client.send()
            latency_s = time.perf_counter() - start
            with lock:
                if error:
                    load.errors.append(error)
                else:
                    load.latencies_s.append(latency_s)

    for client in clients:
        client.send()
    threads = [threading.Thread(target=run, args=[client]) for client in clients]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.duration_s = time.perf_counter() - start
    for client in clients:
        client.close()
    return load


def for_seconds(seconds: float) -> Callable[[int], bool]:
    """Return a `should_continue` that stops after a time from now."""
    end = time.perf_counter() + seconds
    return lambda _: time.perf_counter() < end
