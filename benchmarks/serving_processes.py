"""The TensorFlow processes of `serving.py`: an export, a server, and direct calls.

    python benchmarks/serving_processes.py export|serve|serve-openvino|call MODEL [SIZE]

`call` reads tasks from stdin, one JSON line each, and writes the times to stdout. One process waits
while another one works, so that they do not compete for cores.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def export(model: Path, size: int) -> None:
    """Export the paper's network with random weights."""
    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.options import FaceOptions, ModelOptions
    from jdfd_keras.serving.export.exporter import export_detector

    detector = build_detector(ModelOptions(image_size=size, encoder_weights="none"))
    export_detector(detector, model, faces=FaceOptions(face_size=size))


def serve(model: Path, _: int, backend: str = "tensorflow") -> None:
    """Run the embedded server on free ports, and print them."""
    from jdfd_keras.options import EngineOptions, ServeOptions
    from jdfd_keras.serving.model_config import configure_directory
    from jdfd_keras.serving.server.model_server import run_server

    def print_address(server) -> None:
        print(json.dumps({"url": server.url, "grpc_target": server.grpc_target}), flush=True)

    options = ServeOptions(port=0, grpc_port=0)
    run_server([configure_directory(model)], options, print_address, EngineOptions(backend))


def call(model: Path, size: int) -> None:
    """Time direct calls of the SavedModel and of the network with both outputs."""
    import numpy as np
    import tensorflow as tf
    from serving_load import make_faces

    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.options import ModelOptions

    signatures = tf.saved_model.load(str(model / "1")).signatures
    # Other random weights than those of the export, which does not affect the time.
    detector = build_detector(ModelOptions(image_size=size, encoder_weights="none"))
    both = tf.function(lambda faces: detector(tf.cast(faces, tf.float32), training=False))
    functions = {
        "serving_default": lambda files: signatures["serving_default"](image_bytes=files),
        "faces": lambda pixels: signatures["faces"](faces=pixels),
        "both": both,
    }
    rng = np.random.default_rng(0)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        function, count = functions[task["name"]], task["batch_size"]
        if task["name"] == "serving_default":
            faces = make_faces(count, task["face_size"])
        else:
            faces = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        seconds = []
        for _ in range(task["calls"] + 1):
            start = time.perf_counter()
            for output in function(tf.constant(faces)).values():
                output.numpy()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds[1:]), flush=True)  # the first call traces and allocates


def serve_openvino(model: Path, size: int) -> None:
    """Run the embedded server with OpenVINO in its default precision."""
    serve(model, size, "openvino")


COMMANDS = {"export": export, "serve": serve, "serve-openvino": serve_openvino, "call": call}


def run_export(model: Path, size: int) -> None:
    """Export in a separate process."""
    subprocess.run(_make_command("export", model, size), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def start(name: str, model: Path, size: int = 0) -> Iterator[tuple[subprocess.Popen, Any]]:
    """Run a server or `call` inside the block; yield the process and its first output."""
    command = _make_command(name, model, size)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def time_calls(process: subprocess.Popen, **task) -> list[float]:
    """Send a task to `call`; return the seconds of each call."""
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def read_rss_mb(process: subprocess.Popen) -> float:
    """Read the resident memory of a process in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def _make_command(name: str, model: Path, size: int) -> list[str]:
    return [sys.executable, __file__, name, str(model), str(size)]


if __name__ == "__main__":
    COMMANDS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
