"""Tensors of PyTorch and safetensors files as NumPy arrays, without PyTorch.

Reads the zip format of torch.save (PyTorch 1.6 and later), the format before it, and safetensors.
Nothing of a file is executed: classes and functions that a pickle names are neither imported nor
called, except those that build tensors, which have their own implementation here. Time and memory
are bounded by the size of the file.
"""

import collections
import functools
import io
import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jdfd_keras.io.plain_pickle import DAMAGE, HashableTuple, RestrictedUnpickler

_MAGIC = 0x1950A86A20F9469CFC6C  # first object of the format before the zip format
_BFLOAT16 = "bfloat16"  # unknown to NumPy; read as float32
_KINDS = "Double=f8 Float=f4 Half=f2 Long=i8 Int=i4 Short=i2 Char=i1 Byte=u1 Bool=? Untyped=u1"
_DTYPES = {f"{kind}Storage": dtype for kind, dtype in (k.split("=") for k in _KINDS.split())}
_DTYPES["BFloat16Storage"] = _BFLOAT16
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys of checkpoints
_MAX_DEPTH = 2  # of checkpoints within each other
_MAX_WALKED = 2_000_000  # characters of all names in a module
_MAX_COPIED = 1_000_000  # elements of the containers that a pickle copies
_MAX_AXES = 32  # of a tensor
_DAMAGE = (*DAMAGE, zipfile.BadZipFile)


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a PyTorch or safetensors file.

    Args:
        path: A state dict, a checkpoint that holds one (`state_dict`, `model`, ...), or a whole
            module, which torch.save wrote; or a `.safetensors` file. Files of TorchScript are not
            read.

    Returns:
        The arrays by name, without the prefix `module.` of DataParallel. Those of PyTorch are
        read-only views of the file's storages. bfloat16 becomes float32.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, of another format, or without tensors.

    Example:
        >>> from safetensors.numpy import save_file
        >>> save_file({"module.conv1.weight": np.ones((2, 3), np.float32)}, "two.safetensors")
        >>> read_state_dict("two.safetensors")["conv1.weight"].shape
        (2, 3)
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(9)
        file.seek(0)
        try:
            if start[8:] == b"{":
                arrays = _read_safetensors(path)
            elif start.startswith((b"PK", b"\x80")):
                arrays = _read_zip(file) if start[:2] == b"PK" else _read_legacy(file)
            elif start.startswith(b"\x89HDF"):
                raise ValueError("an HDF5 file, such as --from mesonet-meso4 takes")
            else:
                raise ValueError("a file that is neither of PyTorch nor of safetensors")
        except _DAMAGE as error:
            raise ValueError(
                f"Expected the weights of a PyTorch network in {path}, as torch.save or "
                f"safetensors writes them; got '{' '.join(str(error).split())[:200]}'. Try the "
                "source (--from) that fits the file, or download the file of weights again."
            ) from error
    if not arrays:
        raise ValueError(
            f"Expected a state dict, a checkpoint with one or a module in {path}; got no tensors. "
            "Try `torch.save(model.state_dict(), FILE)` where the network can be loaded."
        )
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


class Placeholder:
    """An object of a class that was not imported; it keeps its state and does nothing."""

    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Ignore an element of a list of an unknown class."""


class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int  # in elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(RestrictedUnpickler):
    """An unpickler that builds tensors, containers and placeholders only."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}
        self.copied = 0  # elements

    def copy(self, kind: type, items: Any = ()) -> Any:
        self.copied += len(items)
        if self.copied > _MAX_COPIED:
            raise pickle.UnpicklingError(f"more than {_MAX_COPIED} elements of copied containers")
        return kind(items)

    def find_class(self, module: str, name: str) -> Any:
        known: dict[str, Any] = {
            "collections.OrderedDict": functools.partial(self.copy, collections.OrderedDict),
            "torch.Size": functools.partial(self.copy, HashableTuple),
            "torch._utils._rebuild_tensor": _rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
        }
        if module in ("torch", "torch.cuda", "torch.storage") and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        return known.get(f"{module}.{name}", Placeholder)

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # a class with its source code
            return pid[1]
        if (
            pid[0] != "storage"
            or not isinstance(pid[1], _StorageType)
            or not isinstance(pid[2], str)
            or type(pid[4]) is not int
            or pid[5:] not in ((), (None,))
        ):
            raise pickle.UnpicklingError("a reference to something else than a storage")
        storage = _Storage(pid[2], pid[1].dtype, pid[4])
        if self.storages.setdefault(storage.key, storage) != storage:
            raise pickle.UnpicklingError(f"two kinds of storage {storage.key}")
        return storage

    def set_state(self, value: Any, state: Any) -> None:
        if isinstance(value, Placeholder):
            value.state = state


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = (offset, *shape, *strides) if len(shape) == len(strides) <= _MAX_AXES else (-1,)
    is_valid = all(type(n) is int and 0 <= n < 2**62 for n in numbers)
    if not isinstance(storage, _Storage) or not is_valid:
        raise pickle.UnpicklingError("a tensor without valid storage, offset, shape and strides")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Read `NAME/data.pkl`, `NAME/byteorder` and the storages `NAME/data/KEY` of a zip file."""
    archive = zipfile.ZipFile(file)
    entries = {entry.filename: entry for entry in archive.infolist()}
    # torch.save does not compress, so together the entries are no larger than the file.
    if sum(entry.file_size for entry in entries.values()) > file.seek(0, io.SEEK_END):
        raise ValueError("entries of a zip file that are compressed or overlap")
    pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError(f"a zip file with {len(pickles)} entries NAME/data.pkl")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries:
        raise ValueError("a TorchScript file")

    def read(name: str) -> bytes:
        entry = entries[name]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"a compressed entry {name}")
        return archive.read(entry)

    order = read(f"{prefix}byteorder") if f"{prefix}byteorder" in entries else b"little"
    tensors = _find_tensors(_Unpickler(io.BytesIO(read(pickles[0]))).load())
    storages = {tensor.storage for tensor in tensors.values()}
    data = {
        storage.key: _decode(storage, read(f"{prefix}data/{storage.key}"), order == b"little")
        for storage in storages
    }
    return _resolve(tensors, data)


def _read_legacy(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Read the pickles and the storages after them of the format before PyTorch 1.6."""
    # A map reads no more than the file has, whatever length a pickle states.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _Unpickler(content).load() != _MAGIC:
            raise ValueError("a pickle that torch.save did not write")
        _Unpickler(content).load()  # version of the format, always 1001
        is_little = _Unpickler(content).load()["little_endian"]
        unpickler = _Unpickler(content)
        tensors = _find_tensors(unpickler.load())
        data = {}
        for key in _Unpickler(content).load():
            storage = unpickler.storages.get(key)
            (length,) = struct.unpack("<q", content.read(8))
            if storage is None or length != storage.length:
                raise ValueError(f"{length} elements of a storage that no tensor has")
            size = length * _stored_dtype(storage).itemsize
            data[storage.key] = _decode(storage, content.read(size), is_little)
    return _resolve(tensors, data)


