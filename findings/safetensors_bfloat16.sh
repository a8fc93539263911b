#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6, ml_dtypes 0.6.0, Python 3.11
#
# Guess: `safetensors.numpy.load` (of bytes) and `load_file` (of a path) read the same tensors of the same
# file, and what another module of the program has imported makes no difference.
# Seen: a bfloat16 tensor, as in many published checkpoints, is read by `load_file` and `safe_open` if
# `ml_dtypes` was imported before, for example by TensorFlow or JAX, and is a TypeError of NumPy otherwise.
# `load` never reads it: a KeyError with the name of the type. A script that works after `import
# tensorflow` fails without it. Import `ml_dtypes` first, and use `load_file`.
#
# Output seen:
#   plain: load KeyError, load_file TypeError, safe_open TypeError
#   after ml_dtypes: load KeyError, load_file [1.0, -2.0], safe_open [1.0, -2.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
cat > "$folder/read.py" <<'PYTHON'
import importlib
import json
import struct
import sys

from safetensors import safe_open
from safetensors.numpy import load, load_file

if len(sys.argv) > 2:
    importlib.import_module(sys.argv[2])
facts = {"weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
header = json.dumps(facts).encode()
data = struct.pack("<Q", len(header)) + header + struct.pack("<2H", 0x3F80, 0xC000)
with open(sys.argv[1], "wb") as file:
    file.write(data)
readers = {
    "load": lambda: load(data)["weight"],
    "load_file": lambda: load_file(sys.argv[1])["weight"],
    "safe_open": lambda: safe_open(sys.argv[1], framework="numpy").get_tensor("weight"),
}
found = []
for name, read in readers.items():
    try:
        found.append(f"{name} {read().astype(float).tolist()}")
    except (KeyError, TypeError) as error:
        found.append(f"{name} {type(error).__name__}")
print(f"{f'after {sys.argv[2]}' if len(sys.argv) > 2 else 'plain'}: {', '.join(found)}")
PYTHON
for first in "" ml_dtypes; do
    "$folder/venv/bin/python" "$folder/read.py" "$folder/weights.safetensors" $first
done > "$folder/seen"
cat "$folder/seen"
diff <(sed -n 's/^#   //p' "$0") "$folder/seen"
