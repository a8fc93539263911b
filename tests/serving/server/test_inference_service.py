import numpy as np
import pytest

from jdfd_keras.client.signatures import Signature, TensorInfo
from jdfd_keras.serving.server import inference_service as inference
from jdfd_keras.serving.server.call_errors import CallError

TEXT = TensorInfo("string", (None,))


def test_classes_are_paired_with_their_scores():
    outputs = {
        "classes": np.array([[b"real", b"fake"]] * 2, object),
        "scores": np.array([[0.75, 0.25], [0.0, 1.0]]),
    }
    assert inference.read_classes(outputs) == [
        [("real", 0.75), ("fake", 0.25)],
        [("real", 0.0), ("fake", 1.0)],
    ]
    assert inference.read_classes({"scores": np.array([[0.5]])}) == [[("", 0.5)]]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (dict.fromkeys("abc", np.zeros((1, 1))), "one or two output Tensors, found 3"),
        ({"scores": np.zeros(1)}, "two axes"),
        ({"other": np.zeros((1, 1))}, "Expected outputs 'classes' and 'scores'"),
        ({"scores": np.zeros((2, 1)), "classes": np.full((1, 1), b"", object)}, "one shape"),
    ],
)
def test_outputs_without_classes_are_rejected(outputs, message):
    with pytest.raises(CallError, match=message):
        inference.read_classes(outputs)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_regress_returns_one_value_per_example(shape):
    outputs = {"outputs": np.array([1.5, 2, 3]).reshape(shape), "more": np.zeros(1)}
    assert inference.read_values(outputs) == [1.5, 2, 3]


@pytest.mark.parametrize("shape", [(), (3, 2), (3, 1, 1)])
def test_outputs_without_values_are_rejected(shape):
    with pytest.raises(CallError, match="Expected output 'outputs' of shape"):
        inference.read_values({"outputs": np.zeros(shape)})


@pytest.mark.parametrize(
    ("signature", "method", "message"),
    [
        (None, "classify", "No signature was found with the name: s"),
        (Signature("", {"x": TEXT}, {}), "classify", "No classification inputs found"),
        (Signature("", {"inputs": TEXT, "x": TEXT}, {}), "regress", "No regression inputs found"),
        (Signature("", {"inputs": TEXT}, {"scores": TEXT}), "regress", "No regression outputs"),
    ],
)
def test_a_signature_without_support_for_the_method_is_rejected(signature, method, message):
    with pytest.raises(CallError, match=message):
        inference.check_signature("s", signature, method)


def test_too_large_examples_are_rejected_while_they_are_generated():
    generated = []

    def messages():
        for _ in range(1_000_000):
            generated.append(None)
            yield bytes(1000)

    with pytest.raises(CallError, match="more than 10000 bytes") as refused:
        inference.stack_examples(messages(), 10_000)
    assert (refused.value.code, refused.value.http_status) == ("RESOURCE_EXHAUSTED", 413)
    assert len(generated) == 11
    assert list(inference.stack_examples([b"a", b""], 1)) == [b"a", b""]
