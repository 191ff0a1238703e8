"""A folder that one process at a time works in."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from geocfl.errors import OutputError

log = logging.getLogger("geocfl")

ATTEMPTS = 3
"""Times to create the folder, which other work may remove before it is locked."""
PATIENCE = 0.2
"""Seconds to wait for a lock that is being released."""
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of file systems without locks, where no lock is taken."""


class BusyError(OutputError):
    """Another process or thread is working on the same scene and folder."""


class LockedFolder:
    """Creates a folder if needed, and keeps other processes out of the work on one scene in it.

    The system releases the lock when the process dies.

    Args:
        folder: The folder.
        out: The output folder that the work is for, named in messages.
        stem: Stem of the scene's file name; the lock is on ``.S.lock``.
        private: Whether the folder is in this machine's folder for temporary files, and for this user only.
    """

    def __init__(self, folder: Path, out: Path, stem: str, *, private: bool) -> None:
        self._folder, self._out, self._stem, self._private = folder, out, stem, private
        self._lock = FileLock(folder / f".{stem}.lock", thread_local=False, fallback_to_soft=False)
        self._created: list[Path] = []

    def acquire(self) -> None:
        """Creates the folder and takes the lock.

        Raises:
            BusyError: Another process holds it.
            OSError: The folder cannot be written, or belongs to another user.
        """
        for attempt in range(1, ATTEMPTS + 1):
            self._create()
            try:
                self._lock.acquire(timeout=PATIENCE)
                return
            except Timeout as error:
                raise BusyError(
                    f"{self._out}: another geocfl is working on {self._stem} there; wait for it, or stop it"
                ) from error
            except FileNotFoundError:  # other work had created the folder, and has just failed
                if attempt == ATTEMPTS:
                    raise
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                log.debug("%s: the file system has no locks (%s)", self._folder, error.strerror)
                with suppress(OSError):
                    os.unlink(self._lock.lock_file)
                return

    def left(self) -> bool:
        """Whether the lock's file exists: somebody holds it, or was killed and left the file."""
        return os.path.lexists(self._lock.lock_file)

    def release(self) -> None:
        """Releases the lock, and removes folders that were created here and are empty."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows refuses to remove an open file; filelock does it there
                os.unlink(self._lock.lock_file)
            self._lock.release()
        with suppress(OSError):  # not empty: others use it
            for folder in self._created:
                folder.rmdir()

    def _create(self) -> None:
        if self._private:
            self._created = [self._folder]  # a folder of an earlier run counts as created here
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            if hasattr(os, "getuid") and self._folder.stat().st_uid != os.getuid():
                raise PermissionError(errno.EACCES, "belongs to another user", str(self._folder))
            return
        self._created = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
