"""Clips for `speed.py`: one person under motion, and the same again and again."""

import dataclasses
from pathlib import Path

import av
import cv2
from face_clips import FRAMES_PER_S, LONG, Kind, Portrait, Role, read_people, write_clip
from face_clips import write_long_clip as write_cycles

CLIP = Kind("480p", 854, 480, 15 * FRAMES_PER_S, (Role(160, 0.5),))
FULL_HD = LONG


def write_short_clip(path: Path, kind: Kind, seconds: float) -> None:
    """Write a clip of a kind with another length."""
    frames = max(2, round(seconds * FRAMES_PER_S))
    write_clip(path, dataclasses.replace(kind, num_frames=frames), _read_people(path), seed=0)


def write_long_clip(path: Path, kind: Kind, seconds: float) -> float:
    """Write a clip of a kind, encoded once and repeated without encoding it again.

    Returns:
        Its length in seconds: of at least one cycle, without a jump where it repeats.
    """
    cycle = path.with_name("cycle.mp4")
    frames = 4 * (kind.num_frames - 1)  # forwards and backwards, twice
    write_cycles(cycle, kind, _read_people(path), frames)
    count = max(1, round(seconds * FRAMES_PER_S / frames))
    with av.open(str(path), "w") as target:
        stream, start = None, 0
        for _ in range(count):
            with av.open(str(cycle)) as source:
                video = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                end = start
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:  # the last one is empty
                        continue
                    packet.pts, packet.dts = packet.pts + start, packet.dts + start
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    target.mux(packet)
                start = end
    cycle.unlink()
    return count * frames / FRAMES_PER_S


def _read_people(path: Path) -> list[Portrait]:
    """Return the public-domain portrait of scikit-image."""
    from skimage import data

    portrait = path.with_name("portrait.png")
    cv2.imwrite(str(portrait), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    return read_people([portrait], 1)
