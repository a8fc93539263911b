"""The list of checksums beside an exported model: was it copied whole?

Writes and checks a file that `sha256sum --check` reads as well. Imports no TensorFlow.
"""

import hashlib
import re
from pathlib import Path

from jdfd_keras.serving.contract import CHECKSUMS


def write_checksums(directory: Path) -> None:
    """List the SHA-256 of every file of a version but the list itself, in the order of names."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = [
        f"{_digest(path)}  {path.relative_to(directory).as_posix()}\n"
        for path in files
        if path != directory / CHECKSUMS
    ]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def verify_checksums(directory: Path) -> None:
    """See that the files of a version are those that were exported.

    Args:
        directory: The folder of one version. Without a list there is nothing to check.

    Raises:
        OSError: If a file is lacking or differs, or the list is damaged.
    """
    checksums = directory / CHECKSUMS
    if not checksums.is_file():
        return
    for line in checksums.read_text(encoding="utf-8", errors="replace").splitlines():
        listed = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if not listed:
            raise OSError(
                f"Expected lines such as `sha256sum` writes in {checksums}; got {line[:80]!r}. "
                "Copy the version again, or export it again."
            )
        digest, name = listed.groups()
        path = directory / name
        found = _digest(path) if path.is_file() else "no such file"
        if found != digest:
            raise OSError(
                f"Expected {path} with the SHA-256 {digest}, as exported; got {found}. The copy "
                "is not whole: copy the version again, under another name, and then rename it."
            )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
