"""Warm-up requests: a record of one request for each signature, beside the model.

Writes and reads the file that TensorFlow Serving replays when it loads a version, a TFRecord of
PredictionLog messages. Knows nothing of how a request is run.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from jdfd_keras.serving.contract import (
    CLASSIFY,
    DESCRIBE,
    EXPLAIN,
    RECONSTRUCT,
    SCORE_BYTES,
    SCORE_FACES,
)
from jdfd_keras.serving.description import FILES


def write_warmup(path: str | Path, name: str, size: int, *, has_decoder: bool) -> None:
    """Record one request with a grey face for each signature.

    TensorFlow Serving runs them before it calls a version available, and refuses the version if
    one fails.

    Args:
        path: The file, replaced if it is there; its folder is made.
        name: The model they ask for.
        size: Width and height of its faces.
        has_decoder: Whether it has the signature `reconstruct`.
    """
    face = np.full((1, size, size, 3), 127, np.uint8)
    encoded = tf.io.encode_png(face[0]).numpy()
    example = tf.train.Example.FromString(serialize_example({"image/encoded": [encoded]}))

    requests = {
        SCORE_BYTES: {"image_bytes": [encoded]},
        SCORE_FACES: {"faces": face},
        EXPLAIN: {"faces": face},
        DESCRIBE: {"names": list(FILES)},
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
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def read_warmup(path: str | Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Read the requests of a warm-up file, in their order.

    Args:
        path: The file.

    Yields:
        The signature and its inputs.

    Raises:
        ValueError: If a record is neither of predict nor of classify.
        tf.errors.OpError: If the file is damaged or not there.
    """
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        yield _read_request(prediction_log_pb2.PredictionLog.FromString(record))


def serialize_example(features: dict[str, list]) -> bytes:
    """Write features as a tf.Example.

    Args:
        features: Lists of bytes, of int or of float, by name; every list of one type.

    Returns:
        The serialized message.
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
            f"Expected a warm-up record of predict or classify; got {kind}. "
            "Export the model again with `jdfd-keras export`."
        )
    return request.model_spec.signature_name, inputs
