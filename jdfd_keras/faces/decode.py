"""Video and image files to frames.

Takes a path; gives RGB frames with the index and time they were decoded at. Knows nothing of
faces, labels or TensorFlow, so a client that only crops may import it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# FFmpeg tells the terminal of every damaged packet; what matters of it is said below.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# A header may be wrong by a frame or two; a tenth missing is a file that was cut.
MOST_MISSING = 0.1
# OpenCV 5.0 reports each damaged packet as the end of the file; what follows it still decodes.
# Ten seconds of damage are read over; at the true end as many tries take 20 ms.
MOST_FAILURES = 300


class UnreadableFileError(OSError):
    """A file that is there and gives no frame: its own fault, not that of the machine."""


def check_name(path: str | Path) -> None:
    """See that OpenCV can be given a path: 5.0 dies of a name that is no UTF-8.

    Raises:
        UnreadableFileError: If the name is none.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
        raise UnreadableFileError(
            f"Expected a file name in UTF-8; got {shown}. Rename the file, or its folder."
        ) from error


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        index: Position among the frames of the file that decode, from 0.
        time_s: Presentation time in seconds from the start; 0 for an image.
        pixels: uint8[height, width, 3], RGB.
    """

    index: int
    time_s: float
    pixels: np.ndarray


def sample_frame_indices(num_frames: int, count: int) -> np.ndarray:
    """Choose frames spread evenly over a whole video.

    The video is cut into `count` equal spans and the middle frame of each is taken: the same
    video always gives the same frames, and no frame is given twice.

    Args:
        num_frames: Frames in the video; at least 1.
        count: Frames wanted; at least 1. A shorter video gives every frame it has.

    Returns:
        int64[min(count, num_frames)], strictly increasing, within [0, num_frames).

    Raises:
        ValueError: If either number is below 1.
    """
    if num_frames < 1 or count < 1:
        raise ValueError(
            f"Expected num_frames >= 1 and count >= 1; got num_frames={num_frames}, "
            f"count={count}. Ask for one frame or more of a video that has some."
        )
    count = min(count, num_frames)
    return (2 * np.arange(count, dtype=np.int64) + 1) * num_frames // (2 * count)


def read_frames(
    path: str | Path, count: int, *, every: int = 0, warn: Callable[[str], None] | None = None
) -> Iterator[Frame]:
    """Decode frames of a video, spread evenly or each N-th, or the one frame of an image.

    One frame is held at a time. Rotation flags of videos and photographs are honoured. An even
    spread goes over the frames that really decode, whatever the header claims: they are counted
    first, in a pass of its own. A video that was cut short or is damaged gives what decodes.

    Args:
        path: A video or image file.
        count: Frames wanted, as in `sample_frame_indices`; at least 1. Not used with `every`.
        every: 0 for `count` frames spread evenly; N >= 1 for the frames 0, N, 2N, ...
        warn: Told what is missing of a damaged video, in one sentence without its path; called
            at most once, after the last frame.

    Yields:
        Frames in the order of the file.

    Raises:
        FileNotFoundError: If the file is not there.
        UnreadableFileError: If it is no video or image, gives no frame at all, is an image that
            was cut short or has other than 8 or 16 bits a channel, or its name is no UTF-8.
        ValueError: If `count` is below 1 or `every` below 0.
    """
    sample_frame_indices(1, count)
    if every < 0:
        raise ValueError(
            f"Expected every >= 0; got every={every}. Try 1 for all frames, N for each N-th, "
            "or 0 for an even spread."
        )
    path = Path(path)
    check_name(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a video or image file; got {path}, which is "
            f"{'a folder' if path.is_dir() else 'not there'}. Check the path."
        )
    if cv2.haveImageReader(str(path)):
        yield _read_image(path, warn)
    else:
        yield from _read_video(path, count, every, warn)


def _read_image(path: Path, warn: Callable[[str], None] | None) -> Frame:
    """Decode with Pillow: OpenCV 5.0 fills a JPEG that was cut short with grey and says nothing."""
    try:
        with Image.open(path) as image:
            num_frames = getattr(image, "n_frames", 1)
            is_deep_grey = image.mode.startswith("I;16")
            if image.mode.startswith(("I", "F")) and not is_deep_grey:
                raise ValueError(f"its pixels are no 8 or 16-bit numbers (Pillow's {image.mode})")
            if _is_deep_and_planar(image):
                raise ValueError("its channels of 16 bits are stored one after the other")
            ImageOps.exif_transpose(image, in_place=True)
            if is_deep_grey:
                # The high byte, as Pillow 13.0 takes of 16-bit RGB: 65535 becomes 255.
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                pixels = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
            else:
                pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(
            f"Expected a whole image of 8 or 16 bits a channel; got {path}, which cannot be "
            f"decoded: {error}. It was perhaps cut short: copy it again, or save it anew as PNG."
        ) from error
    if num_frames > 1 and warn:
        warn(f"an animated image: the first of its {num_frames} frames alone is looked at")
    return Frame(index=0, time_s=0.0, pixels=pixels)


def _is_deep_and_planar(image: Image.Image) -> bool:
    """Tell the TIFF of which Pillow 13.0 takes the low bytes, and so gives noise."""
    if image.format != "TIFF":
        return False
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))
    return image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2 and max(bits) > 8


def _read_video(
    path: Path, count: int, every: int, warn: Callable[[str], None] | None
) -> Iterator[Frame]:
    # FFmpeg plays text as moving letters (.txt), and follows lists of other files and addresses.
    if _is_text(path):
        raise _not_a_video(path)
    if every:
        wanted = range(0, sys.maxsize, every)
    else:
        # At least 1, so that a file of which nothing decodes ends below in both modes.
        wanted = set(sample_frame_indices(max(1, _count_frames(path)), count).tolist())
    decoded = given = without_picture = 0
    last_s = widest_gap_s = 0.0
    # FFmpeg alone: OpenCV's other readers take a text file named .jpg for a series of pictures.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        for index, time_s in enumerate(_grab_frames(capture)):
            decoded += 1
            widest_gap_s = max(widest_gap_s, time_s - last_s)
            last_s = time_s
            if index not in wanted:
                continue
            has_picture, pixels = capture.retrieve()
            if has_picture:
                given += 1
                yield Frame(index, time_s, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            else:
                without_picture += 1
        claims = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    finally:
        capture.release()
    if decoded == 0:
        raise _not_a_video(path)
    if given == 0:
        raise UnreadableFileError(
            f"Expected pictures of {path}; got none for {without_picture} frames, though they "
            "decode. Their pixel format is perhaps unknown to OpenCV: save it anew with "
            f"`ffmpeg -i {path.name} -pix_fmt yuv420p again.mp4`."
        )
    damage = _describe_damage(decoded, last_s, widest_gap_s, *claims)
    if without_picture:
        asked_for = given + without_picture
        damage.append(f"damaged: {without_picture} of {asked_for} frames decode to no picture")
    if damage and warn is not None:
        warn("; ".join(damage))


def _grab_frames(capture: cv2.VideoCapture) -> Iterator[float]:
    """Decode frame after frame, without converting colours, and give their times in seconds."""
    failures = 0
    while failures < MOST_FAILURES:
        if capture.grab():
            failures = 0
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        else:
            failures += 1


def _count_frames(path: Path) -> int:
    """Count the frames that really decode, for headers lie."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return sum(1 for _ in _grab_frames(capture))
    finally:
        capture.release()


