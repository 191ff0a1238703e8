"""Folders for products: on a disk, or in an object store, such as ``s3://bucket/maps``."""

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
"""Requests to a store at a time: each takes some hundredths of a second, nearly all of it waiting."""
_COLLAPSED = re.compile(r"[a-z][a-z0-9+]+:/[^/]", re.IGNORECASE)  # longer than a drive letter of Windows


def output_folder(out: str | Path) -> Path:
    """The path that a path or an address means.

    Args:
        out: A path, ``file://...``, or an address that fsspec knows, such as ``"s3://bucket/maps"``; or a
            ``upath.UPath``, whose options, such as an endpoint, are kept.

    Returns:
        A path; for an object store a ``upath.UPath``, which is used like a ``pathlib.Path`` but is none.

    Raises:
        UsageError: The kind of address is unknown, or needs a package that is not installed; or the path is not UTF-8.
    """
    text = str(out)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # GDAL takes no other names
        raise UsageError(f"{text!a}: the name is not UTF-8; use another name") from error
    if isinstance(out, Path) and not _COLLAPSED.match(text):
        return Path(out)
    if isinstance(out, Path):
        raise UsageError(f"{text}: a Path drops a slash from the address of an object store; pass a str")
    if isinstance(out, str) and "://" not in text:
        return Path(text)
    scheme = urlsplit(text).scheme.lower()
    if scheme in ("file", "local"):
        return Path(url2pathname(urlsplit(text).path))
    try:
        from upath import UPath
    except ImportError as error:
        raise UsageError(f"{text}: object stores need universal-pathlib; run: pip install universal-pathlib") from error
    try:
        if scheme in READ_ONLY:
            raise ValueError("web servers accept no files")
        folder = UPath(out)
        _ = folder.fs  # loads the store's own package
    except ImportError as error:
        raise UsageError(f"{text}: {scheme}:// needs another package ({_first_line(error)})") from error
    except ValueError as error:
        raise UsageError(f"{text}: cannot be written to ({_first_line(error)}); choose a folder") from error
    return cast("Path", folder)


def in_store(path: Path) -> TypeGuard[Any]:
    """Whether a path that `output_folder` has returned, or one below it, lies in an object store."""
    return not isinstance(path, Path)


def existing(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that exist, including broken links; a store is asked for many at a time."""
    listed = list(paths)
    if not any(map(in_store, listed)):
        return [path for path in listed if os.path.lexists(path)]
    with ThreadPoolExecutor(ASKING) as pool:
        there = pool.map(lambda path: path.exists(), listed)
        return [path for path, found in zip(listed, there, strict=True) if found]


def put(source: Path, target: Path) -> None:
    """Moves a file on the same disk, or uploads it to a store; the target appears whole or not at all."""
    if in_store(target):
        target.fs.put_file(str(source), target.path)
    else:
        os.replace(source, target)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file whole or not at all; replaces an existing one."""
    if in_store(path):
        path.write_text(text, encoding="utf-8")
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # unique, since others may write the same file
    try:
        aside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def open_raster(path: Any) -> rasterio.DatasetReader:
    """Opens a raster on a disk or in a store, or the text of a virtual raster; reads only what is needed."""
    import rasterio

    on_disk = isinstance(path, str | Path)
    return rasterio.open(path) if on_disk else rasterio.open(path.path, opener=path.fs)


@contextmanager
def reaching(folder: Path, remedy: str) -> Iterator[None]:
    """Turns the errors of an object store, which can be of any type, into an `OutputError`."""
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
