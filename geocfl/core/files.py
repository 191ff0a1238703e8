"""Files: one written whole or not at all, and the folder of what can be computed again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geocfl.errors import OutputError


def refuse_what_is_in_the_way(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace a file unasked; before the work, so that none is lost.

    Raises:
        OutputError: Something lies at `path`.
    """
    if path.is_dir():
        raise OutputError(f"{path}: a folder of that name is in the way; remove it, or choose another --out")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path}: in the way; give --overwrite to replace it, or choose another --out")


@contextmanager
def put_into_place(path: Path) -> Iterator[Path]:
    """Lends a path of the same name, in a folder beside, and moves what was written there to `path`.

    Where the block fails nothing is left, and an earlier file stays as it was.

    Args:
        path: File to write; folders above it are made.

    Raises:
        OutputError: The folder cannot be written, or its disk is full. Any error of the system, and any RuntimeError,
            in the block is taken for one of writing: pyogrio's are such.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            partial = Path(folder) / path.name
            yield partial
            os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise OutputError(
            f"{path}: cannot be written ({reason}); free some space, or choose another folder with --out"
        ) from error


def cache_folder() -> Path:
    """``$GEOCFL_CACHE``, else ``geocfl`` in the user's cache folder; files in it may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GEOCFL_CACHE") or Path(base) / "geocfl")
