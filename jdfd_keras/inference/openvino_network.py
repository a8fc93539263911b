"""Networks of OpenVINO: reading, selection of outputs, and computation of one output.

Independent of the other files of an exported model, of TensorFlow and of Keras.
"""

import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdfd_keras.io.processor import has_bfloat16

if TYPE_CHECKING:
    import openvino

SCORES, CAM, RECONSTRUCTION = "scores", "cam", "reconstruction"
MAX_STREAMS = 8  # faces that are computed at once; each takes about 30 MB at 299 px
HINTS = {"float32": "f32", "bfloat16": "bf16"}


class CompiledOutput:
    """One output of a model, compiled for one face at a time; many threads may call it.

    Args:
        core: OpenVINO.
        model: The model, which is not changed.
        output: Name of the output.
        hint: Precision of the layers that are not quantised, `f32` or `bf16`.

    Example:
        >>> from jdfd_keras.io.console import import_openvino
        >>> import_openvino()[:2]
        '20'
        >>> from openvino import Core
        >>> model = read_network(Core(), "saved_models/detector/1/openvino/float32.xml")
        >>> CompiledOutput(Core(), model, "scores", "f32")(np.zeros((2, 71, 71, 3))).shape
        (2,)
    """

    def __init__(self, core: "openvino.Core", model: "openvino.Model", output: str, hint: str):
        own = select_outputs(model, output).clone()
        own.reshape([1, *own.input().get_partial_shape().get_max_shape()[1:]])
        if output == SCORES:
            _keep_logit_exact(own)
        self._face_shape = tuple(own.input().shape)[1:]
        cores = _count_cores()
        streams = min(cores, MAX_STREAMS)
        compiled = core.compile_model(
            own,
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": hint,
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": cores,
                # Other processes extract faces on the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._shape = tuple(compiled.output().shape)[1:]
        self._idle: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())
        self._pool = ThreadPoolExecutor(streams, "openvino")

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Compute the output of uint8 or float[n, size, size, 3] faces, float32[n, ...]."""
        if faces.shape[1:] != self._face_shape:
            raise ValueError(
                f"Expected faces of {self._face_shape}, the input of the model, in one array; got "
                f"{faces.dtype}{list(faces.shape)}. Crop them with the --face-size of the "
                "training data."
            )
        values = np.empty((len(faces), *self._shape), np.float32)
        for face, value in enumerate(self._pool.map(self._infer, faces)):
            values[face] = value
        return values

    def close(self) -> None:
        """Release its threads and memory; it cannot be called afterwards."""
        self._pool.shutdown()
        self._idle = queue.SimpleQueue()

    def _infer(self, face: np.ndarray) -> np.ndarray:
        request = self._idle.get()
        try:
            request.start_async({0: face[None].astype(np.float32)})
            request.wait()
            return request.get_output_tensor(0).data[0].copy()
        finally:
            self._idle.put(request)


def read_network(core: "openvino.Core", path: str | Path) -> "openvino.Model":
    """Read a network of OpenVINO, whose weights may be in parts.

    Args:
        core: OpenVINO.
        path: File of the network, such as float32.xml. Beside it are its weights, float32.bin, or
            parts of them, `float32.bin-00000-of-00002` and so on.

    Raises:
        OSError, RuntimeError: If a file is missing or damaged.

    Example:
        >>> from jdfd_keras.io.console import import_openvino
        >>> import_openvino()[:2]
        '20'
        >>> from openvino import Core
        >>> network = read_network(Core(), "saved_models/detector/1/openvino/float32.xml")
        >>> sorted(output.any_name for output in network.outputs)
        ['cam', 'reconstruction', 'scores']
    """
    import openvino

    path = Path(path)
    parts = sorted(path.parent.glob(f"{path.stem}.bin-*"))
    if not parts:
        return core.read_model(path)
    sizes = [part.stat().st_size for part in parts]
    # Memory of OpenVINO, since the network uses it as long as it exists.
    weights = openvino.Tensor(openvino.Type.u8, openvino.Shape([sum(sizes)]))
    for part, size, end in zip(parts, sizes, np.cumsum(sizes), strict=True):
        weights.data[end - size : end] = np.fromfile(part, np.uint8, size)
    return core.read_model(path.read_bytes(), weights)


def computes_in_bfloat16(core: "openvino.Core") -> bool:
    """Return whether OpenVINO computes in bfloat16, by instructions that the processor has.

    OpenVINO states BF16 of every processor with AVX-512 (2026.4.1); those without instructions for
    it convert each number, and are slower than in float32.

    Example:
        >>> from types import SimpleNamespace
        >>> computes_in_bfloat16(SimpleNamespace(get_property=lambda *names: ["FP32", "INT8"]))
        False
    """
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and has_bfloat16()


def suits_bfloat16(model: "openvino.Model") -> bool:
    """Return whether the scores of a network are exact when it computes in bfloat16.

    They are if its logit is a product of matrices, which `CompiledOutput` computes in float32.
    Capsules end with other operations.

    Example:
        >>> from jdfd_keras.io.console import import_openvino
        >>> import_openvino()[:2]
        '20'
        >>> from openvino import Core
        >>> suits_bfloat16(read_network(Core(), "saved_models/detector/1/openvino/float32.xml"))
        True
    """
    return bool(_find_products(model))


def select_outputs(model: "openvino.Model", *names: str) -> "openvino.Model":
    """Return the part of an OpenVINO model that computes some outputs.

    Example:
        >>> from jdfd_keras.io.console import import_openvino
        >>> version = import_openvino()
        >>> from openvino import Core
        >>> model = read_network(Core(), "saved_models/detector/1/openvino/float32.xml")
        >>> len(model.outputs), len(select_outputs(model, "scores").outputs)
        (3, 1)
    """
    import openvino

    outputs = [model.output(name).get_node().input_value(0) for name in names]
    # Its own stubs (2026.4.1) reject the constructor.
    return openvino.Model(outputs, model.get_parameters(), "-".join(names))  # pyright: ignore[reportGeneralTypeIssues]


def _find_products(model: "openvino.Model") -> list[Any]:
    """Return the products of matrices, of which the last is that of the logit."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]


def _keep_logit_exact(model: "openvino.Model") -> None:
    """Compute the last layer, a matrix of one column, as a sum in float32.

    As a product of matrices its result is rounded to bfloat16 if a stream has one thread
    (2026.4.1): scores above 0.5 would be multiples of 1/256. A sum is computed in float32. A
    network that ends otherwise, as that of capsules does, is left as it is.
    """
    import openvino.opset14 as operations

    products = _find_products(model)
    if not products:
        return
    features, weights = products[-1].input_value(0), products[-1].input_value(1)
    row = operations.reshape(weights, operations.constant(np.array([1, -1])), False)
    axis = operations.constant(np.array([1]))
    logit = operations.reduce_sum(operations.multiply(features, row), axis, keep_dims=True)
    for consumer in list(products[-1].output(0).get_target_inputs()):
        consumer.replace_source_output(logit.output(0))
    model.validate_nodes_and_infer_types()


def _count_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
