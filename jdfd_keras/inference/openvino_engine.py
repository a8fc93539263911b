"""Execution of an exported model by OpenVINO, without TensorFlow or Keras.

Takes the folder of one version, with the files that the export writes to `openvino/`; maps faces to
one output: `scores`, `cam` or `reconstruction`. The files are used only if they and those of the
SavedModel are the ones that were exported together.
"""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdfd_keras.client.errors import InvalidMetadata
from jdfd_keras.client.metadata import read_metadata
from jdfd_keras.client.signatures import ENGINE_FILE, ENGINE_FOLDER, IMAGE_READER
from jdfd_keras.inference.engine import Engine, check_engine_options
from jdfd_keras.inference.openvino_network import (
    HINTS,
    SCORES,
    CompiledOutput,
    computes_in_bfloat16,
    read_network,
    select_outputs,
    suits_bfloat16,
)
from jdfd_keras.io.console import import_openvino
from jdfd_keras.io.files import sha256_of
from jdfd_keras.options import EngineOptions

if TYPE_CHECKING:
    pass


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
        is_bfloat16 = is_bfloat16 and suits_bfloat16(select_outputs(models[0], SCORES))
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
