"""The identity of a file: a hash of its content or, for a remote file, what its server says about it."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from geocfl.core.remembered import Remembered
from geocfl.errors import SceneError
from geocfl.scenes.formats.archive import BROKEN
from geocfl.scenes.remote import get, insist, open_remote, remote_settings
from geocfl.scenes.source import holder
from geocfl.scenes.urls import gdal_path, is_remote

SETTLED = 2_000_000_000
"""Nanoseconds for which a file must not have changed to be remembered: as coarse as the times of any file system."""
AT_ONCE = 4
"""Files that are hashed, or whose servers are asked, at the same time."""
BESIDE_NAME = (".aux.xml", ".msk", ".ovr")
"""What GDAL reads beside a raster, after its name."""
BESIDE_STEM = (".tfw", ".tifw", ".wld", ".j2w", ".jp2w", ".jgw", ".tab", ".prj", ".hdr", ".aux", ".imd", ".xml")
"""The same in place of its ending."""
_ARCHIVE = re.compile(r"(.+?\.(?:zip|tar|tgz|tar\.gz))(?=/|$)")


def identities(paths: Sequence[str], known: Remembered | None = None) -> list[str]:
    """What `identity` gives for each of some rasters. A file that holds several of them is read once.

    Args:
        paths: Rasters as GDAL opens them.
        known: As for `identity`.

    Raises:
        SceneError: As for `identity`.
    """
    read = [_read_for(path) for path in paths]
    once = list(dict.fromkeys(read))
    with ThreadPoolExecutor(AT_ONCE, "identity") as pool:
        found = dict(zip(once, pool.map(lambda path: identity(path, known), once), strict=True))
    return [found[path] for path in read]


def _read_for(path: str) -> str:
    """What is read for the identity of a raster: the file of a variable, or the archive of a file, except a zip."""
    path = holder(path)
    archive = local_file(path) if path.startswith("/vsi") and not path.startswith("/vsizip/") else None
    return str(archive) if archive else path


def identity(path: str, known: Remembered | None = None) -> str:
    """A text that changes when the file does.

    Args:
        path: A raster as GDAL opens it, or another file. A file in a zip archive is read whole, since GDAL does not
            compare the checksums of what it reads there.
        known: Remembers the hash of a local file by its size, its times and its inode; None to read it in any case.

    Raises:
        SceneError: It cannot be read, or its checksum in the archive is that of another content.
    """
    path = holder(path)
    if is_remote(path):
        return fingerprint(path)
    if not path.startswith("/vsi"):
        return _recalled(Path(path), "", known, lambda: file_hash(Path(path)))
    file = local_file(path)
    if file is None:
        return fingerprint(path)
    member = Path(_inner(path)).relative_to(file).as_posix()
    if path.startswith("/vsizip/") and member != ".":
        return _recalled(file, member, known, lambda: _member_hash(file, member))
    return _recalled(file, "", known, lambda: file_hash(file))


def fingerprint(path: str) -> str:
    """A text that changes when a raster does, without reading the whole raster.

    For a URL, it consists of what the server says: entity tag, size and modification time. For a local file, it is size
    and modification time. Otherwise, such as for ``s3://``, it covers the raster's description, the sizes of its
    compressed blocks if it is a TIFF, and a pixel in its middle.

    Args:
        path: A URL, a local file or a GDAL path; for a path into an archive, the archive counts. The query of a URL,
            which holds the tokens of signed URLs, is ignored.

    Raises:
        SceneError: It cannot be read.
    """
    path = gdal_path(holder(path))
    if path.startswith(("/vsizip/", "/vsitar/")) and (archive := _ARCHIVE.match(path[len("/vsizip/") :].lstrip("{"))):
        path = archive[1]
    if path.startswith("/vsicurl/"):
        parts = insist(path, lambda: list(_answer(path.removeprefix("/vsicurl/"))))
    elif is_remote(path):
        parts = insist(path, lambda: list(_description(path)))
    else:
        try:
            stat = None if path.startswith("/vsi") else Path(path).stat()
            parts = [str(stat.st_size), str(stat.st_mtime_ns)] if stat else list(_description(path))
        except OSError as error:
            raise SceneError(f"{path}: cannot be read; pass a readable file") from error
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _answer(url: str) -> Iterator[str]:
    """What a server says of a file; what the file says, if that is nothing."""
    # Request one byte, because links are often signed for GET but not for HEAD.
    with closing(get(url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"})) as response:
        headers = response.headers
        size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
        if not size and "ETag" not in headers:
            yield from _description(gdal_path(url))
        yield from (headers.get("ETag", ""), headers.get("Last-Modified", ""), size)


def _description(path: str) -> Iterator[str]:
    """What a raster says of itself."""
    import rasterio
    from rasterio.windows import Window

    with remote_settings(path), open_remote(path) if is_remote(path) else rasterio.open(path) as dataset:
        yield from (f"{key}: {value}" for key, value in sorted(dataset.profile.items()))
        yield from (f"{key}: {value}" for key, value in sorted(dataset.tags().items()))
        height, width = dataset.block_shapes[0]
        for y in range(-(-dataset.height // height)):
            for x in range(-(-dataset.width // width)):
                yield str(dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1))
        middle = Window(dataset.width // 2, dataset.height // 2, 1, 1)
        yield str(dataset.read(window=middle).tolist())


def _recalled(file: Path, member: str, known: Remembered | None, compute: Callable[[], str]) -> str:
    """The hash of a file or of its member: the remembered one if the file is the same, else computed and remembered.

    A file that was changed a moment ago is not remembered, because another change may leave the same times.
    """
    if known is None:
        return compute()
    key, before, now = f"{file.absolute()}\n{member}", _stamp(file), time.time_ns()
    held = known.get(key)
    if before and isinstance(held, list) and held[:-1] == before:
        return str(held[-1])
    value = compute()
    if before and before == _stamp(file) and max(before[1], before[2]) < now - SETTLED:
        known.put(key, [*before, value])
    return value


@dataclass(frozen=True)
class Seal:
    """What tells whether files have changed, and those beside them that GDAL reads with them, without reading them.

    Attributes:
        text: Differs if one has changed, was added or removed.
        settled: Whether none was changed a moment ago, so that another change cannot leave the text as it is.
    """

    text: str
    settled: bool

    @classmethod
    def of(cls, paths: Sequence[str]) -> Self | None:
        """The seal of rasters; None if one of them is a folder, is gone, or names other files.

        Args:
            paths: The rasters, as GDAL opens them; servers are asked for one byte of each.

        Raises:
            SceneError: A server cannot be reached.
        """
        now, newest, facts = time.time_ns(), 0, list[Any]()
        for path in paths:
            file = local_file(path)
            if file is None and is_remote(path):
                facts.append(fingerprint(path))
                continue
            if file is None or file.suffix.lower() == ".vrt" or not (stamp := _stamp(file)):
                return None
            beside = [_stamp(Path(f"{file}{end}")) for end in BESIDE_NAME]
            beside += [_stamp(file.with_suffix(end)) for lower in BESIDE_STEM for end in (lower, lower.upper())]
            facts.append([path, stamp, beside])
            newest = max([newest, *(max(each[1:3]) for each in [stamp, *beside] if each)])
        return cls(hashlib.sha256(json.dumps(facts).encode()).hexdigest(), newest < now - SETTLED)


def _stamp(file: Path) -> list[int]:
    """Size, times of the last changes of content and of state, nanoseconds, and inode; of a folder nothing."""
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino] if file.is_file() else []


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
