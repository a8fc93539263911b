"""Portraits to clips of which every face is known: who, where, in which frame.

Takes photographs; writes MPEG-4 files and gives the true faces of each frame. A person is a
portrait, cut out softly, that moves, turns and comes nearer as people do before a camera, on a
textured background, under drifting light, blur and sensor noise. The landmarks are those of
dlib on the still portrait, carried along. Knows nothing of how the package finds faces.
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

FRAMES_PER_S = 25
STILL_FACE = 300  # width of the face in a portrait as it is kept, in pixels
SURE_SCORE = 0.5  # of dlib's detector: what scores less in a portrait is a badge or a fold
LARGEST_TURN_DEG = 10.0
SENSOR_NOISE = 2.0  # standard deviation, of 255: what is left of it in videos as they are published


@dataclass(frozen=True)
class Person:
    """A portrait, its face 300 pixels wide.

    Attributes:
        pixels: uint8[height, width, 3], RGB.
        landmarks: float64[68, 2].
        box: float64[4], left, top, right, bottom of the face as dlib's detector saw it.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray


@dataclass(frozen=True)
class Role:
    """Where a person is in a clip.

    Attributes:
        face_width: Width of the face in pixels.
        x: Middle of the face, as a share of the width of the frame,
        y: and of its height.
        enters: Share of the clip after which the person comes in from the nearer side; 0: is
            there from the start.
        leaves: Share after which the person goes off to that side; 1: stays.
    """

    face_width: int
    x: float
    y: float = 0.5
    enters: float = 0.0
    leaves: float = 1.0


