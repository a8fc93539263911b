"""Execution of an exported model in the same way as TensorFlow Serving.

Takes the folder of one version; maps named input arrays to named output arrays. It restores
through the version-1 session loader, as TensorFlow Serving does: a model that loads and runs here
loads and runs there, which `tf.saved_model.load` does not guarantee. Independent of HTTP and JSON.
"""

import abc
import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from jdfd_keras.client.metadata import FILES
from jdfd_keras.client.signatures import (
    CLASSIFY,
    EXPLAIN,
    FACES,
    METADATA,
    RECONSTRUCT,
    SERVING_DEFAULT,
    WARMUP_FILE,
    TensorInfo,
    read_signatures,
)
from jdfd_keras.io.files import atomic_path

# TensorFlow's Python code may raise any of them for a damaged model.
_PYTHON_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)
DAMAGED = (*_PYTHON_ERRORS, DecodeError, tf.errors.OpError)
MAX_CALLABLES = 64  # cached, one for each set of outputs of a signature

_PredictionLog: Any = prediction_log_pb2.PredictionLog  # pyright: ignore[reportAttributeAccessIssue]  # created at import


def write_warmup(path: str | Path, name: str, size: int, *, has_decoder: bool) -> None:
    """Write one warm-up request with a grey face for each signature.

    TensorFlow Serving runs them before it makes a version available, and refuses the version if
    one fails.

    Args:
        path: The file; its folder is created.
        name: Model name of the requests.
        size: Width and height of the model's faces.
        has_decoder: Whether the model has the signature `reconstruct`.

    Example:
        >>> write_warmup("requests/warmup", "detector", 71, has_decoder=False)
        >>> [name for name, _ in read_warmup("requests/warmup")]
        ['serving_default', 'faces', 'explain', 'metadata', 'classify']
    """
    face = np.full((1, size, size, 3), 127, np.uint8)
    encoded = tf.io.encode_png(face[0]).numpy()
    requests: dict[str, dict[str, Any]] = {
        SERVING_DEFAULT: {"image_bytes": [encoded]},
        FACES: {"faces": face},
        EXPLAIN: {"faces": face},
        METADATA: {"names": list(FILES)},
    }
    if has_decoder:
        requests[RECONSTRUCT] = {"faces": face}
    logs = []
    for signature, inputs in requests.items():
        request = {
            "model_spec": {"name": name, "signature_name": signature},
            "inputs": {key: tf.make_tensor_proto(value) for key, value in inputs.items()},
        }
        logs.append(_PredictionLog(predict_log={"request": request}))
    example = tf.train.Example.FromString(serialize_example({"image/encoded": [encoded]}))
    request = {
        "model_spec": {"name": name, "signature_name": CLASSIFY},
        "input": {"example_list": {"examples": [example]}},
    }
    logs.append(_PredictionLog(classify_log={"request": request}))
    Path(path).parent.mkdir(exist_ok=True)
    with atomic_path(path) as unfinished, tf.io.TFRecordWriter(str(unfinished)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def read_warmup(path: str | Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Read a warm-up file and yield the signature and the inputs of each request.

    Raises:
        ValueError, tf.errors.OpError: If the file is missing, damaged or has other requests.

    Example:
        >>> requests = read_warmup(f"saved_models/detector/1/{WARMUP_FILE}")
        >>> [name for name, _ in requests][:2]
        ['serving_default', 'faces']
    """
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = _PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            request = log.predict_log.request
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        elif kind == "classify_log":
            request = log.classify_log.request
            examples = [one.SerializeToString() for one in request.input.example_list.examples]
            inputs = {"inputs": np.array(examples, object)}
        else:
            raise ValueError(
                f"Expected a predict or classify request in the warm-up file; got {kind}. "
                "Export the model again with `jdfd-keras export`."
            )
        yield request.model_spec.signature_name, inputs


def serialize_example(features: dict[str, list]) -> bytes:
    """Serialize features as a tf.Example.

    Args:
        features: Lists of bytes, int or float, by name; each list has one type.

    Example:
        >>> len(serialize_example({"image/encoded": [b"abc"]}))
        28
    """
    feature = {}
    for name, values in features.items():
        kind = "float_list"
        if values and isinstance(values[0], (bytes, int)):
            kind = "bytes_list" if isinstance(values[0], bytes) else "int64_list"
        feature[name] = {kind: {"value": values}}
    return tf.train.Example(features={"feature": feature}).SerializeToString()


class LoadedVersion(contextlib.AbstractContextManager):
    """One version of a model in memory, whatever computes its signatures.

    Attributes:
        path: The folder it was loaded from.
        signatures: Its signatures, by name.
        signature_defs: The same as TensorFlow messages.
    """

    def __init__(self, path: str | Path, meta_graph: Any):
        """Read the signatures of a MetaGraphDef."""
        self.path = Path(path)
        self.signature_defs = {
            name: definition
            for name, definition in meta_graph.signature_def.items()
            if definition.method_name  # the initialization has none
        }
        self._definitions = {
            name: MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in meta_graph.signature_def.items()
        }
        self.signatures = read_signatures(self._definitions)

    def __exit__(self, *_):
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Release the model's memory; it cannot be called afterwards."""

    @abc.abstractmethod
    def run(
        self, name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Call one signature and return an array for each output, in its order.

        Args:
            name: Name of the signature.
            inputs: An array for each of its inputs; others are ignored. Strings are an object
                array of bytes.
            outputs: Outputs to return, and to compute; all if None or empty.

        Raises:
            KeyError: If the signature, an input or an output is missing.
            ValueError, tf.errors.OpError: If the model rejects the arrays.

        Example:
            >>> with SavedModelEngine("saved_models/detector/1") as engine:
            ...     engine.run("metadata", {"names": np.array([b"model.json"], object)})["contents"]
            array([b'{"name": "detector", "version": 1, ...}'], dtype=object)
        """

    def describe(self) -> dict:
        """Return the signatures in the JSON form of TensorFlow Serving's metadata."""
        return self._definitions

    def replay_warmup(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Run the stored warm-up requests, if any, and yield their signatures and outputs.

        Example:
            >>> with SavedModelEngine("saved_models/detector/1") as engine:
            ...     [name for name, outputs in engine.replay_warmup()][:2]
            ['serving_default', 'faces']
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


class SavedModelEngine(LoadedVersion):
    """One version of a model, run by TensorFlow; safe to call from many threads at once.

    Example:
        >>> with SavedModelEngine("saved_models/detector/1") as engine:
        ...     engine.run("faces", {"faces": np.zeros((2, 71, 71, 3), np.uint8)})["scores"].shape
        (2,)
    """

    def __init__(self, path: str | Path):
        """Load the version of a folder with saved_model.pb, or raise an OSError."""
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), _without_deprecation_warning():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
            super().__init__(path, meta_graph)
        except DAMAGED as error:
            self._session.close()
            lines = str(error).splitlines() or [type(error).__name__]
            raise OSError(
                f"Expected {path} to be a SavedModel with the tag 'serve'; got "
                f"'{lines[0]}'. Export it again with `jdfd-keras export`."
            ) from error
        # Not a method: a cycle of references would keep the weights in memory after `close`.
        make_callable = functools.partial(_make_callable, self._session, self._definitions)
        self._callable = functools.lru_cache(MAX_CALLABLES)(make_callable)

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def run(
        self, name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Call one signature, as `LoadedVersion.run`."""
        requested = frozenset(outputs or self.signatures[name].outputs)
        function, input_names, output_names = self._callable(name, requested)
        values = [inputs[input_name] for input_name in input_names]
        infos = {output: self.signatures[name].outputs[output] for output in output_names}
        if all(np.shape(value)[:1] == (0,) for value in values) and all(
            info.shape for info in infos.values()
        ):
            # On some processors oneDNN returns an empty batch from a convolution in its input
            # shape, and the next layer fails (TensorFlow 2.21.0).
            return {output: _make_empty(info) for output, info in infos.items()}
        values = function(*values)
        return {
            # A scalar string is returned as bytes, which NumPy would convert to its own type.
            output: np.array(value, object) if isinstance(value, bytes) else value
            for output, value in zip(output_names, values, strict=True)
        }


def read_meta_graph(path: str | Path) -> Any:
    """Read the graph and the signatures of a SavedModel without its weights, as a MetaGraphDef.

    Raises:
        OSError: If there is no such file.
        StopIteration, DecodeError: If it is damaged.

    Example:
        >>> "explain" in read_meta_graph("saved_models/detector/1").signature_def
        True
    """
    content = (Path(path) / "saved_model.pb").read_bytes()
    graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return next(graph for graph in graphs if list(graph.meta_info_def.tags) == ["serve"])


def _make_callable(
    session: Any, definitions: dict[str, dict], name: str, requested: frozenset[str]
) -> tuple[Any, tuple[str, ...], list[str]]:
    # One callable fetches one set of outputs of a signature: the session prunes its graph to
    # them, so that a score never runs the decoder.
    definition = definitions[name]
    if unknown := requested - definition["outputs"].keys():
        raise KeyError(min(unknown))
    fetched = [output for output in definition["outputs"] if output in requested]
    function = session.make_callable(
        [definition["outputs"][output]["name"] for output in fetched],
        feed_list=[info["name"] for info in definition["inputs"].values()],
    )
    return function, tuple(definition["inputs"]), fetched


def _make_empty(info: TensorInfo) -> np.ndarray:
    dtype = tf.as_dtype(info.dtype).as_numpy_dtype
    return np.zeros((0, *(size or 0 for size in (info.shape or ())[1:])), dtype)


@contextlib.contextmanager
def _without_deprecation_warning():
    # The loader is deprecated for Python users (2.21.0), but it is the one that Serving mirrors.
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
