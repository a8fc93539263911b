"""The served models: loading, replacing and unloading their versions.

Polls the folders once per second: a new version is loaded and warmed up while the old one is
served, replaces it, and the old one is unloaded once no request uses it.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from jdfd_keras.client.signatures import (
    ALIGNMENT_FILE,
    ENGINE_FILE,
    METADATA,
    Signature,
    find_versions,
    verify_checksums,
)
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.openvino_engine import load_engine
from jdfd_keras.inference.saved_model import LoadedVersion, SavedModelEngine
from jdfd_keras.io.console import print_message
from jdfd_keras.io.files import load_groups
from jdfd_keras.options import EngineOptions
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.openvino_model import OpenVINOModel
from jdfd_keras.serving.server.rest_codec import find_signature

POLL_INTERVAL_S = 1.0
Arrays = dict[str, np.ndarray]
STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
MAX_VERSION = 2**63 - 1  # int64 in TensorFlow Serving's messages


@dataclass(eq=False)
class ServedVersion:
    """One version of a model and its state.

    Attributes:
        name: The model.
        version: The version number.
        state: One of `STATES`.
        error: Why loading failed; "" otherwise.
        loaded: The model while AVAILABLE or UNLOADING.
        identity: The engine that computes its scores; None before it is loaded.
    """

    name: str
    version: int
    state: str = "LOADING"
    error: str = ""
    loaded: LoadedVersion | None = None
    identity: Engine | None = None
    stamp: frozenset = frozenset()  # of the files at the last attempt to load them
    users: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def engine(self) -> LoadedVersion:
        """The model of an acquired version."""
        assert self.loaded is not None, "acquired versions stay loaded"
        return self.loaded

    def run(self, name: str, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run a signature of an acquired version; `metadata` also states the engine.

        Unlike the other contents of `metadata`, the engine is not a fact of the export.
        """
        values = self.engine.run(name, inputs, outputs)
        if name != METADATA or self.identity is None:
            return values
        if "names" not in inputs or "contents" not in values:  # of another program
            return values
        text = json.dumps(self.identity.to_dict()).encode()
        is_engine = inputs["names"] == ENGINE_FILE.encode()
        return values | {"contents": np.where(is_engine, text, values["contents"])}

    def find_signature(
        self, name: str, code: StatusCode = StatusCode.FAILED_PRECONDITION
    ) -> Signature:
        """Return a signature of an acquired version, or raise a CallError with `code`."""
        return find_signature(self.engine.signatures, name, code)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the model loaded inside the block; it must be held or locked before."""
        with self._lock:
            self.users += 1
        try:
            yield
        finally:
            with self._lock:
                self.users -= 1


class Repository:
    """All served models; thread-safe."""

    def __init__(self, configs: Sequence[ModelConfig], engine: EngineOptions | None = None):
        """Create a repository, for scores of an engine; nothing is loaded before `poll`."""
        self._engine = engine
        self.configs = {config.name: config for config in configs}
        self._versions: dict[str, dict[int, ServedVersion]] = {name: {} for name in self.configs}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    def start(self) -> None:
        """Load every model, then poll for new versions in a thread.

        Raises:
            OSError: If a model has no loadable version.
        """
        self.poll()
        for name, config in self.configs.items():
            versions = self._versions[name].values()
            if not any(served.state == "AVAILABLE" for served in versions):
                self.close()
                # Raises an error that explains a folder without versions.
                find_versions(config.base_path)
                errors = "; ".join(f"version {one.version}: {one.error}" for one in versions)
                raise OSError(
                    f"Expected a version of model {name} in {config.base_path} that can be "
                    f"served; got {errors.rstrip(' .') or 'none of the configured versions'}. "
                    "Check its configuration, or export it again with `jdfd-keras export`."
                )
        self._thread.start()

    def close(self, timeout_s: float = 30.0) -> None:
        """Stop polling and unload all models.

        A model that is still in use after the timeout is not unloaded: closing the session of a
        running request crashes the process.
        """
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for served in self.all():
                if served.state == "AVAILABLE":
                    served.state = "UNLOADING"
        end = time.monotonic() + timeout_s
        while self._close_unused() and time.monotonic() < end:
            time.sleep(0.05)

    def poll(self) -> None:
        """Read the folders once; load and unload what has changed. Not thread-safe.

        A version that cannot be loaded goes to END, with one message on stderr; it is retried when
        its files change. A version that is no longer configured, or was removed from disk, is
        unloaded only while a configured one is AVAILABLE: a failure of the file system, such as a
        lost mount, never removes the last good version.
        """
        for config in self.configs.values():
            self._update(config)
        self._close_unused()

    @contextlib.contextmanager
    def use(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> Iterator[ServedVersion]:
        """Select a version by its number, a label, or as the newest; keep it loaded in the block.

        Raises:
            CallError: If no such version is available.
        """
        if label is not None and name in self.configs:
            labels = self.configs[name].labels
            if label not in labels:
                raise CallError(
                    f"Expected a version label of {name}, one of {sorted(labels)}; got {label}."
                )
            version = labels[label]
        with contextlib.ExitStack() as held:
            with self._lock:
                served = self.states(name, version, among=("AVAILABLE",))[0]
                held.enter_context(served.hold())
            yield served

    def all(self) -> list[ServedVersion]:
        """List the versions of all models."""
        return [served for name in self.configs for served in self._versions[name].copy().values()]

    def states(
        self, name: str, version: int | None = None, among: Sequence[str] = STATES
    ) -> list[ServedVersion]:
        """Return the versions of a model, or one of them, in some states; newest first.

        Raises:
            CallError: If there is none.
        """
        existing = sorted(self._versions.get(name, {}).copy().items(), reverse=True)
        versions = [
            served
            for number, served in existing
            if version in (None, number) and served.state in among
        ]
        if not versions:
            wanted = "any version" if version is None else f"version {version}"
            raise CallError(f"Expected a served model; got {name}, {wanted}.", StatusCode.NOT_FOUND)
        return versions

    def describe(self, name: str, version: int | None = None) -> dict[str, Any]:
        """Return the JSON of TensorFlow Serving's GetModelStatusResponse, or raise as `states`."""
        statuses = [
            {
                "version": str(served.version),
                "state": served.state,
                "status": {
                    "error_code": "DATA_LOSS" if served.error else "OK",
                    "error_message": served.error,
                },
            }
            for served in self.states(name, version)
        ]
        return {"model_version_status": statuses}

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_INTERVAL_S):
            self.poll()

    def _update(self, config: ModelConfig) -> None:
        versions = self._versions[config.name]
        existing: dict[int, Path] = {}
        with contextlib.suppress(OSError):  # the folder is missing, empty or unreadable
            existing = find_versions(config.base_path)
        # A broken version does not count as newest: the previous one is served instead.
        broken = {
            number
            for number in existing.keys() & versions.keys()
            if versions[number].error and versions[number].stamp == _stamp(existing[number])
        }
        configured = config.choose(n for n in existing.keys() - broken if n <= MAX_VERSION)
        for number in configured:
            if number not in versions or versions[number].state == "END":
                self._load(config.name, number, existing[number])
        with self._lock:
            if any(versions[number].state == "AVAILABLE" for number in configured):
                for number, served in versions.items():
                    if served.state == "AVAILABLE" and number not in configured:
                        served.state = "UNLOADING"
            for number in [n for n in versions if n not in existing and versions[n].state == "END"]:
                del versions[number]

    def _load(self, name: str, number: int, path: Path) -> None:
        before = self._versions[name].get(number)
        served = ServedVersion(name, number, stamp=_stamp(path))
        with self._lock:
            self._versions[name][number] = served
        try:
            started = time.monotonic()
            print_message(f"Loading {path} ...")
            served.loaded, served.identity = load_version(path, self._engine)
            served.state = "AVAILABLE"
            text, seconds = served.identity.describe(), time.monotonic() - started
            note = f" ({served.identity.note})" if served.identity.note else ""
            print_message(f"{name} {number}: {text}{note}, loaded in {seconds:.1f} s")
        except (OSError, ValueError) as error:
            served.error, served.state = str(error), "END"
            if before is None or before.error != served.error:
                print_message(f"Version {number} of model {name} is not served: {error}")

    def _close_unused(self) -> int:
        """Unload versions that are no longer in use; return how many still are."""
        with self._lock:
            leaving = [served for served in self.all() if served.state == "UNLOADING"]
            unused = [served for served in leaving if served.users == 0]
        for served in unused:
            served.engine.close()
            with self._lock:
                served.loaded, served.state = None, "END"
        return len(leaving) - len(unused)


