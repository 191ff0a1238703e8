"""Why a file could not be written, according to the disk and its limits, since GDAL's errors do not say."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

if sys.platform != "win32":
    import resource

_FULL = 1 << 20  # bytes; a disk with less free space counts as the cause of a failed write


def why_unwritten(error: Exception, folder: Path, partial: Path) -> str:
    """The message if an error arose because a file could not be written; empty if it has another cause.

    Args:
        error: What was raised while files were written.
        folder: The folder of the work, named in the message.
        partial: The folder in it that the files were written to.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EFBIG or (number is None and _limit_is_reached(partial)):
        return f"{folder}: takes no file that large; raise the limit of file sizes, or choose another `out`"
    if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and _disk_is_full(folder)):
        return f"{folder}: the disk is full; free some space, or choose another `out`"
    named = str(error.filename) if isinstance(error, OSError) and error.filename else ""
    if number is not None and (number in (errno.EIO, errno.EROFS) or named.startswith(str(folder))):
        return f"{folder}: cannot be written to ({os.strerror(number)}); choose another `out`"
    return ""


def _limit_is_reached(partial: Path) -> bool:
    """Whether a file has about the size that this process may write; only GDAL's own errors do not say so."""
    if sys.platform == "win32":  # has no such limits
        return False
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    sizes = [path.stat().st_size for path in partial.rglob("*")] if limit != resource.RLIM_INFINITY else []
    return any(size + _FULL > limit for size in sizes)


def _disk_is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _FULL
    except OSError:
        return False
