#!/usr/bin/env bash
# av 18.1.0 (PyAV, with libx264 in its wheel), numpy 2.4.6, Python 3.11
#
# Guess: libx264 is deterministic: the same frames, options and number of threads give the same file, so
# that clips made on the spot can be compared by digest, and scores of them by equality.
# Seen: with one thread and equal frames, files of 302 x 302 pixels differ from call to call within one
# process, and so do the decoded pixels. Files of 304 x 304 do not, nor those of mpeg4 or libx265 of either
# size. The planes that libx264 is given are equal each time. In yuv420p the chroma of 302 pixels is 151 wide,
# and the memory beside it, which no frame states, seems to reach the encoder. Faces that are found in such
# clips then differ a little, enough to swap the order of two that are equally good.
#
# Output seen:
#   libx264 304 x 304: one file of 12 calls: yes; one decoding: yes
#   libx264 302 x 302: one file of 12 calls: no; one decoding: no
#   mpeg4 302 x 302: one file of 12 calls: yes; one decoding: yes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 numpy==2.4.6
cat > "$folder/equal.py" <<'PYTHON'
import hashlib
import io

import av
import numpy as np


def make_frames(size):
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (size + 60, size + 60, 3)).astype(float)
    for axis in (0, 1):  # smooth enough to be compressed
        texture = sum(np.roll(texture, shift, axis) for shift in range(-4, 5)) / 9
    texture = np.clip(128 + 4 * (texture - 128), 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(texture[i : i + size, 2 * i : 2 * i + size]) for i in range(30)]


def encode(frames, codec):
    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        packets = []
        for image in [*frames, None]:
            frame = None if image is None else av.VideoFrame.from_ndarray(image)
            for packet in stream.encode(frame):
                packets.append(bytes(packet))
                file.mux(packet)
    data.seek(0)
    with av.open(data) as file:
        shown = b"".join(f.to_ndarray(format="rgb24").tobytes() for f in file.decode(video=0))
    # Packets alone: a Matroska file has a random identifier.
    return hashlib.sha256(b"".join(packets)).hexdigest(), hashlib.sha256(shown).hexdigest()


for codec, size in (("libx264", 304), ("libx264", 302), ("mpeg4", 302)):
    frames = make_frames(size)
    files, decodings = zip(*(encode(frames, codec) for _ in range(12)))
    is_one = ["yes" if len(set(digests)) == 1 else "no" for digests in (files, decodings)]
    print(f"{codec} {size} x {size}: one file of 12 calls: {is_one[0]}; one decoding: {is_one[1]}")
PYTHON
expected='libx264 304 x 304: one file of 12 calls: yes; one decoding: yes
libx264 302 x 302: one file of 12 calls: no; one decoding: no
mpeg4 302 x 302: one file of 12 calls: yes; one decoding: yes'
output=$("$folder/venv/bin/python" "$folder/equal.py" 2>/dev/null)
echo "$output"
[ "$output" = "$expected" ]
