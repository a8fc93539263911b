"""Clips from portraits, with the identity and position of every face.

Takes photographs; writes MPEG-4 files and returns the true faces of each frame. A person is a
portrait, cut out with a soft edge, that moves, turns and comes nearer as people do in front of a
camera, on a textured background, with varying brightness, blur and sensor noise. The true
landmarks are those of dlib in the still portrait, transformed with it. Knows nothing of tracking.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import dlib
import numpy as np

from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.landmarks import model_file
from jdfd_keras.io.console import plural

FRAMES_PER_S = 25
PORTRAIT_FACE_WIDTH = 300  # width of the face in a stored portrait, in pixels
MIN_SCORE = 0.5  # of dlib's detector: lower scores in portraits are badges or folds
MAX_ROLL_DEG = 10.0
SENSOR_NOISE = 2.0  # standard deviation in grey levels, as it remains in published videos


@dataclass(frozen=True)
class Portrait:
    """A portrait whose face is 300 pixels wide.

    Attributes:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float64[68, 2].
        box: float64[4], left, top, right, bottom of the face by dlib's detector.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray


@dataclass(frozen=True)
class Role:
    """Size and position of a person in a clip.

    Attributes:
        face_width: Width of the face in pixels.
        x: Horizontal centre of the face, divided by the width of the frame.
        y: Vertical centre of the face, divided by the height of the frame.
        enters: Share of the clip after which the person enters from the nearer side; 0: visible
            from the start.
        leaves: Share of the clip after which the person leaves to that side; 1: stays.
    """

    face_width: int
    x: float
    y: float = 0.5
    enters: float = 0.0
    leaves: float = 1.0


@dataclass(frozen=True)
class Kind:
    """A kind of clip: its name, frame size, number of frames and roles."""

    name: str
    width: int
    height: int
    num_frames: int
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class TrueFace:
    """The true position of one face in one frame.

    Attributes:
        role: Index of the person in the clip, from 0.
        box: Box that dlib's detector should find; its score has no meaning.
        landmarks: float64[68, 2].
        is_whole: Whether the box is completely inside the frame; other faces need not be found.
    """

    role: int
    box: Box
    landmarks: np.ndarray
    is_whole: bool


KINDS = (
    Kind("480p, one person", 854, 480, 250, (Role(160, 0.5),)),
    Kind("480p, two people", 854, 480, 250, (Role(150, 0.3), Role(90, 0.75))),
    Kind("480p, small face", 854, 480, 250, (Role(50, 0.6, 0.4),)),
    Kind(
        "480p, one enters, one leaves",
        854,
        480,
        250,
        (Role(130, 0.28, leaves=0.6), Role(120, 0.74, enters=0.3)),
    ),
    Kind("720p, one person", 1280, 720, 200, (Role(220, 0.5),)),
    Kind("1080p, one person", 1920, 1080, 125, (Role(300, 0.5),)),
)


LONG = Kind("1080p, long", 1920, 1080, 50, (Role(300, 0.5),))


def read_people(paths: Sequence[Path], count: int) -> list[Portrait]:
    """Read photographs of one person each, up to a number of people.

    Args:
        paths: Images, tried in order; those in which dlib does not find exactly one face are
            skipped and reported on stderr.
        count: Maximum number of people.

    Raises:
        OSError: If none of them shows a face.
    """
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(model_file("shape_predictor_68_face_landmarks.dat")))
    people: list[Portrait] = []
    for path in paths:
        if len(people) == count:
            break
        image = cv2.imread(str(path))
        boxes = []
        if image is not None:
            found, scores, _ = detector.run(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), 1, 0.0)
            boxes = [box for box, score in zip(found, scores, strict=True) if score > MIN_SCORE]
        if len(boxes) != 1:
            print(f"skipped {path.name}: it shows {plural(len(boxes), 'face')}", file=sys.stderr)
            continue
        # Enlarged first, since dlib rounds its points to whole pixels.
        scale = PORTRAIT_FACE_WIDTH / boxes[0].width()
        pixels = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        edges = (boxes[0].left(), boxes[0].top(), boxes[0].right(), boxes[0].bottom())
        box = (np.array(edges) + 0.5) * scale - 0.5
        shape = predictor(pixels, dlib.rectangle(*(int(edge) for edge in np.rint(box))))
        landmarks = np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)
        people.append(Portrait(pixels, landmarks, box))
    if not people:
        raise OSError(
            f"Expected photographs of one face each; got {plural(len(paths), 'file')} without one. "
            "Try a folder of upright portraits."
        )
    return people


