"""The models on disk, and which versions of them answer.

Takes what an operator wants served; gives a loaded version to whoever asks for one, by number, by
label or the newest. Looks at the folders once a second: a new version is loaded and warmed up
beside the old one, takes over, and the old one is let go when nobody uses it any more. Knows
nothing of requests.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jdfd_keras.client.signatures import CHECKSUMS, find_versions
from jdfd_keras.inference.model_files import verify_checksums
from jdfd_keras.inference.saved_model import SavedModelEngine
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.call_errors import CallError

POLL_INTERVAL_S = 1.0
STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
MAX_VERSION = 2**63 - 1  # as TensorFlow Serving's messages hold it


@dataclass(eq=False)
class ServedVersion:
    """One version of a model, and how far it is.

    Attributes:
        name: The model.
        version: Its number.
        state: One of `STATES`.
        error: Why it could not be loaded; "" where it could.
        engine: What runs it, from LOADING's end to END.
    """

    name: str
    version: int
    state: str = "START"
    error: str = ""
    engine: SavedModelEngine | None = None
    _stamp: frozenset = frozenset()  # of the files that could not be loaded
    _users: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def error_code(self) -> str:
        """The name of the canonical code that goes with `error`."""
        return "DATA_LOSS" if self.error else "OK"

    def hold(self) -> None:
        """Keep the engine in memory until `release`; only for those who use it already."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Use the engine no more."""
        with self._lock:
            self._users -= 1


class Repository:
    """All models that are served; may be asked from many threads."""

    def __init__(self, configs: Sequence[ModelConfig]):
        """Remember what to serve; nothing is loaded before `poll`.

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
        """Load every model, then go on looking for new versions in a thread.

        Raises:
            OSError: If a model has no version that can be loaded.
        """
        self.poll()
        for name, config in self.configs.items():
            versions = self._versions[name].values()
            if not any(served.state == "AVAILABLE" for served in versions):
                self.close()
                find_versions(config.base_path)  # says what is wrong with a folder without any
                raise OSError(
                    f"Expected a version of model {name} in {config.base_path} that can be "
                    f"served; got {_show_errors(versions) or 'none of those that are wanted'}. "
                    "Look at its configuration, or export it again with `jdfd-keras export`."
                )
        self._thread.start()

    def close(self, timeout_s: float = 30.0) -> None:
        """Stop looking, and let go of all models.

        Args:
            timeout_s: How long calls that still run are waited for. What they use is left alone:
                to close a session under a call would crash the process.
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
        """Look at the folders once, and load and let go of what has changed.

        A version that cannot be loaded is left at END and said once on stderr; it is tried again
        when its files have changed. A version that is not wanted any more, or whose folder has
        gone, is let go only while a wanted one is AVAILABLE: an accident of the file system, such
        as a mount that vanishes, does not take away the last good version.
        """
        with self._polling:
            for config in self.configs.values():
                self._update(config)
            self._close_unused()

    @contextlib.contextmanager
    def use(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> Iterator[ServedVersion]:
        """Give a version, and keep it loaded as long as it is used.

        Args:
            name: The model.
            version: The version; if not given the newest.
            label: Or a label of the configuration.

        Yields:
            The version, AVAILABLE when it was given.

        Raises:
            CallError: If there is none such.
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
                asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise CallError(f"Servable not found for request: {asked}", "NOT_FOUND")
            served = max(available, key=lambda served: served.version)
            served.hold()
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
        """Tell the versions of a model that are or were there, newest first.

        Raises:
            CallError: If there is none, or not this one.
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
        found = _find(config.base_path)
        broken = {
            number
            for number, path in found.items()
            if number in versions
            and versions[number].error
            and versions[number]._stamp == _stamp(path)
        }
        # What is broken does not count among the newest: the one before it is served instead.
        wanted = config.choose(found.keys() - broken)
        for number in wanted:
            if number not in versions or versions[number].state == "END":
                self._load(config.name, number, found[number])
        with self._lock:
            if any(versions[number].state == "AVAILABLE" for number in wanted):
                for number, served in versions.items():
                    if served.state == "AVAILABLE" and number not in wanted:
                        served.state = "UNLOADING"
            for number in [n for n in versions if n not in found and versions[n].state == "END"]:
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
        """Close versions that nobody uses any more; give how many are still used."""
        with self._lock:
            leaving = [served for served in self.all() if served.state == "UNLOADING"]
            unused = [served for served in leaving if served._users == 0]
        for served in unused:
            served.engine.close()
            with self._lock:
                served.engine, served.state = None, "END"
        return len(leaving) - len(unused)


def load_engine(path: Path) -> SavedModelEngine:
    """Load a version, see that it is whole, and warm it up.

    Args:
        path: The folder that holds saved_model.pb.

    Raises:
        OSError: If it is damaged in whatever way.
    """
    if (path / CHECKSUMS).is_file():
        verify_checksums(path)
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
        found = find_versions(base_path)
    except OSError:  # no folder, none in it, or one that cannot be read now
        return {}
    return {number: path for number, path in found.items() if number <= MAX_VERSION}


def _stamp(path: Path) -> frozenset:
    """Tell two states of a folder apart without reading its files."""
    stamp = set()
    for folder, _, names in os.walk(path):  # unlike rglob it bears that one has gone meanwhile
        for name in names:
            file = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                status = os.stat(file)
                # That of the last change tells of rights that were mended, too.
                stamp.add((file, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return frozenset(stamp)


def _show_errors(versions) -> str:
    return "; ".join(f"version {served.version}: {served.error}" for served in versions)
