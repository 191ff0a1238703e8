"""What the metadata of a product says of bands that lie beside it, outside the product's own folders."""

from __future__ import annotations

from pathlib import Path

import rasterio

from geocfl.scenes.baseline import find_baseline, named_in
from geocfl.scenes.formats.safe import Metadata, metadata_above, read_metadata

PRODUCT = ("product_metadata.xml", "MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
"""Names of a product's metadata, the first of which is that of the tile folders on Amazon's servers."""
TILE = ("tileInfo.json", "metadata.xml", "MTD_TL.xml")
"""Names of a tile's metadata, which name products and their baseline, but no offsets."""
MOST_BYTES = 16 << 20
"""Larger files are not a tile's metadata."""


def metadata_of(folder: Path) -> Metadata | None:
    """The metadata of the product that a folder of bands belongs to: above it, or beside the bands; None without any.

    Raises:
        SceneError: The metadata is broken.
    """
    beside = next((name for name in PRODUCT if (folder / name).is_file()), "")
    return metadata_above(folder) or (read_metadata(str(folder), folder, beside) if beside else None)


def baseline_of(folder: Path, file: str) -> str:
    """The processing baseline that the name and tags of a band, or a tile's metadata in its folder, state; or empty."""
    tags: dict[str, str] = {}
    if Path(file).is_file():
        try:
            with rasterio.open(file) as dataset:
                tags = dataset.tags()
        except rasterio.RasterioIOError:
            pass  # reading says so
    return find_baseline(str(Path(file).absolute()), tags) or named_in(_texts(folder))


def _texts(folder: Path) -> list[str]:
    """Metadata of a tile in a folder; none if it cannot be read."""
    files = [folder / name for name in TILE if (folder / name).is_file()]
    return [file.read_text(errors="replace") for file in files if file.stat().st_size <= MOST_BYTES]
