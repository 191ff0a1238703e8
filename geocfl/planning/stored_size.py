"""Stored size of a scene's bands."""

from __future__ import annotations

import zipfile

from rasterio.enums import Interleaving

from geocfl.scenes.fingerprint import local_file
from geocfl.scenes.remote import remote_settings
from geocfl.scenes.source import Source
from geocfl.scenes.stack import open_dataset


def stored_bytes(source: Source) -> int | None:
    """Stored (compressed) size of a scene's bands in bytes.

    Returns:
        None if unknown, for example for files on a server that are not TIFFs.

    Raises:
        RasterioIOError: A file on this machine cannot be opened.
        SceneError: A remote one cannot be opened.
    """
    indices: dict[str, list[int]] = {}
    for band in source.bands.values():
        indices.setdefault(band.path, []).append(band.index)
    total = 0
    for path, wanted in indices.items():
        size = _block_bytes(path, wanted)
        if size is None:
            return None
        total += size
    return total


def _block_bytes(path: str, wanted: list[int]) -> int | None:
    """Bytes of some bands of a raster: the size of their blocks in a TIFF, otherwise their share of the file."""
    with remote_settings(path), open_dataset(path) as dataset:
        if dataset.driver == "GTiff":
            height, width = dataset.block_shapes[0]
            bands = wanted[:1] if dataset.interleaving == Interleaving.pixel else wanted
            blocks = [
                dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
                for band in bands
                for y in range(-(-dataset.height // height))
                for x in range(-(-dataset.width // width))
            ]
            return sum(int(block or 0) for block in blocks)  # a block of only no data may be missing
        size = file_bytes(path)
        return None if size is None else round(size * len(wanted) / dataset.count)


def file_bytes(path: str) -> int | None:
    """Bytes of a file on this machine as GDAL opens it, or of a member of a zip file; None if unknown."""
    file = local_file(path)
    if file is None:
        return None
    if not path.startswith("/vsi"):
        return file.stat().st_size
    if not path.startswith("/vsizip/"):
        return None
    with zipfile.ZipFile(file) as archive:
        return archive.getinfo(path.replace("}", "").partition(f"{file.as_posix()}/")[2]).compress_size
