"""Films of real faces, made on the spot: two public-domain portraits moved over a background."""

import struct

import cv2
import numpy as np
import pytest

FRAMES_PER_S = 25


class Actor:
    """A head with a soft edge; `place` draws it with the face's middle at a point."""

    def __init__(self, pixels, center, width):
        """`center` and `width` are those of the face in the portrait."""
        self.pixels = pixels.astype(np.float32)
        self.center, self.width = center, width
        rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        away = np.hypot((columns - center[0]) / width, (rows - center[1]) / (1.25 * width))
        self.mask = np.clip((1.05 - away) / 0.15, 0, 1).astype(np.float32)

    def place(self, frame, x, y, width=70.0, roll_deg=0.0):
        matrix = cv2.getRotationMatrix2D(self.center, roll_deg, width / self.width)
        matrix[:, 2] += (x - self.center[0], y - self.center[1])
        size = frame.shape[1::-1]
        mask = cv2.warpAffine(self.mask, matrix, size)[..., None]
        return frame * (1 - mask) + cv2.warpAffine(self.pixels, matrix, size) * mask


@pytest.fixture(scope="session")
def collins(astronaut):
    """Eileen Collins, NASA; public domain."""
    return Actor(astronaut, (222.0, 126.0), 87.0)


@pytest.fixture(scope="session")
def hopper():
    """Grace Hopper, US Navy; public domain."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with get_sample_data("grace_hopper.jpg") as file:
        pixels = np.asarray(Image.open(file).convert("RGB"))
    return Actor(pixels, (270.0, 235.0), 150.0)


@pytest.fixture(scope="session")
def wall():
    """float32[240, 400, 3], a background without a face: smooth light and dark."""
    coarse = np.random.default_rng(3).uniform(60, 160, (4, 6, 3)).astype(np.float32)
    return cv2.resize(coarse, (400, 240), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def write_film():
    """A function that writes float or uint8 RGB frames as a video."""

    def write(path, frames, codec="mp4v", fps=FRAMES_PER_S):
        height, width = frames[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
        for frame in frames:
            writer.write(np.clip(frame, 0, 255).astype(np.uint8)[..., ::-1].copy())
        writer.release()
        return path

    return write


@pytest.fixture(scope="session")
def turn_header():
    """A function that marks an MPEG-4 file as filmed with the camera turned, as phones do."""

    def turn(path):
        upright, turned = (
            struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
            for a, b, c, d in [(1 << 16, 0, 0, 1 << 16), (0, 1 << 16, -1 << 16, 0)]
        )
        data = path.read_bytes()
        header = data.index(b"tkhd")
        path.write_bytes(data[:header] + data[header:].replace(upright, turned, 1))

    return turn
