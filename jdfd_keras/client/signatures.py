"""Signatures and file names of an exported model, as TensorFlow Serving reads them.

The interface between the export, the servers and their clients. Imports no TensorFlow.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdfd_keras.io.files import sha256_of, write_text_atomically

SERVING_DEFAULT = "serving_default"
CLASSIFY = "classify"
FACES = "faces"
RECONSTRUCT = "reconstruct"  # only if the detector has a decoder
EXPLAIN = "explain"
METADATA = "metadata"

CLASSES = ("real", "fake")  # the order of the two scores of `classify`
CLASSIFY_METHOD = "tensorflow/serving/classify"
# The graph refuses larger face crops, since decoding one may take gigabytes.
MAX_IMAGE_PIXELS = 2**24

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
ALIGNMENT_FILE = "assets.extra/alignment.json"
CALIBRATION_FILE = "assets.extra/calibration.json"  # only if the run is calibrated
MODEL_CARD = "MODEL_CARD.md"
ENGINE_FOLDER = "openvino"  # the same network for OpenVINO, beside saved_model.pb
IMAGE_READER = "image_reader"  # in that folder: a SavedModel of the reading of images only
ENGINE_FILE = "engine.json"  # in that folder: what its files belong to
CHECKSUMS = "SHA256SUMS"  # of all other files of a version, for `sha256sum --check`
# Larger weights are written in parts, since hosts of code limit the size of a file.
MAX_FILE_SIZE = 48 * 10**6

SAVED_MODELS = "saved_models"
SHIPPED_MODEL = "jdfd-faces"  # the detector that comes with the package
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]  # the checkout, or the folder of packages


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes:
        dtype: TensorFlow's DataType in lower case without its `DT_`: `float`, `uint8`, `string`.
        shape: None for an axis of any length; None instead of the tuple for any rank.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One signature: its TensorFlow Serving method, and its inputs and outputs by name."""

    method: str
    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


def read_signatures(definitions: dict[str, Any]) -> dict[str, Signature]:
    """Read signatures from TensorFlow's SignatureDefs in JSON, as in the metadata over REST.

    They are the result of protobuf's `MessageToDict` with the proto's field names and all fields.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: If they are something else.

    Example:
        >>> shape = {"dim": [{"size": "-1"}], "unknown_rank": False}
        >>> inputs = {"x": {"dtype": "DT_FLOAT", "tensor_shape": shape}}
        >>> read_signatures({"f": {"method_name": "predict", "inputs": inputs, "outputs": {}}})
        {'f': Signature(method='predict', inputs={'x': TensorInfo(dtype='float', shape=(None,))},
        outputs={})}
    """
    return {
        name: Signature(
            definition["method_name"],
            {key: _read_tensor_info(info) for key, info in definition["inputs"].items()},
            {key: _read_tensor_info(info) for key, info in definition["outputs"].items()},
        )
        for name, definition in definitions.items()
        if definition["method_name"]  # the initialization has none
    }


def find_versions(directory: str | Path) -> dict[int, Path]:
    """Find the versions in a folder `saved_models/<name>`, newest first.

    As for TensorFlow Serving, the folder of a version is named by a whole number.

    Raises:
        OSError: If the folder does not exist or has no version.

    Example:
        >>> find_versions("saved_models/detector")
        {1: PosixPath('saved_models/detector/1')}
    """
    directory = Path(directory)
    versions = {
        int(path.name): path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if path.name.isascii() and path.name.isdecimal() and (path / "saved_model.pb").is_file()
    }
    if not versions:
        raise OSError(
            f"Expected {directory} to be an exported model, saved_models/NAME with a file such as "
            f"1/saved_model.pb; got {_describe(directory)}. Create one with `jdfd-keras export`."
        )
    return dict(sorted(versions.items(), reverse=True))


