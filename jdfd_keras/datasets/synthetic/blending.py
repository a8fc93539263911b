"""One face put onto another: warped, colour-matched, blended.

Takes pictures with their 68 landmarks; gives pictures. Makes the fakes of the demonstration,
and hard negatives for training. Knows nothing of files, labels or TensorFlow.

Reference:
    Li et al.: "Face X-ray for More General Face Forgery Detection" (2020),
    https://arxiv.org/abs/1912.13458. Shiohara, Yamasaki: "Detecting Deepfakes with
    Self-Blended Images" (2022), https://arxiv.org/abs/2204.08376
"""

import cv2
import numpy as np

# Outline of the inner face, counted from 0: the jaw without its upper ends, then the brows.
INNER_FACE = np.r_[2:15, 26:16:-1]


def inner_face_mask(landmarks: np.ndarray, shape: tuple[int, int], feather: float) -> np.ndarray:
    """Draw the mask that a swap is blended through.

    Args:
        landmarks: float[68, 2], x and y in pixels.
        shape: Height and width of the mask.
        feather: Width of the soft edge as a share of the distance between the outer eye
            corners; 0 gives a hard edge.

    Returns:
        float32[height, width], 1 inside the face, 0 outside, soft towards the inside, so that
        nothing beyond the outline is touched.
    """
    mask = np.zeros(shape, np.float32)
    hull = cv2.convexHull(np.round(landmarks[INNER_FACE]).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1.0)
    # OpenCV fills the outline too, which may lie a pixel beyond the face: nothing is warped there.
    mask = cv2.erode(mask, np.ones((3, 3)), borderValue=0)
    radius = feather * float(np.linalg.norm(landmarks[36] - landmarks[45])) / 2
    if radius < 0.5:
        return mask
    side = 2 * int(np.ceil(radius)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    eroded = cv2.erode(mask, kernel, borderValue=0)
    return cv2.blur(eroded, (side, side), borderType=cv2.BORDER_CONSTANT) * mask


def warp_onto(
    picture: np.ndarray, landmarks: np.ndarray, target: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Warp a face so that its landmarks come to lie on others, piecewise affine.

    Args:
        picture: uint8[h, w, 3], the face that is moved.
        landmarks: float[68, 2], its landmarks.
        target: float[68, 2], where they shall lie.
        shape: Height and width of the result.

    Returns:
        uint8[height, width, 3]; black outside the convex hull of `target`.
    """
    from scipy.spatial import Delaunay

    where = np.full((*shape, 2), -1e4, np.float32)  # far outside the picture: black
    target, landmarks = target.astype(np.float64), landmarks.astype(np.float64)
    for corners in Delaunay(target).simplices:
        _map_triangle(where, target[corners], landmarks[corners])
    return cv2.remap(picture, where, None, cv2.INTER_LINEAR)


def _map_triangle(where: np.ndarray, corners: np.ndarray, origins: np.ndarray) -> None:
    """Say for each pixel of a triangle where it comes from, by barycentric coordinates.

    scipy's LinearNDInterpolator does the same. It calls LAPACK once a triangle, which took
    0.7 s a frame instead of 1 ms where other programs kept the cores busy (OpenBLAS threads).
    """
    left, top = np.maximum(np.ceil(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.floor(corners.max(axis=0)).astype(int) + 1, where.shape[1::-1])
    (ax, ay), (bx, by), (cx, cy) = corners
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if right <= left or bottom <= top or area == 0:
        return
    x, y = np.arange(left, right), np.arange(top, bottom)[:, None]
    to_b = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
    to_c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
    # A little beyond the edges, so that rounding leaves no pixel between two triangles out.
    inside = np.minimum(np.minimum(to_b, to_c), 1 - to_b - to_c) >= -1e-9
    steps = np.stack([to_b[inside], to_c[inside]], axis=-1) @ (origins[1:] - origins[0])
    where[top:bottom, left:right][inside] = origins[0] + steps


def match_colour(picture: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give one picture the colours of another, where a mask says.

    Mean and spread of each Lab channel under the mask are carried over.

    Args:
        picture: uint8[h, w, 3], RGB, whose colours change.
        reference: uint8[h, w, 3], RGB, whose colours are taken.
        mask: float32[h, w]; pixels above 0.5 are measured.

    Returns:
        uint8[h, w, 3], RGB; `picture` itself if the mask is empty.

    Reference:
        Reinhard et al.: "Color Transfer between Images" (2001).
    """
    inside = mask > 0.5
    if not inside.any():
        return picture
    # In floats: Lab of 8 bits moves colours by up to 11 levels even where nothing is to be matched.
    lab, goal = (
        cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        for pixels in (picture, reference)
    )
    mean, spread = lab[inside].mean(axis=0), lab[inside].std(axis=0) + 1e-3
    goal_mean, goal_spread = goal[inside].mean(axis=0), goal[inside].std(axis=0)
    matched = (lab - mean) * (goal_spread / spread) + goal_mean
    rgb = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.clip(np.round(255 * rgb), 0, 255).astype(np.uint8)


def swap_face(
    frame: np.ndarray,
    frame_landmarks: np.ndarray,
    source: np.ndarray,
    source_landmarks: np.ndarray,
    *,
    feather: float = 0.3,
) -> np.ndarray:
    """Replace the inner face of a frame by a source face.

    With another person's picture this is a face swap; with a re-rendered version of the same
    frame it is a self-blended image.

    Args:
        frame: uint8[h, w, 3], RGB, whose surroundings stay.
        frame_landmarks: float[68, 2].
        source: uint8[h2, w2, 3], RGB, whose face is put in.
        source_landmarks: float[68, 2].
        feather: Width of the soft edge as a share of the distance between the outer eye corners.

    Returns:
        uint8[h, w, 3], RGB.
    """
    shape = frame.shape[:2]
    mask = inner_face_mask(frame_landmarks, shape, feather)
    face = warp_onto(source, source_landmarks, frame_landmarks, shape)
    face = match_colour(face, frame, mask)
    blended = frame + mask[..., None] * (face.astype(np.float32) - frame)
    return np.clip(np.round(blended), 0, 255).astype(np.uint8)


def rerender_face(
    picture: np.ndarray, landmarks: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Render a face anew at a low resolution, as a face generator of that output size would.

    Args:
        picture: uint8[h, w, 3].
        landmarks: float[68, 2].
        size: Pixels between the outer eye corners in the rendering.

    Returns:
        The rendering, uint8[h, w, 3], as large as the picture and softer; and its landmarks.
    """
    scale = min(1.0, size / float(np.linalg.norm(landmarks[36] - landmarks[45])))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    again = cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return again, landmarks
