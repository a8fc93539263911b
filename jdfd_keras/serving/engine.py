"""Run an exported model the way TensorFlow Serving does.

Takes the folder of one version; gives named arrays in, named arrays out. It restores through
the version-1 session loader, which is TensorFlow Serving's path: what loads and runs here loads
and runs there, which `tf.saved_model.load` does not promise. Knows nothing of HTTP or JSON.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2

from jdfd_keras.serving.contract import WARMUP_FILE, TensorInfo, read_signature
from jdfd_keras.serving.warmup import read_warmup

# A damaged file fails in TensorFlow's Python code as well, in whatever way.
DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    DecodeError,
    tf.errors.OpError,
)
# A signature of many outputs has more sets of them than may be kept.
MAX_CALLABLES = 64


class SavedModelEngine:
    """One version of a model in memory; may be called from many threads at once.

    Attributes:
        path: The folder it was loaded from.
        signatures: Its signatures by name.
        signature_defs: The same as messages of TensorFlow.
    """

    def __init__(self, path: str | Path):
        """Load a version.

        Args:
            path: The folder that holds saved_model.pb.

        Raises:
            OSError: If it cannot be loaded.
        """
        self.path = Path(path)
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), _without_deprecation_warning():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
            self.signature_defs = {
                name: definition
                for name, definition in meta_graph.signature_def.items()
                if definition.method_name  # the initialisation has none
            }
            self._definitions = {
                name: MessageToDict(
                    definition,
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                )
                for name, definition in meta_graph.signature_def.items()
            }
            self.signatures = {
                name: read_signature(self._definitions[name]) for name in self.signature_defs
            }
        except DAMAGED as error:
            self._session.close()
            told = str(error).splitlines() or [type(error).__name__]
            raise OSError(
                f"Expected {path} to be a SavedModel with the tag 'serve'; got "
                f"'{told[0]}'. Export it again with `jdfd-keras export`."
            ) from error
        self._callables = {}
        self._lock = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Let go of the model's memory; it cannot be called any more."""
        self._session.close()

    def run(
        self, name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Call one signature.

        Args:
            name: The signature.
            inputs: An array for each of its inputs; more are passed over. Text is an object
                array of bytes.
            outputs: The outputs wanted; what only the others need is not computed. None, or no
                names: all.

        Returns:
            An array for each output wanted, in the order of the signature.

        Raises:
            KeyError: If the signature, an input or an output is missing.
            ValueError: If an array does not have the shape of the signature.
            tf.errors.OpError: If the model refuses the values.
        """
        function, input_names, output_names = self._callable(name, outputs)
        values = [inputs[input_name] for input_name in input_names]
        infos = {output: self.signatures[name].outputs[output] for output in output_names}
        if all(np.shape(value)[:1] == (0,) for value in values) and all(
            info.shape for info in infos.values()
        ):
            # On some processors oneDNN hands an empty batch through a convolution in the shape
            # that it came in, and the next layer fails (TensorFlow 2.21.0).
            return {output: _make_empty(info) for output, info in infos.items()}
        values = function(*values)
        return {
            # Text of no axis comes as bytes, which NumPy would not keep as they are.
            output: np.array(value, object) if isinstance(value, bytes) else value
            for output, value in zip(output_names, values, strict=True)
        }

    def describe(self) -> dict:
        """Give the signatures as TensorFlow Serving's metadata has them, ready for JSON."""
        return self._definitions

    def replay_warmup(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Run the recorded requests that lie beside the model, in their order.

        Yields:
            The signature and what it gave, for each record; nothing where the model has none.

        Raises:
            OSError: If one fails.
        """
        path = self.path / WARMUP_FILE
        try:
            if not path.is_file():
                return
            for name, inputs in read_warmup(path):
                yield name, self.run(name, inputs)
        except DAMAGED as error:
            raise OSError(
                f"Expected {self.path} to answer its own warm-up requests; got '{error}'. "
                "Export the model again with `jdfd-keras export`."
            ) from error

    def _callable(self, name: str, outputs: Sequence[str] | None):
        # One callable fetches some outputs of one signature: the session prunes its graph to
        # them, so a score never runs what only a reconstruction needs. In whatever order they
        # are asked for, and however often, they are the same.
        signature = self.signatures[name]
        wanted = frozenset(outputs or signature.outputs)
        if unknown := wanted - signature.outputs.keys():
            raise KeyError(min(unknown))
        with self._lock:
            if (name, wanted) not in self._callables:
                if len(self._callables) >= MAX_CALLABLES:
                    self._callables.pop(next(iter(self._callables)))
                definition = self._definitions[name]
                fetched = [output for output in definition["outputs"] if output in wanted]
                function = self._session.make_callable(
                    [definition["outputs"][output]["name"] for output in fetched],
                    feed_list=[info["name"] for info in definition["inputs"].values()],
                )
                self._callables[name, wanted] = (function, tuple(definition["inputs"]), fetched)
            return self._callables[name, wanted]


def _make_empty(info: TensorInfo) -> np.ndarray:
    dtype = tf.as_dtype(types_pb2.DataType.Value(f"DT_{info.dtype.upper()}")).as_numpy_dtype
    return np.zeros((0, *(size or 0 for size in info.shape[1:])), dtype)


@contextlib.contextmanager
def _without_deprecation_warning():
    # The loader is deprecated for Python's users (2.21.0), and still the one that Serving mirrors.
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
