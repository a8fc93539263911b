"""Image files to RGB frames, with Pillow and pillow-heif.

A still image is one frame. An animated GIF, PNG, WebP or AVIF is a short video.
"""

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageCms,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pillow_heif import HeifImageFile

from jdfd_keras.faces.media import (
    Frame,
    MediaFile,
    MediaInfo,
    UnreadableFileError,
    check_duration,
    check_size,
    choose_frames,
)
from jdfd_keras.options import LimitOptions

T = TypeVar("T")

# How the files of each kind begin, and their decoder; the first that matches counts. The decoders
# are called directly: `Image.open` refuses 179 million pixels, by a setting that all its users
# share, and needs pillow-heif to be registered for them all.
KINDS: dict[str, tuple[bytes, Callable[..., Any] | None]] = {
    "camera raw": (rb"II\*\0.{4}CR|IIR[OS]|IIU\0|MMOR|FUJIFILMCCD-RAW|.{4}ftypcrx ", None),
    "JPEG XL": (rb"\xff\x0a(?!..G)|\0\0\0\x0cJXL \r\n\x87\n", None),
    "Photoshop": (rb"8BPS", None),
    "bmp": (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", BmpImagePlugin.BmpImageFile),
    "gif": (rb"GIF8[79]a", GifImagePlugin.GifImageFile),
    "jpeg": (rb"\xff\xd8\xff", JpegImagePlugin.jpeg_factory),
    "jpeg2000": (
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        Jpeg2KImagePlugin.Jpeg2KImageFile,
    ),
    "png": (rb"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    "pnm": (rb"P[1-6]\s", PpmImagePlugin.PpmImageFile),
    "tiff": (rb"II[*+]\0|MM\0[*+]", TiffImagePlugin.TiffImageFile),
    "webp": (rb"RIFF.{4}WEBP", WebPImagePlugin.WebPImageFile),
    # The first of the brands may be a general one; then the others tell AVIF from HEIF.
    "avif": (
        rb".{4}ftyp(avi[fs]|(mif[12]|msf1|miaf).{4}(.{4})*avi[fs])",
        AvifImagePlugin.AvifImageFile,
    ),
    "heif": (rb".{4}ftyp(he[iv][cmsx]|mif[12]|msf1|miaf|avc[is])", HeifImageFile),
}
CODECS = {"heif": "hevc", "avif": "av1"}
ANIMATED = {"gif", "png", "webp", "avif"}
PARTS = {"tiff": "first page", "heif": "primary image"}  # which of several is read
CREATOR = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software)

ORIENTATIONS = {
    2: ("mirrored", Image.Transpose.FLIP_LEFT_RIGHT),
    3: ("rotated by 180 degrees", Image.Transpose.ROTATE_180),
    4: ("mirrored, rotated by 180 degrees", Image.Transpose.FLIP_TOP_BOTTOM),
    5: ("mirrored, rotated by 270 degrees", Image.Transpose.TRANSPOSE),
    6: ("rotated by 90 degrees", Image.Transpose.ROTATE_270),
    7: ("mirrored, rotated by 90 degrees", Image.Transpose.TRANSVERSE),
    8: ("rotated by 270 degrees", Image.Transpose.ROTATE_90),
}
SIDEWAYS = {5, 6, 7, 8}
# Browsers show a frame for 100 ms if its delay is at most 10 ms.
MIN_DELAY_MS, DEFAULT_DELAY_MS = 10, 100
# Sum of the standard's quantization table for luminance, which the quality scales.
# Reference: ITU-T T.81 (1992), table K.1; the Independent JPEG Group's jcparam.c for the scale.
LUMINANCE_SUM = 3688

WARNINGS_LOCK = threading.Lock()  # the filters of warnings belong to the whole process


def is_image(file: MediaFile) -> bool:
    """Return whether a file begins as an image does, also as one that is refused by name.

    Example:
        >>> from jdfd_keras.faces.media import open_file
        >>> with open_file("photograph.png") as photograph, open_file("video.mp4") as video:
        ...     is_image(photograph), is_image(video)
        (True, False)
    """
    return bool(_identify(file))


class ImageReader:
    """An open image: its header is read at once, its pixels by `read`.

    Frames are shown as viewers show them: rotated by EXIF or the container, transparent pixels on
    white, converted to sRGB if they have another RGB profile. Of a multi-page TIFF the first page
    is read, of a HEIF file the primary image, of a photograph with further pictures the first.

    Raises:
        UnreadableFileError: If the file is not a complete image of 8 or 16 bits per channel, is of
            a kind that is not read, or has more pixels than the limit.
    """

    def __init__(self, file: MediaFile, limits: LimitOptions):
        self.file, self.warnings = file, []
        self._limits = limits
        container = _identify(file)
        with _decoding(file.path):
            if container == "tiff" and _is_camera_raw(file):
                container = "camera raw"
            decoder = KINDS[container][1]
            if decoder is None:
                raise UnreadableFileError(
                    f"Expected an image that can be decoded; got {file.path}, a {container} file. "
                    "Export it as JPEG, PNG or TIFF."
                )
            if container == "heif":
                _check_boxes(file)
            file.handle.seek(0)
            self._image = image = decoder(file.handle)
            check_size(file.path, image.size, limits)
            num_pictures = getattr(image, "n_frames", 1)
            # The default image of an animated PNG is for viewers that show only stills.
            self._first = image.tell() + getattr(image, "default_image", False)
            num_frames = max(1, num_pictures - self._first) if container in ANIMATED else 1
            # These decoders rotate the image themselves; their size is that after it.
            orientation = 1
            if container == "heif":
                orientation = image.info["original_orientation"]
            elif container == "tiff":
                orientation = image.tag_v2.get(ExifTags.Base.Orientation)
            width, height = image.size[::-1] if orientation in SIDEWAYS else image.size
            self.info = MediaInfo(
                container=container,
                codec=CODECS.get(container, container),
                pixel_format=_pixel_format(image, file),
                width=width,
                height=height,
                num_frames=num_frames,
                orientation=_describe_orientation(orientation),
                jpeg_quality=estimate_jpeg_quality(image),
            )
        self.is_video = num_frames > 1
        if container in PARTS and num_pictures > 1:
            self.warnings.append(f"only the {PARTS[container]} of {num_pictures} is analysed")

    def read(self, count: int, *, every: int = 0) -> Iterator[Frame]:
        """Decode sampled frames in one pass; see `jdfd_keras.faces.decode.read_frames`.

        All frames are decoded, up to the last, so that a truncated animation is refused.
        """
        num_frames, image = self.info.num_frames, self._image
        sampled = set(choose_frames(num_frames, count, every))
        orientation, time_ms = 1, 0.0
        for index in range(num_frames):
            with _decoding(self.file.path):
                image.seek(self._first + index)
                # A frame of a GIF can enlarge it.
                check_size(self.file.path, image.size, self._limits)
                _check_mode(image)
                image.load()
                if index == 0:
                    orientation = self._read_metadata()
                pixels = _to_rgb(image, orientation) if index in sampled else None
                if self.info.container == "avif":  # its delays are rounded to milliseconds
                    time_ms = image.info["timestamp"]
            if pixels is not None:
                yield Frame(index, time_ms / 1000, pixels)
            delay_ms = image.info.get("duration", 0)
            time_ms += delay_ms if delay_ms > MIN_DELAY_MS else DEFAULT_DELAY_MS
            check_duration(self.file.path, time_ms / 1000 if self.is_video else 0, self._limits)
        if self.is_video:
            rate = 1000 * num_frames / time_ms
            self.info = replace(self.info, duration_s=time_ms / 1000, frame_rate=rate)

    def _read_metadata(self) -> int:
        """Complete `info`; return the EXIF orientation that the decoder has not applied."""
        image = self._image
        exif = _optional(image.getexif, Image.Exif())
        orientation = _optional(lambda: exif.get(ExifTags.Base.Orientation, 1), 1)
        creator = _optional(lambda: [str(exif[tag]) for tag in CREATOR if tag in exif], [])
        profile = io.BytesIO(image.info.get("icc_profile") or b"")
        self.info = replace(
            self.info,
            orientation=_describe_orientation(orientation) or self.info.orientation,
            encoder=_clean(" ".join(creator) or image.info.get("Software", "")),
            colour=_optional(lambda: _clean(ImageCms.getProfileDescription(profile)), ""),
        )
        return orientation


def estimate_jpeg_quality(image: Image.Image) -> int:
    """Estimate the quality at which a JPEG was saved, 1 to 100, from its quantization table.

    The scale is that of the Independent JPEG Group. Other images have 0.

    Example:
        >>> Image.open("photograph.png").save("photograph.jpg", quality=90)
        >>> with Image.open("photograph.jpg") as image:
        ...     estimate_jpeg_quality(image)
        90
    """
    table = getattr(image, "quantization", {}).get(0)  # only JPEG and MPO have it
    if table is None:
        return 0
    scale = 100 * sum(table) / LUMINANCE_SUM
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(max(round(quality), 1), 100)


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn each error of a decoder into one line that names the file; hide its warnings."""
    try:
        with WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UnreadableFileError, MemoryError):
        raise
    # Pillow 12.3 raises nearly any error for a damaged file: also IndexError, TypeError, KeyError,
    # RuntimeError, struct.error and zlib.error. It must cost no other file.
    except Exception as error:  # noqa: BLE001
        kind = "" if isinstance(error, (OSError, SyntaxError, ValueError)) else type(error).__name__
        reason = f"{kind} {_clean(error)}".strip() or type(error).__name__
        raise UnreadableFileError(
            f"Expected a complete image of 8 or 16 bits per channel; got {path}, which cannot be "
            f"decoded: {reason}. It was perhaps cut short: copy it again, or save it as PNG."
        ) from error


def _optional(read: Callable[[], T], default: T) -> T:
    """Return metadata; the default if they are damaged, as viewers do."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as in `_decoding`
        return default


def _identify(file: MediaFile) -> str:
    """Return the kind of an image; "" of another file."""
    file.handle.seek(0)
    head = file.handle.read(64)
    file.handle.seek(0)
    return next((kind for kind in KINDS if re.match(KINDS[kind][0], head, re.DOTALL)), "")


def _is_camera_raw(file: MediaFile) -> bool:
    """Return whether a TIFF has the data of a sensor, and a thumbnail as its first picture."""
    file.handle.seek(0)
    header = file.handle.read(8)
    header += file.handle.read(8) if header[2] == 43 or header[3] == 43 else b""  # BigTIFF
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.handle.seek(tags.next)
    tags.load(file.handle)
    is_sensor = tags.get(ExifTags.Base.PhotometricInterpretation) in (32803, 34892)
    is_thumbnail = tags.get(ExifTags.Base.NewSubfileType, 0) & 1
    return bool(is_sensor or is_thumbnail or ExifTags.Base.DNGVersion in tags)


def _check_boxes(file: MediaFile) -> None:
    """Check that a HEIF file is complete; libheif 1.23 leaves missing tiles black."""
    position = 0
    while position + 8 <= file.size:
        file.handle.seek(position)
        header = file.handle.read(16)
        is_long = header[:4] == b"\0\0\0\1"
        size = int.from_bytes(header[8:] if is_long else header[:4], "big")
        if size < 8:  # 0: up to the end of the file
            return
        position += size
        if header[4:8] in (b"meta", b"mdat") and position > file.size:
            raise ValueError(f"it has {file.size} of {position} bytes")


def _check_mode(image: Image.Image) -> None:
    if image.mode.startswith(("I", "F")) and not image.mode.startswith("I;16"):
        raise ValueError(f"its pixels have neither 8 nor 16 bits (mode {image.mode})")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))
        # Pillow 12.3 decodes these to noise, from the low bytes.
        if image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2 and max(bits) > 8:
            raise ValueError("its 16-bit channels are stored as separate planes")


