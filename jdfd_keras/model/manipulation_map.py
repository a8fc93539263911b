"""Manipulation map: an Xception detector that also estimates which parts of a face are manipulated.

Takes a detector with Keras' Xception; gives a copy with the map, which weights the features that
the classifier reads, and the loss of the map. Pure Keras 3; knows nothing of where masks are from.
"""

from typing import Any, cast

import keras

MANIPULATION_MAP = "manipulation_map"
MAPPED_BLOCK = 9  # Keras numbers the blocks of the middle flow from 5 to 12
MAP_WEIGHT = 1.0  # of the map's loss; that of the cross-entropy is 1, too


def add_manipulation_map(detector: keras.Model) -> keras.Model:
    """Copy a detector, and weight the features in the middle of Xception by a manipulation map.

    The map is regressed from the features after the fourth of the eight blocks of the middle flow,
    by a separable 3x3 convolution without bias to one channel and a sigmoid. The features, times
    the map in all channels, are the input of the next block: the classifier reads manipulated
    regions, and hardly anything of a face whose map is near 0.

    The authors publish two kinds of map; this is the regression ("Reg."), not the weighted sum of
    templates. Their network classifies by global average pooling and one dense layer, with two
    outputs and a softmax, which is the same as the one output and the sigmoid of a detector here.

    Args:
        detector: A detector with the layers of `keras.applications.Xception` and a dict of outputs;
            for the authors' network, that of `build_xception_baseline`. It is not changed.

    Returns:
        keras.Model with the same input and outputs, and one more: `manipulation_map`,
        float32[n, height, width, 1], 0 (real) to 1 (manipulated); 19 x 19 cells for 299 pixels. The
        weights are copies of those of `detector`; those of the map are random.

    Raises:
        ValueError: If the detector has no Xception.

    Example:
        >>> from jdfd_keras.model.xception_baseline import build_xception_baseline
        >>> from jdfd_keras.options import ModelOptions
        >>> options = ModelOptions(image_size=71, encoder_weights="none")
        >>> model = add_manipulation_map(build_xception_baseline(options))
        >>> model.output["manipulation_map"].shape
        (None, 5, 5, 1)

    Reference:
        Dang, Liu, Stehouwer, Liu, Jain: "On the Detection of Digital Face Manipulation" (2020),
        https://arxiv.org/abs/1910.01717, and the code of its authors,
        https://github.com/JStehouwer/FFD_CVPR2020 (`xception.py`: place and layers of the map). It
        initialises a network without ImageNet weights by a normal distribution; here it is Keras'
        default.
    """
    mapped = _layer_before_block(detector, MAPPED_BLOCK).name
    maps = []

    def call(layer, *args, **kwargs):
        x = layer(*args, **kwargs)
        if layer.name != mapped:
            return x
        layers = keras.layers
        cells = layers.SeparableConv2D(1, 3, padding="same", use_bias=False, name="map_conv")(x)
        cells = layers.Activation("sigmoid", name=MANIPULATION_MAP, dtype="float32")(cells)
        maps.append(cells)
        return layers.Multiply(name="map_weighted")([x, cells])

    copy = cast(keras.Model, keras.models.clone_model(detector, call_function=call))
    for layer in detector.layers:
        copy.get_layer(layer.name).set_weights(layer.get_weights())
    outputs = {**cast(dict, copy.output), MANIPULATION_MAP: maps[0]}
    return keras.Model(copy.input, outputs, name=detector.name)


def count_map_cells(image_size: int) -> int:
    """Return the number of cells in a row and in a column of the map of a face.

    Example:
        >>> count_map_cells(71), count_map_cells(299)
        (5, 19)
    """
    cells = (image_size - 3) // 2 + 1 - 2  # the two convolutions of the first block
    for _ in range(3):  # strides of 2 with the padding "same"
        cells = -(-cells // 2)
    return cells


def _layer_before_block(detector: keras.Model, block: int) -> keras.Layer:
    """Return the layer whose output is the input of a block of the middle flow."""
    first = f"block{block}_sepconv1_act"
    names = [layer.name for layer in detector.layers]
    if first not in names:
        raise ValueError(
            f"Expected a detector with Keras' Xception, for a manipulation map in its middle flow; "
            f"got {detector.name!r}, which has no layer {first!r}. Try the network 'xception'."
        )
    source = detector.get_layer(first).input
    return next(layer for layer in detector.layers if layer.output is source)


@keras.saving.register_keras_serializable(package="jdfd_keras")
class ManipulationMapLoss(keras.losses.Loss):
    """Mean absolute error per face between manipulation map and mask, over the cells of the map.

    A mask has any size: it is resized to the map, bilinearly with antialiasing, so that a cell at
    the edge of the manipulated region is between 0 and 1. That of a real face is 0. A fake whose
    mask is unknown needs the sample weight 0.

    Reference:
        The code of Dang et al. (2020), https://github.com/JStehouwer/FFD_CVPR2020 (`train.py`,
        `dataset.py`): cross-entropy plus this loss, both of weight 1, Adam with a learning rate of
        0.0001 and a weight decay of 0.001, 15 real and 15 fake faces per step.
    """

    def call(self, y_true, y_pred):
        """Compute float32[n] from masks, [n, size, size, 1], and maps, [n, height, width, 1]."""
        ops: Any = keras.ops  # its functions may return None, by its stubs
        masks = ops.cast(y_true, y_pred.dtype)
        if masks.shape[1:3] != y_pred.shape[1:3]:
            masks = ops.image.resize(masks, y_pred.shape[1:3], antialias=True)
        return ops.mean(ops.absolute(y_pred - masks), axis=(1, 2, 3))
