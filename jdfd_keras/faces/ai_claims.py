"""What a file states about AI generation in its metadata, without a signature.

Takes the bytes of a file; returns AIClaims. Anybody can write or remove such metadata, and their
text is untrusted. Only the beginning and the end of a file are searched.
"""

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from jdfd_keras.io.console import printable
from jdfd_keras.io.results import Result

SEARCHED_BYTES = 2**20  # at the beginning of a file, and as many at its end
MAX_CLAIMS = 20
MAX_TEXT = 300  # characters of one text of a file
MAX_CHUNKS = 1000  # of a PNG
MAX_PNG_TEXT = 2**20  # bytes of one PNG text

# Reference: IPTC NewsCodes, Digital Source Type, https://cv.iptc.org/newscodes/digitalsourcetype/.
# `algorithmicMedia` is not among them: it has no trained model.
SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "created by generative AI",
    "compositeWithTrainedAlgorithmicMedia": "edited with generative AI, or partly created by it",
    "compositeSynthetic": "a composite with synthetic elements",
}
# A property of XMP as an attribute or an element. Content Credentials have another syntax.
XMP_SOURCE_TYPE = re.compile(
    rb":DigitalSourceType(?:\s+rdf:resource)?\s*(?:=\s*[\"']|>)\s*"
    rb"https?://cv\.iptc\.org/newscodes/digitalsourcetype/(\w{1,60})"
)
# Names that only generators of images or videos have.
GENERATORS = re.compile(
    r"\b(Stable Diffusion|Midjourney|DALL[-·]E|NovelAI|ComfyUI|InvokeAI|Adobe Firefly|"
    r"Automatic1111|OpenAI Sora|Imagen Video|RunwayML)\b",
    re.IGNORECASE,
)
# The parameters of a diffusion model, as its user interfaces write them into PNG text and EXIF.
PARAMETERS = re.compile(r"\bSteps: \d{1,5}, (?:Sampler|Schedule type): ")
PARAMETERS_UTF16 = re.compile("|".join(("Steps: ", "Sampler: ")).encode("utf-16-be"))
PNG_BEGIN = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class AIClaim(Result):
    """A statement of a file that AI made it, or a part of it.

    Attributes:
        source: Where it stands, such as `Content Credentials`, `XMP`, `PNG text` or `EXIF`.
        text: What it states; text of the file in it is untrusted, shortened, and has its invisible
            characters escaped.
        is_signed: Whether it is part of credentials whose signature and hashes are right.
    """

    source: str
    text: str
    is_signed: bool = False


def shorten_text(value: object, limit: int = MAX_TEXT) -> str:
    r"""Return a text of a file on one line, with invisible characters escaped; "" if it is none.

    Example:
        >>> shorten_text("a" + chr(10) + "b"), shorten_text("abcdef", 4), shorten_text(None)
        ('a\\nb', 'abc…', '')
    """
    if not isinstance(value, str):
        return ""
    text = printable(value[: limit + 1].strip())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def describe_source_type(source_type: str) -> str:
    """Return what a digital source type of IPTC states about AI; "" if it states nothing.

    Example:
        >>> describe_source_type(
        ...     "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
        ... )
        'created by generative AI (digital source type trainedAlgorithmicMedia)'
        >>> describe_source_type("digitalCapture")
        ''
    """
    name = source_type.rstrip("/").rpartition("/")[2]
    text = SOURCE_TYPES.get(name, "")
    return text and f"{text} (digital source type {name})"


def find_ai_claims(handle: BinaryIO, encoder: str = "") -> tuple[AIClaim, ...]:
    """Find statements about AI generation in the metadata of a file: XMP, PNG text and EXIF.

    Args:
        handle: The open file; its position changes.
        encoder: Program that wrote the file, as it states; of `MediaInfo`.

    Returns:
        At most MAX_CLAIMS, each once.

    Example:
        >>> with open("photograph.png", "rb") as file:
        ...     find_ai_claims(file, "ComfyUI 0.3")
        (AIClaim(source='program', text='written by ComfyUI 0.3', is_signed=False),)
    """
    searched = _read_ends(handle)
    begin, claims = searched[0], []
    if GENERATORS.search(encoder):
        claims.append(AIClaim("program", f"written by {shorten_text(encoder)}"))
    if begin.startswith(PNG_BEGIN):
        for keyword, value in _read_png_texts(handle):
            searched.append(value.encode())
            claims += _read_png_text(keyword, value)
    elif _has_parameters(begin):
        claims.append(AIClaim("EXIF", "has the parameters of a diffusion model"))
    for part in searched:
        types = [match[1].decode("ascii", "replace") for match in XMP_SOURCE_TYPE.finditer(part)]
        claims += [AIClaim("XMP", text) for text in map(describe_source_type, types) if text]
    return tuple(dict.fromkeys(claims))[:MAX_CLAIMS]


def _read_ends(handle: BinaryIO) -> list[bytes]:
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    parts = [handle.read(SEARCHED_BYTES)]
    if size > SEARCHED_BYTES:
        handle.seek(max(size - SEARCHED_BYTES, SEARCHED_BYTES))
        parts.append(handle.read(SEARCHED_BYTES))
    return parts


def _has_parameters(begin: bytes) -> bool:
    """Return whether the EXIF of a JPEG or WebP has the parameters of a diffusion model."""
    if not begin.startswith((b"\xff\xd8\xff", b"RIFF")):
        return False
    if PARAMETERS.search(begin.decode("latin-1")):
        return True
    return len(set(PARAMETERS_UTF16.findall(begin))) == 2


def _read_png_text(keyword: str, value: str) -> list[AIClaim]:
    if keyword == "parameters" and PARAMETERS.search(value):
        text = f"parameters of a diffusion model: {shorten_text(value)}"
    elif keyword in ("prompt", "workflow") and '"class_type"' in value:
        text = f"{keyword} of ComfyUI: {shorten_text(value)}"
    elif keyword in ("Software", "Source") and GENERATORS.search(value):
        text = f"{keyword}: {shorten_text(value)}"
    else:
        return []
    return [AIClaim("PNG text", text)]


def _read_png_texts(handle: BinaryIO) -> Iterator[tuple[str, str]]:
    """Yield keywords and texts of a PNG; a damaged chunk ends them or is skipped."""
    handle.seek(len(PNG_BEGIN))
    for _ in range(MAX_CHUNKS):
        header = handle.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            return
        length, kind = int.from_bytes(header[:4]), header[4:]
        if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= MAX_PNG_TEXT:
            keyword, _, value = handle.read(length).partition(b"\0")
            handle.seek(4, os.SEEK_CUR)
            try:
                yield keyword.decode("latin-1"), _decode_png_text(kind, value)
            except (zlib.error, ValueError):
                continue
        else:
            handle.seek(length + 4, os.SEEK_CUR)


def _decode_png_text(kind: bytes, value: bytes) -> str:
    is_compressed = kind == b"zTXt"
    if kind == b"zTXt":
        value = value[1:]
    elif kind == b"iTXt":
        is_compressed = value[:1] == b"\1"
        _language, _translated, value = value[2:].split(b"\0", 2)
    if is_compressed:
        value = zlib.decompressobj().decompress(value, MAX_PNG_TEXT)
    return value.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