def _stored_dtype(storage: _Storage) -> np.dtype:
    return np.dtype("u2" if storage.dtype == _BFLOAT16 else storage.dtype)


def _decode(storage: _Storage, content: bytes, is_little: bool) -> np.ndarray:
    """Return the elements of a storage, in the byte order of this machine."""
    kind = _stored_dtype(storage)
    if len(content) != storage.length * kind.itemsize:
        raise ValueError(f"{len(content)} bytes for {storage.length} elements of a storage")
    data = np.frombuffer(content, kind.newbyteorder("<" if is_little else ">"))
    data = data.astype(kind, copy=False)
    if storage.dtype == _BFLOAT16:  # the upper half of a float32
        data = (data.astype(np.uint32) << 16).view(np.float32)
    return data


def _resolve(tensors: dict[str, _Tensor], data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return each tensor as a read-only view of its storage."""
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        elements, count = data[storage.key], math.prod(shape)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        # A tensor may repeat elements, so that a tiny file would become a huge array.
        if count > len(elements) or (count and last >= len(elements)):
            raise ValueError(f"{name} of shape {shape}, beyond its {len(elements)} elements")
        steps = tuple(stride * elements.itemsize for stride in strides)
        view = np.lib.stride_tricks.as_strided(elements[offset:], shape, steps, writeable=False)
        arrays[name] = view
    return arrays


def _find_tensors(saved: Any, depth: int = 0) -> dict[str, _Tensor]:
    """Return the tensors of a state dict, of a checkpoint that holds one, or of a module."""
    if isinstance(saved, Placeholder):
        return _walk_module(saved)
    if depth > _MAX_DEPTH or not isinstance(saved, Mapping):
        return {}
    tensors = _only_tensors(saved)
    for key in () if tensors else _WRAPPERS:
        if found := _find_tensors(saved.get(key), depth + 1):
            return found
    return tensors


def _only_tensors(values: Mapping[Any, Any]) -> dict[str, _Tensor]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(name, str) and isinstance(value, _Tensor)
    }


def _walk_module(root: Placeholder) -> dict[str, _Tensor]:
    """Return the parameters and buffers of a pickled torch.nn.Module, named as in a state dict."""
    tensors: dict[str, _Tensor] = {}
    waiting, walked = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        state = module.state if isinstance(module.state, Mapping) else {}
        own, buffers, children = (
            state.get(key) or {} for key in ("_parameters", "_buffers", "_modules")
        )
        # A module may be a child of many, or of itself.
        walked += 1 + sum(len(prefix) + 1 + len(name) for name in (*own, *buffers, *children))
        if walked > _MAX_WALKED:
            raise ValueError(f"modules with more than {_MAX_WALKED} characters of names")
        for values in (own, buffers):
            tensors |= {prefix + name: tensor for name, tensor in _only_tensors(values).items()}
        waiting += [
            (f"{prefix}{name}.", child)
            for name, child in reversed(children.items())
            if isinstance(name, str) and isinstance(child, Placeholder)
        ]
    return tensors


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from ml_dtypes import bfloat16  # known to NumPy from here on
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    halves = {name: array for name, array in arrays.items() if array.dtype == bfloat16}
    return arrays | {name: array.astype(np.float32) for name, array in halves.items()}
