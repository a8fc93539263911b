"""Files written whole or not at all, their digests, and the options.json of a folder.

Every folder that a command writes begins with an options.json: the format version and the option
groups it was made with, so that other options are never mixed into it.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

OPTIONS = "options.json"
FORMAT_VERSION = 2  # of run, data, result and export folders; raised when one changes
_VERSION_KEY = "format_version"
_UNFINISHED = ".unfinished-"  # hidden, so that no dataset layout lists it
_ABANDONED_S = 3600  # no file takes longer to write than this after its last byte
MAX_SHOWN = 100  # characters of an option in a message

Options = TypeVar("Options")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a new path with the same suffix, which replaces `path` once the block succeeds.

    If the block raises, the new file is removed and `path` is unchanged. A power failure leaves
    either the old file or the new one, whole.

    Example:
        >>> with atomic_path("notes.json") as unfinished:
        ...     _ = unfinished.write_text("{}")
        >>> Path("notes.json").read_text()
        '{}'
    """
    path = Path(path)
    # A name of its own, so that two writers of the same file do not mix.
    unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield unfinished
        replace_durably(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_durably(unfinished: str | Path, path: str | Path) -> None:
    """Rename a file, over an existing one, so that a power failure loses neither name nor content.

    Without this a file system may keep the new name of an empty file.

    Example:
        >>> _ = Path("new.txt").write_text("one")
        >>> replace_durably("new.txt", "old.txt")
        >>> Path("old.txt").read_text()
        'one'
    """
    sync(unfinished)
    os.replace(unfinished, path)
    sync(Path(path).parent)


def sync(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Example:
        >>> sync(".")
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # of a folder on Windows, and of one that may be written but not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # such as a folder of some networks
            raise
    finally:
        os.close(handle)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all.

    Example:
        >>> write_text_atomically("notes.txt", "one")
        >>> Path("notes.txt").read_text()
        'one'
    """
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def check_no_result(*paths: str | Path | None, overwrite: bool = False) -> None:
    """Check, before any work is done, that no result exists which would be replaced.

    Args:
        *paths: Files that will be written; None is no file.
        overwrite: Whether they may be replaced.

    Raises:
        FileExistsError: If one exists and must not be replaced.

    Example:
        >>> write_text_atomically("result.html", "evidence")
        >>> check_no_result("result.html", overwrite=True)
        >>> check_no_result("result.html")
        Traceback (most recent call last):
        FileExistsError: Expected no existing result at result.html, since results are not ...
    """
    for path in () if overwrite else filter(None, paths):
        if os.path.lexists(path):
            raise FileExistsError(
                f"Expected no existing result at {path}, since results are not overwritten by "
                "default; got one. Try another path, or --overwrite (in Python overwrite=True)."
            )


def sha256_of(path: str | Path) -> str:
    """Compute the SHA-256 of a file, as hexadecimal digits.

    Example:
        >>> write_text_atomically("abc.txt", "abc")
        >>> sha256_of("abc.txt")[:16]
        'ba7816bf8f01cfea'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def init_folder(directory: str | Path, **groups: Any) -> None:
    """Create a folder with its options.json, or check that it was made with these options.

    Args:
        directory: The folder.
        **groups: Frozen dataclasses by the name they are stored under.

    Raises:
        ValueError: If the folder has other options, another format version or other files.

    Example:
        >>> from jdfd_keras.options import FaceOptions
        >>> init_folder("new_run", faces=FaceOptions())
        >>> init_folder("new_run", faces=FaceOptions(margin=2.0))
        Traceback (most recent call last):
        ValueError: Expected the options that new_run was made with; got different ones (margin ...
    """
    directory = Path(directory)
    path = directory / OPTIONS
    if path.is_file():
        check_same_options(path.read_text(encoding="utf-8"), directory, groups)
        for left in directory.glob(f"{_UNFINISHED}*"):  # by a killed run
            with contextlib.suppress(FileNotFoundError):  # its writer has just finished
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    left.unlink()
        return
    if directory.is_dir() and any(
        not (entry.name.startswith(_UNFINISHED) and entry.name.endswith(OPTIONS))
        for entry in directory.iterdir()
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
        groups: As in `init_folder`; none to check only the format version.

    Raises:
        ValueError: If an option or the format version differs.

    Example:
        >>> check_same_options('{"format_version": 0}', "run", {})
        Traceback (most recent call last):
        ValueError: Expected format_version 2 in run/options.json; got 0. ...
    """
    stored = _parse_json(text, f"{directory}/{OPTIONS}")
    requested = _parse_json(to_json(groups), OPTIONS)
    defaults = {name: _find_defaults(options) for name, options in groups.items()}
    defaults = json.loads(json.dumps(defaults))  # lists for tuples
    if invalid := [name for name in requested if not isinstance(stored.get(name), dict)]:
        raise ValueError(
            f"Expected {directory} to have the options {', '.join(invalid)}; got a folder of "
            f"another kind or a damaged {OPTIONS}, with {', '.join(stored) or 'none'}. Choose "
            "another --out."
        )
    changed = []
    for group, values in requested.items():
        for name in values | stored[group]:
            # An option that is younger than the folder had the effect of its default.
            old, new = stored[group].get(name, defaults[group].get(name)), values.get(name)
            if old != new:
                shown = _shorten(new) if name in values else "not an option here"
                changed.append(f"{name} {_shorten(old)} -> {shown}")
    if changed:
        raise ValueError(
            f"Expected the options that {directory} was made with; got different ones "
            f"({', '.join(changed)}). Choose another --out, or repeat the options."
        )


def _find_defaults(options: Any) -> dict[str, Any]:
    fields = dataclasses.fields(options)
    return {one.name: one.default for one in fields if one.default is not dataclasses.MISSING}


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def save_options(path: str | Path, **groups: Any) -> None:
    """Write frozen dataclasses of options as JSON, with the format version.

    Example:
        >>> from jdfd_keras.options import FaceOptions
        >>> save_options("saved_options.json", faces=FaceOptions(face_size=71))
        >>> load_options("saved_options.json", "faces", FaceOptions).face_size
        71
    """
    write_text_atomically(path, to_json(groups))


def load_options(path: str | Path, group: str, kind: type[Options]) -> Options:
    """Read the option group that a file has under a name, as its dataclass `kind`.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is damaged, of another format version, or holds unknown options.

    Example:
        >>> from jdfd_keras.options import FaceOptions
        >>> load_options("prepared/options.json", "faces", FaceOptions).face_size
        71
    """
    stored = load_groups(path)
    try:
        values = stored[group].items()
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values})
    except (AttributeError, KeyError, TypeError) as error:
        detail = f"'{error}' in " if group in stored else ""
        raise ValueError(
            f"Expected {path} to hold the group {group!r} with the options of {kind.__name__}; got "
            f"{detail}the groups {', '.join(stored) or 'none'}. Check the path; if it was "
            "written by another version of jdfd-keras, create it again with this one."
        ) from error


def load_groups(path: str | Path) -> dict[str, Any]:
    """Read all option groups, as JSON has them; errors are those of `load_options`.

    Example:
        >>> list(load_groups("prepared/options.json"))
        ['faces', 'filters', 'prepare', 'limits']
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected the file {path}; got none. Check that its folder is complete, and was made "
            "by jdfd-keras."
        ) from error
    return _parse_json(text, str(path))


def to_json(groups: dict[str, Any]) -> str:
    r"""Return option groups as the text of an options.json.

    Example:
        >>> to_json({})
        '{\n  "format_version": 2\n}\n'
    """
    plain = {name: dataclasses.asdict(group) for name, group in groups.items()}
    return json.dumps({_VERSION_KEY: FORMAT_VERSION} | plain, indent=2) + "\n"


def _parse_json(text: str, path: str) -> dict[str, Any]:
    """Parse the text of an options.json and check its format version."""
    try:
        options = json.loads(text)
        if not isinstance(options, dict):
            raise ValueError(f"{type(options).__name__}, not an object")
    except (RecursionError, ValueError) as error:
        raise ValueError(
            f"Expected options as JSON in {path}; got '{error}'. The file is damaged: restore it, "
            "or create its folder again."
        ) from error
    version = options.pop(_VERSION_KEY, None)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"Expected {_VERSION_KEY} {FORMAT_VERSION} in {path}; got {version}. The folder was "
            "made by another version of jdfd-keras: create it again with this one, or use the "
            "version that made it."
        )
    return options
