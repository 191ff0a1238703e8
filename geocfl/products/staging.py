"""Whole or not at all: products are made aside and put into place together, the summary last."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal

from geocfl.errors import GeocflError, OutputError

SUMMARY = "_summary.json"
FILES = {
    "lulc": "_lulc.tif",
    "attributes": "_lulc.tif.aux.xml",
    "lulc_style": "_lulc.qml",
    "lulc_sld": "_lulc.sld",
    "confidence": "_confidence.tif",
    "confidence_style": "_confidence.qml",
    "probabilities": "_probabilities.tif",
    "entropy": "_entropy.tif",
    "entropy_style": "_entropy.qml",
    "gpkg": "_lulc.gpkg",
    "geoparquet": "_lulc_polygons.parquet",
    "flatgeobuf": "_lulc_polygons.fgb",
    "geojson": "_lulc_polygons.geojson",
    "polygons_style": "_lulc_polygons.qml",
    "polygons_sld": "_lulc_polygons.sld",
    "truecolor": "_truecolor.tif",
    "project": "_map.qgz",
    "preview": "_preview.png",
    "report": "_report.html",
    "stac": ".stac.json",
    "summary": SUMMARY,
}
"""What a map of a scene with stem S may consist of: each file is S followed by this."""
PRODUCTS = tuple(FILES.values())
"""The same in the order in which they are put into place. The summary is last: it stands for "done"."""

_HASH = "hash"
_COMMITTING = "committing"
_FULL = 1 << 20  # a disk with less than this left, in bytes, is taken for the cause of a failed write


class Staging:
    """The products of one scene on their way into the output folder.

    They are written to `path` of each suffix, in the folder ``.S.partial``, and put into place by `commit`:

        with Staging(out, "S", digest) as staging:
            if staging.state != "done":
                write_lulc(..., staging.path("_lulc.tif"), ...)
                ...
                staging.commit()

    Leaving the block by an exception other than KeyboardInterrupt removes the partial folder, and the output folder if
    it was made here; after an interrupt, or a crash, the same work is continued from what the partial folder holds.
    A full disk is reported as an `OutputError`.

    Attributes:
        state: ``"done"`` if this very work lies finished in the output folder, ``"continue"`` if the partial folder
            holds some of it, else ``"new"``.
        folder: The partial folder; other files that help to continue may lie there too. Absent when done.
    """

    state: Literal["new", "continue", "done"]

    def __init__(
        self, out: Path, stem: str, digest: str, *, overwrite: bool = False, products: Iterable[str] = PRODUCTS
    ) -> None:
        """Nothing is touched before the ``with`` block.

        Args:
            out: Output folder; made if absent.
            stem: Stem of the scene's file name.
            digest: Hash of input, model and settings; also to be the summary's ``"hash"``.
            overwrite: Replace products that are in the way, even if they are this very work's.
            products: Suffixes, out of `PRODUCTS`, that the work will have made.
        """
        self.folder = out / f".{stem}.partial"
        self._out, self._stem, self._digest, self._overwrite = out, stem, digest, overwrite
        self._products = tuple(products)
        self._made: list[Path] = []

    def path(self, suffix: str) -> Path:
        """Where to write the product with this suffix of `PRODUCTS`."""
        return self.folder / f"{self._stem}{suffix}"

    def target(self, suffix: str) -> Path:
        """Where that product will lie in the end."""
        return self._out / f"{self._stem}{suffix}"

    def __enter__(self) -> Staging:
        """Finds out the state and makes the partial folder.

        Raises:
            OutputError: Something is in the way, or the output folder cannot be written.
        """
        try:
            continued = self._written_hash(self.folder / _HASH) == self._digest
            if continued and self._committing():
                self.commit()
                self.state = "done"
            elif not self._overwrite and self._is_done():
                self.state = "done"
            else:
                self._refuse_what_is_in_the_way()
                self.state = "continue" if continued else "new"
                if not continued:
                    self._begin()
        except OSError as error:
            self._clean_up()
            reason = error.strerror or str(error)
            raise OutputError(
                f"{self._out}: cannot be written to ({reason}); choose another folder with --out"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves nothing half-written behind, except what an interrupted run can continue from."""
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        full = isinstance(error, Exception) and not isinstance(error, GeocflError) and self._disk_is_full(error)
        if not self._committing():
            self._clean_up()
        if full:
            raise OutputError(
                f"{self._out}: the disk is full; free some space, or choose another folder with --out"
            ) from error

    def commit(self) -> None:
        """Puts the products into place, the summary last, and removes the partial folder.

        Products of older work go; its summary goes first, so that no crash leaves one beside products of another work.
        A commit that was cut short is finished when the same work is staged again.

        Raises:
            FileNotFoundError: A promised product was not written.
        """
        if not self._committing():
            for suffix in self._products:
                self.path(suffix).stat()
            (self.folder / _COMMITTING).touch()
        if self.path(SUMMARY).exists():
            self.target(SUMMARY).unlink(missing_ok=True)
        for suffix in [*(s for s in PRODUCTS if s != SUMMARY), SUMMARY]:
            if suffix not in self._products:
                self.target(suffix).unlink(missing_ok=True)
            elif self.path(suffix).exists():
                os.replace(self.path(suffix), self.target(suffix))
        shutil.rmtree(self.folder)

    def _committing(self) -> bool:
        """Whether all products were ready, and `commit` had begun to put them into place."""
        return (self.folder / _COMMITTING).exists()

    def _is_done(self) -> bool:
        """Whether the output folder holds all products of this very work."""
        return self._written_hash(self.target(SUMMARY)) == self._digest and all(
            self.target(suffix).is_file() for suffix in self._products
        )

    @staticmethod
    def _written_hash(path: Path) -> str | None:
        """The hash in a summary or a partial folder's mark; None where there is none."""
        try:
            text = path.read_text(encoding="utf-8")
            return str(json.loads(text)["hash"]) if path.suffix == ".json" else text
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _refuse_what_is_in_the_way(self) -> None:
        """Raises OutputError for products of other work, unless they are to be overwritten."""
        for target in map(self.target, PRODUCTS):
            if target.is_dir():
                raise OutputError(f"{target}: a folder of that name is in the way; remove it, or choose another --out")
            if not self._overwrite and os.path.lexists(target):
                raise OutputError(
                    f"{target}: in the way, from other input, model or settings; "
                    "give --overwrite to replace it, or choose another folder with --out"
                )

    def _begin(self) -> None:
        """Makes an empty partial folder, in place of one that other work has left."""
        if os.path.lexists(self.folder):
            ours = self.folder.is_dir() and not self.folder.is_symlink()
            if not ours or (any(self.folder.iterdir()) and not (self.folder / _HASH).is_file()):
                raise OutputError(f"{self.folder}: not made by geocfl, yet in the way; move it elsewhere")
            shutil.rmtree(self.folder)
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        self.folder.mkdir(parents=True)
        (self.folder / _HASH).write_text(self._digest, encoding="utf-8")

    def _clean_up(self) -> None:
        """Removes the partial folder, and the folders above it that were made here and are empty."""
        if self.folder in self._made or self._written_hash(self.folder / _HASH) == self._digest:
            shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self._made[1:]:
            try:
                folder.rmdir()
            except OSError:  # not empty, so no longer ours alone
                return

    def _disk_is_full(self, error: Exception) -> bool:
        """Whether a full disk is why a write failed; GDAL's errors do not say so, the disk does."""
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno in (errno.ENOSPC, errno.EDQUOT)
        try:
            return shutil.disk_usage(self._out).free < _FULL
        except OSError:
            return False
