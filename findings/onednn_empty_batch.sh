#!/usr/bin/env bash
# tensorflow 2.21.0 on x86-64 CPUs, Python 3.11
#
# Guess: a convolution of no images gives no outputs, with the height, width and channels that one image
# would give: (0, 4, 4, 8) here. So a device of a distribution strategy that gets no example of the last,
# smaller batch adds nothing.
# Seen: inside tf.function and in eager mode, `tf.nn.conv2d` of an empty batch returns the shape of its
# input, (0, 16, 16, 3): oneDNN's kernel passes it through. What follows fails, for example a matrix
# product or the concatenation of the outputs of two devices, with an error that names another layer.
# With TF_ENABLE_ONEDNN_OPTS=0 the shape is right. Give every device an example, or drop the rest.
#
# Output seen:
#   oneDNN 1: eager [0, 16, 16, 3], tf.function [0, 16, 16, 3]; one image [1, 4, 4, 8]
#   oneDNN 0: eager [0, 4, 4, 8], tf.function [0, 4, 4, 8]; one image [1, 4, 4, 8]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0
cat > "$folder/shapes.py" <<'PYTHON'
import os

import tensorflow as tf

kernel = tf.zeros((3, 3, 3, 8))


def convolve(images):
    return tf.nn.conv2d(images, kernel, 4, "SAME")


empty, one = tf.zeros((0, 16, 16, 3)), tf.zeros((1, 16, 16, 3))
signature = [tf.TensorSpec((None, 16, 16, 3))]
graph = tf.function(lambda images: tf.shape(convolve(images)), input_signature=signature)
shapes = [convolve(empty).shape.as_list(), graph(empty).numpy().tolist()]
print(
    f"oneDNN {os.environ['TF_ENABLE_ONEDNN_OPTS']}: eager {shapes[0]}, tf.function {shapes[1]}; "
    f"one image {graph(one).numpy().tolist()}"
)
PYTHON
for enabled in 1 0; do
    TF_ENABLE_ONEDNN_OPTS=$enabled TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/shapes.py"
done 2> /dev/null | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
oneDNN 1: eager [0, 16, 16, 3], tf.function [0, 16, 16, 3]; one image [1, 4, 4, 8]
oneDNN 0: eager [0, 4, 4, 8], tf.function [0, 4, 4, 8]; one image [1, 4, 4, 8]
TEXT