def _pixel_format(image: Any, file: MediaFile) -> str:
    """Return the mode, such as RGB; with the bits per channel if they are not 8, as in RGB;16."""
    bits = image.info.get("bit_depth", 8)  # of HEIF
    if image.format == "AVIF":
        file.handle.seek(0)
        # Its flags high_bitdepth and twelve_bit, in the configuration of AV1.
        flags = re.search(rb"av1C..(.)", file.handle.read(1 << 16), re.DOTALL)
        bits += 2 * (flags[1][0] >> 5 & 3).bit_count() if flags else 0
    elif image.format in ("PNG", "TIFF") and image.tile:
        depth = re.search(r";(\d+)", str(image.tile[0].args))  # a raw mode, such as RGB;16B
        bits = int(depth[1]) if depth else 8
    return image.mode if bits == 8 or ";" in image.mode else f"{image.mode};{bits}"


def _to_rgb(image: Image.Image, orientation: int) -> np.ndarray:
    """Convert a loaded image to uint8[height, width, 3]."""
    if image.mode.startswith("I;16"):
        # The high byte, as Pillow 12.3 uses of 16-bit RGB: 65535 becomes 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(image, mask=image)
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    if profile := image.info.get("icc_profile"):
        # Phones use Display P3: without this, faces are 5 levels less red. Profiles of other
        # colour spaces, such as CMYK, are an error here, and without effect.
        source, srgb = io.BytesIO(profile), ImageCms.createProfile("sRGB")
        rgb = _optional(lambda: ImageCms.profileToProfile(rgb, source, srgb), None) or rgb
    if orientation in ORIENTATIONS:
        rgb = rgb.transpose(ORIENTATIONS[orientation][1])
    return np.array(rgb)


def _describe_orientation(orientation: int | None) -> str:
    return ORIENTATIONS[orientation][0] if orientation in ORIENTATIONS else ""


def _clean(text: object) -> str:
    """Return a text on one line, at most 200 characters of it."""
    return " ".join(str(text).replace("\0", " ").split())[:200]
