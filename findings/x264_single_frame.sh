#!/usr/bin/env bash
# av 18.1.0 (PyAV, with libx264 in its wheel), numpy 2.4.6, Python 3.11
#
# Guess: to degrade a still image like a video of a rate factor (the c23 and c40 of FaceForensics++), encode
# it as a video of one frame with that rate factor: a key frame is, if anything, better than other frames.
# Seen: at x264's default preset the single frame is worse than the same frames in a video of 30: by 1.5 dB
# for the texture below, by 2.5 to 3.5 dB for four portraits. `mbtree` lowers the quality of what no later
# frame refers to, here everything. With `x264-params mbtree=0` the difference is within 1 dB. The presets
# superfast and ultrafast do not have it. Whoever augments still faces with H.264 otherwise trains on a
# harsher compression than the data has.
#
# Output seen:
#   crf 23: one frame is worse than the video by more than 1 dB: yes; with mbtree=0 it is within 1 dB: yes
#   crf 40: one frame is worse than the video by more than 1 dB: yes; with mbtree=0 it is within 1 dB: yes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 numpy==2.4.6
cat > "$folder/still.py" <<'PYTHON'
import io

import av
import numpy as np

rng = np.random.default_rng(0)
# A texture with the spectrum of a photograph, seen by a camera that moves, with some noise.
frequency = np.hypot(np.fft.fftfreq(400)[:, None], np.fft.fftfreq(400))
spectrum = np.fft.fft2(rng.normal(size=(3, 400, 400))) / np.maximum(frequency, 1 / 400) ** 1.6
texture = np.real(np.fft.ifft2(spectrum)).transpose(1, 2, 0)
texture = 128 + 45 * texture / texture.std()
frames = []
for number in range(30):
    x, y = 60 + number, 60 + number // 2
    noisy = texture[y : y + 256, x : x + 256] + rng.normal(0, 2, (256, 256, 3))
    frames.append(np.clip(np.round(noisy), 0, 255).astype(np.uint8))


def psnr(images, crf, **options):
    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        stream.options = {"crf": str(crf), "threads": "1", **options}
        for image in images:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode())
    data.seek(0)
    with av.open(data) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(images, shown, strict=True)]
    return float(np.mean(10 * np.log10(255**2 / np.array(errors))))


for crf in (23, 40):
    video = psnr(frames, crf)
    stills = frames[::10]
    plain = np.mean([psnr([frame], crf) for frame in stills])
    without = np.mean([psnr([frame], crf, **{"x264-params": "mbtree=0"}) for frame in stills])
    print(
        f"crf {crf}: one frame is worse than the video by more than 1 dB: "
        f"{'yes' if video - plain > 1 else 'no'}; with mbtree=0 it is within 1 dB: "
        f"{'yes' if abs(video - without) <= 1 else 'no'}"
    )
PYTHON
"$folder/venv/bin/python" "$folder/still.py" > "$folder/seen"
cat "$folder/seen"
diff <(sed -n 's/^#   //p' "$0") "$folder/seen"