@dataclass(frozen=True)
class Kind:
    """A kind of clip: its name, the size of its frames, how many, and who is in it."""

    name: str
    width: int
    height: int
    num_frames: int
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class TrueFace:
    """One face of one frame, as it was put there.

    Attributes:
        role: Which of the clip's people, from 0.
        box: Where dlib's detector should see it; its score says nothing.
        landmarks: float64[68, 2].
        is_whole: Whether the box is within the frame; where it is not, nobody need find it.
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
        "480p, one comes, one goes",
        854,
        480,
        250,
        (Role(130, 0.28, leaves=0.6), Role(120, 0.74, enters=0.3)),
    ),
    Kind("720p, one person", 1280, 720, 200, (Role(220, 0.5),)),
    Kind("1080p, one person", 1920, 1080, 125, (Role(300, 0.5),)),
)


LONG = Kind("1080p, long", 1920, 1080, 50, (Role(300, 0.5),))


def read_people(paths: Sequence[Path], count: int) -> list[Person]:
    """Read photographs, each of one person, until there are enough.

    Args:
        paths: Images, tried in their order; those in which dlib sees no single face are passed
            over, and named on stderr.
        count: People wanted.

    Raises:
        OSError: If none of them shows a face.
    """
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(model_file("shape_predictor_68_face_landmarks.dat")))
    people: list[Person] = []
    for path in paths:
        if len(people) == count:
            break
        picture = cv2.imread(str(path))
        boxes = []
        if picture is not None:
            found, scores, _ = detector.run(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), 1, 0.0)
            boxes = [box for box, score in zip(found, scores, strict=True) if score > SURE_SCORE]
        if len(boxes) != 1:
            print(f"passed over: {path.name} shows {len(boxes)} faces", file=sys.stderr)
            continue
        # Made large first, for dlib rounds its points to whole pixels.
        scale = STILL_FACE / boxes[0].width()
        pixels = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        edges = (boxes[0].left(), boxes[0].top(), boxes[0].right(), boxes[0].bottom())
        box = (np.array(edges) + 0.5) * scale - 0.5
        shape = predictor(pixels, dlib.rectangle(*(int(edge) for edge in np.rint(box))))
        landmarks = np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)
        people.append(Person(pixels, landmarks, box))
    if not people:
        raise OSError(
            f"Expected photographs of one face each; got {len(paths)} files without one. Give "
            "a folder of upright portraits."
        )
    return people


def write_clip(path: Path, kind: Kind, people: Sequence[Person], seed: int) -> list[list[TrueFace]]:
    """Film people and write the clip.

    Args:
        path: Where it goes; a name that ends in .mp4.
        kind: Which kind of clip.
        people: As many as the kind has roles.
        seed: The same seed gives the same clip.

    Returns:
        The true faces of each frame, those of the roles that touch it.

    Raises:
        OSError: If the clip cannot be written.
    """
    truth = []
    with open_writer(path, kind) as write:
        for pixels, faces in film(kind, people, seed):
            write(pixels)
            truth.append(faces)
    return truth


def write_long_clip(path: Path, kind: Kind, people: Sequence[Person], num_frames: int) -> None:
    """Write a clip of any length: the frames of the kind, forwards and backwards in turn.

    Raises:
        OSError: If the clip cannot be written.
    """
    frames = [pixels for pixels, _ in film(kind, people, seed=0)]
    there_and_back = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    with open_writer(path, kind) as write:
        for index in range(num_frames):
            write(frames[there_and_back[index % len(there_and_back)]])


@contextlib.contextmanager
def open_writer(path: Path, kind: Kind) -> Iterator[Callable[[np.ndarray], None]]:
    """Open an MPEG-4 file for frames of a kind; gives what takes them, RGB, one by one.

    Raises:
        OSError: If it cannot be written.
    """
    fourcc = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), fourcc, FRAMES_PER_S, (kind.width, kind.height))
    if not writer.isOpened():
        raise OSError(
            f"Expected to write an MPEG-4 file at {path}; got no video writer. See that the "
            "folder can be written and that OpenCV was built with FFmpeg."
        )
    try:
        yield lambda pixels: writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()


def film(
    kind: Kind, people: Sequence[Person], seed: int
) -> Iterator[tuple[np.ndarray, list[TrueFace]]]:
    """Film people: frames uint8[height, width, 3], RGB, each with its true faces."""
    rng = np.random.default_rng(seed)
    background = _paint_background(kind, rng)
    noise = rng.normal(0, SENSOR_NOISE, (kind.height + 64, kind.width + 64, 1)).astype(np.float32)
    players = [
        _Player(role, person, kind, rng) for role, person in zip(kind.roles, people, strict=True)
    ]
    period, phase = rng.uniform(80, 200), rng.uniform(0, 2 * np.pi)
    for index in range(kind.num_frames):
        frame, faces = background.copy(), []
        for number, player in enumerate(players):
            matrix = player.place(index)
            box, landmarks = player.carry(matrix)
            if box.right > 0 and box.left < kind.width:
                player.paint(frame, matrix)
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


class _Player:
    """A person in a role: a portrait at the right size and the path it takes."""

    def __init__(self, role: Role, person: Person, kind: Kind, rng: np.random.Generator) -> None:
        self.role, self.kind = role, kind
        scale = 1.15 * role.face_width / STILL_FACE  # shrunk well once, not at every frame
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        picture = cv2.resize(person.pixels, None, fx=scale, fy=scale, interpolation=how)
        self.picture = picture.astype(np.float32)
        self.box = (person.box + 0.5) * scale - 0.5
        self.landmarks = (person.landmarks + 0.5) * scale - 0.5
        self.centre = (self.box[:2] + self.box[2:]) / 2
        self.alpha = self._cut_out()
        self.periods = rng.uniform(60, 140, 4)  # in frames
        self.phases = rng.uniform(0, 2 * np.pi, 4)

    def _cut_out(self) -> np.ndarray:
        """Mark head and hair, softly: float32[height, width, 1]."""
        height, width = self.picture.shape[:2]
        face = self.box[2] - self.box[0]
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        x, y = (x - self.centre[0]) / face, (y - self.centre[1] + 0.1 * face) / (1.25 * face)
        head = np.clip((1.0 - np.hypot(x, y)) / 0.25, 0, 1)
        border = np.minimum(np.arange(width), np.arange(width)[::-1])[None, :]
        border = np.minimum(border, np.minimum(np.arange(height), np.arange(height)[::-1])[:, None])
        return np.minimum(head, np.clip(border / (0.1 * face), 0, 1))[..., None].astype(np.float32)

    def place(self, index: int) -> np.ndarray:
        """Say where the portrait is in a frame: float64[2, 3]."""
        role, kind = self.role, self.kind
        x, y, turn, zoom = np.sin(2 * np.pi * index / self.periods + self.phases)
        scale = (1 + 0.12 * zoom) / 1.15
        matrix = cv2.getRotationMatrix2D(self.centre.tolist(), LARGEST_TURN_DEG * turn, scale)
        off = (-1 if role.x < 0.5 else 1) * (min(role.x, 1 - role.x) * kind.width + role.face_width)
        share = index / kind.num_frames
        second = FRAMES_PER_S / kind.num_frames
        away = 1 - (share - role.enters) / second if role.enters else 0.0
        away = max(away, (share - role.leaves) / second)
        away = np.clip(away, 0, 1)
        off *= away * away * (3 - 2 * away)
        where = np.array([role.x * kind.width + off, role.y * kind.height])
        sway = role.face_width * np.array([0.35 * x, 0.15 * y])
        matrix[:, 2] += where + sway - self.centre
        return matrix

    def carry(self, matrix: np.ndarray) -> tuple[Box, np.ndarray]:
        """Carry box and landmarks into the frame; the box stays upright, as dlib's does."""
        landmarks = self.landmarks @ matrix[:, :2].T + matrix[:, 2]
        centre = matrix[:, :2] @ self.centre + matrix[:, 2]
        half = np.hypot(matrix[0, 0], matrix[1, 0]) * (self.box[2] - self.box[0]) / 2
        return Box(
            *np.rint([*(centre - half), *(centre + half)]).astype(int).tolist(), 0.0
        ), landmarks

    def paint(self, frame: np.ndarray, matrix: np.ndarray) -> None:
        """Put the portrait into float32[height, width, 3]."""
        size = (self.kind.width, self.kind.height)
        picture = cv2.warpAffine(self.picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(self.alpha, matrix, size)[..., None]
        frame += alpha * (picture - frame)


def _paint_background(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Paint a room out of focus: soft clouds of colour and things with edges."""
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
