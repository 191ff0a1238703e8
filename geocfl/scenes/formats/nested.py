"""Scenes that lie deeper in a folder, or in an archive without a product at its top."""

from __future__ import annotations

import os
from pathlib import Path

from geocfl.errors import SceneError
from geocfl.scenes.formats.archive import Place, is_archive, opened, path_of
from geocfl.scenes.formats.folder import ENDINGS, find_images
from geocfl.scenes.formats.safe import find_product
from geocfl.scenes.source import Source

DEPTH = 3
"""Levels of folders that are searched."""
MAX_FOLDERS = 1000
"""Maximum number of folders that are searched; more are not one scene."""


def find_nested(path: str) -> Source | None:
    """Finds the one scene in a folder's or archive's folders: a product, or one file per band.

    Raises:
        SceneError: There are several scenes at the same depth, or the archive cannot be read.
    """
    if Path(path).is_dir():
        return _search(path, Path(path))
    if not is_archive(Path(path)):
        return None
    with opened(path) as inside:
        return find_images(path, inside) or _search(path, inside)


def sole_raster(path: str) -> str | None:
    """The only raster in an archive, as GDAL opens it; None if there is none or there are several."""
    if not is_archive(Path(path)):
        return None
    with opened(path) as inside:
        files = [file for file in inside.archive.files if file.lower().endswith(ENDINGS)]
        return inside.joinpath(files[0]).gdal_path if len(files) == 1 else None


def _search(path: str, place: Place) -> Source | None:
    level = [place]
    for _ in range(DEPTH):
        level = [inner for folder in level for inner in _folders(folder)][:MAX_FOLDERS]
        found = [(path_of(each), source) for each in level if (source := _one(path, each))]
        if len(found) > 1:
            raise SceneError(
                f"{path}: holds several scenes, such as {found[0][0]} and {found[1][0]}; use only one of them"
            )
        if found:
            return found[0][1]
    return None


def _one(path: str, folder: Place) -> Source | None:
    return find_product(path, folder) or find_images(path, folder)


def _folders(folder: Place) -> list[Place]:
    inner = [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith((".", "__MACOSX"))]
    inner = [each for each in inner if not isinstance(each, Path) or os.access(each, os.R_OK | os.X_OK)]
    return sorted(inner, key=lambda each: each.name)
