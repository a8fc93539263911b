"""Warm-up requests: a record of one request for each signature, beside the model.

Writes and reads the file that TensorFlow Serving replays when it loads a version, a TFRecord of
PredictionLog messages. Knows nothing of how a request is run.

The list of checksums beside an exported model: was it copied whole?

Writes and checks a file that `sha256sum --check` reads as well. Imports no TensorFlow.
"""

import hashlib
import re
from pathlib import Path

from jdfd_keras.client.metadata import CALIBRATION, Calibration, read_calibration
from jdfd_keras.client.signatures import (
    CHECKSUMS,
)
from jdfd_keras.training.run_folder import BEST, digest_model


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


def load_calibration(model_path: str | Path) -> Calibration | None:
    """Read the calibration of a trained detector.

    Args:
        model_path: A run folder, or a `.keras` file.

    Returns:
        The calibration; None where there is none, or where it is of another model of the run.

    Raises:
        ValueError: If it is damaged, or the best model of a run is another now.
    """
    model_path = Path(model_path)
    run = model_path if model_path.is_dir() else model_path.parent
    if not (run / CALIBRATION).is_file():
        return None
    calibration = read_calibration(run / CALIBRATION)
    if calibration.model == digest_model(model_path):
        return calibration
    if model_path.is_dir():
        raise ValueError(
            f"Expected {run / CALIBRATION} to be of {run / BEST}; got that of another model: it "
            "was trained further since. Run `jdfd-keras calibrate` again, or remove the file."
        )
    return None
