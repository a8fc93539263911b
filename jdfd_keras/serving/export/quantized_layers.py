"""Quantisation of an OpenVINO network to int8 by NNCF, of all layers or of some.

Takes a network in float32 and example faces; returns a network that computes in int8, and puts
single layers of it back into floating point. Independent of datasets and of accuracy.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jdfd_keras.io.console import import_openvino

WEIGHTED = {"Convolution", "GroupConvolution", "MatMul"}
QUANTIZER = "FakeQuantize"


def quantize(network: Any, faces: np.ndarray) -> Any:
    """Quantise a network to int8, with value ranges from example faces.

    Args:
        network: OpenVINO model in float32; it is not changed.
        faces: uint8[n, size, size, 3].

    Example:
        >>> version = import_openvino()
        >>> from openvino import Core
        >>> from jdfd_keras.inference.openvino_network import read_network
        >>> network = read_network(Core(), "saved_models/detector/1/openvino/float32.xml")
        >>> faces = np.random.default_rng(0).integers(0, 256, (4, 71, 71, 3), np.uint8)
        >>> len(find_quantizers(quantize(network, faces))) > 50
        True
    """
    import_openvino()  # without its telemetry, and with it that of nncf
    import nncf

    nncf.set_log_level(logging.ERROR)
    examples = nncf.Dataset(_Pixels(faces))
    with contextlib.redirect_stdout(sys.stderr):  # its bars, which would be between results
        return nncf.quantize(network.clone(), examples, subset_size=len(faces))


class _Pixels:
    """Faces as float32[1, size, size, 3], one at a time."""

    def __init__(self, faces: np.ndarray):
        self.faces = faces

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (face[None].astype(np.float32) for face in self.faces)


def find_quantizers(quantized: Any) -> dict[str, list[str]]:
    """Find the quantised values of a network, and the layers with weights that each is an input of.

    Args:
        quantized: OpenVINO model of `quantize`.

    Returns:
        Name of the operation that quantises a value, to the names of the layers, in the order of
        computation. A value that only sums or pools read is the input of no layer with weights.

    Example:
        >>> version = import_openvino()
        >>> from openvino import Core
        >>> from jdfd_keras.inference.openvino_network import read_network
        >>> network = read_network(Core(), "saved_models/detector/1/openvino/float32.xml")
        >>> find_quantizers(network)
        {}
    """
    found = {}
    for quantizer in quantized.get_ordered_ops():
        if quantizer.get_type_name() != QUANTIZER:
            continue
        layers, seen, waiting = [], set(), [quantizer]
        while waiting:
            for node in _readers(waiting.pop()):
                name, kind = node.get_friendly_name(), node.get_type_name()
                if name in seen:
                    continue
                seen.add(name)
                if kind in WEIGHTED:
                    layers.append(name)
                elif kind != QUANTIZER:
                    waiting.append(node)
        found[quantizer.get_friendly_name()] = layers
    return found


def keep_float(
    quantized: Any, network: Any, quantizers: dict[str, list[str]], kept: Iterable[str]
) -> Any:
    """Return a quantised network in which some values, and the layers that read them, are not.

    Args:
        quantized: OpenVINO model of `quantize`; it is not changed.
        network: The model in float32 that it was made from.
        quantizers: As `find_quantizers` returns them.
        kept: Names of the quantisers to remove.

    Example:
        >>> version = import_openvino()
        >>> from openvino import Core
        >>> from jdfd_keras.inference.openvino_network import read_network
        >>> network = read_network(Core(), "saved_models/detector/1/openvino/float32.xml")
        >>> quantized = quantize(network, np.zeros((1, 71, 71, 3), np.uint8))
        >>> quantizers = find_quantizers(quantized)
        >>> len(find_quantizers(keep_float(quantized, network, quantizers, quantizers)))
        0
    """
    import openvino.opset14 as operations

    changed = quantized.clone()
    nodes = {node.get_friendly_name(): node for node in changed.get_ops()}
    originals = {node.get_friendly_name(): node for node in network.get_ops()}
    for name in kept:
        quantizer = nodes[name]
        for reader in quantizer.output(0).get_target_inputs():
            reader.replace_source_output(quantizer.input_value(0))
        for layer in quantizers[name]:
            # NNCF also adds to the bias what quantisation moved the mean of the layer by.
            for node in (nodes[layer], *_readers(nodes[layer])):
                if node.get_type_name() not in (*WEIGHTED, "Add"):
                    continue
                constant = originals[node.get_friendly_name()].input_value(1).get_node()
                if constant.get_type_name() == "Constant":
                    node.input(1).replace_source_output(
                        operations.constant(constant.data).output(0)
                    )
    changed.validate_nodes_and_infer_types()
    return changed


def _readers(node: Any) -> list[Any]:
    return [reader.get_node() for output in node.outputs() for reader in output.get_target_inputs()]
