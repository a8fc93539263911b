"""The processes of `serving.py` that hold TensorFlow: an export, a server, and bare calls.

    python benchmarks/serving_processes.py export|serve|call MODEL [SIZE]

`call` reads what to time from stdin, a line of JSON each, and answers on stdout. One process waits
while another works, so that they share no core.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def export(model: Path, size: int) -> None:
    """Export a detector of the paper's network with random weights."""
    from jdfd_keras.model.network import build_detector
    from jdfd_keras.options import FaceOptions, ModelOptions
    from jdfd_keras.serving.export.exporter import export_detector

    detector = build_detector(ModelOptions(image_size=size, encoder_weights="none"))
    export_detector(detector, model, faces=FaceOptions(face_size=size))


def serve(model: Path, _: int) -> None:
    """Serve it by the embedded server on free ports, which are printed."""
    from jdfd_keras.options import ServeOptions
    from jdfd_keras.serving.model_config import configure_directory
    from jdfd_keras.serving.server.model_server import run_server

    def tell(server) -> None:
        print(json.dumps({"url": server.url, "grpc_target": server.grpc_target}), flush=True)

    run_server([configure_directory(model)], ServeOptions(port=0, grpc_port=0), tell)


def call(model: Path, size: int) -> None:
    """Time the SavedModel's functions, and the network with both outputs, in a loop."""
    import numpy as np
    import tensorflow as tf
    from serving_load import make_faces

    from jdfd_keras.model.network import build_detector
    from jdfd_keras.options import ModelOptions

    signatures = tf.saved_model.load(str(model / "1")).signatures
    # Other random weights than the export's, which does not matter to time.
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
        asked = json.loads(line)
        function, count = functions[asked["name"]], asked["batch_size"]
        if asked["name"] == "serving_default":
            faces = make_faces(count, asked["face_size"])
        else:
            faces = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        seconds = []
        for _ in range(asked["calls"] + 1):
            start = time.perf_counter()
            for output in function(tf.constant(faces)).values():
                output.numpy()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds[1:]), flush=True)  # the first one traces and allocates


WAYS = {"export": export, "serve": serve, "call": call}


def run_export(model: Path, size: int) -> None:
    """Export in a process of its own."""
    subprocess.run(_words("export", model, size), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def start(way: str, model: Path, size: int = 0) -> Iterator[tuple[subprocess.Popen, object]]:
    """Run `serve` or `call` meanwhile; gives the process and the first thing that it said."""
    words = _words(way, model, size)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def ask(process: subprocess.Popen, **asked) -> list[float]:
    """Let `call` time something; gives the seconds of each call."""
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def read_rss_mb(process: subprocess.Popen) -> float:
    """Read how much memory a process holds now."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def _words(way: str, model: Path, size: int) -> list[str]:
    return [sys.executable, __file__, way, str(model), str(size)]


if __name__ == "__main__":
    WAYS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
