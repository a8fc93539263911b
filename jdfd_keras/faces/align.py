"""Alignment: a face in a frame to a centred crop of fixed size, upright in two of three modes.

An image that is a crop already is only resized. `describe_framing` compares the crops of two sets.
"""

import math
from collections import Counter
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import (
    FRONTAL_FACE,
    NUM_LANDMARKS,
    fit_similarity,
    five_points,
    transform_points,
)
from jdfd_keras.io.console import plural
from jdfd_keras.options import FaceOptions

# The five landmarks that DeepfakeBench fits, and their template at 112 pixels, before x + 8. With
# indices from 0 they are the upper lids, the nose tip, and the neighbours of the two corners of
# the mouth: presumably an off-by-one, but that benchmark uses them everywhere.
# Reference: Yan et al.: "DeepfakeBench" (2023), https://arxiv.org/abs/2307.01426
_DEEPFAKEBENCH_INDICES = [37, 44, 30, 49, 55]
_DEEPFAKEBENCH_X = [30.2946, 65.5318, 48.0252, 33.5493, 62.7299]
_DEEPFAKEBENCH_Y = [51.6963, 51.5014, 71.7366, 92.3655, 92.2041]
_DEEPFAKEBENCH_FACE = np.array([_DEEPFAKEBENCH_X, _DEEPFAKEBENCH_Y]).T

OTHER_DOMAIN = "another domain, in which the model's error rates are unknown"


class Alignment(NamedTuple):
    """A face cut out of a frame.

    The residual is the root mean square distance of the five points from their canonical positions,
    divided by the crop's width: 0 to about 0.03 for frontal faces, more for turned ones. With `box`
    it includes the rotation and the shift of the face. It is NaN for an image that is only resized.
    """

    crop: np.ndarray  # uint8[size, size, 3], RGB; black outside the frame
    landmarks: np.ndarray  # float32[68, 2] in pixels of the crop; float32[0, 2] if unknown
    residual: float
    outside: float  # share of the crop's area outside the frame
    matrix: np.ndarray  # float64[2, 3], from pixels of the frame to those of the crop


def canonical_points(size: int, margin: float, mode: str = "landmarks68") -> np.ndarray:
    """Compute the positions of the five points of a frontal face in a crop.

    Args:
        size: Width and height of the crop in pixels.
        margin: Width of the crop divided by the width of the tight face; at least 1.
        mode: Alignment mode; `box` fits no points and uses the positions of `landmarks68`.

    Returns:
        float64[5, 2], in the order of `five_points`. The centre of the first pixel is (0, 0), so
        that of the crop is (size - 1) / 2. `deepfakebench` scales its template about the first
        pixel, as the benchmark does, and is therefore up to half a pixel further right and down.

    Example:
        >>> canonical_points(299, margin=1.3)[2].round(1).tolist()  # nose tip
        [149.0, 181.3]
    """
    if size < 1 or margin < 1:
        raise ValueError(
            f"Expected size >= 1 and margin >= 1; got size={size}, margin={margin}. "
            "Try the defaults, 299 and 1.3."
        )
    if mode == "deepfakebench":
        tight = (_DEEPFAKEBENCH_FACE + (8, 0)) * (size / 112)
        return (tight + (margin - 1) / 2 * size) / margin
    if mode in ("landmarks68", "box"):
        return ((FRONTAL_FACE - 0.5) / margin + 0.5) * size - 0.5
    raise ValueError(
        f"Expected the alignment 'landmarks68', 'deepfakebench' or 'box'; got {mode!r}. "
        "Choose one of them."
    )


