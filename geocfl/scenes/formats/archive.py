"""Files in zip archives, as folders that GDAL reads in place."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from geocfl.errors import SceneError

MAX_MEMBERS = 100_000
"""Maximum number of files in an archive; a product has about 100."""
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError)
"""What damaged, encrypted and unusual archives raise."""
MAX_NAME, MAX_DEPTH = 1024, 32
"""Maximum length and number of folders of a path in an archive; longer ones are left out."""
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TO_UNPACK = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
# GDAL finds no names of more than 100 characters in a tar, which those of products have, and reads the others slowly.


@dataclass(frozen=True)
class Archive:
    """An open archive.

    Attributes:
        path: The file.
        handle: The open file.
        folders: Path of each folder, "" for the root, to the names in it.
        files: Paths of all files.
    """

    path: str
    handle: zipfile.ZipFile
    folders: dict[str, dict[str, None]] = field(repr=False)
    files: frozenset[str] = field(repr=False)


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive, with the methods of `pathlib.Path` that scenes need."""

    archive: Archive = field(repr=False)
    at: str = ""

    @property
    def name(self) -> str:
        """Its name; that of the archive for the root."""
        return PurePosixPath(self.at or self.archive.path).name

    @property
    def gdal_path(self) -> str:
        """The file as GDAL opens it."""
        outer = self.archive.path if self.archive.path.lower().endswith(".zip") else f"{{{self.archive.path}}}"
        return f"/vsizip/{outer}/{self.at}"

    def __truediv__(self, name: str) -> Member:
        return self.joinpath(name)

    def joinpath(self, *names: str) -> Member:
        """What is called so in this folder."""
        return Member(self.archive, "/".join([*([self.at] if self.at else []), *names]))

    def iterdir(self) -> Iterator[Member]:
        """The content of a folder."""
        return (self / name for name in self.archive.folders.get(self.at, ()))

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.at in self.archive.folders

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.at in self.archive.files

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Opens the file to read bytes."""
        return self.archive.handle.open(self.at)


Place = Path | Member
"""A file or folder, on disk or in an archive."""


def path_of(file: Place) -> str:
    """A file as GDAL opens it."""
    return file.gdal_path if isinstance(file, Member) else str(file)


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, according to its ending or its content."""
    name = path.name.lower()
    return path.is_file() and (name.endswith((".zip", *_TO_UNPACK)) or zipfile.is_zipfile(path))


@contextmanager
def opened(path: str) -> Iterator[Member]:
    """The root of an archive.

    Raises:
        SceneError: It is damaged, or can only be read when it is unpacked.
    """
    if path.lower().endswith(_TO_UNPACK):
        raise SceneError(f"{path}: is an archive that is not read in place; unpack it", page="how-to/formats/")
    try:
        with zipfile.ZipFile(path) as handle:
            yield Member(_listed(path, handle))
    except BROKEN as error:
        raise SceneError(f"{path}: cannot be read as a zip archive ({error}); download it again") from error


def _listed(path: str, handle: zipfile.ZipFile) -> Archive:
    names = list(_names(path, handle))
    if len(names) > MAX_MEMBERS:
        raise SceneError(f"{path}: holds more than {MAX_MEMBERS} files; unpack it and use the folder of one scene")
    folders: dict[str, dict[str, None]] = {"": {}}
    for name in names:
        if name.endswith("/"):
            folders.setdefault(name.rstrip("/"), {})
        inner, *outer = map(str, (PurePosixPath(name), *PurePosixPath(name).parents))
        for folder in outer:
            key = "" if folder == "." else folder
            known = key in folders
            folders.setdefault(key, {})[PurePosixPath(inner).name] = None
            if known:
                break
            inner = folder
    return Archive(path, handle, folders, frozenset(name for name in names if not name.endswith("/")))


def _names(path: str, handle: zipfile.ZipFile) -> Iterator[str]:
    """Paths of files, and of folders with a slash at the end."""
    for each in handle.infolist():
        name = each.filename
        if len(name) > MAX_NAME or name.count("/") > MAX_DEPTH:
            continue
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            continue
        if each.compress_type not in _READABLE or each.flag_bits & 1:
            raise SceneError(f"{path}: is encrypted or compressed in an unusual way; unpack it and use the folder")
        yield name
