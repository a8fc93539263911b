import numpy as np
import pytest

from jdfd_keras.client.signatures import Signature, TensorInfo
from jdfd_keras.serving.server import inference_service as examples
from jdfd_keras.serving.server.call_errors import CallError

TEXT = TensorInfo("string", (None,))


def test_classes_are_paired_with_their_scores():
    outputs = {
        "classes": np.array([[b"real", b"fake"]] * 2, object),
        "scores": np.array([[0.75, 0.25], [0.0, 1.0]]),
    }
    assert examples.read_classes(outputs) == [
        [("real", 0.75), ("fake", 0.25)],
        [("real", 0.0), ("fake", 1.0)],
    ]
    assert examples.read_classes({"scores": np.array([[0.5]])}) == [[("", 0.5)]]


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        (dict.fromkeys("abc", np.zeros((1, 1))), "one or two output Tensors, found 3"),
        ({"scores": np.zeros(1)}, "two axes"),
        ({"other": np.zeros((1, 1))}, "Expected outputs 'classes' and 'scores'"),
        ({"scores": np.zeros((2, 1)), "classes": np.full((1, 1), b"", object)}, "one shape"),
    ],
)
def test_outputs_that_are_no_classes_are_refused(outputs, told):
    with pytest.raises(CallError, match=told):
        examples.read_classes(outputs)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_values_are_one_for_each_example(shape):
    outputs = {"outputs": np.array([1.5, 2, 3]).reshape(shape), "more": np.zeros(1)}
    assert examples.read_values(outputs) == [1.5, 2, 3]


@pytest.mark.parametrize("shape", [(), (3, 2), (3, 1, 1)])
def test_outputs_that_are_no_values_are_refused(shape):
    with pytest.raises(CallError, match="Expected output 'outputs' of shape"):
        examples.read_values({"outputs": np.zeros(shape)})


@pytest.mark.parametrize(
    ("signature", "method", "told"),
    [
        (None, "classify", "No signature was found with the name: s"),
        (Signature("", {"x": TEXT}, {}), "classify", "No classification inputs found"),
        (Signature("", {"inputs": TEXT, "x": TEXT}, {}), "regress", "No regression inputs found"),
        (Signature("", {"inputs": TEXT}, {"scores": TEXT}), "regress", "No regression outputs"),
    ],
)
def test_signature_that_does_not_fit_the_method_is_refused(signature, method, told):
    with pytest.raises(CallError, match=told):
        examples.check_signature("s", signature, method)


def test_examples_that_a_context_blows_up_are_refused_as_they_are_made():
    made = []

    def messages():
        for _ in range(1_000_000):
            made.append(None)
            yield bytes(1000)

    with pytest.raises(CallError, match="more than 10000 bytes") as refused:
        examples.gather_examples(messages(), 10_000)
    assert (refused.value.code, refused.value.http_status) == ("RESOURCE_EXHAUSTED", 413)
    assert len(made) == 11
    assert list(examples.gather_examples([b"a", b""], 1)) == [b"a", b""]
