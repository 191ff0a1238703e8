"""Files that are written whole or not at all, and the cache folder."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from geocfl.errors import DataError, OutputError

_LOCK = "lock"
_ROOM = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit of file sizes",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "raise the limit of open files",
}
_REMEDIES = _ROOM | {
    errno.EACCES: "change its permissions, or use another path",
    errno.EPERM: "change its permissions, or use another path",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "use a shorter name",
}
"""What to do about an error of the system."""


def refusal(error: OSError) -> str:
    """The sentence about a file that the system refuses, such as for lack of permission; empty if none is named."""
    if error.errno is None or error.filename is None:
        return ""
    remedy = _REMEDIES.get(error.errno, "check the path and the disk")
    return f"{error.filename}: {str(error.strerror).lower()}; {remedy}"


def remedy_of(number: int | None) -> str:
    """What to do about the number of an error of the system for which no file is to blame."""
    return _ROOM.get(number or 0, "check the disk")


def reason(error: OSError | RuntimeError) -> str:
    """Why the system refuses a file, in words; of a library's error, its message."""
    if isinstance(error, FileExistsError) and error.filename:
        return f"{error.filename} is a file, not a folder"
    return str(getattr(error, "strerror", None) or error)


def unwritable(path: Path, error: OSError | RuntimeError) -> OutputError:
    """The error about an output that could not be written, with the remedy for its cause."""
    number = getattr(error, "errno", None)
    room = _ROOM.get(number, "") if number else "free some space"  # libraries do not say why
    return OutputError(f"{path}: cannot be written ({reason(error)}); {room}{', or ' * bool(room)}choose another `out`")


def check_readable(path: Path) -> None:
    """Checks that the system lets a file be read; libraries often do not say that it does not.

    Raises:
        DataError: It does not.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(refusal(error) or f"{path}: cannot be read ({error})") from error


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and the folders in it, sorted; links to folders are not followed.

    Raises:
        DataError: One of the folders cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); change its permissions") from error

    return sorted(Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace a file without being asked to; call it before the work begins.

    Raises:
        OutputError: A folder is at `path`, or a file that must not be replaced.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; remove it, or choose another `out`")
    if os.path.lexists(path) and not overwrite:
        _sweep(path.parent, path.name)
        raise OutputError(f"{path}: already exists; use `overwrite=True` to replace it, or choose another `out`")


def parsed_json(text: str | bytes) -> Any:
    """The content of a JSON document.

    Raises:
        ValueError: It is none, or is nested more deeply than Python can read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


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
    with _placed(path) as partial:
        partial.write_bytes(content)


@contextmanager
def _placed(path: Path) -> Iterator[Path]:
    """A temporary path in an existing folder; the file that the block writes there is moved to `path`."""
    with working_folder(path.parent, path.name) as folder:
        partial = folder / path.name
        yield partial
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
    _sweep(parent, name)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_hidden(name)) as folder:
        lock = FileLock(Path(folder) / _LOCK, timeout=0, fallback_to_soft=False)
        with suppress(OSError, NotImplementedError):  # no locks there
            lock.acquire()
        try:
            yield Path(folder)
        finally:
            lock.release()


def _hidden(name: str) -> str:
    """The beginning of a working folder's name; the characters that follow must fit a name too."""
    return f".{name[:100]}."


def _sweep(parent: Path, name: str) -> None:
    """Removes the working folders of a file that killed processes left."""
    for left in parent.glob(f"{glob.escape(_hidden(name))}*/{_LOCK}"):
        _remove_unless_locked(left)


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
        with _placed(path) as partial:
            yield partial
    except (OSError, RuntimeError) as error:
        raise unwritable(path, error) from error


def cache_folder() -> Path:
    """``$GEOCFL_CACHE``, else ``geocfl`` in the user's cache folder; files in it may be deleted at any time."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # the user has no home folder, so nothing can be cached
        base = os.devnull
    return Path(os.environ.get("GEOCFL_CACHE") or Path(base) / "geocfl")
