"""Files that are written whole or not at all, and the cache folder."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from geocfl.errors import OutputError

_LOCK = "lock"


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace a file without being asked to; call it before the work begins.

    Raises:
        OutputError: A folder is at `path`, or a file that must not be replaced.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; remove it, or choose another `out`")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path}: already exists; use `overwrite=True` to replace it, or choose another `out`")


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, would survive a power cut; does nothing where systems cannot.

    Windows opens no folders, and some network file systems sync neither.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, even if the power fails; its folder exists.

    Raises:
        OSError: It cannot be written; nothing is left behind, and an existing file stays unchanged.
    """
    with working_folder(path.parent, path.name) as folder:
        partial = folder / path.name
        partial.write_bytes(content)
        sync(partial)
        os.replace(partial, path)
    sync(path.parent)


@contextmanager
def working_folder(parent: Path, name: str) -> Iterator[Path]:
    """A hidden folder ``.NAME.xxxxxxxx`` for the time of the block; removes those that killed processes left.

    A lock tells a folder in use from one that was left. Where a file system has no locks, none are removed.

    Args:
        parent: An existing folder.
        name: Name of the file that is made in it.

    Raises:
        OSError: The folder cannot be written.
    """
    shortened = name[:100]  # the characters of a temporary folder must fit a name too
    for left in parent.glob(f".{glob.escape(shortened)}.*/{_LOCK}"):
        _remove_unless_locked(left)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{shortened}.") as folder:
        lock = FileLock(Path(folder) / _LOCK, timeout=0, fallback_to_soft=False)
        with suppress(OSError, NotImplementedError):  # no locks there
            lock.acquire()
        try:
            yield Path(folder)
        finally:
            lock.release()


def _remove_unless_locked(lock: Path) -> None:
    """Removes the folder of a lock that no process holds."""
    with suppress(OSError, NotImplementedError):  # a timeout is an OSError: it is in use
        with FileLock(lock, timeout=0, fallback_to_soft=False):
            pass
        shutil.rmtree(lock.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Writes a file whole or not at all: yields a temporary path with the same name, and moves that file to `path`.

    If the block fails, nothing is left behind and an existing file stays unchanged.

    Args:
        path: File to write; its folder is created if needed.

    Raises:
        OutputError: The folder cannot be written, or its disk is full. Every OSError and RuntimeError in the block
            counts as an error of writing, since pyogrio's are RuntimeErrors.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(path.parent, path.name) as folder:
            partial = folder / path.name
            yield partial
            sync(partial)
            os.replace(partial, path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); free some space, or choose another `out`") from error


def cache_folder() -> Path:
    """``$GEOCFL_CACHE``, else ``geocfl`` in the user's cache folder; files in it may be deleted at any time."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # the user has no home folder, so nothing can be cached
        base = os.devnull
    return Path(os.environ.get("GEOCFL_CACHE") or Path(base) / "geocfl")
