"""The processes of `speed.py`: builds of the project, and what they compute.

    python benchmarks/speed_processes.py make|quantize|score|track ARGUMENT...

prints one line of JSON. The Python of another build runs this file, too, with the package of its
own environment; so nothing of the project is imported outside of functions.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

INTERVAL_S = 0.05  # between two readings of the memory


@dataclass(frozen=True)
class Build:
    """A build of the project: how its commands and its Python are called."""

    python: str
    command: tuple[str, ...]
    environment: dict[str, str]

    def work(self, task: str, *arguments: object) -> dict[str, Any]:
        """Run one of TASKS with this build; return its result."""
        return self.run_script(__file__, task, *map(str, arguments))

    def run_script(self, script: str | Path, *arguments: str) -> dict[str, Any]:
        """Run a script with this build; return its result, the last line that it prints."""
        output = _run([self.python, str(script), *arguments], self.environment)
        return json.loads(output.splitlines()[-1])

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run a command of `jdfd-keras`; return its output, seconds and processor seconds."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        output = _run([*self.command, *arguments], self.environment)
        wall_s = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"wall_s": round(wall_s, 3), "cpu_s": round(cpu_s, 3), "output": output}

    def watch(self, *arguments: str) -> dict[str, Any]:
        """Run a command of `jdfd-keras`; return its output and the peak memory of its processes.

        The memory is the sum of the resident sets of the process and of all its descendants, so
        that pages which they share count several times.
        """
        import psutil

        start, largest = time.perf_counter(), [0]
        command = [*self.command, *arguments]
        with psutil.Popen(command, env=self.environment, stdout=subprocess.PIPE) as process:
            while process.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):  # one has just ended
                    members = [process, *process.children(recursive=True)]
                    largest = max(largest, [one.memory_info().rss for one in members], key=sum)
                time.sleep(INTERVAL_S)
            output = process.stdout.read()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return {
            "peak_mb": round(sum(largest) / 1e6),
            "processes_mb": [round(size / 1e6) for size in largest],
            "seconds": round(time.perf_counter() - start, 1),
            "output": output,
        }


def this_build() -> Build:
    """Return the build in the folder above this one."""
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root}
    return Build(sys.executable, (sys.executable, "-m", "jdfd_keras"), environment)


def other_build(executable: Path) -> Build:
    """Return the build of another environment, given its `jdfd-keras`."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return Build(str(executable.with_name("python")), (str(executable),), environment)


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def make_model(path: str, size: str) -> dict:
    """Write the paper's network with random weights."""
    import keras

    from jdfd_keras.model.methods import build_detector
    from jdfd_keras.options import ModelOptions

    keras.utils.set_random_seed(0)
    build_detector(ModelOptions(image_size=int(size), encoder_weights="none")).save(path)
    return {}


def quantize_model(version: str) -> dict:
    """Add an int8 engine with value ranges of noise, which is as fast as one of real faces."""
    import openvino

    from jdfd_keras.inference.backends import load_predictor
    from jdfd_keras.inference.openvino_network import read_network, select_outputs
    from jdfd_keras.options import EngineOptions
    from jdfd_keras.serving.export.int8 import INT8_FILE, Int8Result
    from jdfd_keras.serving.export.openvino_export import (
        FLOAT32_FILE,
        write_engine_file,
        write_network,
    )
    from jdfd_keras.serving.export.quantized_layers import quantize

    metadata = load_predictor(version, EngineOptions("openvino", "float32")).metadata
    folder = Path(version, "openvino")
    network = select_outputs(read_network(openvino.Core(), folder / FLOAT32_FILE), "scores")
    quantized = quantize(network, _make_faces(8, metadata.faces.face_size))
    write_network(quantized, folder / INT8_FILE)
    unmeasured = Int8Result(False, 0, 0, "bfloat16", 0, (), ())
    write_engine_file(Path(version), metadata, unmeasured)
    return {}


def _make_faces(count: int, size: int) -> "np.ndarray":
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def score_faces(model: str, backend: str, precision: str, count: str) -> dict:
    """Time the scoring of faces of noise; ONNX Runtime scores a `.onnx` file."""
    if backend == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(model)
        size, name = (
            session.get_inputs()[0].shape[1],
            f"ONNX Runtime {onnxruntime.__version__}, float32",
        )

        def score(crops: "np.ndarray") -> Any:
            for start in range(0, len(crops), 8):
                session.run(None, {"faces": crops[start : start + 8]})

    else:
        from jdfd_keras.inference.backends import load_predictor
        from jdfd_keras.options import EngineOptions

        predictor = load_predictor(model, EngineOptions(backend, precision))
        size, name = predictor.metadata.faces.face_size, predictor.engine.describe()
        score = predictor
    crops = _make_faces(int(count), size)
    score(crops[:2])  # allocates
    start = time.perf_counter()
    score(crops)
    seconds = time.perf_counter() - start
    return {"engine": name, "size": size, "per_s": round(len(crops) / seconds, 3)}


def track_faces(clip: str) -> dict:
    """Time detection, tracking and alignment of every frame of a clip."""
    import jdfd_keras as jk

    jk.extract_faces(clip, jk.FaceOptions(frames_per_video=1))  # loads detector and landmarks
    start = time.perf_counter()
    extraction = jk.extract_faces(clip, jk.FaceOptions(every=1, tracks="all"))
    seconds = time.perf_counter() - start
    tracks: dict[int, dict] = {track.track_id: {} for track in extraction.tracks}
    for face in extraction.faces:
        box = face.box
        tracks[face.track_id][face.frame_index] = (box.left, box.top, box.right, box.bottom)
    per_s = round(extraction.num_frames / seconds, 3)
    return {"per_s": per_s, "tracks": list(tracks.values())}


TASKS = {
    "make": make_model,
    "quantize": quantize_model,
    "score": score_faces,
    "track": track_faces,
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
