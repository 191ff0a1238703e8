"""A folder of patches, written whole or not at all: a folder for each class, and the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geocfl.core.files import unwritable, working_folder
from geocfl.data.manifest import MANIFEST
from geocfl.errors import OutputError

ENDING = ".tif"
"""Of the files of patches."""
_BESIDE = (".aux.xml", "-wal", "-shm", "-journal")
"""What QGIS and SQLite write beside rasters and GeoPackages."""


def claim(out: Path, *, overwrite: bool) -> None:
    """Checks that a folder of patches may be written; call it before the work begins.

    Raises:
        OutputError: There is a file, a folder with other files, or patches that must not be replaced.
    """
    if out.is_dir() and any(out.iterdir()):
        if not (out / MANIFEST).is_file():
            raise OutputError(f"{out}: contains other files; choose another `out`")
        if not overwrite:
            raise OutputError(
                f"{out}: already contains patches; use `overwrite=True` to replace them, or choose another `out`"
            )
        if other := next(_others(out), None):
            raise OutputError(f"{other}: is no patch of this folder; move it elsewhere, or choose another `out`")
    elif out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; choose another `out`")


def _others(out: Path) -> Iterator[Path]:
    """What else is in a folder of patches, which must not be deleted with them."""
    for path in sorted(out.rglob("*")):
        name = path.name
        for ending in _BESIDE:
            name = name.removesuffix(ending)
        depth = len(path.relative_to(out).parts)
        patch = depth == 2 and name.endswith(ENDING)
        if not (patch or (depth == 1 and (path.is_dir() or name == MANIFEST))):
            yield path


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder, and moves it to `out` if the block ends; an earlier folder is replaced then.

    Raises:
        OutputError: It cannot be written. Nothing is left behind, and an earlier folder is kept.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(out.parent, out.name) as work:
            made, old = work / "new", work / "old"
            made.mkdir()
            yield made
            if out.exists():
                os.replace(out, old)
            try:
                os.replace(made, out)
            except OSError:
                if old.exists():
                    os.replace(old, out)
                raise
    except (OSError, RuntimeError) as error:
        raise unwritable(out, error) from error
