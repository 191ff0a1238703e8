"""The identity of a file: a hash of its content or, for a remote file, what its server says about it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from geocfl.errors import SceneError
from geocfl.scenes.remote import fingerprint, is_remote
from geocfl.scenes.source import holder


def identity(path: str) -> str:
    """A text that changes when the file does.

    Args:
        path: A raster as GDAL opens it, or another file. For a member of an archive, the archive counts.

    Raises:
        SceneError: It cannot be read.
    """
    path = holder(path)
    if is_remote(path):
        return fingerprint(path)
    if not path.startswith("/vsi"):
        return file_hash(Path(path))
    file = local_file(path)
    return file_hash(file) if file else fingerprint(path)


def local_file(path: str) -> Path | None:
    """The local file of a raster's path, or the archive that holds it; None if it is not local.

    Args:
        path: A raster as GDAL opens it.
    """
    path = holder(path)
    if is_remote(path):
        return None
    inner = path[1:].partition("/")[2].removeprefix("{").replace("}", "") if path.startswith("/vsi") else path
    file = Path(inner)  # of /vsizip/{S2A.zip}/S2A.SAFE/... what is between the first slash and the last one
    return next((part for part in (file, *file.parents) if part.is_file()), None)


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
