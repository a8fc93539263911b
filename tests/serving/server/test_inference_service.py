import asyncio

import numpy as np
import pytest

from jdfd_keras.client.signatures import Signature, TensorInfo
from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.inference_service import InferenceService
from jdfd_keras.serving.server.repository import Repository, ServedVersion

TEXT = TensorInfo("string", (None,))


class Constant:
    """A fake engine that returns the same outputs for any input."""

    def __init__(self, outputs, inputs=("inputs",)):
        infos = {name: TensorInfo("float", array.shape) for name, array in outputs.items()}
        self.signatures = {"s": Signature("", dict.fromkeys(inputs, TEXT), infos)}
        self.outputs = outputs

    def run(self, name, inputs, outputs=None):
        return self.outputs


def run_examples(engine, api="Classify", name="s", examples=(b"a", b"b")):
    served = ServedVersion("m", 1, "AVAILABLE", loaded=engine)

    async def run():
        service = InferenceService(Repository([]), ServeOptions(max_body_mb=1))
        try:
            return await service.run_examples(served, name, api, iter(examples), 1)
        finally:
            await service.close()

    return asyncio.run(run())


def test_classes_are_paired_with_their_scores():
    outputs = {
        "classes": np.array([[b"real", b"fake"]] * 2, object),
        "scores": np.array([[0.75, 0.25], [0.0, 1.0]]),
    }
    assert run_examples(Constant(outputs)) == [
        [("real", 0.75), ("fake", 0.25)],
        [("real", 0.0), ("fake", 1.0)],
    ]
    assert run_examples(Constant({"scores": np.array([[0.5]])})) == [[("", 0.5)]]


@pytest.mark.parametrize(
    "outputs",
    [
        dict.fromkeys(("scores", "classes", "more"), np.zeros((1, 1))),
        {"scores": np.zeros(1)},
        {"other": np.zeros((1, 1))},
        {"scores": np.zeros((2, 1)), "classes": np.full((1, 1), b"", object)},
    ],
)
def test_outputs_without_classes_are_rejected(outputs):
    with pytest.raises(CallError, match="'classes' and 'scores'"):
        run_examples(Constant(outputs))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_regress_returns_one_value_per_example(shape):
    outputs = {"outputs": np.array([1.5, 2, 3]).reshape(shape), "more": np.zeros(1)}
    assert run_examples(Constant(outputs), "Regress") == [1.5, 2, 3]


@pytest.mark.parametrize("shape", [(), (3, 2), (3, 1, 1)])
def test_outputs_without_values_are_rejected(shape):
    with pytest.raises(CallError, match="shape"):
        run_examples(Constant({"outputs": np.zeros(shape)}), "Regress")


@pytest.mark.parametrize(
    ("engine", "api", "name"),
    [
        (Constant({}), "Classify", "missing"),
        (Constant({}, ["x"]), "Classify", "s"),
        (Constant({"outputs": np.zeros(1)}, ["inputs", "x"]), "Regress", "s"),
        (Constant({"scores": np.zeros((1, 1))}), "Regress", "s"),
    ],
)
def test_a_signature_without_support_for_the_method_is_rejected(engine, api, name):
    with pytest.raises(CallError, match="Expected a signature") as refused:
        run_examples(engine, api, name)
    assert refused.value.http_status == 400


def test_too_large_examples_are_rejected_while_they_are_generated():
    generated = []

    def messages():
        for _ in range(1_000_000):
            generated.append(None)
            yield bytes(2**17)

    with pytest.raises(CallError, match="1048576 bytes") as refused:
        run_examples(Constant({}), examples=messages())
    assert (refused.value.code.name, refused.value.http_status) == ("RESOURCE_EXHAUSTED", 413)
    assert len(generated) == 9
