"""Portraits to short face clips, real and fake, with known labels.

Takes photographs; writes MPEG-4 files into `real/` and `fake/`. "Real" clips are a portrait
under smooth camera motion, exposure drift and sensor noise. "Fake" clips are the same kind of
footage with the inner face replaced frame by frame. They show that the whole line works; they
are no stand-in for a data set of deepfakes.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jdfd_keras.datasets.synthetic.blending import rerender_face, swap_face
from jdfd_keras.faces.decode import read_frames
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.landmarks import find_landmarks, transform_points

CLIP_SIZE = 160
FRAMES_PER_S = 25
EYE_DISTANCE = 40  # pixels between the outer eye corners in a clip, where the portrait allows
GENERATOR_EYE_DISTANCE = 14  # the same in the output of the pretended face generator: coarse
SENSOR_NOISE = 8.0  # standard deviation, of 255


@dataclass(frozen=True)
class Portrait:
    """A person in a picture.

    Attributes:
        name: What clips of the person are named after.
        pixels: uint8[h, w, 3], RGB.
        landmarks: float32[68, 2].
    """

    name: str
    pixels: np.ndarray
    landmarks: np.ndarray


def read_portraits(directory: str | Path, count: int) -> list[Portrait]:
    """Read the first photographs of a folder that show a face, in the order of their names.

    Of files that differ in their suffix alone one is taken: clips are named after the rest. A
    picture that is damaged or shows no face is named on stderr and passed over.

    Returns:
        At most `count` portraits; fewer if the folder has no more.

    Raises:
        OSError: If the folder is not there.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"Expected a folder of photographs; got {directory}, which is no folder. "
            "Check the path."
        )
    portraits: dict[str, Portrait] = {}
    for path in sorted(directory.iterdir()):
        if path.stem in portraits or not path.is_file() or not cv2.haveImageReader(str(path)):
            continue
        if len(portraits) == count:
            break
        try:
            pixels = next(read_frames(path, 1)).pixels
        except OSError as error:
            print(f"passed over: {error}", file=sys.stderr)
            continue
        landmarks = _find_face(pixels)
        if landmarks is None:
            print(f"passed over: {path} shows no face", file=sys.stderr)
        else:
            portraits[path.stem] = Portrait(path.stem, pixels, landmarks)
    return list(portraits.values())


def vary_portrait(pixels: np.ndarray, count: int, seed: int) -> list[Portrait]:
    """Make several "people" of one portrait: other proportions, other tones, some mirrored.

    Args:
        pixels: uint8[h, w, 3], RGB, showing one face.
        count: People wanted.
        seed: The same seed gives the same people.

    Raises:
        ValueError: If no face is found in the picture.
    """
    sides = [
        Portrait("", side, _find_face(side))
        for side in (pixels, np.ascontiguousarray(pixels[:, ::-1]))
    ]
    if any(side.landmarks is None for side in sides):
        raise ValueError(
            f"Expected a portrait with one face; got a picture of {pixels.shape[1]} x "
            f"{pixels.shape[0]} pixels without one. Use an upright, frontal photograph."
        )
    rng = np.random.default_rng(seed)
    people = []
    for index in range(count):
        side = sides[rng.integers(2)]
        moved = _change_proportions(side.landmarks, rng)
        warped = _warp_smoothly(side.pixels, side.landmarks, moved)
        people.append(Portrait(f"person{index:02d}", _change_tones(warped, rng), moved))
    return people


def make_clips(
    people: list[Portrait], directory: str | Path, *, num_frames: int, seed: int
) -> Iterator[Path]:
    """Write one real and one fake clip of each person.

    People are taken in pairs (a, b). Of every second pair the fakes are swaps, `a_b` (the
    footage is a's, the face b's) and `b_a`; of the others the face is the person's own, and they
    carry the person's name. Either way the face was rendered anew, coarsely, as generators do.

    Args:
        people: One or more, each with a name of their own; of an odd number, the last one's
            fake is rendered anew.
        directory: Gets `real/<name>.mp4` and `fake/<name>.mp4`; clips already there are kept.
        num_frames: Frames of each clip.
        seed: The same seed gives the same clips.

    Yields:
        The path of each clip, once it is whole.

    Raises:
        OSError: If a clip cannot be written.
    """
    for index, person in enumerate(people):
        partner = people[index ^ 1] if (index ^ 1) < len(people) else person
        is_swap = index % 4 < 2 and partner is not person
        name = f"{person.name}_{partner.name}" if is_swap else person.name
        # A generator each, so that a clip is the same whether the other was there already or not.
        real_rng, fake_rng = (np.random.default_rng((seed, index, label)) for label in (0, 1))
        yield _write_clip(
            Path(directory, "real", f"{person.name}.mp4"), film(person, num_frames, real_rng)
        )
        face = partner if is_swap else person
        source = Portrait(
            face.name, *rerender_face(face.pixels, face.landmarks, GENERATOR_EYE_DISTANCE)
        )
        yield _write_clip(
            Path(directory, "fake", f"{name}.mp4"), film(person, num_frames, fake_rng, source)
        )


