"""Export of a detector for OpenVINO, the fast engine on CPUs.

Takes a Keras model; writes `openvino/` beside its SavedModel: the network in float32 with all that
a prediction needs, and engine.json, which states the files that belong together.
"""

import contextlib
import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata, write_metadata
from jdfd_keras.client.signatures import (
    ENGINE_FILE,
    ENGINE_FOLDER,
    FACES,
    IMAGE_READER,
    MAX_FILE_SIZE,
)
from jdfd_keras.inference.explain import make_cam_fn
from jdfd_keras.inference.openvino_network import HINTS, SCORES, CompiledOutput, read_network
from jdfd_keras.inference.saved_model import SavedModelEngine
from jdfd_keras.io.console import import_openvino
from jdfd_keras.io.files import sha256_of, write_text_atomically
from jdfd_keras.io.results import Result
from jdfd_keras.serving.export.formats import make_score_fn
from jdfd_keras.serving.export.graph import write_image_reader

FLOAT32_FILE = "float32.xml"
TOLERANCE = 1e-5  # largest difference between the scores of OpenVINO and TensorFlow in float32


def write_openvino(model: keras.Model, version: Path, metadata: ModelMetadata) -> None:
    """Write a detector in float32 for OpenVINO into the folder of a version.

    The input is `faces` float32[n, S, S, 3] in [0, 255]. The outputs are `scores` float32[n],
    calibrated, `cam` float32[n, height, width] and, with a decoder, `reconstruction`
    float32[n, S, S, 3], as of the signatures `faces`, `explain` and `reconstruct`.

    Args:
        model: A detector from `build_detector`.
        version: Folder of the version.
        metadata: Metadata of the version; its calibration is applied to the scores.

    Raises:
        OSError: If OpenVINO is not installed.

    Example:
        >>> from jdfd_keras.training.run_folder import load_run_model
        >>> run = load_run_model("run")
        >>> metadata = ModelMetadata(run.faces, None, "detector", 1, "ab" * 32)
        >>> Path("fast").mkdir()
        >>> write_openvino(run.model, Path("fast"), metadata)
        >>> sorted(path.name for path in Path("fast/openvino").iterdir())[-2:]
        ['float32.xml', 'image_reader']
    """
    import_openvino()
    converted = _convert(model, metadata.calibration or Calibration())
    (version / ENGINE_FOLDER).mkdir(exist_ok=True)
    write_network(converted, version / ENGINE_FOLDER / FLOAT32_FILE)
    write_image_reader(version / ENGINE_FOLDER / IMAGE_READER, model.input_shape[1])


