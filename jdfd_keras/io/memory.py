"""Memory of this process that the allocator keeps although nothing uses it.

glibc keeps freed memory for later allocations. After a burst of large ones, such as the messages of
many requests, that may be more than everything else.
"""

import ctypes
import functools
from collections.abc import Callable


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
