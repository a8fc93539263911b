"""What classify and regress say of a model's outputs, for every transport.

Takes a signature and its outputs; gives classes with their scores, or values. Which outputs are
refused, and with which words, follows TensorFlow Serving 2.20.0 as it was measured.
"""

from collections.abc import Iterable

import numpy as np

from jdfd_keras.serving.contract import Signature
from jdfd_keras.serving.server.errors import CallError

CLASSIFY = "classify"
REGRESS = "regress"
INPUT = "inputs"  # the names that TensorFlow Serving fixes
VALUES = "outputs"
NAMES = {CLASSIFY: "classification", REGRESS: "regression"}


def check_signature(name: str, signature: Signature | None, method: str) -> None:
    """See that a signature can be called by a method.

    Args:
        name: What was asked for.
        signature: What has that name; None if nothing has.
        method: `CLASSIFY` or `REGRESS`.

    Raises:
        CallError: If it cannot.
    """
    if signature is None:
        raise CallError(f"No signature was found with the name: {name}")
    if signature.inputs.keys() != {INPUT}:
        raise CallError(f"No {NAMES[method]} inputs found in SignatureDef: {name}")
    if method == REGRESS and VALUES not in signature.outputs:
        raise CallError(f"No regression outputs found in SignatureDef: {name}")


def gather_examples(serialized: Iterable[bytes], limit: int) -> np.ndarray:
    """Put examples together that share a context, as far as they are not too large together.

    Args:
        serialized: A message each, with the context in it: a small request may make many large
            ones.
        limit: Bytes that they may have together.

    Returns:
        string[n].

    Raises:
        CallError: If they have more.
    """
    gathered, size = [], 0
    for message in serialized:
        gathered.append(message)
        size += len(message)
        if size > limit:
            raise CallError(
                f"The examples with their context have more than {limit} bytes. Send fewer at "
                "once.",
                "RESOURCE_EXHAUSTED",
                http_status=413,
            )
    examples = np.empty(len(gathered), object)
    examples[:] = gathered
    return examples


def read_classes(outputs: dict[str, np.ndarray]) -> list[list[tuple[str, float]]]:
    """Read the outputs of a classify signature.

    Args:
        outputs: `scores` float[n, k], `classes` string[n, k], or one of them.

    Returns:
        For each example its classes, in the order of the model, with their scores. Names that
        are not UTF-8 are mended with U+FFFD.

    Raises:
        CallError: If there are other outputs, or not one row for each example.
    """
    if not 1 <= len(outputs) <= 2:
        raise CallError(f"Expected one or two output Tensors, found {len(outputs)}")
    shapes = {name: array.shape for name, array in outputs.items()}
    if (
        not outputs.keys() <= {"classes", "scores"}
        or any(array.ndim != 2 for array in outputs.values())
        or len(set(shapes.values())) > 1
    ):
        raise CallError(
            f"Expected outputs 'classes' and 'scores' of two axes and one shape, found {shapes}"
        )
    shape = next(iter(shapes.values()))
    scores = outputs.get("scores", np.zeros(shape)).tolist()
    classes = outputs.get("classes", np.full(shape, b"", object)).tolist()
    return [
        [(label.decode("utf-8", "replace"), score) for label, score in zip(*row, strict=True)]
        for row in zip(classes, scores, strict=True)
    ]


def read_values(outputs: dict[str, np.ndarray]) -> list[float]:
    """Read the output of a regress signature.

    Args:
        outputs: `outputs` float[n] or float[n, 1].

    Returns:
        A value for each example.

    Raises:
        CallError: If it has another shape.
    """
    values = outputs[VALUES]
    if values.ndim == 0 or values.shape[1:] not in ((), (1,)):
        raise CallError(f"Expected output 'outputs' of shape [n] or [n, 1], found {values.shape}")
    return values.ravel().tolist()
