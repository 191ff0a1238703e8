"""Products whole or not at all: written to a partial folder, and moved into place together, the summary last."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from geocfl.core.files import parsed_json, reason, sync
from geocfl.errors import GeocflError, OutputError, resumable
from geocfl.products.claims import Claim
from geocfl.products.files import SUFFIXES, SUMMARY
from geocfl.products.lock import BusyError, LockedFolder
from geocfl.products.storage import existing, in_store, output_folder, put, reaching
from geocfl.products.unwritten import why_unwritten

_HASH = "hash"
_COMMITTING = "committing"
_LONGEST = 255  # characters of a name on most file systems


@dataclass(frozen=True)
class Earlier:
    """Finished work that other products are added to, or some of whose products are replaced.

    Attributes:
        digest: The hash in its summary.
        kept: Suffixes of the files that stay in place.
        replaced: Suffixes of the files that give way without `overwrite`.
    """

    digest: str
    kept: frozenset[str]
    replaced: frozenset[str]


class Staging:
    """Writes the products of one scene into the output folder, all or none.

    Each file is written to its `path` in the folder ``.S.partial``; `commit` moves them all into place:

        with Staging(out, "S", digest) as staging:
            if staging.state != "done":
                write_lulc(..., staging.path("_lulc.tif"), ...)
                ...
                staging.commit()

    An exception other than KeyboardInterrupt removes the partial folder, and the output folder if it was created here.
    After an interrupt, a crash or a transient error, the same work resumes from what the partial folder holds. If a
    file cannot be written, for example because the disk is full, it raises an `OutputError`. A lock on ``.S.lock``
    keeps other processes out during the block; the system releases it when the process dies.

    If the output folder is in an object store, the partial folder is in this machine's folder for temporary files, and
    `commit` uploads the products. An object ``.S.partial`` in the store keeps other machines out, see
    `geocfl.products.claims`. Before the first upload, it receives the hash, so that the same work recognizes the files
    of an interrupted upload; it is removed after the summary is there.

    Attributes:
        state: ``"done"`` if the output folder holds this work, finished; ``"continue"`` if the partial folder holds
            some of it; else ``"new"``.
        stem: Stem of the scene's file name.
        folder: The partial folder, which may also hold other files that help to resume. Absent when done.
    """

    state: Literal["new", "continue", "done"]

    def __init__(
        self,
        out: str | Path,
        stem: str,
        digest: str,
        *,
        overwrite: bool = False,
        redo: bool = False,
        suffixes: Iterable[str] = SUFFIXES,
        earlier: Earlier | None = None,
        keep_mark: bool = False,
        known: Iterable[str] = SUFFIXES,
        work: Path | None = None,
    ) -> None:
        """Touches nothing before the ``with`` block.

        Args:
            out: Output folder, created if needed; a path or address as for `geocfl.products.storage.output_folder`.
            stem: Stem of the scene's file name.
            digest: Hash of input, model and settings; the summary must hold it as ``"hash"``.
            overwrite: Replace products of other work; those of the same work count as done.
            redo: Replace products even of the same work.
            suffixes: Those of the files that the work has, out of `known`.
            earlier: Finished work of which files stay in place; None if all files are made.
            keep_mark: Whether the partial folder keeps the hash of finished work, by which work without a summary is
                recognized as done, until `forget`.
            known: Suffixes of all files that such work may make, by default those of a map; the summary is last.
            work: Folder in whose place this machine's folder for temporary files is used if `out` is in an object
                store; several machines may share it, and the lock then holds between them.

        Raises:
            UsageError: `out` is an address that cannot be written to.
        """
        self._out, self.stem, self._digest = output_folder(out), stem, digest
        self._overwrite, self._redo, self._earlier = overwrite or redo, redo, earlier
        self._suffixes, self._keep_mark, self._known = tuple(suffixes), keep_mark, tuple(known)
        self._made = tuple(s for s in self._suffixes if not earlier or s not in earlier.kept)
        private = in_store(self._out) and not work
        self._work = self._out
        if in_store(self._out):
            self._work = (work or Path(tempfile.gettempdir())) / folder_of(self._out, stem, digest)
        self.folder = self._work / f".{stem}.partial"
        self._claim = Claim(self._out / f".{stem}.partial", self._out, stem) if in_store(self._out) else None
        self._lock = LockedFolder(self._work, self._out, stem, private=private)
        self._begun = self._uploaded = False

    def path(self, suffix: str) -> Path:
        """Where to write the file with this suffix."""
        return self.folder / f"{self.stem}{suffix}"

    def target(self, suffix: str) -> Path:
        """Where that file is after `commit`."""
        return self._out / f"{self.stem}{suffix}"

    def __enter__(self) -> Staging:
        """Finds the state and creates the partial folder.

        Raises:
            BusyError: Another process is working on the same scene.
            OutputError: Other products exist already, or the output folder cannot be written.
        """
        try:
            self._start()
        except BaseException as error:
            if self._begun and not isinstance(error, KeyboardInterrupt):
                self._clean_up()
            self._leave()
            if isinstance(error, OSError):
                if error.errno == errno.ENAMETOOLONG and all(len(part) <= _LONGEST for part in self._out.parts):
                    raise OutputError(f"{self.stem}: the name is too long for files; rename the scene") from error
                raise OutputError(
                    f"{self._out}: cannot be written to ({reason(error)}); choose another `out`"
                ) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves nothing half-written behind, except what an interrupted run can resume from."""
        failure = ""
        if isinstance(error, Exception) and not isinstance(error, GeocflError):
            failure = self._failure_of_writing(error)
        try:
            if error is not None and not resumable(error) and self.state != "done" and not self._committing():
                self._clean_up()
        finally:
            self._leave()
        if failure:
            raise OutputError(failure) from error

    def commit(self) -> None:
        """Moves the products into place, the summary last, and removes the partial folder, except for a mark.

        Products of earlier work are removed. Its summary goes first, so that no crash leaves a summary beside the
        products of other work; where products are only added, it is replaced at the end. Staging the same work again
        finishes an interrupted commit.

        Raises:
            FileNotFoundError: One of the files was not written.
            OutputError: The object store failed.
        """
        if not self._committing():
            for suffix in self._made:
                self.path(suffix).stat()
                sync(self.path(suffix))
            (self.folder / _COMMITTING).touch()
            sync(self.folder)
        with reaching(self._out, "run the same command again to resume"):
            if self._claim:
                self._claim.begin_upload(self._digest)
            if not self._adds:
                if self.path(SUMMARY).exists():
                    self.target(SUMMARY).unlink(missing_ok=True)
                for target in existing(self.target(suffix) for suffix in self._known if suffix not in self._suffixes):
                    target.unlink()
            for suffix in [*(s for s in self._made if s != SUMMARY), SUMMARY]:
                if self.path(suffix).exists():
                    put(self.path(suffix), self.target(suffix))
            if self._claim:
                self._uploaded = True
                self._claim.release(finished=True)
            else:
                sync(self._out)
        self._remove({_HASH, _COMMITTING} if self._keep_mark else set())

    @property
    def _adds(self) -> bool:
        """Whether products are only added to finished work."""
        return self._earlier is not None and not self._overwrite

    def marked(self) -> bool:
        """Whether the partial folder holds the mark of finished work, or of work whose commit was interrupted."""
        return self._committing()

    def left(self) -> bool:
        """Whether another process works on it here, or was killed and left something."""
        return self.folder.exists() or self._lock.left()

    def forget(self) -> None:
        """Removes the mark of finished work."""
        if self._committing():
            self._remove()

    def _start(self) -> None:
        with reaching(self._out, "check the address and the store's credentials, or choose another `out`"):
            if in_store(self._out):
                self._out.fs.invalidate_cache()  # others may have written since
            if not self.left() and not self._redo and self._is_done():
                self.state = "done"  # nothing is written
                return
            self._lock.acquire()
            if self._claim:
                self._claim.acquire()  # fails now, not after hours, if the store is read-only
            continued = self._written_hash(self.folder / _HASH) == self._digest
            if continued and self._committing() and self._is_complete():
                self.commit()
                self.state = "done"
            elif not self._redo and self._is_done():
                if continued or self._is_empty():  # a run was killed while it removed the folder
                    self._remove()
                self.state = "done"
            else:
                self._refuse_changed()
                self._refuse_existing()
                self._refuse_odd_names()
                self.state = "continue" if continued else "new"
                if continued:
                    (self.folder / _COMMITTING).unlink(missing_ok=True)
                    self._drop_products()
                else:
                    self._begin()

    def _leave(self) -> None:
        """Releases the lock and what else was only for the time of the work."""
        if self._claim:
            self._claim.release(finished=self._uploaded)
        self._lock.release()

    def _committing(self) -> bool:
        """Whether all products were ready and `commit` had begun to move them."""
        return (self.folder / _COMMITTING).exists()

    def _is_complete(self) -> bool:
        """Whether every product is ready or in place."""
        if in_store(self._out):
            return True
        return all(self.path(suffix).is_file() or self.target(suffix).is_file() for suffix in self._suffixes)

    def _is_done(self) -> bool:
        """Whether the output folder holds all products of this work."""
        return self._written_hash(self.target(SUMMARY)) == self._digest and all(
            self.target(suffix).is_file() for suffix in self._suffixes
        )

    @staticmethod
    def _written_hash(path: Path) -> str | None:
        """The hash in a summary or in the mark of a partial folder; None if there is none."""
        try:
            text = path.read_text(encoding="utf-8")
            return str(parsed_json(text)["hash"]) if path.suffix == ".json" else text
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _refuse_changed(self) -> None:
        """Raises BusyError if the work whose files are to stay is no longer there."""
        if self._earlier and self._written_hash(self.target(SUMMARY)) != self._earlier.digest:
            raise BusyError(f"{self._out}: another geocfl has just replaced the map of {self.stem}; map it again")

    def _refuse_existing(self) -> None:
        """Raises OutputError if there are products of other work, unless they may be overwritten."""
        if self._claim and (self._overwrite or self._claim.upload == self._digest):
            return
        allowed = self._earlier.kept | self._earlier.replaced if self._earlier else frozenset()
        present = existing(self.target(suffix) for suffix in self._known if suffix not in allowed)
        if self._adds:
            present = [path for path in present if path in map(self.target, self._made)]
        if not in_store(self._out) and (folder := next(filter(Path.is_dir, present), None)):
            raise OutputError(f"{folder}: is a folder; remove it, or choose another `out`")
        if present and not self._overwrite:
            raise OutputError(
                f"{present[0]}: already exists, made from another input, model or settings; "
                "use `overwrite=True` to replace it, or choose another `out`",
                page="how-to/resume/",
            )

    def _refuse_odd_names(self) -> None:
        """Raises an error if a file's name is too long or cannot be written, before hours of work."""
        if re.search(r"[\x00-\x1f\x7f]", self.stem):
            raise OutputError(f"{self.stem}: the name holds control characters; rename the scene")
        longest = max(self._suffixes, key=len)
        with suppress(FileNotFoundError):
            self._work.joinpath(f"{self.stem}{longest}-journal").lstat()  # SQLite's beside a GeoPackage

    def _begin(self) -> None:
        """Creates an empty partial folder in place of one that other work has left."""
        if os.path.lexists(self.folder):
            if not self._is_ours():
                raise OutputError(
                    f"{self.folder}: already exists, not made by geocfl; move it elsewhere", page="how-to/resume/"
                )
            self._remove()
        self.folder.mkdir()
        self._begun = True
        (self.folder / _HASH).write_text(self._digest, encoding="utf-8")
        for path in (self.folder / _HASH, self.folder, self._work):
            sync(path)

    def _is_empty(self) -> bool:
        """Whether there is a partial folder with nothing in it."""
        return self.folder.is_dir() and not any(self.folder.iterdir())

    def _is_ours(self) -> bool:
        """Whether geocfl made the partial folder; older versions removed its hash before the rest."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return False
        names = {path.name for path in self.folder.iterdir()}
        known = (self.stem, "cells", "checkpoint", "thumbnail", "refined", "rows-", _COMMITTING)
        return _HASH in names or all(name.startswith(known) for name in names)

    def _drop_products(self) -> None:
        """Removes products that a killed run left: GDAL would append to an existing GeoPackage."""
        for suffix in self._known:
            for left in self.folder.glob(f"{glob.escape(self.stem + suffix)}*"):  # with SQLite's journal
                left.unlink()

    def _clean_up(self) -> None:
        """Removes the partial folder."""
        if self._begun or self._written_hash(self.folder / _HASH) == self._digest:
            with suppress(OSError):
                self._remove()

    def _remove(self, kept: Set[str] = frozenset()) -> None:
        """Removes the partial folder; the hash goes last, by which the next run recognizes what a kill leaves."""
        for entry in sorted(self.folder.iterdir(), key=lambda path: (path.name == _HASH, path.name == _COMMITTING)):
            if entry.name in kept:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not kept:
            self.folder.rmdir()

    def _failure_of_writing(self, error: Exception) -> str:
        """The message if an error arose because a file could not be written; empty if it has another cause."""
        if self.state != "done" and not self.folder.exists():
            return f"{self._work}: was removed or renamed during the work; run the same command again"
        return why_unwritten(error, self._work, self.folder)


def folder_of(out: Path, stem: str, digest: str) -> str:
    """Name of a folder for what is unfinished of some work; the same work always gets the same name."""
    return f"geocfl-{hashlib.sha256(f'{out} {stem} {digest}'.encode()).hexdigest()[:16]}"
