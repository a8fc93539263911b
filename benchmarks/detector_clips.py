"""Clips and pictures of people with known truth, to choose and calibrate the shipped detector.

Takes portraits; writes H.264 clips, and JPEG and PNG pictures, real and with faces forged in four
ways that no training uses: these fakes show what a detector sees beyond the blended fakes that it
learned.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from domain import RATES, render_frames, write_clip

from jdfd_keras.datasets.synthetic.blending import (
    inner_face_mask,
    rerender_face,
    swap_face,
    warp_onto,
)
from jdfd_keras.datasets.synthetic.clips import Portrait
from jdfd_keras.io.files import atomic_path

FORGERIES = ("affine-swap", "seamless-swap", "eigenface", "expression")
FRAMES = 30  # of a clip: 1.2 seconds
SIDES = (360, 800)  # of a clip, in pixels
EYE_DISTANCES = (45, 200)  # between the outer corners, in pixels
GENERATOR_EYE_DISTANCES = (20, 90)
JPEG_QUALITIES = (60, 98)
FACE_SIDE = 64  # of the aligned faces of the eigenfaces, in pixels
NUM_EIGENFACES = 80
_MOUTH, _LOWER_LIP = np.arange(48, 68), np.r_[55:60, 65:68]

Forge = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Eigenfaces:
    """Faces as a mean and principal components, which blur a face as an autoencoder does."""

    def __init__(self, portraits: Sequence[Portrait]):
        """Fit the components to portraits, those of training."""
        self.mean_landmarks = np.mean([_align(one.landmarks) for one in portraits], axis=0)
        faces = np.stack([self._flatten(one) for one in portraits])
        self.mean = faces.mean(axis=0)
        self.components = np.linalg.svd(faces - self.mean, full_matrices=False)[2][:NUM_EIGENFACES]

    def reconstruct(self, portrait: Portrait) -> Portrait:
        """Return a portrait as the nearest face of the components, FACE_SIDE pixels wide."""
        offset = self.components @ (self._flatten(portrait) - self.mean)
        pixels = self.mean + offset @ self.components
        image = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
        image = image.reshape(FACE_SIDE, FACE_SIDE, 3)
        return Portrait(portrait.name, image, self.mean_landmarks)

    def _flatten(self, portrait: Portrait) -> np.ndarray:
        shape = (FACE_SIDE, FACE_SIDE)
        face = warp_onto(portrait.pixels, portrait.landmarks, self.mean_landmarks, shape)
        return face.astype(np.float32).ravel()


def _align(landmarks: np.ndarray) -> np.ndarray:
    """Scale and shift landmarks so that they fill a square of FACE_SIDE pixels."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return (landmarks - low) / (high - low) * (FACE_SIDE - 5) + 2


