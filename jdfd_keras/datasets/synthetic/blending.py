"""Face swaps by warping, colour matching and blending.

Takes images with their 68 landmarks; returns images. Creates the fakes of the demo, and hard
negatives for training. Independent of files, labels and TensorFlow.

Reference:
    Li et al.: "Face X-ray for More General Face Forgery Detection" (2020),
    https://arxiv.org/abs/1912.13458. Shiohara, Yamasaki: "Detecting Deepfakes with
    Self-Blended Images" (2022), https://arxiv.org/abs/2204.08376
"""

import cv2
import numpy as np

# Landmarks of the outline of the inner face, from 0: the jaw without its upper ends, the brows.
INNER_FACE = np.r_[2:15, 26:16:-1]


def inner_face_mask(landmarks: np.ndarray, shape: tuple[int, int], feather: float) -> np.ndarray:
    """Draw the blending mask of a face swap.

    Args:
        landmarks: float[68, 2], x and y in pixels.
        shape: Height and width of the mask in pixels.
        feather: Width of the soft edge as a share of the eye distance; 0 for a hard edge.

    Returns:
        float32[height, width], 1 inside the face and 0 outside. The soft edge is inside the
        outline, so pixels outside it are not blended.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> mask = inner_face_mask(subject.landmarks, (512, 512), feather=0.3)
        >>> mask.min(), round(float(mask.max()), 3)
        (np.float32(0.0), 1.0)
    """
    mask = np.zeros(shape, np.float32)
    hull = cv2.convexHull(np.round(landmarks[INNER_FACE]).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1.0)
    # OpenCV fills the outline too, up to a pixel outside the face, where nothing is warped.
    mask = cv2.erode(mask, np.ones((3, 3)), borderValue=0)
    radius = feather * float(np.linalg.norm(landmarks[36] - landmarks[45])) / 2
    if radius < 0.5:
        return mask
    side = 2 * int(np.ceil(radius)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    eroded = cv2.erode(mask, kernel, borderValue=0)
    return cv2.blur(eroded, (side, side), borderType=cv2.BORDER_CONSTANT) * mask


def warp_onto(
    image: np.ndarray, landmarks: np.ndarray, target: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Warp a face onto target landmarks with a piecewise affine transform.

    Args:
        image: uint8[h, w, 3], the face to warp.
        landmarks: float[68, 2], its landmarks in pixels.
        target: float[68, 2], landmarks in the result.
        shape: Height and width of the result in pixels.

    Returns:
        uint8[height, width, 3]; black outside the convex hull of `target`.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> half = subject.landmarks / 2
        >>> warp_onto(subject.pixels, subject.landmarks, half, (256, 256)).shape
        (256, 256, 3)
    """
    from scipy.spatial import Delaunay

    source_map = np.full((*shape, 2), -1e4, np.float32)  # far outside the image: black
    target, landmarks = target.astype(np.float64), landmarks.astype(np.float64)
    for corners in Delaunay(target).simplices:
        _map_triangle(source_map, target[corners], landmarks[corners])
    return cv2.remap(image, source_map[..., 0], source_map[..., 1], cv2.INTER_LINEAR)


def _map_triangle(source_map: np.ndarray, corners: np.ndarray, origins: np.ndarray) -> None:
    """Fill in the source coordinates of the pixels of a triangle, by barycentric coordinates.

    The same as scipy's LinearNDInterpolator, which calls LAPACK once per triangle: that took 0.7 s
    per frame instead of 1 ms when other programs kept the cores busy (OpenBLAS threads).
    """
    left, top = np.maximum(np.ceil(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(
        np.floor(corners.max(axis=0)).astype(int) + 1, source_map.shape[1::-1]
    )
    (ax, ay), (bx, by), (cx, cy) = corners
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if right <= left or bottom <= top or area == 0:
        return
    x, y = np.arange(left, right), np.arange(top, bottom)[:, None]
    to_b = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
    to_c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
    # With a tolerance, so that rounding leaves no gap between two triangles.
    inside = np.minimum(np.minimum(to_b, to_c), 1 - to_b - to_c) >= -1e-9
    steps = np.stack([to_b[inside], to_c[inside]], axis=-1) @ (origins[1:] - origins[0])
    source_map[top:bottom, left:right][inside] = origins[0] + steps


def match_colour(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Match the colours of an image to those of a reference under a mask.

    The mean and standard deviation of each Lab channel are transferred.

    Args:
        image: uint8[h, w, 3], RGB, the image to change.
        reference: uint8[h, w, 3], RGB, the image with the desired colours.
        mask: float32[h, w]; colours are measured where it is above 0.5.

    Returns:
        uint8[h, w, 3], RGB; `image` itself if the mask is empty.

    Example:
        >>> grey, white = np.full((8, 8, 3), 90, np.uint8), np.full((8, 8, 3), 255, np.uint8)
        >>> match_colour(grey, white, np.ones((8, 8), np.float32))[0, 0].tolist()
        [255, 255, 255]

    Reference:
        Reinhard et al.: "Color Transfer between Images" (2001).
    """
    inside = mask > 0.5
    if not inside.any():
        return image
    # Float, since 8-bit Lab changes colours by up to 11 levels even without any matching.
    lab, target = (
        cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        for pixels in (image, reference)
    )
    mean, std = lab[inside].mean(axis=0), lab[inside].std(axis=0) + 1e-3
    target_mean, target_std = target[inside].mean(axis=0), target[inside].std(axis=0)
    matched = (lab - mean) * (target_std / std) + target_mean
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
    """Replace the inner face of a frame with a source face.

    With an image of another person this is a face swap; with a re-rendered version of the same
    frame it is a self-blended image.

    Args:
        frame: uint8[h, w, 3], RGB, the target.
        frame_landmarks: float[68, 2], in pixels.
        source: uint8[h2, w2, 3], RGB, the image with the new face.
        source_landmarks: float[68, 2], in pixels.
        feather: Width of the soft edge as a share of the eye distance.

    Returns:
        uint8[h, w, 3], RGB.

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> one, other = vary_portrait(astronaut(), 2, seed=0)
        >>> fake = swap_face(one.pixels, one.landmarks, other.pixels, other.landmarks)
        >>> bool((fake[0] == one.pixels[0]).all()), bool((fake == one.pixels).all())
        (True, False)
    """
    shape = frame.shape[:2]
    mask = inner_face_mask(frame_landmarks, shape, feather)
    face = warp_onto(source, source_landmarks, frame_landmarks, shape)
    face = match_colour(face, frame, mask)
    blended = frame + mask[..., None] * (face.astype(np.float32) - frame)
    return np.clip(np.round(blended), 0, 255).astype(np.uint8)


def rerender_face(image: np.ndarray, landmarks: np.ndarray, size: float) -> np.ndarray:
    """Re-render a face at a low resolution, like a face generator of that output size.

    Args:
        image: uint8[h, w, 3].
        landmarks: float[68, 2], in pixels, of the image and of the result.
        size: Distance between the outer eye corners at the low resolution, in pixels.

    Returns:
        The blurred image, uint8[h, w, 3].

    Example:
        >>> from skimage.data import astronaut
        >>> from jdfd_keras.datasets.synthetic.clips import vary_portrait
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> blurred = rerender_face(subject.pixels, subject.landmarks, 14)
        >>> [round(cv2.Laplacian(image, cv2.CV_64F).std()) for image in (subject.pixels, blurred)]
        [22, 5]
    """
    scale = min(1.0, size / float(np.linalg.norm(landmarks[36] - landmarks[45])))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
