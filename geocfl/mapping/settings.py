"""The settings of a map."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from geocfl.core.keywords import check_type
from geocfl.errors import UsageError
from geocfl.products.selection import check_names
from geocfl.scenes import Area, Reading
from geocfl.scenes.area import Box, check_box
from geocfl.scenes.urls import shown


@dataclass(frozen=True)
class MapSettings:
    """Everything that decides a map, apart from the scene and the model.

    Attributes:
        stride: Cell size in pixels, from 1 to the model's window.
        bands: Which band of a raster is which: name to number, such as ``{"B04": 3}``, or the names in the raster's
            order. None takes what the scene states.
        scale: Digital numbers per unit of reflectance; None takes what the scene states.
        offset: Added to digital numbers first: reflectance = (DN + offset) / scale. None takes what the scene states.
        nodata: Digital number of pixels without data; None takes what the scene states.
        backend: ``"openvino"``, ``"onnx"`` or ``"torch"``; ``"auto"`` is torch if there is a GPU, else the fastest one
            that is installed.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``; ``"auto"`` is half precision if it is faster on the
            device, else float32.
        tta: Test-time augmentation: average over this many rotations and flips, 1, 2, 4 or 8.
            None is the model's own.
        interpolate: Whether to classify only every second cell in each direction, and to interpolate the logits of the
            others.
        smooth: Whether each cell gets the mean of the windows that cover it, in which sure windows count more.
        smooth_keep: Names of classes whose cells are not smoothed, such as ``("Highway", "River")``.
        min_confidence: Cells below this confidence (0..1) are unclassified.
        max_novelty: Cells beyond this novelty (0..100) are unclassified: those more unlike the training data than this
            percentage of the model's validation patches. None keeps all.
        products: What to write: ``"lulc"``, ``"confidence"``, ``"vector"``, ``"preview"``, ``"summary"`` (these five
            are ``"default"``), ``"windows"``, ``"probabilities"``, ``"entropy"``, ``"novelty"``, ``"valid"``,
            ``"sets"``, ``"features"``, ``"zarr"``, ``"sld"``, ``"truecolor"``, ``"project"``, ``"report"``,
            ``"stac"``; or ``"all"`` that the model offers except for features and zarr. The summary is always written.
        vector: Formats of the polygons: ``"gpkg"``, ``"geoparquet"``, ``"flatgeobuf"``, ``"geojson"``; empty for none.
        simplify: Tolerance for simplifying polygons, meters.
        min_area: Merge polygons smaller than this into a neighbor, hectares.
        datetime: When the scene was taken: a datetime, a date or ISO 8601 text, in UTC if it has no time zone. None
            takes what the scene states.
        warp: Whether to resample a scene whose grid differs from the model's.
        allow_no_crs: Whether to map a scene without a coordinate reference system.
        bbox: Map only this part: west, south, east, north in degrees.
        aoi: Map only what the polygons in this file cover.
        mask: ``"scl"`` for the scene's own classification or cloud mask, or the path of a raster of masked pixels.
        mask_classes: Values of the mask that count; None takes clouds and their shadows in a classification layer, and
            everything but 0 in another raster.
        mask_bits: Bits of the mask's values, from 0, any of which masks a pixel; None takes those of clouds and shadows
            in files named as those of HLS (Fmask), FORCE (QAI), MAJA (MG2) and Earth Engine (QA60).
        max_masked: Leave a cell empty if more than this fraction is masked (0..1).
    """

    stride: int = 64
    bands: Mapping[str, int] | Sequence[str] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    backend: str = "auto"
    precision: str = "auto"
    tta: int | None = None
    interpolate: bool = False
    smooth: bool = False
    smooth_keep: Sequence[str] = ()
    min_confidence: float = 0.0
    max_novelty: float | None = None
    products: Sequence[str] = ("default",)
    vector: Sequence[str] = ("gpkg",)
    simplify: float = 0.0
    min_area: float = 0.0
    datetime: dt.date | str | None = None
    warp: bool = True
    allow_no_crs: bool = False
    bbox: Box | None = None
    aoi: str | Path | None = None
    mask: str | Path | None = None
    mask_classes: Collection[int] | None = None
    mask_bits: Collection[int] | None = None
    max_masked: float = 0.5

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UsageError: A value is of the wrong type or out of range, or two exclude each other.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            check_type(field.name, value, str(field.type))
            if isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())
        for name in ("products", "vector", "smooth_keep"):
            object.__setattr__(self, name, check_names(name, getattr(self, name)))
        if self.bbox is not None:
            object.__setattr__(self, "bbox", check_box(self.bbox))
        how = Reading(
            bands=self.bands,
            scale=self.scale,
            offset=self.offset,
            nodata=self.nodata,
            mask_classes=self.mask_classes,
            mask_bits=self.mask_bits,
        )
        object.__setattr__(self, "bands", how.bands)
        object.__setattr__(self, "mask_classes", how.mask_classes)
        object.__setattr__(self, "mask_bits", how.mask_bits)
        for name, value in (("min_confidence", self.min_confidence), ("max_masked", self.max_masked)):
            if not 0 <= value <= 1:
                raise UsageError(f"`{name}` is {value:g} but must be between 0 and 1")
        if self.max_novelty is not None and not 0 <= self.max_novelty <= 100:
            raise UsageError(f"`max_novelty` is {self.max_novelty:g} but must be between 0 and 100 percent")
        if self.bbox is not None and self.aoi is not None:
            raise UsageError("`bbox` and `aoi` exclude each other; use one of them")
        for name, value, unit in (("simplify", self.simplify, "meters"), ("min_area", self.min_area, "hectares")):
            if not 0 <= value < float("inf"):
                raise UsageError(f"`{name}` is {value:g} but must be 0 or more {unit}")
        if self.smooth_keep and not self.smooth:
            raise UsageError("`smooth_keep` has no effect without smoothing; add `smooth=True`")
        self.taken()

    def reading(self) -> Reading:
        """How to read scenes for this map.

        Raises:
            GeocflError: A value is invalid, or the area's file cannot be read.
        """
        area = None
        if self.bbox is not None:
            area = Area.of_box(self.bbox)
        elif self.aoi is not None:
            area = Area.of_file(self.aoi)
        return Reading(
            bands=self.bands,
            scale=self.scale,
            offset=self.offset,
            nodata=self.nodata,
            warp=self.warp,
            allow_no_crs=self.allow_no_crs,
            area=area,
            mask=self.mask,
            mask_classes=self.mask_classes,
            mask_bits=self.mask_bits,
        )

    def to_json(self, *, redacted: bool = True) -> dict[str, Any]:
        """The settings as JSON.

        Args:
            redacted: Whether to remove the tokens of signed links, as products require.
        """
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        if isinstance(self.datetime, dt.date):
            values["datetime"] = self.datetime.isoformat()
        for name in ("mask", "aoi"):
            if values[name] is not None:
                values[name] = shown(str(values[name])) if redacted else str(values[name])
        return values

    def taken(self) -> dt.datetime | None:
        """`datetime` in UTC; None if it is not given.

        Raises:
            UsageError: It is not a date.
        """
        moment = self.datetime
        if moment is None:
            return None
        if not isinstance(moment, dt.datetime):
            try:
                moment = dt.datetime.fromisoformat(str(moment))
                moment.astimezone(dt.UTC)
            except (ValueError, OverflowError) as error:
                raise UsageError(
                    f"`datetime` is {self.datetime!r}, which is not a date; use one such as 2019-04-16 or "
                    "2019-04-16T10:00:31Z"
                ) from error
        return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


class MapOptions(TypedDict, total=False):
    """The fields of `MapSettings` as keyword arguments of a function."""

    stride: int
    bands: Mapping[str, int] | Sequence[str] | None
    scale: float | None
    offset: float | None
    nodata: float | None
    backend: str
    precision: str
    tta: int | None
    interpolate: bool
    smooth: bool
    smooth_keep: Sequence[str]
    min_confidence: float
    max_novelty: float | None
    products: Sequence[str]
    vector: Sequence[str]
    simplify: float
    min_area: float
    datetime: dt.date | str | None
    warp: bool
    allow_no_crs: bool
    bbox: Box | None
    aoi: str | Path | None
    mask: str | Path | None
    mask_classes: Collection[int] | None
    mask_bits: Collection[int] | None
    max_masked: float
