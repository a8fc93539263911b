"""Points of the plane: the frontal face, and the similarities that carry faces onto it.

Takes points; gives matrices and points. Knows nothing of pixels.
"""

import numpy as np

# Where the five points of a frontal face lie in a tight square of side 1: the common 112-pixel
# template of face recognition, made symmetric about the middle.
# Reference: Deng et al.: "ArcFace" (2019), https://arxiv.org/abs/1801.07698
FRONTAL_FACE = np.array(
    [[0.3427, 0.4607], [0.6573, 0.4607], [0.5, 0.6405], [0.3694, 0.8240], [0.6306, 0.8240]]
)


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the rotation, scale and shift that carry points onto others, in least squares.

    Points are taken as complex numbers, where a similarity is z -> a z + b: the normal
    equations then have one line. Mirror images are not fitted.

    Args:
        source: float[n, 2], n >= 2.
        target: float[n, 2].

    Returns:
        float64[2, 3], the affine matrix.

    Raises:
        ValueError: If all source points are one.

    Reference:
        Umeyama: "Least-Squares Estimation of Transformation Parameters Between Two Point
        Patterns" (1991), the plane case.
    """
    p = source[:, 0] + 1j * source[:, 1].astype(np.float64)
    q = target[:, 0] + 1j * target[:, 1].astype(np.float64)
    spread = np.sum(np.abs(p - p.mean()) ** 2)
    if spread == 0:
        raise ValueError(
            "Expected at least two different points to fit a similarity; got the same point "
            f"{source[0].tolist()} {len(source)} times. The landmarks are not of a face."
        )
    a = np.sum(np.conj(p - p.mean()) * (q - q.mean())) / spread
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Carry points by an affine matrix: float[n, 2] and float[2, 3] give float[n, 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]
