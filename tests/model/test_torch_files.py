import collections
import io
import json
import os
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from jdfd_keras.model import torch_files
from jdfd_keras.model.torch_files import (
    Placeholder,
    _find_tensors,
    _Storage,
    _Tensor,
    _Unpickler,
    read_state_dict,
)

MAGIC = 0x1950A86A20F9469CFC6C


def tensor(key=b"42", length=7, offset=1, shape=(3, 2), strides=(1, 3), kind=b"Float") -> bytes:
    """Return the opcodes of a tensor as torch.save writes them."""

    def numbers(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        + (b"ctorch\n%bStorage\n" % kind)
        + (b"X%b%bX\x03\x00\x00\x00cpu" % (struct.pack("<I", len(key)), key))
        + (b"J%btQJ%b" % (struct.pack("<i", length), struct.pack("<i", offset)))
        + (numbers(shape) + numbers(strides) + b"\x89NtR")
    )


def state(value: bytes, name=b"w") -> bytes:
    return b"\x80\x02}X" + struct.pack("<I", len(name)) + name + value + b"s."


def write_zip(path, content: bytes, data: bytes, order="little", **settings):
    with zipfile.ZipFile(path, "w", **settings) as archive:
        archive.writestr("any name/data.pkl", content)
        archive.writestr("any name/byteorder", order)
        archive.writestr("any name/data/42", data)
    return path


def write_legacy(path, content: bytes, data: bytes, *, length=7, little=True):
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {}}
    start = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system)]
    end = pickle.dumps(["42"], 2) + struct.pack("<q", length) + data
    path.write_bytes(b"".join([*start, content, end]))
    return path


ELEMENTS = np.arange(7, dtype="<f4").tobytes()
EXPECTED = np.array([[1, 4], [2, 5], [3, 6]], np.float32)  # from element 1, in columns of 3


def test_both_formats_and_byte_orders_give_the_tensor_of_its_offset_and_strides(tmp_path):
    content, swapped = state(tensor()), np.arange(7, dtype=">f4").tobytes()
    paths = [
        write_zip(tmp_path / "a.pth", content, ELEMENTS),
        write_zip(tmp_path / "b.pth", content, swapped, order="big"),
        write_legacy(tmp_path / "c.pth", content, ELEMENTS),
        write_legacy(tmp_path / "d.pth", content, swapped, little=False),
    ]
    for path in paths:
        np.testing.assert_array_equal(read_state_dict(path)["w"], EXPECTED)


def test_bfloat16_becomes_float32(tmp_path):
    data = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    content = state(tensor(length=2, offset=0, shape=(2,), strides=(1,), kind=b"BFloat16"))
    write_zip(tmp_path / "x.pth", content, data)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    length = struct.pack("<Q", len(header))
    (tmp_path / "x.safetensors").write_bytes(length + header + data)
    for name in ("x.pth", "x.safetensors"):
        found = read_state_dict(tmp_path / name)["w"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.array([1.5, -2.0], np.float32))


def test_safetensors_are_read(tmp_path):
    save_file({"w": EXPECTED}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "x.safetensors")["w"], EXPECTED)


def test_nothing_that_a_file_names_is_called(tmp_path):
    made = tmp_path / "made"
    call = b"cos\nmkdir\n(X" + struct.pack("<I", len(str(made))) + str(made).encode() + b"tR"
    path = write_zip(tmp_path / "x.pth", b"\x80\x02}(X\x01\x00\x00\x00f" + call + b"u.", b"")
    with pytest.raises(ValueError, match="got no tensors"):
        read_state_dict(path)
    assert not made.exists()


def test_other_globals_are_placeholders_that_keep_their_state(tmp_path):
    class Module:
        pass

    module = Module()
    module.answer = 42
    Module.__qualname__, Module.__module__ = "Module", __name__
    globals()["Module"] = Module
    (tmp_path / "x").write_bytes(pickle.dumps([module, os.getcwd], 2))
    with open(tmp_path / "x", "rb") as file:
        found, function = _Unpickler(file).load()
    assert isinstance(found, Placeholder)
    assert found.state == {"answer": 42}
    assert function is Placeholder


