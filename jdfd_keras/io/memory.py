"""Memory of this process that the allocator keeps although nothing uses it.

glibc keeps freed memory for later allocations. After a burst of large ones, such as the messages of
many requests, that may be more than everything else.
"""

import ctypes
import functools
from collections.abc import Callable

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_LARGE_BYTES = 2**20


def release_memory() -> bool:
    """Return freed memory to the system; other threads run meanwhile.

    Returns:
        Whether there was any. False with an allocator that has no such function.

    Example:
        >>> release_memory() in (True, False)
        True
    """
    return bool(_find_trim()(0))


@functools.cache
def _find_trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim  # of glibc
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return lambda _: 0


def return_large_blocks() -> bool:
    """Let the allocator return every freed block of 1 MiB or more to the system at once.

    glibc does so only for blocks larger than the largest one that was freed before, up to 32 MiB:
    after a few large requests all later ones use memory that it keeps, in pieces.

    Returns:
        Whether the allocator has that setting.

    Example:
        >>> return_large_blocks() in (True, False)
        True
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES))
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