def align_face(
    pixels: np.ndarray, landmarks: np.ndarray, box: Box, options: FaceOptions
) -> Alignment:
    """Crop a face, centred and scaled.

    `landmarks68` fits the eye centres, the nose tip and the corners of the mouth to their
    canonical positions; `deepfakebench` uses the landmarks and the template of that benchmark, for
    comparisons with published runs; `box` crops the square of the box's longer side, not rotated,
    as in FaceForensics++. Pixels are interpolated once, bilinearly. If the face is larger than the
    crop, it is smoothed first, so that nothing aliases.

    Args:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float[68, 2] in pixels of the frame.
        box: Box of the detector.
        options: Alignment mode, face size and margin.

    Example:
        >>> grey = np.full((200, 200, 3), 127, np.uint8)
        >>> landmarks, box = np.random.default_rng(0).random((68, 2)) * 100, Box(0, 0, 99, 99, 1.0)
        >>> align_face(grey, landmarks, box, FaceOptions(face_size=96)).crop.shape
        (96, 96, 3)

    Reference:
        Yan et al.: "DeepfakeBench" (2023), https://arxiv.org/abs/2307.01426. Roessler et al.:
        "FaceForensics++" (2019), https://arxiv.org/abs/1901.08971
    """
    size, margin, mode = options.face_size, options.margin, options.alignment
    canonical = canonical_points(size, margin, mode)
    five = landmarks[_DEEPFAKEBENCH_INDICES] if mode == "deepfakebench" else five_points(landmarks)
    matrix = _box_matrix(box, size, margin) if mode == "box" else fit_similarity(five, canonical)
    residual = np.sqrt(np.mean(np.sum((transform_points(matrix, five) - canonical) ** 2, axis=1)))
    corners = _crop_corners(matrix, size)
    return Alignment(
        crop=_warp(pixels, matrix, size, corners),
        landmarks=transform_points(matrix, landmarks).astype(np.float32),
        residual=float(residual / size),
        outside=_share_outside(corners.tolist(), *pixels.shape[:2]),
        matrix=matrix,
    )


def crop_mask(
    marked: np.ndarray, matrix: np.ndarray, size: int, frame_size: tuple[int, int]
) -> np.ndarray:
    """Crop the marked pixels of a frame like a face of it.

    Args:
        marked: bool[h, w]; of another size than the frame, if a mask has one.
        matrix: float[2, 3] of the Alignment of the face.
        size: Width and height of the crop in pixels.
        frame_size: Width and height of the frame in pixels.

    Returns:
        uint8[size, size], 255 where a pixel is marked and 0 elsewhere.

    Example:
        >>> marked = np.zeros((20, 30), bool)
        >>> marked[10:, 15:] = True
        >>> corner = crop_mask(marked, np.array([[2.0, 0, 0], [0, 2, 0]]), 40, (30, 20))
        >>> corner[[18, 20], 39].tolist(), corner[39, [28, 30]].tolist()
        ([0, 255], [0, 255])
    """
    scale = np.array(frame_size) / marked.shape[1::-1]
    matrix = np.column_stack([matrix[:, :2] * scale, matrix @ [*(scale - 1) / 2, 1]])
    pixels = cv2.cvtColor(marked.astype(np.uint8) * 255, cv2.COLOR_GRAY2RGB)
    crop = _warp(pixels, matrix, size, _crop_corners(matrix, size))
    return np.where(crop[..., 0] >= 128, 255, 0).astype(np.uint8)


def resize_crop(pixels: np.ndarray, size: int, landmarks: np.ndarray | None = None) -> Alignment:
    """Resize an image that is a face crop already; one of the same size is not changed.

    The interpolation is bilinear with antialiasing, as in the exported model, so that a crop gets
    the same score from a file, here and in a request (up to rounding to whole grey levels).

    Args:
        pixels: uint8[height, width, 3], RGB; distorted if it is not square.
        size: Width and height of the crop.
        landmarks: float[k, 2], k >= 68, in pixels of the image; the first 68 are dlib's.

    Returns:
        The crop; without landmarks it has none. Its residual is unknown: NaN.

    Example:
        >>> resize_crop(np.full((64, 48, 3), 127, np.uint8), 96).crop.shape
        (96, 96, 3)
    """
    height, width = pixels.shape[:2]
    points = np.empty((0, 2)) if landmarks is None else landmarks[:NUM_LANDMARKS]
    scale = size / np.array([width, height])
    return Alignment(
        crop=np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)),
        landmarks=((points + 0.5) * scale - 0.5).astype(np.float32),
        residual=math.nan,
        outside=0.0,
        matrix=np.column_stack([np.diag(scale), (scale - 1) / 2]),
    )