def film(
    person: Portrait, num_frames: int, rng: np.random.Generator, source: Portrait | None = None
) -> Iterator[np.ndarray]:
    """Film a portrait: smooth camera motion, exposure drift, sensor noise.

    Args:
        person: Who is in the footage.
        num_frames: Frames wanted.
        rng: Where motion, drift and noise come from.
        source: Whose face is put into every frame; none for real footage.

    Yields:
        uint8[CLIP_SIZE, CLIP_SIZE, 3], RGB.
    """
    eyes = person.landmarks[[36, 45]]
    scale = max(
        EYE_DISTANCE / np.linalg.norm(eyes[1] - eyes[0]),
        1.15 * CLIP_SIZE / min(person.pixels.shape[:2]),
    )
    centre = person.landmarks.mean(axis=0)
    phases = rng.uniform(0, 2 * np.pi, 5)
    periods = rng.uniform(30, 90, 5)  # in frames
    for index in range(num_frames):
        x, y, turn, zoom, light = np.sin(2 * np.pi * index / periods + phases)
        matrix = cv2.getRotationMatrix2D(centre.tolist(), 5 * turn, scale * (1 + 0.06 * zoom))
        matrix[:, 2] += CLIP_SIZE / 2 - centre + 0.04 * CLIP_SIZE * np.array([x, y])
        frame = cv2.warpAffine(
            person.pixels,
            matrix,
            (CLIP_SIZE, CLIP_SIZE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        exposed = frame * (1 + 0.12 * light) + rng.normal(0, SENSOR_NOISE, frame.shape)
        frame = np.clip(np.round(exposed), 0, 255).astype(np.uint8)
        if source is not None:
            landmarks = transform_points(matrix, person.landmarks)
            frame = swap_face(frame, landmarks, source.pixels, source.landmarks)
        yield frame


def _write_clip(path: Path, frames: Iterator[np.ndarray]) -> Path:
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{path.name}")  # hidden: no layout lists it
    writer = cv2.VideoWriter(
        str(unfinished), cv2.VideoWriter_fourcc(*"mp4v"), FRAMES_PER_S, (CLIP_SIZE, CLIP_SIZE)
    )
    if not writer.isOpened():
        raise OSError(
            f"Expected to write an MPEG-4 file at {path}; got no video writer. See that the "
            "folder can be written and that OpenCV was built with FFmpeg."
        )
    try:
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    return unfinished.replace(path)


def _find_face(pixels: np.ndarray) -> np.ndarray | None:
    boxes = face_detector("dlib").find([pixels])[0]
    if not boxes:
        return None
    return find_landmarks(pixels, max(boxes, key=lambda box: box.area))


def _change_proportions(landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move landmarks as people differ: wider or longer faces, features larger or apart."""
    centre = landmarks.mean(axis=0)
    moved = (landmarks - centre) * rng.uniform(0.9, 1.1, 2) + centre
    features = [
        slice(17, 22),
        slice(22, 27),
        slice(27, 36),
        slice(36, 42),
        slice(42, 48),
        slice(48, 68),
    ]
    eye_distance = np.linalg.norm(landmarks[45] - landmarks[36])
    for feature in features:
        middle = moved[feature].mean(axis=0)
        size = rng.uniform(0.85, 1.18, 2)
        shift = rng.uniform(-0.04, 0.04, 2) * eye_distance
        moved[feature] = (moved[feature] - middle) * size + middle + shift
    return moved


def _warp_smoothly(picture: np.ndarray, landmarks: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Warp a whole picture so that its landmarks move, by a thin-plate spline."""
    from scipy.interpolate import RBFInterpolator

    height, width = picture.shape[:2]
    frame_x, frame_y = np.meshgrid(np.linspace(0, width, 5), np.linspace(0, height, 5))
    frame = np.stack([frame_x, frame_y], axis=-1).reshape(-1, 2)
    frame = frame[np.any((frame == 0) | (frame == (width, height)), axis=1)]
    spline = RBFInterpolator(
        np.vstack([moved, frame]), np.vstack([landmarks, frame]), smoothing=1.0
    )
    step = 8  # the spline is smooth: every eighth pixel is enough
    x, y = np.meshgrid(np.arange(0, width + step, step), np.arange(0, height + step, step))
    coarse = spline(np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float64))
    coarse = coarse.reshape(*x.shape, 2).astype(np.float32)
    fine_x, fine_y = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    where = cv2.remap(coarse, fine_x / step, fine_y / step, cv2.INTER_LINEAR)
    return cv2.remap(picture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _change_tones(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give a picture other light: a gamma for each channel, near one for all."""
    gamma = rng.uniform(0.7, 1.4) * rng.uniform(0.85, 1.18, 3)
    return np.round(255 * (picture / 255.0) ** gamma).astype(np.uint8)
