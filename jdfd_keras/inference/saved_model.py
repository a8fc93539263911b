"""Execution of an exported model in the same way as TensorFlow Serving.

Takes the folder of one version; maps named input arrays to named output arrays. It restores
through the version-1 session loader, as TensorFlow Serving does: a model that loads and runs here
loads and runs there, which `tf.saved_model.load` does not guarantee. `write_warmup` and
`read_warmup` write and read the warm-up requests of a version. Independent of HTTP and JSON.
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
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

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
    read_signature,
)
from jdfd_keras.io.files import atomic_path


def write_warmup(path: str | Path, name: str, size: int, *, has_decoder: bool) -> None:
    """Write one warm-up request with a grey face for each signature.

    TensorFlow Serving runs them before it makes a version available, and refuses the version if
    one fails.

    Args:
        path: The file, replaced if it exists; its folder is created.
        name: Model name of the requests.
        size: Width and height of the model's faces.
        has_decoder: Whether the model has the signature `reconstruct`.

    Example:
        >>> write_warmup("1/assets.extra/tf_serving_warmup_requests", "m", 299, has_decoder=True)
    """
    face = np.full((1, size, size, 3), 127, np.uint8)
    encoded = tf.io.encode_png(face[0]).numpy()
    example = tf.train.Example.FromString(serialize_example({"image/encoded": [encoded]}))

    requests = {
        SERVING_DEFAULT: {"image_bytes": [encoded]},
        FACES: {"faces": face},
        EXPLAIN: {"faces": face},
        METADATA: {"names": list(FILES)},
    }
    if has_decoder:
        requests[RECONSTRUCT] = {"faces": face}
    logs = []
    for signature, inputs in requests.items():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        logs.append(
            prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
        )
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = CLASSIFY
    request.input.example_list.examples.append(example)
    logs.append(
        prediction_log_pb2.PredictionLog(
            classify_log=prediction_log_pb2.ClassifyLog(request=request)
        )
    )

    Path(path).parent.mkdir(exist_ok=True)
    with atomic_path(path) as unfinished, tf.io.TFRecordWriter(str(unfinished)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def read_warmup(path: str | Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Read the requests of a warm-up file, in their order.

    Yields:
        The name of a signature and its inputs.

    Raises:
        ValueError: If a record is neither a predict nor a classify request.
        tf.errors.OpError: If the file is damaged or missing.

    Example:
        >>> [name for name, _ in read_warmup("1/assets.extra/tf_serving_warmup_requests")][:2]
        ['serving_default', 'faces']
    """
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        yield _read_request(prediction_log_pb2.PredictionLog.FromString(record))


def serialize_example(features: dict[str, list]) -> bytes:
    """Serialize features as a tf.Example.

    Args:
        features: Lists of bytes, int or float, by name; each list has one type.

    Example:
        >>> len(serialize_example({"image/encoded": [b"abc"]}))
        28
    """
    example = tf.train.Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if values and isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif values and isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return example.SerializeToString()


def _read_request(log) -> tuple[str, dict[str, np.ndarray]]:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
    elif kind == "classify_log":
        request = log.classify_log.request
        examples = request.input.example_list.examples
        inputs = {"inputs": np.array([example.SerializeToString() for example in examples], object)}
    else:
        raise ValueError(
            f"Expected a predict or classify request in the warm-up file; got {kind}. "
            "Export the model again with `jdfd-keras export`."
        )
    return request.model_spec.signature_name, inputs


# Errors of a damaged model: TensorFlow's Python code may raise any of them.
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
# Limit of cached callables, one for each set of outputs of a signature.
MAX_CALLABLES = 64


class SavedModelEngine:
    """One version of a model in memory; safe to call from many threads at once.

    Attributes:
        path: The folder it was loaded from.
        signatures: Its signatures, by name.
        signature_defs: The same as TensorFlow messages.

    Example:
        >>> with SavedModelEngine("saved_models/detector/1") as engine:
        ...     scores = engine.run("faces", {"faces": np.zeros((2, 299, 299, 3), np.uint8)})
    """

    def __init__(self, path: str | Path):
        """Load a version.

        Args:
            path: The folder with saved_model.pb.

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
            self.signatures = {
                name: read_signature(self._definitions[name]) for name in self.signature_defs
            }
        except DAMAGED as error:
            self._session.close()
            lines = str(error).splitlines() or [type(error).__name__]
            raise OSError(
                f"Expected {path} to be a SavedModel with the tag 'serve'; got "
                f"'{lines[0]}'. Export it again with `jdfd-keras export`."
            ) from error
        self._callables = {}
        self._lock = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Release the model's memory; it cannot be called afterwards."""
        self._session.close()

    def run(
        self, name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Call one signature.

        Args:
            name: Name of the signature.
            inputs: An array for each of its inputs; others are ignored. Strings are an object
                array of bytes.
            outputs: Outputs to return, and to compute; all if None or empty.

        Returns:
            An array for each output, in the order of the signature.

        Raises:
            KeyError: If the signature, an input or an output is missing.
            ValueError: If an array does not have the shape of the signature.
            tf.errors.OpError: If the model rejects the values.
        """
        function, input_names, output_names = self._callable(name, outputs)
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

    def describe(self) -> dict:
        """Return the signatures in the JSON form of TensorFlow Serving's metadata."""
        return self._definitions

    def replay_warmup(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Run the warm-up requests stored with the model, in their order.

        Yields:
            The name of the signature and its outputs, for each request; nothing if there are none.

        Raises:
            OSError: If a request fails.
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
        # One callable fetches one set of outputs of a signature: the session prunes its graph to
        # them, so that a score never runs the decoder.
        signature = self.signatures[name]
        requested = frozenset(outputs or signature.outputs)
        if unknown := requested - signature.outputs.keys():
            raise KeyError(min(unknown))
        with self._lock:
            if (name, requested) not in self._callables:
                if len(self._callables) >= MAX_CALLABLES:
                    self._callables.pop(next(iter(self._callables)))
                definition = self._definitions[name]
                fetched = [output for output in definition["outputs"] if output in requested]
                function = self._session.make_callable(
                    [definition["outputs"][output]["name"] for output in fetched],
                    feed_list=[info["name"] for info in definition["inputs"].values()],
                )
                self._callables[name, requested] = (function, tuple(definition["inputs"]), fetched)
            return self._callables[name, requested]


def _make_empty(info: TensorInfo) -> np.ndarray:
    dtype = tf.as_dtype(types_pb2.DataType.Value(f"DT_{info.dtype.upper()}")).as_numpy_dtype
    return np.zeros((0, *(size or 0 for size in info.shape[1:])), dtype)


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