def describe_distortion(shapes: Counter[tuple[int, ...]], size: int) -> list[str]:
    """Describe images that `resize_crop` distorts, in one sentence or none.

    Args:
        shapes: Height and width to number of images.
        size: Width and height of the crops.

    Example:
        >>> describe_distortion(Counter({(64, 64): 7, (64, 48): 1}), 96)
        ['1 of 8 images is not square, such as 48 x 64: resized to 96 x 96, which distorts faces']
    """
    distorted = {shape: count for shape, count in shapes.items() if shape[0] != shape[1]}
    if not distorted:
        return []
    (height, width), count = next(iter(distorted)), sum(distorted.values())
    are = "is" if count == 1 else "are"
    return [
        f"{count} of {plural(shapes.total(), 'image')} {are} not square, such as {width} x "
        f"{height}: resized to {size} x {size}, which distorts faces"
    ]


def describe_crops(options: FaceOptions) -> str:
    """Describe how crops are framed.

    Example:
        >>> describe_crops(FaceOptions()), describe_crops(FaceOptions(detector="none"))
        ('faces aligned with landmarks68, margin 1.3', 'images taken as they are')
    """
    if options.detector == "none":
        return "images taken as they are"
    mesh = " of the face mesh" if options.detector == "mesh" else ""
    return f"faces aligned with {options.alignment}{mesh}, margin {options.margin:g}"


def check_same_landmarks(trained: FaceOptions, given: FaceOptions) -> None:
    """Check that the landmarks that align faces are those of a model's training.

    Crops by the landmarks of `mesh` differ from those by dlib's, which the detectors `dlib` and
    `mtcnn` share. Images that are taken as they are may have any landmarks.

    Raises:
        ValueError: If the faces of one are aligned by `mesh` and those of the other are not.

    Example:
        >>> check_same_landmarks(FaceOptions(), FaceOptions(detector="mtcnn"))
        >>> check_same_landmarks(FaceOptions(), FaceOptions(detector="mesh"))
        Traceback (most recent call last):
            ...
        ValueError: Expected faces of the detector dlib or mtcnn, with the landmarks of the ...
    """
    names = {trained.detector, given.detector}
    if "none" not in names and "mesh" in names and names != {"mesh"}:
        expected = "mesh" if trained.detector == "mesh" else "dlib or mtcnn"
        raise ValueError(
            f"Expected faces of the detector {expected}, with the landmarks of the training; got "
            f"{given.detector}, whose landmarks align faces differently. Extract the faces with "
            f"--detector {trained.detector}, or train a model on faces of {given.detector}."
        )


def describe_framing(data_faces: FaceOptions, model_faces: FaceOptions | None = None) -> str:
    """Describe in a sentence how the framing of crops differs from that of a model's training.

    Args:
        data_faces: Options of the crops.
        model_faces: Options of the crops that the model was trained on; any model if not given.

    Returns:
        The sentence; "" if the framing is the same. That of images taken as they are is unknown,
        so it is never the same.

    Example:
        >>> describe_framing(FaceOptions(detector="none"))
        "Images are taken as they are: crops of another framing than those ... are unknown."
        >>> describe_framing(FaceOptions(margin=1.5), FaceOptions())
        "The model was trained on faces aligned with landmarks68, margin 1.3, and these are...
    """
    if model_faces is None:
        if data_faces.detector != "none":
            return ""
        return (
            "Images are taken as they are: crops of another framing than those that a model was "
            f"trained on are {OTHER_DOMAIN}."
        )
    trained, given = describe_crops(model_faces), describe_crops(data_faces)
    if trained != given:
        return (
            f"The model was trained on {trained}, and these are {given}: crops of another framing "
            f"are {OTHER_DOMAIN}."
        )
    if data_faces.detector != "none":
        return ""
    return (
        f"The model was trained on {trained}, and so are these: if their framing differs, they are "
        f"{OTHER_DOMAIN}."
    )


