"""The served models: loading, replacing and unloading their versions.

Takes model configurations; provides a loaded version by number, by label, or the newest. Polls
the folders once per second: a new version is loaded and warmed up while the old one is served,
replaces it, and the old one is unloaded once no request uses it. Independent of transports.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jdfd_keras.client.signatures import (
    ALIGNMENT_FILE,
    CHECKSUMS,
    find_versions,
    verify_checksums,
)
from jdfd_keras.inference.saved_model import SavedModelEngine
from jdfd_keras.io.files import load_groups
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.call_errors import CallError

POLL_INTERVAL_S = 1.0
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
        engine: The loaded model while AVAILABLE or UNLOADING, else None.
    """

    name: str
    version: int
    state: str = "START"
    error: str = ""
    engine: SavedModelEngine | None = None
    _stamp: frozenset = frozenset()  # of the files at the last attempt to load them
    _users: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def error_code(self) -> str:
        """The canonical code of `error`."""
        return "DATA_LOSS" if self.error else "OK"

    def acquire(self) -> None:
        """Keep the engine in memory until `release`; the caller must have acquired it already."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """End one use of the engine."""
        with self._lock:
            self._users -= 1


class Repository:
    """All served models; thread-safe."""

    def __init__(self, configs: Sequence[ModelConfig]):
        """Create a repository; nothing is loaded before `poll`.

        Args:
            configs: The models.
        """
        self.configs = {config.name: config for config in configs}
        self._versions: dict[str, dict[int, ServedVersion]] = {name: {} for name in self.configs}
        self._lock = threading.Lock()
        self._polling = threading.Lock()
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
                errors = _join_errors(versions).rstrip(" .")
                raise OSError(
                    f"Expected a version of model {name} in {config.base_path} that can be "
                    f"served; got {errors or 'none of the configured versions'}. "
                    "Check its configuration, or export it again with `jdfd-keras export`."
                )
        self._thread.start()

    def close(self, timeout_s: float = 30.0) -> None:
        """Stop polling and unload all models.

        Args:
            timeout_s: Longest time to wait for running requests, in seconds. A model still in use
                is not unloaded: closing the session of a running request crashes the process.
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
        """Read the folders once; load and unload what has changed.

        A version that cannot be loaded goes to END, with one message on stderr; it is retried when
        its files change. A version that is no longer configured, or was removed from disk, is
        unloaded only while a configured one is AVAILABLE: a failure of the file system, such as a
        lost mount, never removes the last good version.
        """
        with self._polling:
            for config in self.configs.values():
                self._update(config)
            self._close_unused()

    @contextlib.contextmanager
    def use(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> Iterator[ServedVersion]:
        """Select a version and keep it loaded inside the block.

        Args:
            name: The model.
            version: The version number; the newest if neither this nor `label` is given.
            label: A label of the configuration.

        Yields:
            The version, AVAILABLE at that time.

        Raises:
            CallError: If no such version is available.
        """
        if label is not None and name in self.configs:
            if label not in self.configs[name].labels:
                raise CallError(f"Unrecognized servable version label: {label}")
            version = self.configs[name].labels[label]
        with self._lock:
            available = [
                served
                for served in self._versions.get(name, {}).values()
                if served.state == "AVAILABLE" and version in (None, served.version)
            ]
            if not available:
                requested = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise CallError(f"Servable not found for request: {requested}", "NOT_FOUND")
            served = max(available, key=lambda served: served.version)
            served.acquire()
        try:
            yield served
        finally:
            served.release()

    def all(self) -> list[ServedVersion]:
        """List the versions of all models."""
        return [
            served for versions in self._versions.values() for served in versions.copy().values()
        ]

    def states(self, name: str, version: int | None = None) -> list[ServedVersion]:
        """Return the present and unloaded versions of a model, newest first.

        Args:
            name: The model.
            version: Only this version.

        Raises:
            CallError: If there is none.
        """
        with self._lock:
            versions = dict(self._versions.get(name, {}))
        if not versions:
            raise CallError(f"Could not find any versions of model {name}", "NOT_FOUND")
        if version is not None and version not in versions:
            raise CallError(f"Could not find version {version} of model {name}", "NOT_FOUND")
        numbers = sorted(versions, reverse=True) if version is None else [version]
        return [versions[number] for number in numbers]

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_INTERVAL_S):
            self.poll()

    def _update(self, config: ModelConfig) -> None:
        versions = self._versions[config.name]
        existing = _find(config.base_path)
        broken = {
            number
            for number, path in existing.items()
            if number in versions
            and versions[number].error
            and versions[number]._stamp == _stamp(path)
        }
        # A broken version does not count as newest: the previous one is served instead.
        configured = config.choose(existing.keys() - broken)
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
        served = ServedVersion(name, number, state="LOADING")
        with self._lock:
            before = self._versions[name].get(number)
            self._versions[name][number] = served
        served._stamp = _stamp(path)
        try:
            served.engine = load_engine(path)
        except OSError as error:
            with self._lock:
                served.state, served.error = "END", str(error)
            if before is None or before.error != served.error:
                print(
                    f"Version {number} of model {name} is not served: {error}",
                    file=sys.stderr,
                    flush=True,
                )
        else:
            with self._lock:
                served.state = "AVAILABLE"

    def _close_unused(self) -> int:
        """Unload versions that are no longer in use; return how many still are."""
        with self._lock:
            leaving = [served for served in self.all() if served.state == "UNLOADING"]
            unused = [served for served in leaving if served._users == 0]
        for served in unused:
            served.engine.close()
            with self._lock:
                served.engine, served.state = None, "END"
        return len(leaving) - len(unused)


def load_engine(path: Path) -> SavedModelEngine:
    """Load a version, verify its checksums, and run its warm-up requests.

    Args:
        path: The folder with saved_model.pb.

    Raises:
        OSError: If it is damaged in any way, or exported in another format version.

    Example:
        >>> sorted(load_engine(Path("saved_models/detector/1")).signatures)
        ['classify', 'explain', 'faces', 'metadata', 'reconstruct', 'serving_default']
    """
    if (path / CHECKSUMS).is_file():
        verify_checksums(path)
    if (path / ALIGNMENT_FILE).is_file():  # a model of another program has none
        try:
            load_groups(path / ALIGNMENT_FILE)
        except ValueError as error:
            raise OSError(str(error)) from error
    engine = SavedModelEngine(path)
    try:
        for _ in engine.replay_warmup():
            pass
    except OSError:
        engine.close()
        raise
    return engine


def _find(base_path: Path) -> dict[int, Path]:
    try:
        versions = find_versions(base_path)
    except OSError:  # the folder is missing, empty or currently unreadable
        return {}
    return {number: path for number, path in versions.items() if number <= MAX_VERSION}


def _stamp(path: Path) -> frozenset:
    """Fingerprint the files of a folder without reading them."""
    stamp = set()
    # Unlike rglob, os.walk tolerates folders that are removed meanwhile.
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                status = os.stat(file)
                # ctime also changes with permissions.
                stamp.add((file, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return frozenset(stamp)


def _join_errors(versions) -> str:
    return "; ".join(f"version {served.version}: {served.error}" for served in versions)