def find_model(model: str | Path | None = None) -> str | Path:
    """Find a model by its path, or by its name in a folder `saved_models`.

    A name is searched in `saved_models/` of the working directory, then in that of the checkout,
    then in `share/jdfd-keras/saved_models/` of the installation. The default is not searched in the
    working directory: a model that lies beside the examined files must not judge them unasked.

    Args:
        model: A path, a name or the URL of a served model; by default the detector that comes with
            the package.

    Returns:
        The folder `saved_models/<name>` of a name; other paths and URLs as they are.

    Raises:
        OSError: If there is neither a file nor a model of that name.
        ValueError: If the name is empty.

    Example:
        >>> find_model("detector"), find_model("run")
        (PosixPath('saved_models/detector'), 'run')
    """
    if model is not None and not str(model):
        raise ValueError(
            "Expected the name or path of a model, or no --model; got an empty text. Try "
            f"{SHIPPED_MODEL}."
        )
    if model is not None and (len(Path(model).parts) != 1 or os.path.exists(model)):
        return model
    name = SHIPPED_MODEL if model is None else Path(model).name
    folders = [] if model is None else [Path(SAVED_MODELS)]
    folders.append(_PACKAGE_ROOT / SAVED_MODELS)
    # Installers put `share` beside the packages or above them: /usr/local/share belongs to
    # /usr/local/lib/python3.11/site-packages.
    for above in (_PACKAGE_ROOT, *_PACKAGE_ROOT.parents)[:4]:
        folders.append(above / "share" / "jdfd-keras" / SAVED_MODELS)
    existing: list[str] = []
    for directory in (directory for folder in folders for directory in folder.glob("*")):
        with contextlib.suppress(OSError):
            find_versions(directory)
            if directory.name == name:
                return directory
            existing.append(directory.name)
    searched = [str(folder) for folder in folders if folder.is_dir()] or [SAVED_MODELS]
    raise OSError(
        f"Expected a model: a path, or a name in {' or '.join(searched)}; got {name!r}, which is "
        f"neither. The names there: {', '.join(sorted(set(existing))) or 'none'}. Try another, or "
        "export a model with `jdfd-keras export`."
    )


def _read_tensor_info(info: dict[str, Any]) -> TensorInfo:
    dtype = str(info["dtype"]).removeprefix("DT_").lower()  # a number if protobuf knows no name
    shape = info.get("tensor_shape", {"dim": [], "unknown_rank": False})
    if shape["unknown_rank"]:
        return TensorInfo(dtype, None)
    sizes = (int(axis["size"]) for axis in shape["dim"])
    return TensorInfo(dtype, tuple(size if size >= 0 else None for size in sizes))


def _describe(directory: Path) -> str:
    if not directory.is_dir():
        return "a file" if directory.exists() else "nothing at that path"
    if (directory / "saved_model.pb").is_file():
        return f"a single version (its parent {directory.resolve().parent} is the model)"
    return "a folder without a version"


def write_checksums(directory: Path) -> None:
    """Write the SHA-256 of every file of a version, except the list itself, sorted by name.

    Example:
        >>> write_checksums(Path("saved_models/detector/1"))
        >>> text = Path("saved_models/detector/1/SHA256SUMS").read_text()
        >>> [line[66:] for line in text.splitlines() if line.endswith(".pb")][-1]
        'saved_model.pb'
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = [
        f"{sha256_of(path)}  {path.relative_to(directory).as_posix()}\n"
        for path in files
        if path != directory / CHECKSUMS
    ]
    write_text_atomically(directory / CHECKSUMS, "".join(lines))


def verify_checksums(directory: Path) -> None:
    """Check that the files of a version are those that were exported, if it has their list.

    Raises:
        OSError: If a file is missing or differs, or the list is damaged.

    Example:
        >>> Path("incomplete").mkdir()
        >>> _ = Path("incomplete/SHA256SUMS").write_text(f"{'0' * 64}  saved_model.pb")
        >>> verify_checksums(Path("incomplete"))
        Traceback (most recent call last):
        OSError: Expected incomplete/saved_model.pb with the SHA-256 000...; got no such file. ...
    """
    checksums = directory / CHECKSUMS
    if not checksums.is_file():
        return
    for line in checksums.read_text(encoding="utf-8", errors="replace").splitlines():
        listed = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if not listed:
            raise OSError(
                f"Expected lines in the format of `sha256sum` in {checksums}; got {line[:80]!r}. "
                "Copy the version again, or export it again."
            )
        digest, name = listed.groups()
        path = directory / name
        actual = sha256_of(path) if path.is_file() else "no such file"
        if actual != digest:
            raise OSError(
                f"Expected {path} with the SHA-256 {digest}, as exported; got {actual}. The copy "
                "is incomplete: copy the version again, under another name, and then rename it."
            )
