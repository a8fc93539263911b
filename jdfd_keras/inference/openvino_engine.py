"""Execution of an exported model by OpenVINO, without TensorFlow or Keras.

Takes the folder of one version, with the files that the export writes to `openvino/`; maps faces to
one output: `scores`, `cam` or `reconstruction`. The files are used only if they and those of the
SavedModel are the ones that were exported together.
"""

import contextlib
import json
import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdfd_keras.client.errors import InvalidMetadata
from jdfd_keras.client.metadata import read_metadata
from jdfd_keras.client.signatures import ENGINE_FILE, ENGINE_FOLDER, IMAGE_READER
from jdfd_keras.inference.engine import Engine, check_engine_options
from jdfd_keras.io.console import import_openvino
from jdfd_keras.io.files import sha256_of
from jdfd_keras.io.processor import has_bfloat16
from jdfd_keras.options import EngineOptions

if TYPE_CHECKING:
    import openvino

SCORES, CAM, RECONSTRUCTION = "scores", "cam", "reconstruction"
MAX_STREAMS = 8  # faces that are computed at once; each takes about 30 MB at 299 px
HINTS = {"float32": "f32", "bfloat16": "bf16"}


class EngineUnavailableError(OSError):
    """OpenVINO cannot run the model; the text is a clause that states why."""


def load_engine(path: str | Path, options: EngineOptions) -> "tuple[OpenVINOEngine | None, str]":
    """Load the OpenVINO files of a version if the options ask for them and they can be used.

    Args:
        path: Folder of the version.
        options: Backend and precision.

    Returns:
        The engine and ""; or None and a clause that states why TensorFlow is to be used, which is
        "" if it was requested.

    Raises:
        OSError: If the backend `openvino` is requested and cannot be used.
        ValueError: If TensorFlow is requested in another precision than float32.

    Example:
        >>> load_engine("saved_models/detector/1", EngineOptions(backend="tensorflow"))
        (None, '')
    """
    check_engine_options(options)
    if options.backend == "tensorflow":
        return None, ""
    try:
        return OpenVINOEngine(path, options.precision), ""
    except EngineUnavailableError as error:
        if options.backend == "auto":
            return None, str(error)
        raise OSError(
            f"Expected an engine for {path} with --backend openvino and --precision "
            f"{options.precision}; got none: {error}. Try --precision float32, export the model "
            "again, or use --backend tensorflow."
        ) from error


class OpenVINOEngine(contextlib.AbstractContextManager):
    """One version of a model in memory; safe to call from many threads at once.

    Faces are computed one by one, as many at once as there are cores, up to MAX_STREAMS. So a
    score does not depend on the other faces of a call; it may differ in the last digits on a
    machine with another processor or number of cores.

    Attributes:
        path: The folder of the version.
        metadata: Metadata of the version.
        engine: Version and precision of the scores; other outputs are computed in float32, since
            maps of bfloat16 are coarse.

    Example:
        >>> with OpenVINOEngine("saved_models/detector/1", "float32") as engine:
        ...     engine.run("scores", np.zeros((2, 71, 71, 3), np.uint8)).shape
        (2,)
    """

    def __init__(self, path: str | Path, precision: str = "auto"):
        """Load the files of a version.

        Args:
            path: Folder of the version.
            precision: `float32`, `bfloat16` or `int8`, of the scores; `auto` takes int8 if the
                export accepted it, else bfloat16.

        Raises:
            EngineUnavailableError: If there are no files, they belong to another model, or the
                processor or the network cannot be used in the precision.
        """
        self.path = Path(path)
        facts = _read_facts(self.path / ENGINE_FOLDER / ENGINE_FILE)
        if precision == "auto":
            precision = "int8" if facts["int8"] and facts["int8"]["accepted"] else "bfloat16"
        names = [f"{ENGINE_FOLDER}/float32"]
        if precision == "int8":
            if not facts["int8"]:
                raise EngineUnavailableError("the model was exported without int8 files")
            names.append(f"{ENGINE_FOLDER}/int8")
        with ThreadPoolExecutor(2) as pool:  # beside the import
            checks = pool.map(_check_file, *_list_files(self.path, facts["files"], names))
            try:
                version = import_openvino()
            except OSError as error:
                raise EngineUnavailableError(f"OpenVINO cannot be imported: {error}") from error
            import openvino

            try:
                self._core = openvino.Core()
                is_bfloat16 = computes_in_bfloat16(self._core)
            except RuntimeError as error:
                raise EngineUnavailableError(f"OpenVINO cannot be started: {error}") from error
            if precision == "bfloat16" and not is_bfloat16:
                raise EngineUnavailableError("the processor does not compute in bfloat16")
            list(checks)
            files = [self.path / f"{name}.xml" for name in names]
            try:
                models = [read_network(self._core, file) for file in files]
            except (OSError, RuntimeError, ValueError) as error:
                reason = str(error).strip().splitlines()[-1]
                raise EngineUnavailableError(
                    f"OpenVINO cannot read its files ({reason})"
                ) from error
        is_bfloat16 = is_bfloat16 and suits_bfloat16(_select(models[0], SCORES))
        if precision == "bfloat16" and not is_bfloat16:
            raise EngineUnavailableError("the last layers of this network need float32")
        texts = facts["metadata"]
        try:
            self.metadata = read_metadata(
                lambda names: np.array([texts[name.decode()].encode() for name in names], object),
                path,
            )
        except InvalidMetadata as error:
            raise EngineUnavailableError(f"{ENGINE_FILE} is damaged ({error})") from error
        self.engine = Engine("openvino", version, precision)
        # In int8, some layers may have been left in floating point.
        hint = HINTS.get(precision) or HINTS["bfloat16" if is_bfloat16 else "float32"]
        outputs = {output.any_name for output in models[0].outputs}
        self._sources = dict.fromkeys(outputs, (models[0], HINTS["float32"]))
        self._sources[SCORES] = models[-1], hint
        self._hint = hint
        self._networks: dict[tuple[str, str], CompiledOutput] = {}
        self._lock = threading.Lock()

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Release the model's memory; it cannot be called afterwards."""
        with self._lock:
            for network in self._networks.values():
                network.close()
            self._networks.clear()
            self._sources.clear()

    @property
    def outputs(self) -> frozenset[str]:
        """Names of the outputs: `scores`, `cam` and, with a decoder, `reconstruction`."""
        return frozenset(self._sources)

    def run(self, output: str, faces: np.ndarray, *, is_fast: bool = False) -> np.ndarray:
        """Compute one output.

        Args:
            output: Name of the output; it is compiled in the first call.
            faces: uint8 or float[n, size, size, 3] RGB, pixel values in 0..255; n may be 0.
            is_fast: Compute layers that are not quantised in the precision of the scores.

        Returns:
            float32[n, ...], in the order of the faces: as the output of the same name of the
            signatures `faces`, `explain` and `reconstruct`.

        Raises:
            KeyError: If the model has no such output.
            ValueError: If the faces have another size.

        Example:
            >>> with OpenVINOEngine("saved_models/detector/1") as engine:
            ...     engine.run("cam", np.zeros((2, 71, 71, 3), np.uint8)).shape
            (2, 3, 3)
        """
        with self._lock:
            model, hint = self._sources[output]
            hint = self._hint if is_fast else hint
            if (output, hint) not in self._networks:
                self._networks[output, hint] = CompiledOutput(self._core, model, output, hint)
            network = self._networks[output, hint]
        return network(faces)


