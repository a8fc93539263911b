"""Uploads: the body of a request to a file in `incoming/`, with its SHA-256.

Takes a multipart or a raw body; returns an Upload. The file has a random name, never that of the
client, and is deleted unless the whole body was received. Also files below `--root`, which are
analysed in place. Independent of jobs.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from jdfd_keras.serving.jobs.incoming_file import (
    IncomingFile,
    check_space,
    disk_errors,
    too_large,
)
from jdfd_keras.serving.jobs.request_errors import RequestError

MAX_NAME_LENGTH = 255
MAX_FIELDS = 16  # text parts of a multipart body
MAX_FIELD_BYTES = 4096
# Beside the file: boundaries, headers of the parts and text parts.
MAX_EXTRA_BYTES = 2 * MAX_FIELDS * MAX_FIELD_BYTES
STALL_TIMEOUT_S = 60.0  # of a body of which nothing more arrives
WRITE_BYTES = 2**20  # written at once, by another thread
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
PLAIN_ENCODINGS = ("", "identity", "binary", "7bit", "8bit")


@dataclass(frozen=True)
class Upload:
    """A file that was received.

    Attributes:
        name: Its name without folders; untrusted text.
        sha256: SHA-256 of its bytes, hexadecimal.
        file_bytes: Size.
        path: Where it is.
        fields: Text parts of a multipart body, by name.
    """

    name: str
    sha256: str
    file_bytes: int
    path: Path
    fields: dict[str, str] = field(default_factory=dict)


def check_name(text: str) -> str:
    r"""Return the last part of a file name that a client states, as it is displayed.

    Args:
        text: The name; what is before the last slash or backslash is not used.

    Raises:
        RequestError: `bad_request`, if nothing is left or it is too long.

    Example:
        >>> check_name("../../etc/passwd"), check_name(r"C:\clips\a.mp4"), check_name("<b>.mp4")
        ('passwd', 'a.mp4', '<b>.mp4')
    """
    name = re.split(r"[/\\]", text)[-1].encode("utf-8", "backslashreplace").decode()
    if name in ("", ".", "..") or len(name) > MAX_NAME_LENGTH:
        raise RequestError(
            "bad_request",
            f"Expected a file name of 1 to {MAX_NAME_LENGTH} characters; got {text[:80]!r}. Try "
            "?name=clip.mp4, or a part with a filename.",
        )
    return name


def plain_suffix(name: str) -> str:
    """Return the suffix of a name in lower case; "" unless it is 1 to 8 letters or digits.

    Example:
        >>> plain_suffix("Clip.MP4"), plain_suffix("a.mp4 "), plain_suffix(".bashrc")
        ('.mp4', '', '')
    """
    suffix = Path(name).suffix.lower()
    return suffix if SUFFIX.fullmatch(suffix) else ""


class _Body:
    """The body of a request as MultipartReader needs it, with a limit and a timeout."""

    def __init__(self, request: web.BaseRequest, max_bytes: int, max_file_bytes: int):
        self._stream: Any = request.content
        self._max_bytes, self._max_file_bytes = max_bytes, max_file_bytes
        self.unread_data = self._stream.unread_data
        self.at_eof = self._stream.at_eof

    async def read(self, size: int = -1) -> bytes:
        return await self._limit(self._stream.read(size))

    async def readline(self, **settings: Any) -> bytes:
        return await self._limit(self._stream.readline(**settings))

    async def _limit(self, reading: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(STALL_TIMEOUT_S):
                data = await reading
        except TimeoutError:
            raise RequestError(
                "timeout",
                f"Expected the rest of the body; got nothing for {STALL_TIMEOUT_S:g} s. Try again.",
            ) from None
        if self._stream.total_bytes > self._max_bytes:
            raise too_large(self._max_file_bytes)
        return data


@contextlib.asynccontextmanager
async def receive(
    request: web.BaseRequest, folder: Path, max_bytes: int, threads: ThreadPoolExecutor
) -> AsyncIterator[Upload]:
    """Receive the file of a request; it exists inside the block, unless it is moved there.

    The declared size is not checked here but by `check_headers`, before the client is asked for
    the body.

    Args:
        request: A request with a multipart or a raw body.
        folder: Folder of unfinished uploads.
        max_bytes: Largest file.
        threads: Threads that write, so that a slow disk delays this upload only.

    Raises:
        RequestError: `bad_request`, `too_large`, `timeout` or `disk_full`.
    """
    with disk_errors():
        incoming = IncomingFile(folder, max_bytes)
    try:
        with disk_errors():
            name, fields = await _read_body(request, incoming, max_bytes, threads)
        sha256 = incoming.finish()
        if not incoming.file_bytes:
            raise RequestError(
                "bad_request", "Expected a file; got an empty one. Check the file of the request."
            )
        yield Upload(name, sha256, incoming.file_bytes, incoming.path, fields)
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise _unreadable(error) from None
    finally:
        # Not awaited, since this task may be cancelled; it waits for a write of another thread.
        threads.submit(incoming.discard)


async def _read_body(
    request: web.BaseRequest, incoming: IncomingFile, max_bytes: int, threads: ThreadPoolExecutor
) -> tuple[str, dict[str, str]]:
    if request.content_type.startswith("multipart/"):
        return await _read_multipart(request, incoming, max_bytes, threads)
    name = check_name(request.query.get("name", ""))
    body = _Body(request, max_bytes, max_bytes)
    await _write(incoming, body.read, threads)
    return name, {}


async def _write(
    incoming: IncomingFile, read: Callable[[int], Awaitable[bytes]], threads: ThreadPoolExecutor
) -> None:
    loop, buffer = asyncio.get_running_loop(), bytearray()
    while chunk := await read(2**16):
        buffer += chunk
        if len(buffer) >= WRITE_BYTES:
            await loop.run_in_executor(threads, incoming.write, bytes(buffer))
            buffer.clear()
    if buffer:
        await loop.run_in_executor(threads, incoming.write, bytes(buffer))


async def _read_multipart(
    request: web.BaseRequest, incoming: IncomingFile, max_bytes: int, threads: ThreadPoolExecutor
) -> tuple[str, dict[str, str]]:
    content: Any = _Body(request, max_bytes + MAX_EXTRA_BYTES, max_bytes)
    name, fields = "", {}
    try:
        reader = MultipartReader(request.headers, content)
        while (part := await reader.next()) is not None:
            if isinstance(part, MultipartReader) or part.name is None:
                raise ValueError("a part without a name, or a nested one")
            encoding = part.headers.get("Content-Transfer-Encoding", "").lower()
            if encoding not in PLAIN_ENCODINGS:
                raise ValueError(f"a part in the encoding {encoding[:40]!r}")
            if part.name == "file":
                if name:
                    raise ValueError("two parts named file")
                name = check_name(part.filename or "")
                await _write(incoming, part.read_chunk, threads)
                continue
            if part.name in fields or len(fields) >= MAX_FIELDS:
                raise ValueError(f"the part {part.name[:40]!r} twice, or too many parts")
            fields[part.name] = (await _read_field(part.read_chunk)).decode()
    except RequestError:
        raise
    except ValueError as error:
        raise _unreadable(error) from None
    if not name:
        raise RequestError(
            "bad_request", "Expected a part named file; got none. Try curl -F file=@clip.mp4."
        )
    return name, fields


async def _read_field(read: Callable[[], Awaitable[bytes]]) -> bytes:
    text = b""
    while chunk := await read():
        text += chunk
        if len(text) > MAX_FIELD_BYTES:
            raise ValueError(f"an option of more than {MAX_FIELD_BYTES} bytes")
    return text


def _unreadable(error: Exception) -> RequestError:
    text = str(getattr(error, "message", error))[:200]
    return RequestError(
        "bad_request",
        f"Expected a body with one file; got {text!r}. Try curl -F file=@clip.mp4.",
    )


def check_headers(request: web.BaseRequest, max_bytes: int, folder: Path) -> None:
    """Check the stated size and encoding of a body before it is read.

    Args:
        request: The request.
        max_bytes: Largest file.
        folder: Folder on the disk that must have space for it.

    Raises:
        RequestError: `bad_request`, `too_large` or `disk_full`.

    Example:
        >>> from aiohttp.test_utils import make_mocked_request
        >>> request = make_mocked_request("POST", "/v1/files", {"Content-Length": "9"})
        >>> check_headers(request, 10, Path("."))
    """
    encoding = request.headers.get("Content-Encoding", "").lower()
    if encoding not in PLAIN_ENCODINGS:
        raise RequestError(
            "bad_request",
            f"Expected a body without Content-Encoding; got {encoding[:40]!r}. Send the file as "
            "it is.",
        )
    is_multipart = request.content_type.startswith("multipart/")
    length = request.content_length or 0
    if length > max_bytes + is_multipart * MAX_EXTRA_BYTES:
        raise too_large(max_bytes)
    check_space(folder, length)


def open_below_root(root: Path, path: Any) -> Upload:
    """Hash a file that a request names by its path below a folder.

    Args:
        root: The folder.
        path: Path relative to it; symbolic links must stay below the folder, too.

    Raises:
        RequestError: `bad_request`, `outside_root` or `missing`.

    Example:
        >>> open_below_root(Path("videos"), "../video.mp4")
        Traceback (most recent call last):
        jdfd_keras.serving.jobs.request_errors.RequestError: Expected a relative path below ...
    """
    if not isinstance(path, str) or not path or "\0" in path:
        raise RequestError(
            "bad_request",
            'Expected {"path": "sub/clip.mp4"}; got no path. Give one below the --root of the '
            "server.",
        )
    base = os.path.realpath(root)
    try:
        real = os.path.realpath(os.path.join(base, path))
        real.encode()
    except UnicodeEncodeError:
        raise RequestError(
            "bad_request",
            f"Expected a path in UTF-8; got {path[:200]!a}. Rename the file, or its folder.",
        ) from None
    if os.path.isabs(path) or os.path.commonpath([base, real]) != base:
        raise RequestError(
            "outside_root",
            f"Expected a relative path below the --root of the server; got {path[:200]!r}. Upload "
            "other files.",
        )
    try:
        # Not blocking, since the path may be a pipe.
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError("not a regular file")
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        raise RequestError(
            "missing",
            f"Expected a file below the --root of the server; got {path[:200]!r}, which is missing "
            "or cannot be read. Check the path.",
        ) from None
    # Not the name of a link: a result has one name for a file.
    return Upload(check_name(real), sha256, status.st_size, Path(real))


async def read_small(request: web.BaseRequest, max_bytes: int) -> bytes:
    """Read a whole body into memory.

    Raises:
        RequestError: `bad_request`, `too_large` or `timeout`.
    """
    body, data = _Body(request, max_bytes, max_bytes), b""
    try:
        while chunk := await body.read(2**16):
            data += chunk
    except web.RequestPayloadError as error:
        raise _unreadable(error) from None
    return data