def write_clip(
    path: Path, kind: Kind, people: Sequence[Portrait], seed: int
) -> list[list[TrueFace]]:
    """Write a clip.

    Args:
        path: The file, a name that ends in .mp4.
        kind: Kind of the clip.
        people: One portrait per role of the kind.
        seed: Random seed; equal seeds produce equal clips.

    Returns:
        The true faces of each frame, also those that are partly visible.

    Raises:
        OSError: If the clip cannot be written.
    """
    truth = []
    with open_writer(path, kind) as write:
        for pixels, faces in render_clip(kind, people, seed):
            write(pixels)
            truth.append(faces)
    return truth


def write_long_clip(path: Path, kind: Kind, people: Sequence[Portrait], num_frames: int) -> None:
    """Write a clip of any length: the frames of the kind, alternately forwards and backwards.

    Raises:
        OSError: If the clip cannot be written.
    """
    frames = [pixels for pixels, _ in render_clip(kind, people, seed=0)]
    cycle = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    with open_writer(path, kind) as write:
        for index in range(num_frames):
            write(frames[cycle[index % len(cycle)]])


@contextlib.contextmanager
def open_writer(path: Path, kind: Kind) -> Iterator[Callable[[np.ndarray], None]]:
    """Open an MPEG-4 file; yield a function that writes one RGB frame.

    Raises:
        OSError: If it cannot be written.
    """
    fourcc = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), fourcc, FRAMES_PER_S, (kind.width, kind.height))
    if not writer.isOpened():
        raise OSError(
            f"Expected to write an MPEG-4 file at {path}; got no video writer. Check that "
            "the folder is writable and that OpenCV was built with FFmpeg."
        )
    try:
        yield lambda pixels: writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()


def render_clip(
    kind: Kind, people: Sequence[Portrait], seed: int
) -> Iterator[tuple[np.ndarray, list[TrueFace]]]:
    """Yield the frames of a clip, uint8[height, width, 3] RGB, each with its true faces."""
    rng = np.random.default_rng(seed)
    background = _paint_background(kind, rng)
    noise = rng.normal(0, SENSOR_NOISE, (kind.height + 64, kind.width + 64, 1)).astype(np.float32)
    actors = [
        _Actor(role, person, kind, rng) for role, person in zip(kind.roles, people, strict=True)
    ]
    period, phase = rng.uniform(80, 200), rng.uniform(0, 2 * np.pi)
    for index in range(kind.num_frames):
        frame, faces = background.copy(), []
        for number, actor in enumerate(actors):
            matrix = actor.pose(index)
            box, landmarks = actor.transform(matrix)
            if box.right > 0 and box.left < kind.width:
                actor.paint(frame, matrix)
                is_whole = (
                    box.left >= 0
                    and box.top >= 0
                    and box.right < kind.width
                    and box.bottom < kind.height
                )
                faces.append(TrueFace(number, box, landmarks, is_whole))
        frame = cv2.GaussianBlur(frame, (0, 0), 0.7)
        frame *= 1 + 0.12 * np.sin(2 * np.pi * index / period + phase)
        y, x = rng.integers(0, 64, 2)
        frame += noise[y : y + kind.height, x : x + kind.width]
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8), faces