def write_network(network: Any, path: Path) -> None:
    """Write a network of OpenVINO, which `read_network` reads.

    Its weights are a file beside it, `float32.bin`; beyond MAX_FILE_SIZE they are written in parts,
    `float32.bin-00000-of-00002` and so on, which `cat` joins.

    Args:
        network: An OpenVINO model.
        path: The file, such as float32.xml; its folder exists.

    Raises:
        OSError: If the disk is full.

    Example:
        >>> version = import_openvino()
        >>> from openvino import Model, opset14
        >>> numbers = opset14.parameter([3])
        >>> write_network(Model([opset14.relu(numbers)], [numbers]), Path("network.xml"))
        >>> sorted(path.name for path in Path().glob("network.*"))
        ['network.bin', 'network.xml']
    """
    import openvino

    try:
        openvino.save_model(network, path, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream error" in str(error):  # OpenVINO does not state the cause
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    weights = path.with_suffix(".bin")
    count = math.ceil(weights.stat().st_size / MAX_FILE_SIZE)
    if count <= 1:
        return
    with weights.open("rb") as file:
        for number in range(count):
            part = weights.with_name(f"{weights.name}-{number:05}-of-{count:05}")
            part.write_bytes(file.read(MAX_FILE_SIZE))
    weights.unlink()


def write_engine_file(version: Path, metadata: ModelMetadata, int8: Result | None = None) -> None:
    """Write engine.json: the files that belong to the engine, with their SHA-256, and its metadata.

    Args:
        version: Folder of the version, with its SavedModel and its engine files.
        metadata: Metadata of the version.
        int8: What was measured of the int8 network; None without one.

    Example:
        >>> import shutil
        >>> from jdfd_keras.options import FaceOptions
        >>> version = Path(shutil.copytree("saved_models/detector/1", "copy"))
        >>> write_engine_file(version, ModelMetadata(FaceOptions(), None, "copy", 1, "ab" * 32))
        >>> list(json.loads((version / "openvino/engine.json").read_text()))
        ['digest', 'openvino', 'metadata', 'files', 'int8']
    """
    folder = version / ENGINE_FOLDER
    models = (version, folder / IMAGE_READER)
    paths = [*folder.glob("*.xml"), *folder.glob("*.bin*")]
    for pattern in ("variables/*", "saved_model.pb"):
        paths += [path for model in models for path in model.glob(pattern)]
    files = {path.relative_to(version).as_posix(): sha256_of(path) for path in sorted(paths)}
    content = {
        "digest": metadata.digest,
        "openvino": import_openvino(),
        "metadata": write_metadata(metadata),
        "files": files,
        "int8": int8.to_dict() if int8 else None,
    }
    write_text_atomically(folder / ENGINE_FILE, f"{json.dumps(content, indent=2)}\n")


def check_parity(engine: SavedModelEngine, version: Path, size: int) -> None:
    """Check that OpenVINO gives the scores of the SavedModel in float32.

    Args:
        engine: The SavedModel.
        version: Folder of the version.
        size: Width and height of the model's faces.

    Raises:
        ValueError: If a score differs by more than TOLERANCE.

    Example:
        >>> with SavedModelEngine("saved_models/detector/1") as engine:
        ...     check_parity(engine, Path("saved_models/detector/1"), 71)
    """
    import_openvino()
    import openvino

    rng = np.random.default_rng(0)
    faces = np.full((4, size, size, 3), 127, np.uint8)  # the first is the warm-up face
    faces[1:] = rng.integers(0, 256, faces[1:].shape, np.uint8)
    faces[3] = np.linspace(0, 255, size, dtype=np.uint8)[:, None]
    expected = engine.run(FACES, {"faces": faces})[SCORES]
    core = openvino.Core()
    network = read_network(core, version / ENGINE_FOLDER / FLOAT32_FILE)
    with contextlib.closing(CompiledOutput(core, network, SCORES, HINTS["float32"])) as compiled:
        scores = compiled(faces)
    # NaN compares as False, so that it is rejected.
    if not (np.abs(scores - expected) <= TOLERANCE).all():
        raise ValueError(
            f"Expected the scores of TensorFlow from OpenVINO, to {TOLERANCE}; got {scores} for "
            f"{expected}. The converted model cannot be used: report it with the versions of both."
        )


def _convert(model: keras.Model, calibration: Calibration) -> Any:
    import openvino
    from openvino.frontend.tensorflow import ConversionExtension

    score, cam = make_score_fn(model, calibration), make_cam_fn(model, reconstruct=True)
    pixels = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="faces")
    traced: Any = tf.function(
        lambda faces: cam(faces) | {SCORES: score(faces)},
        input_signature=[pixels],
        autograph=False,
    )
    extensions = [ConversionExtension(*rule) for rule in CONVERSIONS.items()]
    concrete = traced.get_concrete_function()
    converted = openvino.convert_model(concrete, extension=extensions)
    converted.inputs[0].get_tensor().set_names({"faces"})
    for output in converted.outputs:
        (name,) = output.get_names() & concrete.structured_outputs.keys()
        output.get_tensor().set_names({name})
    return converted


def _relu_gradient(node: Any) -> list[Any]:
    """Return the gradient of a (leaky) ReLU, of which OpenVINO has no operation."""
    import openvino.opset14 as operations

    gradient, features = node.get_input(0), node.get_input(1)
    slope = node.get_attribute("alpha", 0.0)
    below = operations.multiply(gradient, operations.constant(np.float32(slope)))
    is_above = operations.greater(features, operations.constant(np.float32(0)))
    return [operations.select(is_above, gradient, below).output(0)]