class CompiledOutput:
    """One output of a model, compiled for one face at a time; many threads may call it.

    Args:
        core: OpenVINO.
        model: The model, which is not changed.
        output: Name of the output.
        hint: Precision of the layers that are not quantised, `f32` or `bf16`.

    Example:
        >>> import_openvino()[:2]
        '20'
        >>> from openvino import Core
        >>> model = read_network(Core(), "saved_models/detector/1/openvino/float32.xml")
        >>> CompiledOutput(Core(), model, "scores", "f32")(np.zeros((2, 71, 71, 3))).shape
        (2,)
    """

    def __init__(self, core: "openvino.Core", model: "openvino.Model", output: str, hint: str):
        own = _select(model, output).clone()
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
        >>> import_openvino()[:2]
        '20'
        >>> from openvino import Core
        >>> suits_bfloat16(read_network(Core(), "saved_models/detector/1/openvino/float32.xml"))
        True
    """
    return bool(_find_products(model))


def _select(model: "openvino.Model", output: str) -> "openvino.Model":
    """Return the part of a model that computes one output."""
    import openvino

    source = model.output(output).get_node().input_value(0)
    # Its own stubs (2026.4.1) reject the constructor.
    return openvino.Model([source], model.get_parameters(), output)  # pyright: ignore[reportGeneralTypeIssues]


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


def _read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise EngineUnavailableError("the model has no OpenVINO files")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        texts = {
            **facts["metadata"],
            **facts["files"],
        }  # raises a TypeError unless both are objects
        if not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("expected texts in metadata and files")
        if facts["int8"] is not None:
            facts["int8"]["accepted"]
        return facts
    except (KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise EngineUnavailableError(f"{path} is damaged ({error!r})") from error


def _list_files(
    path: Path, digests: dict[str, str], names: list[str]
) -> tuple[list[Path], list[str], list[str]]:
    """List the files to check: those of OpenVINO that are used, and all of both SavedModels."""
    reader = f"{ENGINE_FOLDER}/{IMAGE_READER}/"
    needed = {"saved_model.pb", *(f"{name}.xml" for name in names)}
    for name in names:
        stored = [part.relative_to(path).as_posix() for part in path.glob(f"{name}.bin-*")]
        listed = [part for part in digests if part.startswith(f"{name}.bin-")]
        needed.update([*stored, *listed] or [f"{name}.bin"])
    for name in digests:
        if name.startswith(reader) or not name.startswith(f"{ENGINE_FOLDER}/"):
            needed.add(name)
    listed = sorted(needed)
    return [path / name for name in listed], listed, [digests.get(name, "") for name in listed]


def _check_file(path: Path, name: str, digest: str) -> None:
    if not path.is_file():
        raise EngineUnavailableError(f"{name} is missing beside its OpenVINO files")
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise EngineUnavailableError(f"{name} cannot be read ({error})") from error
    if actual != digest:
        raise EngineUnavailableError(f"{name} is not the file that belongs to its OpenVINO files")


def _count_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
