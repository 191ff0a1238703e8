"""What the metadata of a product says of bands that lie beside it, outside the product's own folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import rasterio

from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.baseline import find_baseline, named_in
from geocfl.scenes.formats.safe import Metadata, metadata_above, read_metadata
from geocfl.scenes.stack import open_dataset
from geocfl.scenes.urls import is_remote, shown

PRODUCT = ("product_metadata.xml", "MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
"""Names of a product's metadata, the first of which is that of the tile folders on Amazon's servers."""
TILE = ("tileInfo.json", "tileinfo_metadata.json", "metadata.xml", "MTD_TL.xml")
"""Names of a tile's metadata, which name products and their baseline, but no offsets."""
_TILE = re.compile(r"(?<![A-Z0-9])T(\d\d[A-Z]{3})(?![A-Z0-9])", re.ASCII)
MOST_BYTES = 16 << 20
"""Larger files are not a tile's metadata."""


def metadata_of(folder: Path, name: str) -> tuple[Metadata | None, str]:
    """The metadata of the product that a folder of bands belongs to, above it or beside the bands.

    Args:
        folder: The folder.
        name: What the names of the bands' files have in common.

    Returns:
        The metadata, None if there are none; and a note about metadata of another scene, which are not used.

    Raises:
        SceneError: The metadata is broken.
    """
    if above := metadata_above(folder):
        return above, ""
    beside = next((file for file in PRODUCT if (folder / file).is_file()), "")
    if not beside:
        return None, ""
    metadata = read_metadata(str(folder), folder, beside)
    if _is_of(metadata, name):
        return metadata, ""
    return None, f"the {beside} beside its bands is of another scene, so it is not used"


def _is_of(metadata: Metadata, name: str) -> bool:
    """Whether metadata may be of bands of this name: neither tile, day nor level differs, as far as both say it."""
    tile, level = _TILE.search(name.upper()), re.search("L1C|L2A", name.upper())
    tiles = {found[1] for image in metadata.images if (found := _TILE.search(image.name.upper()))}
    when = find_datetime(name, {})
    return (
        not (tile and tiles and tile[1] not in tiles)
        and not (when and metadata.taken and abs(when - metadata.taken) > timedelta(days=1))
        and not (level and level[0] != metadata.level)
    )


def baseline_of(folder: Path, files: Sequence[str]) -> str:
    """The processing baseline that names and tags of bands, or a tile's metadata in their folder, state; or empty.

    The tags of remote files are read when these are opened.
    """
    stated = (
        find_baseline(shown(file), {}) if is_remote(file) else find_baseline(str(Path(file).absolute()), _tags(file))
        for file in files
    )
    return next(filter(None, stated), "") or named_in(_texts(folder))


def _tags(file: str) -> dict[str, str]:
    if not Path(file).is_file():
        return {}
    try:
        with open_dataset(file) as dataset:
            tags: dict[str, str] = dataset.tags()
    except rasterio.RasterioIOError:  # reading says so
        return {}
    return tags


def _texts(folder: Path) -> list[str]:
    """Metadata of a tile in a folder; none if it cannot be read."""
    files = [folder / name for name in TILE if (folder / name).is_file()]
    return [file.read_text(errors="replace") for file in files if file.stat().st_size <= MOST_BYTES]
