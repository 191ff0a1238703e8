"""Masks of pixels to leave out, such as clouds and their shadows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from geocfl.errors import SceneError
from geocfl.scenes.area import Extent
from geocfl.scenes.reading import Reading
from geocfl.scenes.remote import remote_settings
from geocfl.scenes.source import Band, Source, file_name
from geocfl.scenes.stack import open_dataset, reason
from geocfl.scenes.trouble import failure
from geocfl.scenes.urls import gdal_path, is_remote, shown

SCL_CLASSES = {
    1: "saturated or defective",
    3: "cloud shadow",
    8: "cloud, medium probability",
    9: "cloud, high probability",
    10: "thin cirrus",
}
"""Classes of L2A's scene classification that are masked by default (Sen2Cor's legend)."""

KNOWN = (
    (re.compile(r"\bSCL( \d0M)?( \w+)?$"), frozenset(SCL_CLASSES), frozenset[int]()),
    (re.compile(r"\bHLS\b.*\bFMASK\b"), None, frozenset({1, 2, 3})),
    (re.compile(r"\bQA60\b"), None, frozenset({10, 11})),
    (re.compile(r"\bLEVEL2 SEN2\w QAI\b"), None, frozenset({1, 2, 3})),
    (re.compile(r"\bMG2 R\d\b"), None, frozenset({1, 3})),
    (re.compile(r"\bCLM R\d\b"), None, frozenset(range(8))),
    (re.compile(r"\bMSK CLDPRB\b"), frozenset(range(50, 101)), frozenset[int]()),
)
"""Names of files whose values are classes or bits, and those of clouds and shadows: of Sen2Cor, HLS (cloud, beside a
cloud, cloud shadow), Earth Engine's Sentinel-2 collections (cloud, cirrus), FORCE (both bits of the cloud state, cloud
shadow), MAJA (cloud and cloud shadow among others, clouds and shadows only), and Sen2Cor's cloud probability in percent
(cloud as likely as not).

Source: HLS User Guide 2.0, table 9; Earth Engine's catalog, COPERNICUS/S2_HARMONIZED; FORCE's documentation, Quality
Bits; THEIA's description of Sentinel-2 L2A products, MG2 and CLM."""


@dataclass
class Mask:
    """A raster of masked pixels, laid over a scene's grid.

    Attributes:
        classes: Values that are masked; None for all but 0.
        bits: Bits of a value, any of which masks it; empty if the values are not bits.
    """

    classes: frozenset[int] | None
    bits: frozenset[int]
    _dataset: rasterio.DatasetReader = field(repr=False)
    _view: WarpedVRT = field(repr=False)

    @property
    def path(self) -> str:
        """Path of its raster, as GDAL opens it."""
        return str(self._dataset.name)

    @classmethod
    def over(
        cls,
        band: Band,
        classes: frozenset[int] | None,
        grid: rasterio.DatasetReader,
        bits: frozenset[int] = frozenset(),
    ) -> Mask:
        """Opens a mask of any CRS and pixel size over the grid of a scene.

        Args:
            band: Where the mask lies.
            classes: Values that are masked; None for all but 0.
            grid: The scene, after warping.
            bits: Bits of a value, any of which masks it, instead of `classes`.

        Raises:
            SceneError: It cannot be read, or has no CRS while the scene has one.
        """
        try:
            dataset = open_dataset(band.path)
        except rasterio.RasterioIOError as error:
            there = is_remote(band.path) or band.path.startswith("/vsi") or Path(band.path).exists()
            why = f"cannot be read as a raster ({reason(error)})" if there else "does not exist"
            raise SceneError(f"{shown(band.path)}: the mask {why}; correct `mask`", page="how-to/clouds/") from error
        if dataset.crs is None and grid.crs is not None:
            dataset.close()
            raise SceneError(
                f"{shown(band.path)}: the mask has no coordinate reference system; add it with gdal_edit.py -a_srs"
            )
        view = WarpedVRT(
            dataset,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.nearest,
        )
        return cls(classes, bits, dataset, view)

    def read(self, extent: Extent, start: int, stop: int) -> NDArray[np.bool_]:
        """(stop - start, width) bool, which pixels are masked; none are beyond the edges of the mask.

        Raises:
            SceneError: It cannot be decoded there.
        """
        try:
            with remote_settings(self.path):  # in the thread that reads
                values = self._view.read(1, window=extent.window(start, stop))
        except rasterio.RasterioIOError as error:
            if is_remote(self.path):
                raise failure(error, self.path) from error
            raise SceneError(
                f"{shown(self.path)}: the mask cannot be decoded ({reason(error)}); get the file again"
            ) from error
        if self.bits:
            some: NDArray[np.bool_] = values.astype(np.int64) & sum(1 << bit for bit in self.bits) != 0
            return some
        masked: NDArray[np.bool_] = values != 0 if self.classes is None else np.isin(values, list(self.classes))
        return masked

    def close(self) -> None:
        """Closes the file."""
        self._view.close()
        self._dataset.close()

    def __enter__(self) -> Mask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_mask(source: Source, how: Reading, grid: rasterio.DatasetReader) -> Mask | None:
    """Opens the mask over the grid of a scene; None if no mask is wanted.

    Raises:
        SceneError: The mask cannot be read, or the scene has no classification layer.
    """
    if how.mask is None:
        return None
    classes = None if how.mask_classes is None else frozenset(how.mask_classes)
    band = source.scl if how.mask_file is None else Band(gdal_path(how.mask_file))
    if band is None:
        raise SceneError(
            f"{source.path}: has no scene classification layer, which only L2A products have; use a raster of clouds "
            "as `mask`, or none",
            page="how-to/clouds/",
        )
    bits = frozenset(how.mask_bits or ())
    if not classes and not bits:
        classes, bits = _known(band.path) or (frozenset(SCL_CLASSES) if how.mask_file is None else None, bits)
    return Mask.over(band, classes, grid, bits)


def _known(path: str) -> tuple[frozenset[int] | None, frozenset[int]] | None:
    """Classes and bits of clouds and shadows in a file of a known kind; None for other files."""
    name = re.sub(r"[._-]", " ", file_name(path).upper())
    return next(((classes, bits) for pattern, classes, bits in KNOWN if pattern.search(name)), None)