def _box_matrix(box: Box, size: int, margin: float) -> np.ndarray:
    """Compute the matrix that maps the square about a box onto the crop, edges onto edges."""
    scale = size / (max(box.right - box.left, box.bottom - box.top) * margin)
    # The edges of a box are between pixels; their centres have integer coordinates.
    x, y = (box.left + box.right - 1) / 2, (box.top + box.bottom - 1) / 2
    middle = (size - 1) / 2
    return np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]])


def _crop_corners(matrix: np.ndarray, size: int) -> np.ndarray:
    """Compute the corners of a crop in the frame, float64[4, 2]."""
    edges = size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5
    return transform_points(cv2.invertAffineTransform(matrix), edges)


def _warp(pixels: np.ndarray, matrix: np.ndarray, size: int, corners: np.ndarray) -> np.ndarray:
    """Interpolate a crop; if it shrinks the face, smooth the pixels that it reads first."""
    sigma = (1 / float(np.hypot(matrix[0, 0], matrix[1, 0])) - 1) / 2
    # OpenCV truncates a Gaussian of bytes at 3 sigma, rounded up; interpolation reads one more.
    reach = max(3 * sigma, 0) + 2
    low = np.floor(corners.min(axis=0) - reach)
    high = np.ceil(corners.max(axis=0) + reach) + 1
    # At least one pixel, since a face completely outside the frame has a (black) crop, too.
    height, width = pixels.shape[:2]
    left, top = np.clip(low, 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(high, (left + 1, top + 1), (width, height)).astype(int)
    window = pixels[top:bottom, left:right]
    # Below 0.28 the neighbours of a Gaussian weigh less than half a grey level: no change.
    if sigma > 0.25:
        window = cv2.GaussianBlur(window, (0, 0), sigma)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (left, top)
    # Four channels yield the same bytes as three in half the time (OpenCV 5.0.0).
    padded = cv2.cvtColor(window, cv2.COLOR_RGB2RGBA)
    crop = cv2.warpAffine(padded, shifted, (size, size), flags=cv2.INTER_LINEAR)
    return cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)


def _share_outside(polygon: list[list[float]], height: int, width: int) -> float:
    """Compute the share of a crop's area outside the frame, from its corners in the frame."""
    total = _area(polygon)
    # Sutherland, Hodgman: "Reentrant Polygon Clipping" (1974): one edge of the frame at a time.
    # cv2.intersectConvexConvex computes in float32 and is wrong if edges coincide.
    edges = (0, -1, 0.5), (1, -1, 0.5), (0, 1, width - 0.5), (1, 1, height - 0.5)
    for axis, sign, limit in edges:
        within = [limit - sign * point[axis] for point in polygon]
        clipped = []
        for i, (point, depth) in enumerate(zip(polygon, within, strict=True)):
            before, depth_before = polygon[i - 1], within[i - 1]
            if (depth < 0) != (depth_before < 0):
                share = depth_before / (depth_before - depth)
                clipped.append([a + share * (b - a) for a, b in zip(before, point, strict=True)])
            if depth >= 0:
                clipped.append(point)
        polygon = clipped
    return min(max(1 - _area(polygon) / total, 0.0), 1.0)


def _area(polygon: list[list[float]]) -> float:
    """Compute the area of a polygon by the shoelace formula; 0 without corners."""
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(x * v - y * u for (x, y), (u, v) in pairs)) / 2
