"""Videos of the figures of these pages, made from two photographs in the public domain.

    python docs/figures.py FOLDER

writes the files that docs/figures.md names. The photographs are those of Eileen Collins (NASA) in
jdfd_keras and of Grace Hopper (U.S. Navy) in Matplotlib. Needs scikit-image, as the tests do.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage.data import astronaut

from jdfd_keras.datasets.synthetic.blending import rerender_face
from jdfd_keras.datasets.synthetic.clips import (
    FRAMES_PER_S,
    VIDEOS,
    Portrait,
    find_portrait,
    render_clip,
    vary_portrait,
)

NUM_FRAMES = 4 * FRAMES_PER_S
FIRST_FAKE = 2 * FRAMES_PER_S  # frame of press_conference.mp4
SOFTNESS = 1.0  # of Hopper's photograph, which is a reduced scan and sharper than frames of videos


def main() -> None:
    """Write the videos and images."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with get_sample_data("grace_hopper.jpg", asfileobj=True) as file, Image.open(file) as image:
        pixels = cv2.GaussianBlur(np.asarray(image), (0, 0), SOFTNESS)
    hopper = find_portrait("hopper", pixels)
    collins = find_portrait("collins", astronaut())
    (other,) = vary_portrait(astronaut(), 1, seed=0)  # as in `jdfd-keras demo`
    write_video(folder / "statement.mp4", film(collins, 0, other))
    write_video(folder / "announcement.mp4", film(hopper, 1))
    write_video(
        folder / "press_conference.mp4",
        itertools.chain(
            itertools.islice(film(collins, 2), FIRST_FAKE),
            itertools.islice(film(collins, 2, other), FIRST_FAKE, None),
        ),
    )
    both = zip(film(collins, 3, other), film(hopper, 4), strict=True)
    write_video(folder / "interview.mp4", map(np.hstack, both))
    write_video(folder / "suspect.mp4", map(np.hstack, take_turns(collins, hopper)))
    Image.fromarray(astronaut()).save(folder / "portrait.jpg", quality=92)
    noise = np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8)
    Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 12)).save(folder / "wall.jpg")
    content = (folder / "announcement.mp4").read_bytes()
    (folder / "cut_short.mp4").write_bytes(content[: len(content) // 40])


def film(subject: Portrait, seed: int, other: Portrait | None = None) -> Iterator[np.ndarray]:
    """Render a video of a subject, with the face of another if given: uint8[480, 640, 3] each."""
    source = None
    if other is not None:
        pixels = rerender_face(other.pixels, other.landmarks, VIDEOS.generator_eye_distance)
        source = Portrait(other.name, pixels, other.landmarks)
    return render_clip(subject, NUM_FRAMES, np.random.default_rng(seed), source, style=VIDEOS)


def take_turns(first: Portrait, second: Portrait) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Show one person until 2.4 s, the other one from 1 s on; a blurred frame shows nobody."""
    for index, pair in enumerate(zip(film(first, 5), film(second, 6), strict=True)):
        time_s = index / FRAMES_PER_S
        shown = (time_s < 2.4, time_s >= 1)
        yield tuple(
            frame if is_shown else cv2.GaussianBlur(frame, (0, 0), 60)
            for frame, is_shown in zip(pair, shown, strict=True)
        )


def write_video(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Write an H.264 video, as `datasets.synthetic.clips` does."""
    with av.open(str(path), "w") as output:
        stream = None
        for pixels in frames:
            if stream is None:
                stream = output.add_stream("libx264", FRAMES_PER_S, {"crf": "23"})
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt, stream.thread_count = "yuv420p", 1
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels))))
        output.mux(stream.encode())


if __name__ == "__main__":
    main()
