"""Lossy compression of an image: saved as JPEG, or as a frame of a video, and read again.

Takes and returns uint8[height, width, 3]. Independent of TensorFlow, so that threads can use it.
"""

from fractions import Fraction
from typing import Any, cast

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation

X265_PARAMS = "log-level=none:pools=none:frame-threads=1"  # one thread, nothing on stderr


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    r"""Encode an image as JPEG with 4:2:0 subsampling.

    Args:
        pixels: uint8[height, width, 3], RGB.
        quality: 1 to 100, on the scale of the Independent JPEG Group.

    Example:
        >>> encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)[:2]
        b'\xff\xd8'
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    options.append(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def compress_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Save an image as JPEG and read it again; see `encode_jpeg`.

    Example:
        >>> compress_jpeg(np.full((71, 71, 3), 90, np.uint8), 50)[0, 0].tolist()
        [90, 90, 90]
    """
    coded = np.frombuffer(encode_jpeg(pixels, quality), np.uint8)
    return np.ascontiguousarray(cast(np.ndarray, cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB)))


def compress_h264(crop: np.ndarray, crf: int) -> np.ndarray:
    """Save a face as a video of one frame in H.264 and read it again.

    As YUV 4:2:0 in BT.601 and limited range, the default of FFmpeg. The quality is that of a frame
    in a video of this rate factor.

    Args:
        crop: uint8[height, width, 3], RGB. Odd sizes are padded by the last row and column.
        crf: Constant rate factor of x264, from 0 (lossless) to 51.

    Returns:
        uint8[height, width, 3], RGB.

    Example:
        >>> compress_h264(np.full((71, 71, 3), 90, np.uint8), 23)[0, 0].tolist()
        [89, 89, 89]
    """
    # With more threads, bytes may differ. x264 spends bits where later frames refer to: with
    # mbtree, a frame without any loses 3 dB more than the same one in a video (PyAV 18.1.0).
    options = {"crf": str(crf), "threads": "1", "x264-params": "mbtree=0"}
    return _compress(crop, "libx264", "h264", options)


def compress_h265(crop: np.ndarray, crf: int) -> np.ndarray:
    """Save a face as a video of one frame in H.265 and read it again; see `compress_h264`.

    Args:
        crop: uint8[height, width, 3], RGB. Odd sizes are padded by the last row and column.
        crf: Constant rate factor of x265, from 0 to 51.

    Returns:
        uint8[height, width, 3], RGB.

    Example:
        >>> compress_h265(np.full((71, 71, 3), 90, np.uint8), 28)[0, 0].tolist()
        [89, 89, 89]
    """
    options = {"crf": str(crf), "x265-params": f"{X265_PARAMS}:cutree=0"}  # as with mbtree
    return _compress(crop, "libx265", "hevc", options)


def _compress(
    crop: np.ndarray, encoder_name: str, decoder_name: str, options: dict[str, str]
) -> np.ndarray:
    height, width = crop.shape[:2]
    padded = np.pad(crop, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    # One encoder for each: the rate control of a second frame depends on the first.
    encoder = cast(VideoCodecContext, VideoCodecContext.create(encoder_name, "w"))
    encoder.width, encoder.height, encoder.pix_fmt = padded.shape[1], padded.shape[0], "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = options
    cubic: dict[str, Any] = {"interpolation": Interpolation.BICUBIC, "threads": 1}  # as ffmpeg
    frame = av.VideoFrame.from_ndarray(padded).reformat(format="yuv420p", **cubic)
    frame.pts = 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoder = cast(VideoCodecContext, VideoCodecContext.create(decoder_name, "r"))
    decoder.thread_count = 1
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    rgb = decoded[0].reformat(format="rgb24", **cubic).to_ndarray()
    return np.ascontiguousarray(rgb[:height, :width])
