"""Generator of short synthetic clips, real and fake, from portraits.

Real clips show a portrait under smooth camera motion, exposure drift and sensor noise. Fake clips
are of the same kind, with the inner face replaced in every frame: a dataset of small clips with
crude fakes to train on, or a pair of ordinary videos to judge. They test the pipeline from end to
end; they do not replace a deepfake dataset.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from jdfd_keras.datasets.synthetic.blending import rerender_face, swap_face
from jdfd_keras.faces.decode import open_media
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.landmarks import find_landmarks, transform_points
from jdfd_keras.io.console import print_message
from jdfd_keras.io.files import atomic_path

CLIP_SIZE = 160
FRAMES_PER_S = 25
EYE_DISTANCE = 40


@dataclass(frozen=True)
class Portrait:
    """An image of a subject."""

    name: str  # of the subject, used in the names of clips
    pixels: np.ndarray  # uint8[h, w, 3], RGB
    landmarks: np.ndarray  # float32[68, 2], in pixels


@dataclass(frozen=True)
class ClipStyle:
    """Frames, camera and fakes of a clip."""

    width: int  # in pixels
    height: int
    eye_distance: float  # between the outer eye corners, in pixels; more if portraits are too small
    generator_eye_distance: float  # the same in the output of the simulated face generator
    motion: float  # of the camera: 1 turns by 5 degrees and shifts by 4 % of the frame
    exposure_drift: float  # as a share
    sensor_noise: float  # standard deviation in grey levels
    # Whether frames end at the edges of the portrait. Otherwise the face is in their middle, and
    # the portrait is mirrored where they go beyond it.
    is_inside: bool


SMALL_CLIPS = ClipStyle(CLIP_SIZE, CLIP_SIZE, EYE_DISTANCE, 14, 1.0, 0.12, 8.0, is_inside=False)
# The generator draws faces of 64 pixels, as the first programs for face swaps did.
VIDEOS = ClipStyle(640, 480, 110, 40, 0.4, 0.05, 2.0, is_inside=True)
VIDEO_FRAMES = 75


def read_portraits(directory: str | Path, count: int) -> list[Portrait]:
    """Read the first photographs of a folder that show a face, in the order of their names.

    Of files with the same name and different suffixes, one is read. Damaged images and images
    without a face are skipped, with a note on stderr.

    Args:
        directory: Folder of photographs.
        count: Number of portraits.

    Returns:
        `count` portraits, or fewer if the folder has no more.

    Example:
        >>> [portrait.name for portrait in read_portraits(".", 2)]
        ['face', 'photograph']
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"Expected a folder of photographs; got {directory}, which is not a folder. Check the "
            "path."
        )
    portraits: dict[str, Portrait] = {}
    for path in sorted(directory.iterdir()):
        if path.stem in portraits or not path.is_file():
            continue
        if len(portraits) == count:
            break
        try:
            with open_media(path) as media:
                if media.is_video:
                    continue
                pixels = next(media.read(1)).pixels
        except OSError as error:
            print_message(f"skipped: {error}")
            continue
        landmarks = _find_landmarks(pixels)
        if landmarks is None:
            print_message(f"skipped: {path} shows no face")
        else:
            portraits[path.stem] = Portrait(path.stem, pixels, landmarks)
    return list(portraits.values())


def find_portrait(name: str, pixels: np.ndarray) -> Portrait:
    """Return an image as the portrait of a subject: with the landmarks of its largest face.

    Args:
        name: Name of the subject.
        pixels: uint8[h, w, 3], RGB.

    Raises:
        ValueError: If no face is found in the image.

    Example:
        >>> from skimage.data import astronaut
        >>> find_portrait("astronaut", astronaut()).landmarks.shape
        (68, 2)
    """
    landmarks = _find_landmarks(pixels)
    if landmarks is None:
        raise ValueError(
            f"Expected a portrait with one face; got an image of {pixels.shape[1]} x "
            f"{pixels.shape[0]} pixels without one. Use an upright, frontal photograph."
        )
    return Portrait(name, pixels, landmarks)


def vary_portrait(pixels: np.ndarray, count: int, seed: int) -> list[Portrait]:
    """Create several synthetic subjects from one portrait: proportions, tones and mirroring vary.

    Args:
        pixels: uint8[h, w, 3], RGB, with one face.
        count: Number of subjects.
        seed: Random seed.

    Raises:
        ValueError: If no face is found in the image.

    Example:
        >>> from skimage.data import astronaut
        >>> [subject.name for subject in vary_portrait(astronaut(), 2, seed=0)]
        ['person00', 'person01']
    """
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    sides = [find_portrait("", side) for side in (pixels, mirrored)]
    rng = np.random.default_rng(seed)
    subjects = []
    for index in range(count):
        side = sides[rng.integers(2)]
        moved = _change_proportions(side.landmarks, rng)
        warped = _warp_smoothly(side.pixels, side.landmarks, moved)
        subjects.append(Portrait(f"person{index:02d}", _change_tones(warped, rng), moved))
    return subjects


