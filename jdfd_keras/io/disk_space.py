"""Full disks: how libraries report them, and one error that states what to do instead.

A used-up quota and a file beyond the size limit are full disks, too.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of errors without a code: TensorFlow's and HDF5's texts are those of the system. NumPy states only
# that less was written than asked for.
_TEXT = re.compile("|".join(re.escape(os.strerror(code)) for code in CODES))
_OTHER_TEXT = re.compile(r"\d+ requested and \d+ written|database or disk is full")


class DiskFullError(OSError):
    """An error that states which disk is full, and what to do."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, is that of a full disk.

    Example:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
        True
        >>> is_disk_full(RuntimeError("Unable to close file (errno = 28, error message = 'No space "
        ...     "left on device')"))
        True
        >>> is_disk_full(OSError(errno.EACCES, "Permission denied"))
        False
    """
    return _find_cause(error) is not None


@contextlib.contextmanager
def reraise_disk_full(content: str, advice: str = "") -> Iterator[None]:
    """Raise one error in place of any that a full disk causes.

    Args:
        content: What is written, and where.
        advice: What the same command does when there is space; without it, that is not stated.

    Raises:
        DiskFullError: If the disk is full.

    Example:
        >>> with reraise_disk_full("the run folder run", "training resumes"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        jdfd_keras.io.disk_space.DiskFullError: Expected free disk space for the run folder run; got
        'No space left on device'. Free some and run the same command again: training resumes.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        cause = _find_cause(error)
        if cause is None:
            raise
        advice = f": {advice}" if advice else ""
        raised = DiskFullError(
            f"Expected free disk space for {content}; got '{cause}'. Free some and run the same "
            f"command again{advice}."
        )
        raised.errno = errno.ENOSPC
        raise raised from error


def _find_cause(error: BaseException | None) -> str | None:
    """Return the system's text on a full disk, of an error or of one that caused it; or None."""
    known = set()
    while isinstance(error, Exception) and id(error) not in known:
        known.add(id(error))
        code = getattr(error, "errno", None)
        if isinstance(error, OSError) and code in CODES:
            return os.strerror(code)
        # A ValueError is ours, and may quote anything.
        is_quoted = isinstance(error, ValueError) or code is not None
        if not is_quoted and (found := _TEXT.search(str(error))):
            return found[0]
        if not is_quoted and _OTHER_TEXT.search(str(error)):
            return os.strerror(errno.ENOSPC)
        error = error.__cause__ or error.__context__
    return None
