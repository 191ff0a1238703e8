"""The identity of a file: a hash of its content or, for a remote file, what its server says about it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from geocfl.errors import SceneError
from geocfl.scenes.formats.archive import BROKEN
from geocfl.scenes.remote import fingerprint
from geocfl.scenes.source import holder
from geocfl.scenes.urls import is_remote


def identity(path: str) -> str:
    """A text that changes when the file does.

    Args:
        path: A raster as GDAL opens it, or another file. A file in a zip archive is read whole, since GDAL does not
            compare the checksums of what it reads there.

    Raises:
        SceneError: It cannot be read, or its checksum in the archive is that of another content.
    """
    path = holder(path)
    if is_remote(path):
        return fingerprint(path)
    if not path.startswith("/vsi"):
        return file_hash(Path(path))
    file = local_file(path)
    if file is None:
        return fingerprint(path)
    member = Path(_inner(path)).relative_to(file).as_posix()
    return _member_hash(file, member) if path.startswith("/vsizip/") and member != "." else file_hash(file)


def local_file(path: str) -> Path | None:
    """The local file of a raster's path, or the archive that holds it; None if it is not local.

    Args:
        path: A raster as GDAL opens it.
    """
    path = holder(path)
    if is_remote(path):
        return None
    file = Path(_inner(path))
    return next((part for part in (file, *file.parents) if part.is_file()), None)


def _inner(path: str) -> str:
    """The path without its virtual file system: ``S2A.zip/B04.jp2`` for ``/vsizip/{S2A.zip}/B04.jp2``."""
    return path[1:].partition("/")[2].removeprefix("{").replace("}", "") if path.startswith("/vsi") else path


def _member_hash(archive: Path, member: str) -> str:
    """SHA-256 of a file in a zip archive."""
    try:
        with zipfile.ZipFile(archive) as handle, handle.open(member) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except (*BROKEN, OSError, KeyError) as error:
        raise SceneError(f"{archive}: is damaged ({error}); download it again") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, or of the names and content of all files in a folder, such as a Zarr array.

    Raises:
        SceneError: It cannot be read.
    """
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            listed = "\n".join(f"{file.relative_to(path).as_posix()} {file_hash(file)}" for file in files)
            return hashlib.sha256(listed.encode()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror}); pass a readable file") from error
