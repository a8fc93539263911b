"""What may be drawn as a face, and the refusal of what would be drawn wrongly without a word.

Takes faces, captions and maps as the callers gave them; gives nothing back.
"""

from collections.abc import Sequence

import numpy as np


def check_faces(faces: Sequence[np.ndarray], whose: str = "") -> None:
    """Refuse what is no face: floats would be clipped, others stretched.

    Args:
        faces: uint8[size, size, 3] each, at least one.
        whose: For the message, such as "of FF++ real".

    Raises:
        ValueError: If there is none, or one of another kind.
    """
    kinds = [describe(face) for face in faces]
    if not kinds:
        raise ValueError(f"Expected at least one face {whose}; got none. Leave out what is empty.")
    for position, face in enumerate(map(np.asarray, faces)):
        square = face.ndim == 3 and face.shape[0] == face.shape[1] > 0 and face.shape[2] == 3
        if face.dtype != np.uint8 or not square:
            raise ValueError(
                f"Expected faces uint8[size, size, 3] {whose}; got {kinds[position]} at "
                f"{position}. From -1..1, try `np.uint8(np.round((face + 1) * 127.5))`."
            )


def check_captions(faces: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> None:
    """Refuse faces without their captions.

    Raises:
        ValueError: If faces are none, the captions are not as many, or columns are below 1.
    """
    check_faces(faces)
    if len(captions) != len(faces) or columns < 1:
        raise ValueError(
            f"Expected a caption for each of {len(faces)} faces and columns >= 1; got "
            f"{len(captions)} captions, columns={columns}. An empty caption is one, too."
        )


def check_reconstructions(faces: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> None:
    """Refuse reconstructions that are not of these faces, or not on the scale of -1..1.

    A decoder without a last activation goes somewhat beyond -1..1; that is allowed.

    Raises:
        ValueError: If number, shape, type or scale is another.
    """
    if len(made) != len(faces):
        raise ValueError(
            f"Expected a reconstruction for each of {len(faces)} faces; got {len(made)}. Pass "
            "those of the faces that are drawn."
        )
    for position, (face, part) in enumerate(zip(faces, map(np.asarray, made), strict=True)):
        is_float = np.issubdtype(part.dtype, np.floating)
        # Half of the pixels of a picture on 0..255 are far above 2; no decoder is so far off.
        if part.shape != face.shape or not is_float or not np.median(np.abs(part)) <= 2:
            raise ValueError(
                f"Expected reconstructions float{list(face.shape)} on the scale of -1..1; got "
                f"{describe(part)} at {position}. Pass what the decoder gives, unscaled."
            )


def check_maps(faces: Sequence[np.ndarray], maps: np.ndarray, what: str, highest: float) -> None:
    """Refuse maps that are not of these faces, or not on their scale.

    Args:
        faces: Checked before.
        maps: float[n, size, size], in [0, highest].
        what: For the message.
        highest: A rounding error above it is taken; infinity for no end.

    Raises:
        ValueError: If number, size or range is another.
    """
    if len(maps) != len(faces):
        raise ValueError(
            f"Expected {what} of {len(faces)} faces; got {len(maps)}. Pass those of the faces "
            "that are drawn."
        )
    for position, (face, part) in enumerate(zip(faces, map(np.asarray, maps), strict=True)):
        inside = np.isfinite(part) & (part >= 0) & (part <= highest + 1e-5)
        if part.shape != face.shape[:2] or not inside.all():
            raise ValueError(
                f"Expected {what} float{list(face.shape[:2])} in 0..{highest}; got "
                f"{describe(part)} at {position}. Resize a map to its face and scale it first."
            )


def describe(pixels: np.ndarray) -> str:
    """Say type, shape and range of pixels, for a message."""
    pixels = np.asarray(pixels)
    text = f"{pixels.dtype}{list(pixels.shape)}"
    return f"{text} in {pixels.min():.3g}..{pixels.max():.3g}" if pixels.size else text
