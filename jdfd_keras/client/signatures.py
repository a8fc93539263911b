"""What an exported model is: its folder, the names of its files, its signatures.

The contract between the export, the servers and their clients, as TensorFlow Serving reads it.
Imports no TensorFlow, so that a client may import it.
"""

from dataclasses import dataclass
from pathlib import Path

SCORE_BYTES = "serving_default"
CLASSIFY = "classify"
SCORE_FACES = "faces"
RECONSTRUCT = "reconstruct"  # there only where the detector has a decoder
EXPLAIN = "explain"
DESCRIBE = "describe"

CLASSES = ("real", "fake")  # the order of the two scores of `classify`
CLASSIFY_METHOD = "tensorflow/serving/classify"
# A larger face crop is refused by the graph: to decode one may take gigabytes.
MAX_IMAGE_PIXELS = 2**24

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
ALIGNMENT_FILE = "assets.extra/alignment.json"
CALIBRATION_FILE = "assets.extra/calibration.json"  # there only where the run was calibrated
MODEL_CARD = "MODEL_CARD.md"
CHECKSUMS = "SHA256SUMS"  # of all other files of a version, as `sha256sum --check` reads them


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes:
        dtype: TensorFlow's DataType in lower case without its `DT_`: `float`, `uint8`, `string`.
        shape: None for an axis of any length; None in place of the tuple for any rank.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """What one signature takes and gives, by name, and the method it is called by."""

    method: str
    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


def read_signature(definition: dict) -> Signature:
    """Read a signature, a SignatureDef of TensorFlow put into JSON.

    Args:
        definition: As protobuf's `MessageToDict` gives it with the names of the message and all
            its fields, or REST in the metadata of a model.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: If it is something else.
    """
    return Signature(
        definition["method_name"],
        {name: _read_tensor_info(info) for name, info in definition["inputs"].items()},
        {name: _read_tensor_info(info) for name, info in definition["outputs"].items()},
    )


def find_versions(directory: str | Path) -> dict[int, Path]:
    """Find the versions of a model, as TensorFlow Serving does.

    Args:
        directory: `saved_models/<name>`, holding folders named by whole numbers.

    Returns:
        The folder of every version, newest first; folders with other names are passed over.

    Raises:
        OSError: If there is no such folder or it holds no version.
    """
    directory = Path(directory)
    found = {}
    if directory.is_dir():
        found = {
            int(path.name): path
            for path in directory.iterdir()
            if path.name.isascii() and path.name.isdecimal() and (path / "saved_model.pb").is_file()
        }
    if not found:
        raise OSError(
            f"Expected {directory} to be an exported model, saved_models/NAME with a folder such "
            f"as 1/saved_model.pb in it; got {_describe(directory)}. "
            "Make one with `jdfd-keras export`."
        )
    return dict(sorted(found.items(), reverse=True))


def _read_tensor_info(info: dict) -> TensorInfo:
    dtype = info["dtype"].removeprefix("DT_").lower()
    if info["tensor_shape"]["unknown_rank"]:
        return TensorInfo(dtype, None)
    sizes = (int(axis["size"]) for axis in info["tensor_shape"]["dim"])
    return TensorInfo(dtype, tuple(size if size >= 0 else None for size in sizes))


def _describe(directory: Path) -> str:
    if not directory.exists():
        return "nothing at that path"
    if not directory.is_dir():
        return "a file"
    if (directory / "saved_model.pb").is_file():
        return f"one version itself (its parent {directory.resolve().parent} is the model)"
    return "a folder without a version"
