"""Where products go: a folder on a disk, or one of an object store, such as ``s3://bucket/maps``."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from geocfl.errors import GeocflError, OutputError, UsageError

if TYPE_CHECKING:
    import rasterio

READ_ONLY = ("http", "https")
ASKING = 16
"""Questions that a store is asked at a time: each takes some hundredths of a second, nearly all of it waiting."""
_COLLAPSED = re.compile(r"[a-z][a-z0-9+]+:/[^/]", re.IGNORECASE)  # longer than a drive of Windows


def output_folder(out: str | Path) -> Path:
    """The folder that a path or an address means.

    Args:
        out: A path, ``file://...``, or an address that fsspec knows, such as ``"s3://bucket/maps"``; or a
            ``upath.UPath``, whose options, such as an endpoint, are kept.

    Returns:
        A path. Of an object store it is a ``upath.UPath``, which is used like one, but is no ``pathlib.Path``.

    Raises:
        UsageError: It is an address of no known kind, or a package that it needs is not installed.
    """
    if isinstance(out, Path) and not _COLLAPSED.match(str(out)):
        return Path(out)
    text = str(out)
    if isinstance(out, Path):
        raise UsageError(f"--out {text}: is the address of an object store as a Path, which lost a slash; pass text")
    if isinstance(out, str) and "://" not in text:
        return Path(text)
    scheme = urlsplit(text).scheme.lower()
    if scheme in ("file", "local"):
        return Path(url2pathname(urlsplit(text).path))
    try:
        from upath import UPath
    except ImportError as error:
        raise UsageError(
            f"--out {text}: writing to object stores needs another package; pip install 'geocfl[cloud]'"
        ) from error
    try:
        if scheme in READ_ONLY:
            raise ValueError("web servers take no files")
        folder = UPath(out)
        _ = folder.fs  # loads the store's own package
    except ImportError as error:
        raise UsageError(f"--out {text}: {scheme}:// needs a package of its own ({_first_line(error)})") from error
    except ValueError as error:
        raise UsageError(f"--out {text}: no place to write to ({_first_line(error)}); choose a folder") from error
    return cast("Path", folder)


def in_store(path: Path) -> TypeGuard[Any]:
    """Whether a path of `output_folder`, or one below it, lies in an object store."""
    return not isinstance(path, Path)


def existing(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths where something is, be it a link that leads nowhere; a store is asked for many at a time."""
    listed = list(paths)
    if not any(map(in_store, listed)):
        return [path for path in listed if os.path.lexists(path)]
    with ThreadPoolExecutor(ASKING) as pool:
        there = pool.map(lambda path: path.exists(), listed)
        return [path for path, found in zip(listed, there, strict=True) if found]


def put(source: Path, target: Path) -> None:
    """Moves a file into place on the same disk, or copies it into a store: there it is whole, or not there."""
    if in_store(target):
        target.fs.put_file(str(source), target.path)
    else:
        os.replace(source, target)


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 whole or not at all, in place of one that may be there."""
    if in_store(path):
        path.write_text(text, encoding="utf-8")
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # of its own: others may write the same
    try:
        aside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def open_raster(path: Any) -> rasterio.DatasetReader:
    """Opens a raster on disk or in a store, of which only what is needed is read; or the text of a virtual raster."""
    import rasterio

    on_disk = isinstance(path, str | Path)
    return rasterio.open(path) if on_disk else rasterio.open(path.path, opener=path.fs)


@contextmanager
def reaching(folder: Path, remedy: str) -> Iterator[None]:
    """Errors of an object store, which are of any kind, as an `OutputError`; those of a disk stay."""
    try:
        yield
    except GeocflError:
        raise
    except Exception as error:
        if not in_store(folder):
            raise
        raise OutputError(f"{folder}: cannot be written to ({_first_line(error)}); {remedy}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