class _Actor:
    """A person in a role: a scaled portrait and its motion."""

    def __init__(self, role: Role, person: Portrait, kind: Kind, rng: np.random.Generator) -> None:
        self.role, self.kind = role, kind
        scale = (
            1.15 * role.face_width / PORTRAIT_FACE_WIDTH
        )  # scaled once, with a good filter, not in every frame
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(person.pixels, None, fx=scale, fy=scale, interpolation=interpolation)
        self.image = image.astype(np.float32)
        self.box = (person.box + 0.5) * scale - 0.5
        self.landmarks = (person.landmarks + 0.5) * scale - 0.5
        self.center = (self.box[:2] + self.box[2:]) / 2
        self.alpha = self._head_mask()
        self.periods = rng.uniform(60, 140, 4)  # in frames
        self.phases = rng.uniform(0, 2 * np.pi, 4)

    def _head_mask(self) -> np.ndarray:
        """Return the soft mask of head and hair, float32[height, width, 1]."""
        height, width = self.image.shape[:2]
        face = self.box[2] - self.box[0]
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        x, y = (x - self.center[0]) / face, (y - self.center[1] + 0.1 * face) / (1.25 * face)
        head = np.clip((1.0 - np.hypot(x, y)) / 0.25, 0, 1)
        to_edge = np.minimum(np.arange(width), np.arange(width)[::-1])[None, :]
        to_edge = np.minimum(
            to_edge, np.minimum(np.arange(height), np.arange(height)[::-1])[:, None]
        )
        return np.minimum(head, np.clip(to_edge / (0.1 * face), 0, 1))[..., None].astype(np.float32)

    def pose(self, index: int) -> np.ndarray:
        """Return the affine matrix of the portrait in a frame, float64[2, 3]."""
        role, kind = self.role, self.kind
        x, y, turn, zoom = np.sin(2 * np.pi * index / self.periods + self.phases)
        scale = (1 + 0.12 * zoom) / 1.15
        matrix = cv2.getRotationMatrix2D(self.center.tolist(), MAX_ROLL_DEG * turn, scale)
        off = (-1 if role.x < 0.5 else 1) * (min(role.x, 1 - role.x) * kind.width + role.face_width)
        share = index / kind.num_frames
        second = FRAMES_PER_S / kind.num_frames
        away = 1 - (share - role.enters) / second if role.enters else 0.0
        away = max(away, (share - role.leaves) / second)
        away = np.clip(away, 0, 1)
        off *= away * away * (3 - 2 * away)
        center = np.array([role.x * kind.width + off, role.y * kind.height])
        sway = role.face_width * np.array([0.35 * x, 0.15 * y])
        matrix[:, 2] += center + sway - self.center
        return matrix

    def transform(self, matrix: np.ndarray) -> tuple[Box, np.ndarray]:
        """Transform box and landmarks into the frame; the box stays upright, as dlib's does."""
        landmarks = self.landmarks @ matrix[:, :2].T + matrix[:, 2]
        center = matrix[:, :2] @ self.center + matrix[:, 2]
        half = np.hypot(matrix[0, 0], matrix[1, 0]) * (self.box[2] - self.box[0]) / 2
        return Box(
            *np.rint([*(center - half), *(center + half)]).astype(int).tolist(), 0.0
        ), landmarks

    def paint(self, frame: np.ndarray, matrix: np.ndarray) -> None:
        """Draw the portrait on a frame, float32[height, width, 3], in place."""
        size = (self.kind.width, self.kind.height)
        image = cv2.warpAffine(self.image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(self.alpha, matrix, size)[..., None]
        frame += alpha * (image - frame)


def _paint_background(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Return a blurred background of colour gradients, lines and rectangles."""
    size = (kind.width, kind.height)
    background = np.full((kind.height, kind.width, 3), rng.uniform(70, 150, 3), np.float32)
    for cells, strength in ((4, 40), (12, 20), (40, 10), (120, 6)):
        coarse = rng.normal(0, strength, (cells, 2 * cells, 1)).astype(np.float32)
        coarse = coarse + rng.normal(0, strength / 4, (cells, 2 * cells, 3)).astype(np.float32)
        background += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        corners = rng.uniform(0, 1, (2, 2)) * size
        colour = rng.uniform(20, 220, 3).tolist()
        first, second = (tuple(int(x) for x in corner) for corner in corners)
        thickness = int(rng.integers(2, 9)) if rng.random() < 0.6 else -1
        if rng.random() < 0.5:
            cv2.line(background, first, second, colour, max(thickness, 2))
        else:
            second = (first[0] + abs(second[0] - first[0]) // 3, second[1])
            cv2.rectangle(background, first, second, colour, thickness)
    return cv2.GaussianBlur(background, (0, 0), kind.height / 300)
