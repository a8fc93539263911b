"""Files written whole or not at all, their digests, and the options.json of a folder.

Every folder that a command writes begins with an options.json: the format version and the option
groups it was made with, so that other options are never mixed into it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

OPTIONS = "options.json"
FORMAT_VERSION = 1  # of run, data, result and export folders; raised when one changes
_VERSION_KEY = "format_version"
_UNFINISHED = ".unfinished-"  # hidden, so that no dataset layout lists it

Options = TypeVar("Options")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, which it replaces once the block succeeds.

    Args:
        path: The file to write, replaced if it exists; its folder must exist.

    Yields:
        Path to write to, with the same suffix. If the block raises, it is removed and `path`
        is unchanged.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> with atomic_path("report.json") as unfinished:
        ...     _ = unfinished.write_text("{}")
    """
    path = Path(path)
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all.

    Raises:
        OSError: If it cannot be written; an existing file is then unchanged.
    """
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def sha256_of(path: str | Path) -> str:
    """Compute the SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def init_folder(directory: str | Path, **groups: Any) -> None:
    """Create a folder with its options.json, or check that it was made with these options.

    Args:
        directory: The folder; created if missing.
        **groups: Frozen dataclasses by the name they are stored under, such as
            `faces=FaceOptions()`.

    Raises:
        OSError: If it cannot be written.
        ValueError: If the folder was made with other options or another format version, or
            holds other files.
    """
    directory = Path(directory)
    path = directory / OPTIONS
    if path.is_file():
        check_same_options(path.read_text(encoding="utf-8"), directory, groups)
        return
    if directory.is_dir() and any(
        entry.name != f"{_UNFINISHED}{OPTIONS}" for entry in directory.iterdir()
    ):
        raise ValueError(
            f"Expected a new or empty folder, or one to resume; got {directory}, which holds "
            "other files. Choose another --out."
        )
    directory.mkdir(parents=True, exist_ok=True)
    save_options(path, **groups)


def check_same_options(text: str, directory: str | Path, groups: dict[str, Any]) -> None:
    """Check that a folder was made with these options.

    Args:
        text: Content of its options.json.
        directory: The folder, for the message.
        groups: Frozen dataclasses by the name they are stored under.

    Raises:
        ValueError: If an option or the format version differs.
    """
    stored = _parse_json(text, f"{directory}/{OPTIONS}")
    requested = json.loads(to_json(groups))
    del requested[_VERSION_KEY]
    if damaged := [
        group for group in requested.keys() & stored.keys() if type(stored[group]) is not dict
    ]:
        raise ValueError(
            f"Expected objects in {directory}/{OPTIONS}; got {stored[damaged[0]]!r} as "
            f"{damaged[0]!r}. The file is damaged: restore it, or create its folder again."
        )
    if missing := [group for group in requested if group not in stored]:
        raise ValueError(
            f"Expected {directory} to have the options {', '.join(missing)}; got a folder of "
            f"another kind, with {', '.join(stored)}. Choose another --out."
        )
    changed = [
        f"{name} {stored.get(group, {}).get(name)!r} -> {value!r}"
        for group, values in requested.items()
        for name, value in values.items()
        if stored.get(group, {}).get(name) != value
    ]
    changed += [
        f"{name} {stored[group][name]!r} -> not an option here"
        for group in requested.keys() & stored.keys()
        for name in stored[group].keys() - requested[group].keys()
    ]
    if changed:
        raise ValueError(
            f"Expected the options that {directory} was made with; got different ones "
            f"({', '.join(changed)}). Choose another --out, or repeat the options."
        )


def save_options(path: str | Path, **groups: Any) -> None:
    """Write option groups as JSON, one object per group, with the format version.

    Args:
        path: The file, replaced if it exists.
        **groups: Frozen dataclasses of options, such as `faces=FaceOptions()`.

    Raises:
        OSError: If it cannot be written.
    """
    write_text_atomically(path, to_json(groups))


def load_options(path: str | Path, group: str, kind: type[Options]) -> Options:
    """Read one option group.

    Args:
        path: A file that `save_options` wrote.
        group: The name it is stored under, such as `faces`.
        kind: Its dataclass, such as `FaceOptions`.

    Returns:
        An instance of `kind`.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, of another format version, or holds unknown options.
    """
    stored = load_groups(path)
    if group not in stored:
        raise ValueError(
            f"Expected {path} to hold the group {group!r} with the options of {kind.__name__}; got "
            f"{', '.join(stored) or 'none'}. Its folder is of another kind: check the path."
        )
    try:
        values = stored[group]
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"Expected {path} to hold the group {group!r} with the options of "
            f"{kind.__name__}; got {error!r}. It was perhaps written by another version of "
            "jdfd-keras: create it again with this one."
        ) from error


def load_groups(path: str | Path) -> dict[str, Any]:
    """Read all option groups, as JSON has them, and check the format version.

    Args:
        path: A file that `save_options` wrote.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged or of another format version.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected the file {path}; got none. Check that its folder is complete, and was made "
            "by jdfd-keras."
        ) from error
    groups = _parse_json(text, str(path))
    del groups[_VERSION_KEY]
    return groups


def to_json(groups: dict[str, Any]) -> str:
    """Return option groups as the text of an options.json."""
    plain = {name: dataclasses.asdict(group) for name, group in groups.items()}
    return json.dumps({_VERSION_KEY: FORMAT_VERSION} | plain, indent=2) + "\n"


def check_format_version(options: dict[str, Any], path: str | Path) -> None:
    """Check that a folder has the format that this version of the package reads.

    Args:
        options: Its parsed options.json.
        path: The file, for the message.

    Raises:
        ValueError: If it has another format version, or none.
    """
    version = options.get(_VERSION_KEY)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"Expected {_VERSION_KEY} {FORMAT_VERSION} in {path}; got {version}. The folder was "
            "made by another version of jdfd-keras: create it again with this one, or use the "
            "version that made it."
        )


def _parse_json(text: str, path: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
        if not isinstance(options, dict):
            raise ValueError(f"{type(options).__name__}, not an object")
    except ValueError as error:
        raise ValueError(
            f"Expected options as JSON in {path}; got '{error}'. The file is damaged: restore it, "
            "or create its folder again."
        ) from error
    check_format_version(options, path)
    return options
