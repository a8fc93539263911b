#!/usr/bin/env bash
# keras 3.15.1 (here on jax 0.10.2; on tensorflow 2.21.0 the same), Python 3.11
#
# Guess: calling a model, `model(x)`, runs it in inference mode: layers whose call has the argument
# `training` get False unless the caller says otherwise, as `model.predict(x)` does.
# Seen: with a `Resizing` layer inside the model, all layers that read its output run in training mode when
# the model is called without `training`. `Resizing.call` has the default `training=True`, and a functional
# model passes the mode of that layer on to later ones. Batch normalisation then uses the statistics of the
# batch: the mean of its output below is 0 instead of that of its input, so that a score depends on the
# other images of the batch. The call also moves its averages, so that `predict` gives 15.11 afterwards
# instead of 15.36. No warning is given, and `predict` and `evaluate`, which pass False, hide the mode.
# Call `model(x, training=False)`, or build with `Resizing(...)(x, training=False)`.
#
# Output seen:
#   as documented: model(x) 0.00, model(x, training=False) 15.11, predict 15.11
#   Resizing called with training=False: model(x) 15.36, model(x, training=False) 15.36, predict 15.36
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 jax==0.10.2
cat > "$folder/mode.py" <<'PYTHON'
import keras
import numpy as np

# Moments of an untrained layer are 0 and 1, so that inference leaves values nearly as they are.
images = np.random.default_rng(0).uniform(10, 20, (4, 8, 8, 1)).astype("float32")


def show(name, **call):
    x = image = keras.Input((8, 8, 1))
    x = keras.layers.Resizing(4, 4)(x, **call)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(image, x)
    means = [
        abs(float(np.mean(output)))
        for output in (model(images), model(images, training=False), model.predict(images, verbose=0))
    ]
    print(
        f"{name}: model(x) {means[0]:.2f}, model(x, training=False) {means[1]:.2f}, "
        f"predict {means[2]:.2f}"
    )


keras.utils.set_random_seed(0)
show("as documented")
show("Resizing called with training=False", training=False)
PYTHON
KERAS_BACKEND=jax "$folder/venv/bin/python" "$folder/mode.py" 2> /dev/null | tee "$folder/seen"
diff <(sed -n 's/^#   //p' "$0") "$folder/seen"
