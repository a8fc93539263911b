"""Fields of the query of a request: each given once, and whole numbers in their range."""

import contextlib
from collections.abc import Collection, Mapping

from jdfd_keras.serving.jobs.request_errors import RequestError


def check_fields(query: Mapping[str, str]) -> dict[str, str]:
    r"""Return the fields of a query; bytes that are not UTF-8 are escaped.

    Raises:
        RequestError: `bad_request`, if one is given twice.

    Example:
        >>> check_fields({"name": "a\udcff.mp4"})
        {'name': 'a\\udcff.mp4'}
    """
    fields = {
        name: value.encode("utf-8", "backslashreplace").decode() for name, value in query.items()
    }
    if len(fields) != len(query):
        raise RequestError(
            "bad_request", "Expected each option once; got one of them twice. Remove one."
        )
    return fields


def whole_number(text: str, name: str, minimum: int, maximum: int) -> int:
    """Return the number that a field states.

    Raises:
        RequestError: `bad_request`, if it is not a whole number in the range.

    Example:
        >>> whole_number("50", "limit", 1, 500)
        50
    """
    with contextlib.suppress(ValueError):
        if text.isascii() and minimum <= int(text) <= maximum:
            return int(text)
    raise RequestError(
        "bad_request",
        f"Expected {name} from {minimum} to {maximum}; got {text[:80]!r}. Try {minimum}.",
    )


def check_known(fields: Mapping[str, str], known: Collection[str]) -> None:
    """Check that a query has no other fields than these.

    Raises:
        RequestError: `bad_request`.

    Example:
        >>> check_known({"limit": "5"}, ["limit", "offset"])
    """
    if unknown := sorted(set(fields) - set(known)):
        raise RequestError(
            "bad_request",
            f"Expected options among {', '.join(known)}; got {unknown[0][:80]!r}. Check its "
            "spelling.",
        )
