"""A copy of an unfinished map's checkpoint, from which another machine resumes when this one is gone."""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geocfl.errors import OutputError, resumable
from geocfl.mapping.checkpoint import CHECKPOINT, FILES, finished_strips
from geocfl.products.storage import in_store, put, reaching

log = logging.getLogger("geocfl")

PAUSE = 30.0
"""Seconds between two copies at least."""
SHARE = 20
"""A copy is made once the work has gone on for so many times the seconds that the last copy took."""


class SavedCheckpoint:
    """Keeps a copy of a scene's checkpoint in a folder on a disk or in an object store.

    The pixels are copied before the log, so that a copy that breaks off still holds the strips of the log before it.

    Args:
        folder: Where the copy lies: a path or address as `geocfl.products.storage.output_folder` returns it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copied, self._pause = time.monotonic(), PAUSE

    def fetch(self, checkpoint: Path) -> None:
        """Copies it into the folder of a checkpoint, unless that one is as far.

        Raises:
            OutputError: The folder or store cannot be reached.
        """
        remedy = "check the address and the credentials, or choose another `work`"
        try:
            with reaching(self._folder, remedy):
                self._fetch(checkpoint)
        except OSError as error:
            raise OutputError(f"{self._folder}: cannot be used ({error.strerror}); choose another `work`") from error

    def _fetch(self, checkpoint: Path) -> None:
        if in_store(self._folder):
            self._folder.fs.invalidate_cache()
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
        if not (self._folder / CHECKPOINT).exists():
            return
        aside = checkpoint / f"{CHECKPOINT}.{uuid.uuid4().hex[:8]}"
        try:
            _get(self._folder / CHECKPOINT, aside)
            if finished_strips(aside) <= finished_strips(checkpoint / CHECKPOINT):
                return
            (checkpoint / CHECKPOINT).unlink(missing_ok=True)  # fits the pixels before, not those that come now
            for name in FILES:
                if name != CHECKPOINT:
                    _get(self._folder / name, checkpoint / name)
            os.replace(aside, checkpoint / CHECKPOINT)
        finally:
            aside.unlink(missing_ok=True)

    def save_sometimes(self, checkpoint: Path) -> None:
        """Copies the checkpoint in a folder if the last copy is some time ago."""
        if time.monotonic() - self._copied >= self._pause:
            self.save(checkpoint)

    def save(self, checkpoint: Path) -> None:
        """Copies the checkpoint in a folder; a failure is only logged, because the map does not need the copy."""
        started = time.monotonic()
        try:
            for name in FILES:
                _put(checkpoint / name, self._folder / name)
        except Exception as error:  # of any store
            log.warning("%s: the checkpoint cannot be copied there (%s); the work goes on without", self._folder, error)
        self._copied = time.monotonic()
        self._pause = max(PAUSE, SHARE * (self._copied - started))

    def remove(self) -> None:
        """Removes the copy."""
        with suppress(Exception):
            for name in reversed(FILES):
                (self._folder / name).unlink(missing_ok=True)
            if not in_store(self._folder):
                self._folder.rmdir()

    @contextmanager
    def kept(self, checkpoint: Path) -> Iterator[None]:
        """Copies the checkpoint if the block is stopped or its error may pass; removes the copy after other errors."""
        try:
            yield
        except BaseException as error:
            if resumable(error):
                self.save(checkpoint)
            else:
                self.remove()
            raise


def _get(source: Path, target: Path) -> None:
    if in_store(source):
        source.fs.get_file(source.path, str(target))
    else:
        shutil.copyfile(source, target)


def _put(source: Path, target: Path) -> None:
    """Copies a file; the target appears whole or not at all."""
    if in_store(target):
        put(source, target)
        return
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copyfile(source, aside)
        put(aside, target)
    finally:
        aside.unlink(missing_ok=True)