def load_version(path: Path, options: EngineOptions | None = None) -> tuple[LoadedVersion, Engine]:
    """Load a version, verify its checksums, and run its warm-up requests.

    Returns:
        The model, and the engine that computes its scores.

    Raises:
        OSError: If it is damaged in any way, or the requested engine cannot be used.
        ValueError: If it was exported in another format version.

    Example:
        >>> options = EngineOptions(precision="float32")
        >>> model, identity = load_version(Path("saved_models/detector/1"), options)
        >>> sorted(model.signatures), identity.describe()
        (['classify', 'explain', 'faces', 'metadata', 'reconstruct', 'serving_default'],
        'OpenVINO 20..., float32')
    """
    verify_checksums(path)
    if (path / ALIGNMENT_FILE).is_file():  # a model of another program has none
        load_groups(path / ALIGNMENT_FILE)
    engine, reason = load_engine(path, options or EngineOptions())
    with contextlib.ExitStack() as undo:
        if engine:
            undo.callback(engine.close)
            model, identity = OpenVINOModel(path, engine), engine.engine
        else:
            model = SavedModelEngine(path)
            identity = Engine("tensorflow", tf.__version__, "float32", reason)
        undo.callback(model.close)
        for _ in model.replay_warmup():
            pass
        undo.pop_all()
    return model, identity


def _stamp(path: Path) -> frozenset:
    """Fingerprint the files of a folder without reading them."""
    stamp = set()
    # Unlike rglob, os.walk tolerates folders that are removed meanwhile.
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(file := os.path.join(folder, name))
                # ctime also changes with permissions.
                stamp.add((file, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return frozenset(stamp)
