"""Files that are written whole or not at all, and the cache folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geocfl.errors import OutputError


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace a file without being asked to; call it before the work begins.

    Raises:
        OutputError: A folder is at `path`, or a file that must not be replaced.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; remove it, or choose another `out`")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path}: already exists; use `overwrite=True` to replace it, or choose another `out`")


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
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            partial = Path(folder) / path.name
            yield partial
            os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); free some space, or choose another `out`") from error


def cache_folder() -> Path:
    """``$GEOCFL_CACHE``, else ``geocfl`` in the user's cache folder; files in it may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GEOCFL_CACHE") or Path(base) / "geocfl")
