"""A full disk is one error, whatever a library raises."""

import errno
import subprocess
import sys

import pytest

from jdfd_keras.io.disk_space import DiskFullError, is_disk_full, reraise_disk_full


class OpError(Exception):
    """An error as of TensorFlow, whose classes are not those of Python."""


def from_cause(error, cause):
    error.__cause__ = cause
    return error


def in_context(error, context):
    error.__context__ = context
    return error


FULL = {
    "Python": OSError(errno.ENOSPC, "No space left on device", "a.npy"),
    "a quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "a limit": OSError(errno.EFBIG, "File too large"),
    "NumPy": OSError("40000 requested and 8176 written"),
    "HDF5": OSError(errno.ENOSPC, "Can't synchronously write data (errno = 28, ...)"),
    "HDF5 at its end": RuntimeError(
        "Can't decrement id ref count (unable to close file, errno = 28, error message = "
        "'No space left on device')"
    ),
    "TensorFlow": OpError("run/variables; No space left on device [Op:SaveV2]"),
    "SQLite": OpError("database or disk is full"),
    "a cause": from_cause(OSError("Expected to write a.bin; got an error."), OSError(28, "")),
    "a context": in_context(RuntimeError("not closed"), OSError(errno.ENOSPC, "")),
    "ours": from_cause(ValueError("Expected a table."), OSError(errno.ENOSPC, "")),
    "another process": from_cause(OSError(errno.ENOSPC, ""), RuntimeError("in another process")),
}
OTHERS = {
    "permission": OSError(errno.EACCES, "Permission denied"),
    "memory": MemoryError(),
    "of TensorFlow": OpError("OOM when allocating tensor with shape[9]"),
    "a quoted text": ValueError("Expected a name; got 'No space left on device'."),
    "a file of that name": OSError(errno.ENOENT, "No such file", "No space left on device.mp4"),
    "Ctrl-C": KeyboardInterrupt(),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_full_disk_is_found_and_raised_as_one_error(error):
    assert is_disk_full(error)
    with pytest.raises(DiskFullError) as raised, reraise_disk_full("the run", "training resumes"):
        raise error
    assert raised.value.__cause__ is error
    assert raised.value.errno == errno.ENOSPC and is_disk_full(raised.value)
    text = str(raised.value)
    assert text.startswith("Expected free disk space for the run; got '") and "\n" not in text
    assert text.endswith("Free some and run the same command again: training resumes.")


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_other_errors_are_unchanged(error):
    assert not is_disk_full(error)
    with pytest.raises(type(error)) as raised, reraise_disk_full("the run"):
        raise error
    assert raised.value is error


def test_the_innermost_description_is_kept():
    with (
        pytest.raises(DiskFullError, match="the crops"),
        reraise_disk_full("the output"),
        reraise_disk_full("the crops"),
    ):
        raise OSError(errno.ENOSPC, "")


def test_errors_that_cause_each_other_end():
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__context__, other.__context__ = other, one
    assert not is_disk_full(one)


REAL = """
import os, resource, sys
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
import h5py, keras, numpy as np, pyarrow as pa, pyarrow.parquet as pq, tensorflow as tf
from pathlib import Path
from jdfd_keras.io.console import import_openvino
from jdfd_keras.io.disk_space import reraise_disk_full, DiskFullError
from jdfd_keras.serving.export.openvino_export import write_network
import_openvino()
from openvino import Model, opset14

big = np.random.default_rng(0).random((200, 200))
image = keras.Input((200,))
model = keras.Model(image, keras.layers.Dense(200)(image))

def write_hdf5():
    with h5py.File("a.h5", "w") as file:
        file["x"] = big

def write_saved_model():
    module = tf.Module()
    module.w = tf.Variable(big)
    tf.saved_model.save(module, "saved_model")

def write_openvino():
    x = opset14.parameter([200, 200], np.float64)
    write_network(Model([opset14.add(x, opset14.constant(big))], [x]), Path("a.xml"))

CALLS = {
    "NumPy": lambda: np.save("a.npy", big),
    "NumPy, compressed": lambda: np.savez("a.npz", a=big),
    "HDF5": write_hdf5,
    "Keras": lambda: model.save("a.keras"),
    "TensorFlow": write_saved_model,
    "TensorFlow, a file": lambda: tf.io.write_file("a.bin", big.tobytes()),
    "PyArrow": lambda: pq.write_table(pa.table({"a": big.ravel()}), "a.parquet"),
    "OpenVINO": write_openvino,
}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for name, call in CALLS.items():
    try:
        with reraise_disk_full("it"):
            call()
        print(name, "wrote it")
    except DiskFullError:
        pass
    except Exception as error:
        print(name, repr(error))
print("done")
"""


@pytest.mark.slow
def test_the_libraries_that_write_results_are_all_known(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", REAL], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "done\n", done.stderr