def make_clips(
    subjects: list[Portrait], directory: str | Path, *, num_frames: int, seed: int
) -> Iterator[Path]:
    """Write one real and one fake clip of each subject.

    Subjects form pairs (a, b). The fakes of every other pair are swaps, `a_b` (footage of a, face
    of b) and `b_a`; the fakes of the remaining pairs show the subject's own face, re-rendered, and
    have the subject's name. All fake faces are rendered at a low resolution, as by a generator.

    Args:
        subjects: At least one, with distinct names; the last of an odd number is re-rendered.
        directory: Folder of `real/<name>.mp4` and `fake/<name>.mp4`; existing clips are kept.
        num_frames: Frames of each clip.
        seed: Random seed.

    Yields:
        The path of each finished clip.

    Example:
        >>> from skimage.data import astronaut
        >>> subjects = vary_portrait(astronaut(), 2, seed=0)
        >>> [path.as_posix() for path in make_clips(subjects, "clips", num_frames=2, seed=0)][:2]
        ['clips/real/person00.mp4', 'clips/fake/person00_person01.mp4']
    """
    for index, subject in enumerate(subjects):
        partner = subjects[index ^ 1] if (index ^ 1) < len(subjects) else subject
        is_swap = index % 4 < 2 and partner is not subject
        name = f"{subject.name}_{partner.name}" if is_swap else subject.name
        # One generator each, so that a clip does not depend on whether the other one existed.
        real_rng, fake_rng = (np.random.default_rng((seed, index, label)) for label in (0, 1))
        real = Path(directory, "real", f"{subject.name}.mp4")
        fake = Path(directory, "fake", f"{name}.mp4")
        yield _write_clip(real, render_clip(subject, num_frames, real_rng))
        face = partner if is_swap else subject
        rendered = rerender_face(face.pixels, face.landmarks, SMALL_CLIPS.generator_eye_distance)
        source = Portrait(face.name, rendered, face.landmarks)
        yield _write_clip(fake, render_clip(subject, num_frames, fake_rng, source))


def make_videos(
    subject: Portrait, other: Portrait, directory: str | Path, *, seed: int
) -> list[Path]:
    """Write a real and a fake video of a subject, H.264 of 640 x 480 pixels and 3 seconds.

    The fake shows the face of another subject, rendered at a low resolution in every frame. Camera
    motion and noise of the two videos differ.

    Args:
        subject: The portrait in the footage.
        other: Portrait with the face of the fake.
        directory: Folder of `real/<subject>.mp4` and `fake/<subject>_<other>.mp4`; existing videos
            are kept.
        seed: Random seed.

    Returns:
        The paths of the real and of the fake video.

    Example:
        >>> from skimage.data import astronaut
        >>> subjects = vary_portrait(astronaut(), 2, seed=0)
        >>> [path.as_posix() for path in make_videos(*subjects, "pair", seed=0)]
        ['pair/real/person00.mp4', 'pair/fake/person00_person01.mp4']
    """
    pixels = rerender_face(other.pixels, other.landmarks, VIDEOS.generator_eye_distance)
    source = Portrait(other.name, pixels, other.landmarks)
    paths = [
        Path(directory, "real", f"{subject.name}.mp4"),
        Path(directory, "fake", f"{subject.name}_{other.name}.mp4"),
    ]
    for label, path in enumerate(paths):
        rng = np.random.default_rng((seed, label))
        shown = source if label else None
        _write_h264(path, render_clip(subject, VIDEO_FRAMES, rng, shown, style=VIDEOS))
    return paths