def test_a_pickle_cannot_change_what_it_names(tmp_path):
    """BUILD sets attributes of any object in Python's own unpickler, such as a storage's length."""
    attribute = b"}X\x01\x00\x00\x00aK\x01sb."
    for name in (b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_parameter\n"):
        (tmp_path / "x").write_bytes(b"\x80\x02" + name + attribute)
        with open(tmp_path / "x", "rb") as file:
            assert vars(_Unpickler(file).load()) == {}


@pytest.mark.parametrize(
    "value",
    [
        tensor(shape=(3, 3)),
        tensor(offset=2),  # one element beyond the storage
        tensor(shape=(2**30, 2**30), strides=(0, 0)),  # a huge array of one element
        tensor(shape=(-1, 2)),
        tensor(length=2**30, shape=(2**30,), strides=(1,)),  # the file has 7 elements
    ],
)
def test_tensors_beyond_the_file_are_errors(tmp_path, value):
    paths = [
        write_zip(tmp_path / "a.pth", state(value), ELEMENTS),
        write_legacy(tmp_path / "b.pth", state(value), ELEMENTS),
        write_legacy(tmp_path / "c.pth", state(value), ELEMENTS, length=2**30),
    ]
    for path in paths:
        with pytest.raises(ValueError, match="Expected the weights of a PyTorch network.* Try"):
            read_state_dict(path)


def test_broken_files_are_errors(tmp_path):
    whole = write_legacy(tmp_path / "a.pth", state(tensor()), ELEMENTS).read_bytes()
    archive = write_zip(tmp_path / "b.pth", state(tensor()), ELEMENTS).read_bytes()
    lying = struct.pack("<Q", 2**60) + b"{" + bytes(20)
    huge = b"\x80\x04\x8e" + struct.pack("<Q", 2**60)  # bytes of a length that no file has
    bomb = write_zip(
        tmp_path / "c.pth", state(tensor()), bytes(28), compression=zipfile.ZIP_DEFLATED
    ).read_bytes()
    contents = [whole[:length] for length in range(0, len(whole), 7)]
    contents += [archive[:length] for length in range(0, len(archive), 29)]
    for content in [*contents, lying, huge, bomb, b"{}", bytes(100), b"PK\x03\x04"]:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match="Expected .*; got .* Try"):
            read_state_dict(tmp_path / "x")


def test_checkpoints_of_pytorch_are_unwrapped_in_both_formats(tmp_path):
    torch = pytest.importorskip("torch")
    layers = {"conv1": torch.nn.Conv2d(3, 4, 3), "bn1": torch.nn.BatchNorm2d(4)}
    module = torch.nn.Sequential(collections.OrderedDict(layers))
    expected = module.state_dict()
    parallel = {f"module.{name}": value for name, value in expected.items()}
    for is_zip in (True, False):
        for saved in (expected, {"state_dict": parallel, "epoch": 3}, {"model": module}, module):
            path = tmp_path / "x.pth"
            torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
            found = read_state_dict(path)
            assert list(found) == list(expected)
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value.numpy())


def test_shared_storages_of_pytorch_give_each_view(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0)
    views = {"all": base, "part": base[4:16].view(3, 4).t(), "half": base.half()}
    for is_zip in (True, False):
        torch.save(views, tmp_path / "x.pth", _use_new_zipfile_serialization=is_zip)
        for name, array in read_state_dict(tmp_path / "x.pth").items():
            np.testing.assert_array_equal(array, views[name].numpy())


def test_names_of_one_storage_share_its_memory(tmp_path):
    content = b"\x80\x02}(" + b"".join(b"X\x01\0\0\0" + name + tensor() for name in (b"a", b"b"))
    arrays = read_state_dict(write_zip(tmp_path / "x.pth", content + b"u.", ELEMENTS))
    assert np.shares_memory(arrays["a"], arrays["b"])
    assert not arrays["a"].flags.writeable
    np.testing.assert_array_equal(arrays["b"], EXPECTED)


def test_tuples_are_not_searched_when_they_are_keys():
    nested = ((1, 2), (3,), (4, 5, 6), (7, 8, 9, 0))
    found = _Unpickler(io.BytesIO(pickle.dumps({nested: nested}, 2))).load()
    ((key, value),) = found.items()
    assert key == value == nested
    for one in (key, *key):
        assert hash(one) == object.__hash__(one)


def test_copies_of_containers_are_bounded(monkeypatch):
    monkeypatch.setattr(torch_files, "_MAX_COPIED", 3)
    one = b"ccollections\nOrderedDict\n](](K\x01K\x01e](K\x02K\x02ee\x85R"
    assert _Unpickler(io.BytesIO(one + b".")).load() == {1: 1, 2: 2}
    with pytest.raises(pickle.UnpicklingError, match="copied"):
        _Unpickler(io.BytesIO(one + one + b".")).load()


def module(children: dict[str, Any], **parameters: Any) -> Placeholder:
    made = Placeholder()
    made.state = {"_parameters": parameters, "_buffers": None, "_modules": children}
    return made


def test_a_shared_module_is_found_at_each_place_in_order():
    value = _Tensor(_Storage("0", "f4", 1), 0, (), ())
    shared = module({}, w=value)
    found = _find_tensors({"model": module({"a": shared, "b": module({"c": shared})}, v=value)})
    assert list(found) == ["v", "a.w", "b.c.w"]


def test_a_module_within_itself_is_an_error(monkeypatch):
    monkeypatch.setattr(torch_files, "_MAX_WALKED", 100)
    children: dict[str, Any] = {}
    children["a"] = module(children)
    with pytest.raises(ValueError, match="more than 100 characters of names"):
        _find_tensors(module(children))


def test_other_formats_are_named(tmp_path):
    contents = {
        "HDF5 file.*--from mesonet-meso4": b"\x89HDF\r\n\x1a\n" + bytes(50),
        "neither of PyTorch nor of safetensors": b"some text about weights",
    }
    for message, content in contents.items():
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match=f"Expected .*; got .*{message}.* Try"):
            read_state_dict(tmp_path / "x")


def test_messages_name_types_and_not_objects(tmp_path):
    content = state(tensor()).replace(b"X\x02\0\0\x0042", b"]")
    with pytest.raises(ValueError, match="got 'a reference to something else than a storage'"):
        read_state_dict(write_zip(tmp_path / "x.pth", content, ELEMENTS))