def _describe_damage(
    decoded: int, last_s: float, widest_gap_s: float, fps: float, claimed: float
) -> list[str]:
    """Say what is missing of a video, at its end and in between; nothing of a whole one.

    In seconds, for OpenCV makes the claimed frames up from the seconds where a header has none:
    Matroska files of uneven frame times claim a hundred times the frames they have.
    """
    between_s = last_s / (decoded - 1) if decoded > 1 else 1 / max(fps, 1.0)
    whole_s = max(claimed / fps if fps > 0 else 0.0, last_s)
    most_s = between_s + max(2 * between_s, MOST_MISSING * whole_s)
    damage = []
    if whole_s - last_s > most_s:
        frames = f"{decoded} frame{'s decode' if decoded > 1 else ' decodes'}"
        damage.append(f"cut short or damaged: {frames}, up to {last_s:.2f} s of {whole_s:.2f} s")
    if widest_gap_s > most_s:
        gap = f"no frame decodes for {widest_gap_s:.2f} s of {whole_s:.2f} s"
        damage.append(f"damaged or of uneven frame times: {gap}")
    return damage


def _is_text(path: Path) -> bool:
    """Tell text by its lack of zero bytes, which the head of every video container has."""
    with open(path, "rb") as file:
        return b"\0" not in file.read(4096)


def _not_a_video(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        f"Expected a video that FFmpeg can decode or an image; got {path} "
        f"({path.stat().st_size} bytes), which is neither. It is another kind of file or was "
        "cut short: try `ffprobe` on it, or copy it again."
    )