def _sqrt_gradient(node: Any) -> list[Any]:
    """Return the gradient of a square root, which is the first input."""
    import openvino.opset14 as operations

    root, gradient = node.get_input(0), node.get_input(1)
    half = operations.multiply(gradient, operations.constant(np.float32(0.5)))
    return [operations.divide(half, root).output(0)]


def _rsqrt_gradient(node: Any) -> list[Any]:
    """Return the gradient of the reciprocal of a square root, which is the first input."""
    import openvino.opset14 as operations

    root, gradient = node.get_input(0), node.get_input(1)
    cube = operations.power(root, operations.constant(np.float32(3)))
    half = operations.multiply(gradient, operations.constant(np.float32(-0.5)))
    return [operations.multiply(half, cube).output(0)]


def _sum_products(node: Any) -> list[Any]:
    """Return an Einsum of two arrays as the sum of their products.

    Only capsules have one, of a few numbers. OpenVINO (2026.4.1) would make products of matrices of
    it and of its gradient, which share a square constant: the second is wrong then.

    Raises:
        ValueError: If it is of another number of arrays, or has a label twice or an ellipsis.
    """
    import openvino.opset14 as operations

    equation = node.get_attribute("equation")
    inputs, result = equation.split("->")
    own = inputs.split(",")
    if len(own) != 2 or not all(
        names.isalpha() and len(set(names)) == len(names) for names in (*own, result)
    ):
        raise ValueError(
            "Expected an Einsum of two arrays, such as abc,bcd->abd, with each label once in an "
            f"array; got {equation}. Use other operations in the network."
        )
    summed = sorted(set(inputs) - set(result) - {","})
    labels = [*result, *summed]
    factors = []
    for index, names in enumerate(own):
        order = sorted(range(len(names)), key=lambda axis, names=names: labels.index(names[axis]))
        x = operations.transpose(node.get_input(index), operations.constant(np.array(order)))
        if missing := [axis for axis, name in enumerate(labels) if name not in names]:
            x = operations.unsqueeze(x, operations.constant(np.array(missing)))
        factors.append(x)
    product = operations.multiply(*factors)
    if summed:
        axes = operations.constant(np.arange(len(result), len(labels)))
        product = operations.reduce_sum(product, axes)
    return [product.output(0)]


def _find_broadcast_axes(node: Any) -> list[Any]:
    """Return the axes over which the gradients of two arrays are summed, as constants.

    They are those along which one of the arrays has one value for several of the other. OpenVINO
    has no such operation, and no sums over axes that are computed.

    Raises:
        ValueError: If the axes depend on the number of faces.
    """
    import openvino.opset14 as operations

    shapes = [_read_shape(node.get_input(index)) for index in range(2)]
    rank = max(map(len, shapes))
    first, second = ([1] * (rank - len(shape)) + shape for shape in shapes)
    if any(-1 in pair and max(pair) > 1 for pair in zip(first, second, strict=True)):
        raise ValueError(
            "Expected arrays whose sizes are known, apart from the number of faces in both; got "
            f"{first} and {second}. Use other operations in the network."
        )
    pairs = (first, second), (second, first)
    return [
        operations.constant(
            np.array([i for i in range(rank) if own[i] == 1 != other[i]], np.int32)
        ).output(0)
        for own, other in pairs
    ]


def _read_shape(shape: Any) -> list[int]:
    """Read the value of a shape; -1 for the number of faces, which is unknown.

    Raises:
        ValueError: If the shape is computed.
    """
    node = shape.get_node()
    if node.get_type_name() == "Constant":
        return node.get_data().ravel().tolist()
    if node.get_type_name() != "ShapeOf":
        raise ValueError(
            f"Expected the shape of an array, or a constant; got the result of "
            f"{node.get_type_name()}. Use other operations in the network."
        )
    return [size.get_length() if size.is_static else -1 for size in node.get_input_partial_shape(0)]


# Operations of TensorFlow, mostly of gradients, that OpenVINO lacks or computes wrongly.
CONVERSIONS = {
    "ReluGrad": _relu_gradient,
    "LeakyReluGrad": _relu_gradient,
    "SqrtGrad": _sqrt_gradient,
    "RsqrtGrad": _rsqrt_gradient,
    "BroadcastGradientArgs": _find_broadcast_axes,
    "Einsum": _sum_products,
}