def make_forgery(
    kind: str,
    target: Portrait,
    donor: Portrait,
    eigenfaces: Eigenfaces,
    rng: np.random.Generator,
) -> Forge:
    """Return the function that forges the face of a frame, the same way in each frame.

    - "affine-swap": the donor's face, rendered at the resolution of a generator, warped triangle by
      triangle, with matched colours and a soft edge.
    - "seamless-swap": the same, blended in the gradient domain (Poisson blending).
    - "eigenface": the donor as an autoencoder of 64 pixels renders it, with matched colours.
    - "expression": the target's own face with a mouth that opens and closes, rendered again.
    """
    feather = rng.uniform(0.1, 0.5)
    resolution = float(np.exp(rng.uniform(*np.log(GENERATOR_EYE_DISTANCES))))
    if kind == "expression":
        return _make_expression(target, resolution, feather, rng)
    if kind == "eigenface":
        source = eigenfaces.reconstruct(donor)
    else:
        face = rerender_face(donor.pixels, donor.landmarks, resolution)
        source = Portrait(donor.name, face, donor.landmarks)

    def swap(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        if kind != "seamless-swap":
            return swap_face(frame, landmarks, source.pixels, source.landmarks, feather=feather)
        return _blend_seamlessly(frame, landmarks, source)

    return swap


def _make_expression(
    target: Portrait, resolution: float, feather: float, rng: np.random.Generator
) -> Forge:
    face = rerender_face(target.pixels, target.landmarks, 2 * resolution)
    eyes = np.linalg.norm(target.landmarks[45] - target.landmarks[36])
    opening, widening = rng.uniform(0.08, 0.2) * eyes, rng.uniform(-0.12, 0.12)
    phases = iter(np.sin(np.arange(10_000) / rng.uniform(2, 6)) / 2 + 0.5)

    def move(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        scale = np.linalg.norm(landmarks[45] - landmarks[36]) / eyes
        phase, moved = next(phases), landmarks.astype(np.float64)
        centre = moved[_MOUTH].mean(axis=0)
        moved[_MOUTH] = centre + (moved[_MOUTH] - centre) * (1 + widening * phase, 1)
        moved[_LOWER_LIP, 1] += opening * phase * scale
        warped = warp_onto(face, target.landmarks, moved, frame.shape[:2])
        mask = inner_face_mask(landmarks, frame.shape[:2], feather)[..., None]
        return np.round(frame + mask * (warped.astype(np.float32) - frame)).astype(np.uint8)

    return move


def _blend_seamlessly(frame: np.ndarray, landmarks: np.ndarray, source: Portrait) -> np.ndarray:
    shape = frame.shape[:2]
    mask = (inner_face_mask(landmarks, shape, 0.0) > 0).astype(np.uint8) * 255
    mask[[0, -1]] = mask[:, [0, -1]] = 0
    face = warp_onto(source.pixels, source.landmarks, landmarks, shape)
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < 8:
        return frame
    # OpenCV moves the box of the mask to this centre: it stays where it is.
    centre = (x + width // 2, y + height // 2)
    # It overwrites its mask, and outside of it may differ by rounding (OpenCV 5.0.0).
    blended = cv2.seamlessClone(face, frame, mask.copy(), centre, cv2.NORMAL_CLONE)
    return np.where(mask[..., None] > 0, blended, frame)


def write_files(
    people: Sequence[Portrait], folder: Path, split: str, eigenfaces: Eigenfaces
) -> Iterator[dict[str, str]]:
    """Write the files of the people of a split: a real clip and picture each, and fakes.

    Each person has a fake clip of two kinds and a fake picture of a third one, in turn. The people
    are donors of each other in pairs. Existing files are kept.

    Yields:
        The row of each file for the layout `table`; its path is relative to the folder.
    """
    for place, target in enumerate(people):
        donor = people[place ^ 1 if (place ^ 1) < len(people) else place - 1]
        kinds = [FORGERIES[(place // 2 + step) % len(FORGERIES)] for step in range(3)]
        still = "picture.png" if place % 3 == 0 else "picture.jpg"
        files = [("real", "clip.mp4"), ("real", still)]
        files += [("fake", "clip.mp4"), ("fake", "clip.mp4"), ("fake", still)]
        for number, (label, file) in enumerate(files):
            kind = kinds[number - 2] if label == "fake" else ""
            rng = np.random.default_rng((split == "test", place, number))
            is_swap = bool(kind) and kind != "expression"
            who = f"{target.name}_{donor.name}" if is_swap else target.name
            name = (
                f"{split}/{label}/{who}-{kind}-{file}" if kind else f"{split}/{label}/{who}-{file}"
            )
            path = folder / name
            forge = make_forgery(kind, target, donor, eigenfaces, rng) if kind else None
            if path.suffix == ".mp4":
                frames = _render(target, rng, FRAMES, forge)
                write_clip(path, frames, int(rng.choice(RATES)))
            else:
                _write_picture(path, _render(target, rng, 1, forge), rng)
            sources = [target.name, donor.name] if is_swap else [target.name]
            yield {
                "path": name,
                "label": label,
                "split": split,
                "source_id": ";".join(sources),
                "manipulation": kind,
            }


def _render(
    target: Portrait, rng: np.random.Generator, count: int, forge: Forge | None
) -> Iterator[np.ndarray]:
    side = int(rng.integers(*SIDES))
    return render_frames(target, rng, count, forge=forge, eye_distance=EYE_DISTANCES, side=side)


def _write_picture(path: Path, frames: Iterable[np.ndarray], rng: np.random.Generator) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    (frame,) = frames
    quality = int(rng.integers(*JPEG_QUALITIES))
    with atomic_path(path) as unfinished:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
        coded = cv2.imencode(path.suffix, frame[..., ::-1], options)[1]
        unfinished.write_bytes(coded.tobytes())
