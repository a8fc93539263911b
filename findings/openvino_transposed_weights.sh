#!/usr/bin/env bash
# openvino 2026.4.1 on x86-64 CPUs, Python 3.11
#
# Guess: two products of matrices that share a constant, one with it and one with its transpose (as a dense
# layer and its gradient do), are computed as NumPy computes them.
# Seen: if the constant is square, the second product to be compiled gets the weights of the first: here
# x @ W.T is exactly x @ W. No error, in float32, and also of batches of matrices and of two Einsum, which
# become such products. A matrix that is not square is right. Two constants with the same values are right
# only until the model is saved: the file stores them once, and its products are wrong again.
# A constant that holds the transposed values, with the same flag in both products, is right.
#
# Output seen:
#   one constant, 8 x 8: x @ W off by 0.0, x @ W.T off by 11.9 (it is x @ W: True)
#   one constant, 3 x 8 x 8: x @ W off by 0.0, x @ W.T off by 15.2 (it is x @ W: True)
#   one constant, 8 x 5: x @ W off by 0.0, y @ W.T off by 0.0
#   two constants: x @ W off by 0.0, x @ W.T off by 0.0
#   two constants, saved and read: x @ W off by 0.0, x @ W.T off by 11.9
#   two Einsum of one constant: x @ W off by 0.0, x @ W.T off by 11.9
#   transposed values: x @ W off by 0.0, x @ W.T off by 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
cat > "$folder/products.py" <<'PYTHON'
import sys

sys.modules["openvino_telemetry"] = None  # no look-ups in the network
import numpy as np
import openvino
from openvino import opset14 as ops

core = openvino.Core()


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def product(x, weights, transposed):
    return ops.matmul(x, weights, False, transposed)


def compare(name, outputs, parameters, inputs, expected, saved=""):
    model = openvino.Model(outputs, parameters)
    if saved:
        openvino.save_model(model, saved, compress_to_fp16=False)
        model = core.read_model(saved)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = list(compiled(inputs).values())
    off = [np.abs(one - right).max() for one, right in zip(found, expected)]
    second = "x" if len(inputs) == 1 else "y"
    text = f"{name}: x @ W off by {off[0]:.1f}, {second} @ W.T off by {off[1]:.1f}"
    if name.startswith("one constant") and second == "x":
        text += f" (it is x @ W: {np.allclose(found[1], expected[0], atol=1e-4)})"
    print(text)


for batch in (), (3,):
    weights, x = draw(*batch, 8, 8), draw(*batch, 4, 8)
    inputs, shared = ops.parameter(x.shape, np.float32), ops.constant(weights)
    outputs = [product(inputs, shared, False), product(inputs, shared, True)]
    name = "one constant, " + " x ".join(map(str, weights.shape))
    compare(name, outputs, [inputs], [x], [x @ weights, x @ np.swapaxes(weights, -1, -2)])

weights, x, y = draw(8, 5), draw(4, 8), draw(4, 5)
parameters, shared = [ops.parameter(one.shape, np.float32) for one in (x, y)], ops.constant(weights)
outputs = [product(parameters[0], shared, False), product(parameters[1], shared, True)]
compare("one constant, 8 x 5", outputs, parameters, [x, y], [x @ weights, y @ weights.T])

weights, x = draw(8, 8), draw(4, 8)
inputs, expected = ops.parameter(x.shape, np.float32), [x @ weights, x @ weights.T]


def pair():
    return [product(inputs, ops.constant(weights), transposed) for transposed in (False, True)]


compare("two constants", pair(), [inputs], [x], expected)
compare("two constants, saved and read", pair(), [inputs], [x], expected, sys.argv[1])
shared = ops.constant(weights)
outputs = [ops.einsum([inputs, shared], equation) for equation in ("ni,ij->nj", "nj,ij->ni")]
compare("two Einsum of one constant", outputs, [inputs], [x], expected)
outputs = [
    product(inputs, ops.constant(np.ascontiguousarray(weights.T)), True),
    product(inputs, ops.constant(weights), True),
]
compare("transposed values", outputs, [inputs], [x], expected)
PYTHON
"$folder/venv/bin/python" "$folder/products.py" "$folder/saved.xml" | tee "$folder/seen"
diff <(sed -n 's/^#   //p' "$0") "$folder/seen"
