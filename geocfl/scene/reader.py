"""Opens a scene and hands out reflectance of named bands, NaN where there is no data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from geocfl.errors import SceneError, UsageError
from geocfl.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.scene.bands import find_bands

UNHARMONISED_DN = 1000
"""A 0.1 percentile of B04 above this, with no offset applied, looks like baseline 04.00's DN + 1000."""
NEGATIVE_SHARE = 0.05
"""More reflectance below 0 than this looks like an offset that was applied twice."""


@dataclass
class Scene:
    """An open scene; a context manager.

    Attributes:
        path: The file.
        bands: Band name to its index in the file, from 1.
        scaling: Band name to what makes its digital numbers reflectance.
        scaling_source: Where the scaling was found, in words.
        level: ``"L1C"``, ``"L2A"`` or ``"unknown"``.
    """

    path: Path
    bands: dict[str, int]
    scaling: dict[str, Scaling]
    scaling_source: str
    level: str
    _dataset: rasterio.DatasetReader = field(repr=False)

    @property
    def height(self) -> int:
        """Rows, pixels."""
        return int(self._dataset.height)

    @property
    def width(self) -> int:
        """Columns, pixels."""
        return int(self._dataset.width)

    @property
    def transform(self) -> Affine:
        """Pixel (column, row) to coordinates."""
        transform: Affine = self._dataset.transform
        return transform

    @property
    def crs(self) -> CRS | None:
        """Coordinate reference system, None where the file has none."""
        return self._dataset.crs

    @property
    def tags(self) -> dict[str, str]:
        """The file's metadata, with what its driver knows of the acquisition."""
        return {**self._dataset.tags(ns="IMAGERY"), **self._dataset.tags()}

    @property
    def dtype(self) -> str:
        """Type of the digital numbers, such as ``"uint16"``."""
        return str(self._dataset.dtypes[0])

    @property
    def nodata(self) -> float | None:
        """The first band's nodata value as the file declares it."""
        value = self._dataset.nodata
        return None if value is None else float(value)

    @property
    def gsd(self) -> float | None:
        """Ground sampling distance down the columns in metres; None where the CRS is missing or geographic."""
        if self.crs is None or not self.crs.is_projected:
            return None
        return float(np.hypot(self.transform.b, self.transform.e) * self.crs.linear_units_factor[1])

    def require(self, bands: tuple[str, ...]) -> None:
        """Checks that every band is there.

        Raises:
            SceneError: One is not.
        """
        missing = [band for band in bands if band not in self.bands]
        if missing:
            known = f"only {', '.join(self.bands)}" if self.bands else "no band that its descriptions name"
            example = ",".join(f"{band}={i}" for i, band in enumerate(bands, start=1))
            raise SceneError(
                f"{self.path}: the model needs {', '.join(bands)} but the scene has {known}; "
                f"say which is which, such as --bands {example}"
            )

    @property
    def block_rows(self) -> int:
        """Pixel rows of the file's blocks, which are decoded whole."""
        return int(self._dataset.block_shapes[0][0])

    def read(
        self, bands: tuple[str, ...], start: int, stop: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Full-width rows of reflectance.

        A pixel is no data, NaN in every band, where any of `bands` is its declared nodata value, not finite, or
        masked; where the file declares none, where all of them are 0, as Sentinel-2 has it.

        Args:
            bands: Names, in the order wanted.
            start: First pixel row.
            stop: One past the last, at most `height`.
            out: Where to put them, of the shape returned; a new array by default.

        Returns:
            (B, stop - start, width) float32.

        Raises:
            SceneError: The file cannot be decoded there.
        """
        return self._read(bands, Window(0, start, self.width, stop - start), out)

    def _read(
        self, bands: tuple[str, ...], window: Window, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        indices = [self.bands[band] for band in bands]
        try:
            dn = self._dataset.read(indices, window=window)
            missing = self._missing(dn, indices, window)
        except rasterio.RasterioIOError as error:
            raise SceneError(
                f"{self.path}: its pixels cannot be decoded ({_reason(error)}); get the file again"
            ) from error
        reflectance = np.empty(dn.shape, np.float32) if out is None else out
        for band, numbers, values in zip(bands, dn, reflectance, strict=True):
            self.scaling[band].to_reflectance(numbers, out=values)
            values[missing] = np.nan
        return reflectance

    def _missing(self, dn: NDArray[np.generic], indices: list[int], window: Window) -> NDArray[np.bool_]:
        nodata = [self._dataset.nodatavals[i - 1] for i in indices]
        declared = [(band, value) for band, value in zip(dn, nodata, strict=True) if value is not None]
        missing = np.zeros(dn.shape[1:], bool)
        for band, value in declared:
            missing |= band == value
        if not declared:
            missing |= (dn == 0).all(axis=0)
        if np.issubdtype(dn.dtype, np.floating):
            missing |= ~np.isfinite(dn).all(axis=0)
        if MaskFlags.per_dataset in self._dataset.mask_flag_enums[indices[0] - 1]:
            missing |= self._dataset.dataset_mask(window=window) == 0
        return missing

    def sample(self, bands: tuple[str, ...], tiles: int = 5, side: int = 256) -> NDArray[np.float32]:
        """Reflectance of a grid of at most tiles x tiles squares spread over the scene: (B, n) of all their pixels."""
        rows = np.unique(np.linspace(0, max(0, self.height - side), tiles).astype(int))
        columns = np.unique(np.linspace(0, max(0, self.width - side), tiles).astype(int))
        squares = [
            self._read(bands, Window(x, y, min(side, self.width), min(side, self.height))).reshape(len(bands), -1)
            for y in rows
            for x in columns
        ]
        return np.concatenate(squares, axis=1)

    def data_share(self) -> float:
        """Share of pixels with data, 0..1, estimated from a sample."""
        return float(np.isfinite(self.sample(tuple(self.bands)[:1])).mean())

    def warnings(self) -> list[str]:
        """What looks wrong with the radiometry, judged by B04 on a sample; one sentence each."""
        if "B04" not in self.bands or self.dtype == "uint8":
            return []
        red = self.sample(("B04",))[0]
        red = red[np.isfinite(red)]
        scaling = self.scaling["B04"]
        if not red.size:
            return []
        if scaling.offset == 0 and np.percentile(red, 0.1) * scaling.scale > UNHARMONISED_DN:
            return [
                f"{self.path}: its darkest B04 values are above DN {UNHARMONISED_DN}, as in products of processing "
                "baseline 04.00 and later; if it is one, pass --offset -1000"
            ]
        if (share := float((red < 0).mean())) > NEGATIVE_SHARE:
            return [
                f"{self.path}: {share:.0%} of B04 is below 0 with offset {scaling.offset:g}; "
                "if the offset was removed before, pass --offset 0"
            ]
        return []

    def close(self) -> None:
        """Closes the file."""
        self._dataset.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_scene(path: str | Path, bands: str = "", scale: float | None = None, offset: float | None = None) -> Scene:
    """Opens a raster of one or more Sentinel-2 bands.

    Args:
        path: Anything that GDAL reads.
        bands: Which band is which, as ``"B04=3,B03=2,B02=1"``; else descriptions and colour interpretation say.
        scale: Digital numbers per unit of reflectance; else the file's scale / offset tags, EuroSAT's stretch for 8-bit
            files, or 10,000.
        offset: Added to digital numbers first, as in ``reflectance = (DN + offset) / scale``.

    Raises:
        SceneError: The file is missing or not a raster.
    """
    path = Path(path)
    if (scale is not None and not 0 < scale < np.inf) or (offset is not None and not np.isfinite(offset)):
        raise UsageError("--scale must be above 0 and --offset a finite number, such as --scale 10000 --offset -1000")
    try:
        # GeoTIFF drivers decide when they open a file how many threads will decode its blocks.
        with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):
            dataset = rasterio.open(path)
    except rasterio.RasterioIOError as error:
        remedy = "pass a GeoTIFF or another raster that GDAL reads"
        if not path.exists():
            raise SceneError(f"{path}: no such file; {remedy}") from error
        raise SceneError(f"{path}: not a readable raster ({_reason(error)}); {remedy}") from error
    if dataset.count == 0:
        dataset.close()
        raise SceneError(f"{path}: holds no bands of its own; pass one of its subdatasets")
    try:
        found = find_bands(str(path), dataset.descriptions, [c.name for c in dataset.colorinterp], bands)
        scaling, source = _find_scaling(dataset, found, scale, offset)
    except BaseException:
        dataset.close()
        raise
    return Scene(path, found, scaling, source, _find_level(dataset), dataset)


def _find_scaling(
    dataset: rasterio.DatasetReader, bands: dict[str, int], scale: float | None, offset: float | None
) -> tuple[dict[str, Scaling], str]:
    eight_bit = dataset.dtypes[0] == "uint8"
    tagged = any((dataset.scales[i - 1], dataset.offsets[i - 1]) != (1.0, 0.0) for i in bands.values())
    default = EUROSAT_RGB if eight_bit else SENTINEL2
    result = {}
    for band, index in bands.items():
        found = Scaling.from_gdal(dataset.scales[index - 1], dataset.offsets[index - 1]) if tagged else default
        result[band] = Scaling(
            found.scale if scale is None else scale, found.offset if offset is None else float(offset)
        )
    if scale is not None or offset is not None:
        return result, "options"
    if tagged:
        return result, "the file's scale and offset"
    return result, "EuroSAT's 8-bit stretch" if eight_bit else "Sentinel-2's default"


def _find_level(dataset: rasterio.DatasetReader) -> str:
    text = " ".join([Path(dataset.name).stem, *dataset.tags().values()]).upper()
    found = set(re.findall(r"L1C|L2A", text))
    return found.pop() if len(found) == 1 else "unknown"


def _reason(error: Exception) -> str:
    """GDAL's own words, without the path that the message names anyway."""
    detail = str(error.__cause__ or error)
    return detail.splitlines()[0].rstrip(".") if detail else type(error).__name__