def render_clip(
    subject: Portrait,
    num_frames: int,
    rng: np.random.Generator,
    source: Portrait | None = None,
    *,
    style: ClipStyle = SMALL_CLIPS,
) -> Iterator[np.ndarray]:
    """Render the frames of a clip: smooth camera motion, exposure drift, sensor noise.

    Args:
        subject: The portrait in the footage.
        num_frames: Number of frames.
        rng: Generator of motion, drift and noise.
        source: Portrait with the face to swap into every frame; none for real footage.
        style: Size of the frames and of the face, strength of motion, drift and noise.

    Yields:
        uint8[height, width, 3], RGB.

    Example:
        >>> from skimage.data import astronaut
        >>> (subject,) = vary_portrait(astronaut(), 1, seed=0)
        >>> next(render_clip(subject, 25, np.random.default_rng(0))).shape
        (160, 160, 3)
    """
    eyes = subject.landmarks[[36, 45]]
    size, portrait_size = np.array([style.width, style.height]), subject.pixels.shape[1::-1]
    scale = max(
        style.eye_distance / np.linalg.norm(eyes[1] - eyes[0]), *(1.15 * size / portrait_size)
    )
    centre = subject.landmarks.mean(axis=0)
    if style.is_inside:
        margin = 1.15 * size / scale / 2
        centre = np.clip(centre, margin, portrait_size - margin)
    phases = rng.uniform(0, 2 * np.pi, 5)
    periods = rng.uniform(30, 90, 5)  # in frames
    for index in range(num_frames):
        *moves, light = np.sin(2 * np.pi * index / periods + phases)
        x, y, turn, zoom = (style.motion * move for move in moves)
        matrix = cv2.getRotationMatrix2D(centre.tolist(), 5 * turn, scale * (1 + 0.06 * zoom))
        matrix[:, 2] += size / 2 - centre + 0.04 * size * np.array([x, y])
        frame = cv2.warpAffine(
            subject.pixels, matrix, (style.width, style.height), borderMode=cv2.BORDER_REFLECT
        )
        exposed = frame * (1 + style.exposure_drift * light)
        exposed = exposed + rng.normal(0, style.sensor_noise, frame.shape)
        frame = np.clip(np.round(exposed), 0, 255).astype(np.uint8)
        if source is not None:
            landmarks = transform_points(matrix, subject.landmarks)
            frame = swap_face(frame, landmarks, source.pixels, source.landmarks)
        yield frame


def _write_h264(path: Path, frames: Iterator[np.ndarray]) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # An open file, since FFmpeg takes a name with a colon for a URL.
    with (
        atomic_path(path) as unfinished,
        open(unfinished, "wb") as file,
        av.open(file, "w", "mp4") as output,
    ):
        stream = output.add_stream("libx264", FRAMES_PER_S, {"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = VIDEOS.width, VIDEOS.height, "yuv420p"
        stream.thread_count = 1  # with more, the bytes depend on their number
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        output.mux(stream.encode())


def _write_clip(path: Path, frames: Iterator[np.ndarray]) -> Path:
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as unfinished:  # a hidden file, which no layout lists
        writer = cv2.VideoWriter(
            str(unfinished), cv2.VideoWriter.fourcc(*"mp4v"), FRAMES_PER_S, (CLIP_SIZE, CLIP_SIZE)
        )
        if not writer.isOpened():
            raise OSError(
                f"Expected to write an MPEG-4 file at {path}; got no video writer. Check that the "
                "folder is writable and that OpenCV was built with FFmpeg."
            )
        try:
            for frame in frames:
                writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
    return path


def _find_landmarks(pixels: np.ndarray) -> np.ndarray | None:
    boxes = face_detector("dlib").find([pixels])[0]
    if not boxes:
        return None
    return find_landmarks(pixels, max(boxes, key=lambda box: box.area))


def _change_proportions(landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary the proportions of a face, and the size and position of its features."""
    centre = landmarks.mean(axis=0)
    moved = (landmarks - centre) * rng.uniform(0.9, 1.1, 2) + centre
    eye_distance = np.linalg.norm(landmarks[45] - landmarks[36])
    starts = (17, 22, 27, 36, 42, 48, 68)  # brows, nose, eyes, mouth
    for feature in (slice(*pair) for pair in itertools.pairwise(starts)):
        feature_centre = moved[feature].mean(axis=0)
        scale = rng.uniform(0.85, 1.18, 2)
        shift = rng.uniform(-0.04, 0.04, 2) * eye_distance
        moved[feature] = (moved[feature] - feature_centre) * scale + feature_centre + shift
    return moved


def _warp_smoothly(image: np.ndarray, landmarks: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Warp a whole image onto moved landmarks with a thin-plate spline."""
    from scipy.interpolate import RBFInterpolator

    height, width = image.shape[:2]
    border_x, border_y = np.meshgrid(np.linspace(0, width, 5), np.linspace(0, height, 5))
    border = np.stack([border_x, border_y], axis=-1).reshape(-1, 2)
    border = border[np.any((border == 0) | (border == (width, height)), axis=1)]
    spline = RBFInterpolator(
        np.vstack([moved, border]), np.vstack([landmarks, border]), smoothing=1.0
    )
    step = 8  # the spline is smooth, so every eighth pixel suffices
    x, y = np.meshgrid(np.arange(0, width + step, step), np.arange(0, height + step, step))
    coarse = spline(np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float64))
    coarse = coarse.reshape(*x.shape, 2).astype(np.float32)
    fine_y, fine_x = np.indices((height, width), np.float32)
    x, y = cv2.split(cv2.remap(coarse, fine_x / step, fine_y / step, cv2.INTER_LINEAR))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _change_tones(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the lighting of an image: a common gamma, varied slightly for each channel."""
    gamma = rng.uniform(0.7, 1.4) * rng.uniform(0.85, 1.18, 3)
    return np.round(255 * (image / 255.0) ** gamma).astype(np.uint8)
