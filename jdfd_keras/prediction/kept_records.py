"""Verdicts and failures as lines of JSON in a file, each read when it is used.

Takes the file and the places of its lines; gives records, of any number in little memory.
"""

import dataclasses
import itertools
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, overload

from jdfd_keras.inference.verdict import Verdict
from jdfd_keras.io.results import Result

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")
NO_LINE = -1  # place of a record that is not in the file


@dataclass(frozen=True)
class FailedFile(Result):
    """A file without a verdict."""

    path: str
    error: str  # the reason
    analysed_at: str = ""  # UTC time in ISO format
    sha256: str | None = None  # None if the file cannot be read, or changed during the run
    file_bytes: int | None = None  # None if it does not exist
    # The reason for programs, such as `undecodable` or `too_long`; "" if it was not recorded.
    code: str = ""


def to_line(record: Verdict | FailedFile, mtime_ns: int | None) -> bytes:
    r"""Return a record as a line of JSON, with the modification time of its file.

    Example:
        >>> to_line(FailedFile("a.txt", "not a video"), 5)[-19:]
        b'"", "mtime_ns": 5}\n'
    """
    return json.dumps(record.to_dict() | {"mtime_ns": mtime_ns}).encode() + b"\n"


def parse_line(line: bytes) -> tuple[Verdict | FailedFile, int | None]:
    """Return the record of a line of `to_line`, and the modification time.

    Raises:
        ValueError: If it is damaged.

    Example:
        >>> parse_line(to_line(FailedFile("a.txt", "not a video"), 5))[1]
        5
    """
    try:
        values = json.loads(line)
        mtime_ns = values.pop("mtime_ns")
        kind = FailedFile if "error" in values else Verdict
        return kind.from_dict(values), mtime_ns
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(repr(error)) from error


class KeptRecords(Sequence):
    """Records of files in their order, each read from its line when it is used.

    It is equal to any sequence of equal records. The file may grow meanwhile.

    Args:
        lines: The file.
        names: Paths of the files that the records are about.
        starts: Place in bytes of the line of each; NO_LINE if it has none.
        lost: Returns the record of a path without a line.

    Example:
        >>> line = to_line(FailedFile("a.txt", "not a video"), None)
        >>> _ = Path("kept.jsonl").write_bytes(line)
        >>> KeptRecords(Path("kept.jsonl"), ["a.txt"], array("q", [0]))[0].error
        'not a video'
    """

    def __init__(
        self,
        lines: Path,
        names: Sequence[str],
        starts: array,
        lost: Callable[[str], FailedFile] | None = None,
    ):
        self._lines, self._names, self._starts, self._lost = lines, names, starts, lost

    def select(self, flags: Iterable[object]) -> "KeptRecords":
        """Return the records whose flag is true, of one flag for each."""
        flags = bytearray(map(bool, flags))
        names = list(itertools.compress(self._names, flags))
        starts = array("q", itertools.compress(self._starts, flags))
        return KeptRecords(self._lines, names, starts, self._lost)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> "KeptRecords": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            names, starts = self._names[index], self._starts[index]
            return KeptRecords(self._lines, names, starts, self._lost)
        name, start = self._names[index], self._starts[index]
        with open(self._lines, "rb") as file:
            return self._read(file, name, start)

    def __iter__(self) -> Iterator[Any]:
        with open(self._lines, "rb") as file:
            for name, start in zip(self._names, self._starts, strict=True):
                yield self._read(file, name, start)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"<{len(self)} records of {self._lines}>"

    def _read(self, file: BinaryIO, name: str, start: int) -> Any:
        if start == NO_LINE and self._lost:
            return escape_names(self._lost(name))
        file.seek(start)
        try:
            record, _ = parse_line(file.readline())
            if record.path != name:
                raise ValueError(f"a line of {record.path}")
        except ValueError as error:
            raise ValueError(
                f"Expected the record of {name} at byte {start} of {self._lines}; got {error}. The "
                "file was changed, or its index is damaged: delete verdicts.sqlite beside it, and "
                "run the same command again."
            ) from error
        return escape_names(record)


def escape_names(record: Record) -> Record:
    r"""Escape bytes of a file name that are not UTF-8, which no table or page can contain.

    Args:
        record: A dataclass, of whose fields the texts are escaped.

    Example:
        >>> escape_names(FailedFile("\udcff.mp4", "not a video")).path
        '\\udcff.mp4'
    """
    texts = {
        field.name: escaped
        for field in dataclasses.fields(record)
        if isinstance(value := getattr(record, field.name), str)
        and (escaped := escape_name(value)) is not value
    }
    return dataclasses.replace(record, **texts) if texts else record


def escape_name(text: str) -> str:
    r"""Escape bytes of a file name in a text as `escape_names`.

    Example:
        >>> escape_name("\udcff.mp4")
        '\\udcff.mp4'
    """
    if text.isascii():  # the same text, which needs no more memory
        return text
    return text.encode("utf-8", "backslashreplace").decode()
