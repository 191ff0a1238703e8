"""Checks before work starts that Dask workers have this version of geocfl and see the same files."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import overload

from distributed import Client

from geocfl._version import __version__
from geocfl.errors import OutputError, UsageError
from geocfl.products.storage import in_store
from geocfl.scenes.collect import Listed
from geocfl.scenes.fingerprint import local_file
from geocfl.scenes.source import absolute_path


def check_versions(client: Client) -> None:
    """Checks that all workers have this version of geocfl.

    Raises:
        UsageError: A worker has another version or none.
    """
    for address, found in other_versions(client).items():
        raise UsageError(other_version(address, found, __version__))


def other_versions(client: Client) -> dict[str, str]:
    """Workers with another version of geocfl than this one, by address; an empty version is no geocfl."""

    def version() -> str:  # pickled by value, because workers may lack geocfl
        try:
            from geocfl._version import __version__

            return __version__
        except ImportError:
            return ""

    return {address: found for address, found in client.run(version, on_error="ignore").items() if found != __version__}


def other_version(address: str, found: str, wanted: str) -> str:
    """The sentence about a worker with another version of geocfl, or with none."""
    has = f"geocfl {found}" if found else "no geocfl"
    return f"worker {address} has {has}, but this is {wanted}; install the same version there"


def check_paths(client: Client, scenes: Collection[Listed], mask: str | None) -> None:
    """Checks that all workers see the scenes and the mask.

    Raises:
        UsageError: A worker does not see one of them.
    """
    sources = [scene.source for scene in scenes if scene.source]
    bands = {band.path for source in sources for band in (*source.bands.values(), source.scl) if band}
    rasters = [*bands, *(source.raster for source in sources if source.raster), *([mask] if mask else [])]
    local = sorted({str(file) for file in map(local_file, map(absolute_path, rasters)) if file})

    for address, missing in _lacking(client, local).items():
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UsageError(
                f"worker {address} does not see {missing[0]}{more}; mount the same folders there, under the same paths"
            )


def check_folder(client: Client, folder: Path) -> None:
    """Checks that all workers see a folder that they write to, unless it is in an object store.

    Raises:
        UsageError: A worker does not see it, or sees another folder in its place.
        OutputError: It cannot be written to.
    """
    if in_store(folder):
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    mark = folder / f".geocfl-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        for address, missing in _lacking(client, [str(mark)]).items():
            if missing:
                raise UsageError(f"worker {address} does not see the folder {folder}; mount it there under that path")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); choose another folder") from error
    finally:
        with suppress(OSError):  # another process has written into it
            mark.unlink(missing_ok=True)
            for each in made:
                each.rmdir()


def _lacking(client: Client, paths: list[str]) -> dict[str, list[str]]:
    """Those of the paths that each worker does not see."""

    def lacking() -> list[str]:  # pickled by value, because it does not need geocfl
        import os

        return [path for path in paths if not os.path.exists(path)]

    found: dict[str, list[str]] = client.run(lacking)
    return found


@overload
def absolute_folder(folder: None) -> None: ...
@overload
def absolute_folder(folder: Path) -> Path: ...
def absolute_folder(folder: Path | None) -> Path | None:
    """A folder as all workers may see it."""
    return folder if folder is None or in_store(folder) else folder.absolute()
