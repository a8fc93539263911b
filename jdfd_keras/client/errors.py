"""What may go wrong between a client and a server, told alike for REST and gRPC."""

from collections.abc import Iterable


class RefusedError(OSError):
    """The server found fault with what was sent to it, as it does with a face that is no image."""


class TooLargeError(OSError):
    """More was sent at once than the server, or one before it, takes."""


def not_there(url: str, reason: object) -> OSError:
    """Say that no server answers."""
    return OSError(
        f"Expected a server at {url}; got '{reason}'. Is it running? `jdfd-keras serve` starts one."
    )


def not_answered(url: str, reason: object) -> OSError:
    """Say that the server answers something else than asked for."""
    return OSError(
        f"Expected {url} to answer; got {reason} Check the name and the version of the model, and "
        "the messages of its server."
    )


def not_in_time(url: str, reason: object) -> OSError:
    """Say that the server has more to do than it has time for."""
    return OSError(
        f"Expected {url} to answer in time; got {reason}. It was not asked again, which would give "
        "it all the more to do: send fewer faces at once, or wait longer with timeout_s."
    )


def not_allowed(url: str, reason: object) -> OSError:
    """Say that the server, or a proxy before it, wants to know who asks."""
    return OSError(
        f"Expected {url} to let this client in; got {reason} Give what its operator gave you as "
        'headers={"Authorization": ...}, or in the environment variable JDFD_AUTHORIZATION.'
    )


def refused(url: str, reason: object) -> RefusedError:
    """Say that the server finds fault with the request."""
    return RefusedError(f"Expected {url} to take what was sent; got {reason} Check the faces.")


def too_large(url: str, reason: object) -> TooLargeError:
    """Say that the request is too large."""
    return TooLargeError(
        f"Expected {url} to take a request of that size; got {reason} Send smaller faces, or have "
        "its operator raise the limit."
    )


def not_understood(url: str, reason: object) -> OSError:
    """Say that the answer is none of TensorFlow Serving's."""
    return OSError(
        f"Expected {url} to answer as TensorFlow Serving does; got {reason}. Is it something else "
        "than TensorFlow Serving or `jdfd-keras serve` that listens there?"
    )


def lacks(place: object, what: str, found: Iterable[str]) -> OSError:
    """Say that a model, served or on this machine, is none of those that are exported now."""
    return OSError(
        f"Expected {place} to have {what}; got {sorted(found)}. Export the model again with "
        "`jdfd-keras export`."
    )
