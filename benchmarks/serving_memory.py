"""Memory of the embedded server after 10,000 requests with bodies up to its limits.

    python benchmarks/serving_memory.py                    # half an hour on two cores
    python benchmarks/serving_memory.py --requests 500     # mechanics only

The network is MesoNet with random weights, so that the bodies and not the scores take the time.
Linux only.
"""

import argparse
import base64
import contextlib
import json
import os
import random
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import grpc
import numpy as np
import psutil
import urllib3
from serving_load import PREDICT, TIMEOUT_S, make_faces
from serving_processes import start
from tables import table

from jdfd_keras.client import protos
from jdfd_keras.options import ServeOptions

HERE = Path(__file__).parent
NAME = "detector"
FACE_SIZE = 64
CLIENTS = 4
SMALLEST = 10_000  # bytes of a body
WARM_UP = 20  # requests of each kind
WARM_UP_BYTES = 2**20  # their largest body
IDLE_S = 40.0  # the process that decodes large JSON ends after 30 s without work
TARGET_MB = 100.0  # set before the first run
BODY_BYTES = ServeOptions().max_body_mb * 2**20
JSON_BYTES = ServeOptions().max_json_mb * 2**20
WIDTH = 1024  # of the images


class Bodies:
    """Request bodies of any size, of random pixels."""

    def __init__(self):
        """Create what bodies are cut from."""
        pixels = np.random.default_rng(0).integers(0, 256, BODY_BYTES, np.uint8).tobytes()
        self._pixels = pixels
        self._base64 = base64.b64encode(pixels[: BODY_BYTES // 4 * 3])
        self._jpegs = [base64.b64encode(face).decode() for face in make_faces(8, FACE_SIZE)]
        face = np.frombuffer(pixels[: FACE_SIZE**2 * 3], np.uint8)
        self._face = json.dumps(face.reshape(FACE_SIZE, FACE_SIZE, 3).tolist()).encode()

    def rest_image(self, size: int) -> bytes:
        """One image in base64."""
        start, end = b'{"instances": [{"b64": "', b'"}]}'
        header, count = _bmp((size - len(start) - len(end)) * 3 // 4)
        data = base64.b64encode(header) + self._base64[: (count + 2) // 3 * 4]
        return start + data + end

    def rest_faces(self, size: int) -> bytes:
        """Many JPEG files in base64."""
        count = max(size // (len(self._jpegs[0]) + 15), 1)
        rows = [{"b64": self._jpegs[number % 8]} for number in range(count)]
        return json.dumps({"instances": rows}).encode()

    def rest_examples(self, size: int) -> bytes:
        """Many examples for `classify`."""
        count = max(size // (len(self._jpegs[0]) + 40), 1)
        rows = [{"image/encoded": {"b64": self._jpegs[number % 8]}} for number in range(count)]
        return json.dumps({"signature_name": "classify", "examples": rows}).encode()

    def rest_numbers(self, size: int) -> bytes:
        """Faces as nested lists of numbers."""
        count = max(size // (len(self._face) + 2), 1)
        rows = b", ".join([self._face] * count)
        return b'{"signature_name": "faces", "instances": [' + rows + b"]}"

    def rest_lists(self, size: int) -> bytes:
        """Lists of lists that no signature accepts."""
        return b'{"instances": [' + b", ".join([b"[[1]]"] * (size // 7)) + b"]}"

    def rest_too_large(self, size: int) -> bytes:
        """More than the limit."""
        return self.rest_image(BODY_BYTES) + b" " * size

    def grpc_image(self, size: int) -> bytes:
        """One image."""
        header, count = _bmp(size - 200)
        return self._message("image_bytes", np.array([header + self._pixels[:count]], object))

    def grpc_faces(self, size: int) -> bytes:
        """An array of faces."""
        count = max((size - 200) // FACE_SIZE**2 // 3, 1)
        pixels = np.frombuffer(self._pixels, np.uint8, count * FACE_SIZE**2 * 3)
        return self._message("faces", pixels.reshape(count, FACE_SIZE, FACE_SIZE, 3), "faces")

    def _message(self, key: str, array: np.ndarray, signature: str = "") -> bytes:
        spec = protos.ModelSpec(name=NAME, signature_name=signature)
        request = protos.PredictRequest(model_spec=spec)
        request.inputs[key].CopyFrom(protos.encode_tensor(array))
        return request.SerializeToString()


def _bmp(size: int) -> tuple[bytes, int]:
    """Return the header of a BMP file of about `size` bytes, and the bytes of its pixels."""
    height = max((size - 54) // (WIDTH * 3), 1)
    count = WIDTH * 3 * height
    header = struct.pack("<2sIHHI", b"BM", 54 + count, 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, 24, 0, 0, 0, 0, 0, 0), count


# By name: the largest body, and the share of the requests.
KINDS: dict[str, tuple[int, float]] = {
    "rest_image": (BODY_BYTES, 0.25),
    "rest_faces": (2**20, 0.1),
    "rest_examples": (2**20, 0.1),
    "rest_numbers": (JSON_BYTES, 0.1),
    "rest_lists": (JSON_BYTES, 0.05),
    "rest_too_large": (2**20, 0.02),
    "grpc_image": (BODY_BYTES, 0.25),
    "grpc_faces": (BODY_BYTES, 0.13),
}


class Client:
    """Sends requests over one REST and one gRPC connection."""

    def __init__(self, address: dict):
        """Connect."""
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._url = f"{address['url']}/v1/models/{NAME}"
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address["grpc_target"], options)
        self._predict = self._channel.unary_unary(PREDICT)

    def send(self, kind: str, body: bytes) -> str:
        """Send a request; return its status."""
        if kind.startswith("grpc"):
            try:
                self._predict(body, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"
        verb = "classify" if kind == "rest_examples" else "predict"
        try:
            response = self._pool.request("POST", f"{self._url}:{verb}", body=body)
        except urllib3.exceptions.HTTPError as error:  # closed while the body was sent
            return type(error).__name__
        return str(response.status)


def send_all(
    address: dict, bodies: Bodies, requests: list[tuple[str, int]], watch: Callable[[int], None]
) -> Counter:
    """Send requests from several clients.

    Args:
        address: `url` and `grpc_target` of a server.
        bodies: What is sent.
        requests: Kind and size of each.
        watch: Called with the number of started requests.

    Returns:
        The number of answers of each kind and status.
    """
    statuses: Counter = Counter()
    lock = threading.Lock()
    numbered = iter(enumerate(requests))

    def run() -> None:
        client = Client(address)
        while True:
            with lock:
                number, (kind, size) = next(numbered, (-1, ("", 0)))
            if number < 0:
                return
            watch(number)
            status = client.send(kind, getattr(bodies, kind)(size))
            with lock:
                statuses[kind, status] += 1

    threads = [threading.Thread(target=run) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def measure(model: Path, count: int, seed: int) -> dict:
    """Send the requests to a server, and measure its memory before, meanwhile and after."""
    rng, bodies = random.Random(seed), Bodies()

    def draw(kind: str, largest: int) -> tuple[str, int]:
        return kind, round(SMALLEST * (largest / SMALLEST) ** rng.random() ** 2)

    warm_up = [draw(kind, WARM_UP_BYTES) for kind in KINDS for _ in range(WARM_UP)]
    shares = [share for _, share in KINDS.values()]
    kinds = rng.choices(list(KINDS), shares, k=count)
    requests = [draw(kind, KINDS[kind][0]) for kind in kinds]
    samples: list[float] = []
    step = max(count // 100, 1)
    with start("serve", model) as (process, address):
        server = psutil.Process(process.pid)
        send_all(address, bodies, warm_up, lambda _: None)
        time.sleep(IDLE_S)
        before_mb = measure_memory(server)

        def watch(number: int) -> None:
            if number % step == 0:
                samples.append(round(measure_memory(server), 1))
                print(f"{number}/{count}: {samples[-1]:.0f} MB", file=sys.stderr)

        start_time = time.monotonic()
        statuses = send_all(address, bodies, requests, watch)
        seconds = time.monotonic() - start_time
        time.sleep(IDLE_S)
        after_mb = measure_memory(server)
    rows = [
        {
            "kind": kind,
            "requests": kinds.count(kind),
            "largest_mib": round(max((s for k, s in requests if k == kind), default=0) / 2**20, 2),
            "statuses": {s: n for (k, s), n in sorted(statuses.items()) if k == kind},
        }
        for kind in KINDS
    ]
    sizes = sum(size + BODY_BYTES * (kind == "rest_too_large") for kind, size in requests)
    return {
        "requests": count,
        "seed": seed,
        "seconds": round(seconds),
        "gib": round(sizes / 2**30, 1),
        "before_mb": round(before_mb, 1),
        "after_mb": round(after_mb, 1),
        "samples_mb": samples,
        "rows": rows,
    }


def measure_memory(server: psutil.Process) -> float:
    """Return the memory of a server and its processes in MB, shared pages once."""
    total = 0
    for process in (server, *server.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 1e6


def render(report: dict) -> str:
    """Return the results and the target as Markdown."""
    machine, found = report["machine"], report["memory"]
    growth = found["after_mb"] - found["before_mb"]
    texts = {kind: getattr(Bodies, kind).__doc__.rstrip(".") for kind in KINDS}
    target = (
        f"memory after {found['requests']:,} requests above that before them, MB",
        f"at most {TARGET_MB:g}",
        f"{growth:.0f}",
        "met" if growth <= TARGET_MB else "**not met**",
    )
    rows = [
        (
            "gRPC" if row["kind"].startswith("grpc") else "REST",
            texts[row["kind"]],
            f"{row['requests']:,}",
            f"{row['largest_mib'] + (BODY_BYTES / 2**20 if 'too_large' in row['kind'] else 0):.1f}",
            ", ".join(f"{status}: {count:,}" for status, count in row["statuses"].items()),
        )
        for row in found["rows"]
    ]
    lines = [
        "# Serving: memory",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}; seed {found['seed']}.",
        table(("measurement", "target", "measured", ""), [target], "lrrl"),
        f"{found['before_mb']:,.0f} MB before, {found['after_mb']:,.0f} MB after, at most "
        f"{max(found['samples_mb']):,.0f} MB meanwhile, with {CLIENTS} clients; {found['gib']:g} "
        f"GiB in {found['seconds']:,} s.",
        table(("", "body", "requests", "largest, MiB", "answers"), rows, "llrrl"),
    ]
    return "\n\n".join(lines) + "\n"


def _export(model: Path) -> None:
    """Export MesoNet with random weights, in a process of its own."""
    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.options import FaceOptions, ModelOptions
    from jdfd_keras.serving.export.exporter import export_detector

    options = ModelOptions(network="meso4", image_size=FACE_SIZE, encoder_weights="none")
    export_detector(build_detector(options), model, faces=FaceOptions(face_size=FACE_SIZE))


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description="Measure the memory of the server.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="folder of the model")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "serving_memory.json")
    arguments = parser.parse_args()
    import multiprocessing

    from face_report import describe_machine

    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        model = Path(directory) / NAME
        process = multiprocessing.get_context("spawn").Process(target=_export, args=[model])
        process.start()
        process.join()
        report = {
            "machine": describe_machine() | {"cores": str(os.cpu_count())},
            "memory": measure(model, arguments.requests, arguments.seed),
        }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render(report)
    arguments.out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
