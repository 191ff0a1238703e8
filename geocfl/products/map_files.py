"""The files of a finished map: found beside its class raster, and opened wherever they lie."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geocfl.core.files import check_readable
from geocfl.errors import DataError
from geocfl.products.files import FILES, LULC, SUMMARY
from geocfl.products.storage import existing, in_store, open_raster

BESIDE_A_VIRTUAL_RASTER = ("lulc_style", "confidence", "confidence_style")


class MapFiles:
    """The files of a map, which are opened by their names.

    Args:
        paths: Name of a file, such as ``"lulc"``, to its path; kept, not copied.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths

    @property
    def name(self) -> str:
        """The stem that the names of the files begin with."""
        if "lulc" in self.paths:
            return self.find("lulc").stem.removesuffix(LULC)
        return self.paths["summary"].name.removesuffix(SUMMARY)

    @property
    def folder(self) -> Path:
        """The folder that they lie in."""
        return next(iter(self.paths.values())).parent

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """One of the map's rasters.

        Raises:
            DataError: It was not among the products, is gone, or cannot be read.
        """
        path = self.find(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with open_raster(path) as dataset:
                    yield dataset
        except (RasterioError, OSError) as error:
            if not in_store(path):
                if not path.exists():
                    raise DataError(f"{path}: is gone; map the scene again") from error
                check_readable(path)
            raise DataError(
                f"{path}: not a raster that GDAL reads; pass a map, such as scene_lulc.tif, or map the scene again"
            ) from error

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """A file that GDAL can open by its path: the file itself, or a copy of one in an object store."""
        path = self.find(name)
        if not in_store(path):
            if not path.exists():
                raise DataError(f"{path}: is gone; map the scene again")
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(self.read(name))
            yield copy

    @contextmanager
    def features(self) -> Iterator[Path]:
        """The file of features.

        Raises:
            DataError: There is none, it cannot be read, or pyarrow is not installed.
        """
        with self.on_disk("features") as path:
            if not find_spec("pyarrow"):
                raise DataError(f"{path}: features need pyarrow; run: pip install pyarrow")
            try:
                yield path
            except (ValueError, OSError, KeyError, IndexError) as error:  # pyarrow's own are ValueErrors and OSErrors
                raise DataError(f"{path}: its features cannot be read ({error}); map the scene again") from error

    def read(self, name: str) -> bytes:
        """The content of a file, wherever it lies.

        Raises:
            DataError: It was not among the products, or is gone.
        """
        try:
            return self.find(name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.paths[name]}: cannot be read ({error}); map the scene again") from error

    def find(self, name: str) -> Path:
        """The path of a file.

        Raises:
            DataError: The map has none of that name.
        """
        if name not in self.paths:
            raise DataError(
                f"{self.folder}: the map of {self.name} has no {name}; map the scene again with {name} in `products`"
            )
        return self.paths[name]


def class_raster(path: Path) -> Path:
    """The class raster that a path means: itself, or the only one in a folder.

    Raises:
        DataError: There is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path}: no such file; pass the class raster of a map, such as scene_lulc.tif")
    found = sorted(file for file in path.iterdir() if file.stem.endswith(LULC) and file.suffix in (".tif", ".vrt"))
    if not found:
        raise DataError(f"{path}: holds no map, whose name ends in {LULC}.tif; pass the class raster of a map")
    if len(found) > 1:
        raise DataError(f"{path}: holds {len(found)} maps; pass one of them, such as {found[0]}")
    return found[0]


def files_of(lulc: Path) -> dict[str, Path]:
    """The files of the map that a class raster belongs to, by their names in `FILES`."""
    if not lulc.stem.endswith(LULC):
        return {"lulc": lulc}
    stem = lulc.stem.removesuffix(LULC)
    names = [*FILES] if lulc.suffix == ".tif" else ["lulc", *BESIDE_A_VIRTUAL_RASTER]
    files = {name: lulc.with_name(stem + FILES[name]) for name in names} | {"lulc": lulc}
    there = set(existing(files.values()))
    return {name: file for name, file in files.items() if file in there}
