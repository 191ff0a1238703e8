"""What decides a map, beside scene and model."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from geocfl.errors import UsageError
from geocfl.scenes import Area, Reading
from geocfl.scenes.remote import shown


@dataclass(frozen=True)
class MapSettings:
    """What decides a map, beside scene and model.

    Attributes:
        stride: Side of a cell, pixels, 1 to the model's window.
        bands: Which band is which, as ``"B04=3,B03=2,B02=1"``; empty where the scene says so itself.
        scale: Digital numbers per unit of reflectance; None where the scene says so itself.
        offset: Added to digital numbers first; None likewise.
        backend: One of `geocfl.models.backends.BACKENDS`.
        precision: One of `geocfl.models.backends.PRECISIONS`.
        tta: Test-time augmentation: average over so many rotations and flips, one of `geocfl.models.bundle.TTA`; None
            is the model's own.
        min_confidence: Cells below this confidence, 0..1, are unclassified.
        products: Names of `geocfl.products.selection.PRODUCTS`, separated by commas, or ``default`` or ``all``.
        vector: Formats of the polygons, of `geocfl.products.formats.vector.VECTOR_FORMATS`, separated by commas, or
            ``none``.
        simplify: Tolerance in metres that polygons are simplified by.
        min_area: Hectares; smaller polygons are merged into a neighbour.
        datetime: When the scene was taken, ISO 8601, UTC where no zone stands; empty where the scene says so itself.
        warp: Whether a scene on another grid than the model's may be warped to it.
        allow_no_crs: Whether a scene without coordinate reference system is mapped, to a map without a place.
        bbox: What to map of the scene, as ``"west,south,east,north"`` in degrees; empty for all of it.
        aoi: Likewise, as a file of polygons.
        mask: ``"scl"`` for the scene's own classification layer, or a raster of masked pixels; empty for none.
        mask_classes: Values of the mask that count, see `geocfl.scenes.Reading`.
        max_masked: Cells with more than this share of masked pixels, 0..1, are no data.
    """

    stride: int = 64
    bands: str = ""
    scale: float | None = None
    offset: float | None = None
    backend: str = "auto"
    precision: str = "auto"
    tta: int | None = None
    min_confidence: float = 0.0
    products: str = "default"
    vector: str = "gpkg"
    simplify: float = 0.0
    min_area: float = 0.0
    datetime: str = ""
    warp: bool = True
    allow_no_crs: bool = False
    bbox: str = ""
    aoi: str = ""
    mask: str = ""
    mask_classes: str = ""
    max_masked: float = 0.5

    def __post_init__(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            UsageError: An option is out of its range.
        """
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"--min-confidence {self.min_confidence:g} is not between 0 and 1; 0.5 is half certain")
        if not 0 <= self.max_masked <= 1:
            raise UsageError(f"--max-masked {self.max_masked:g} is not between 0 and 1; 0.5 is half of a cell")
        if self.bbox and self.aoi:
            raise UsageError("--bbox and --aoi both say what to map; leave out one of them")
        for option, value, unit in (("simplify", self.simplify, "metres"), ("min-area", self.min_area, "hectares")):
            if not 0 <= value < float("inf"):
                raise UsageError(f"--{option} {value:g} is no number of {unit} from 0 on")
        self.taken()

    def reading(self) -> Reading:
        """How scenes are read for it.

        Raises:
            GeocflError: An option cannot be meant, or the area's file cannot be read.
        """
        area = Area.of_box(self.bbox) if self.bbox else Area.of_file(self.aoi) if self.aoi else None
        return Reading(
            self.bands, self.scale, self.offset, self.warp, self.allow_no_crs, area, self.mask, self.mask_classes
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as products keep them: without the tokens of signed links."""
        return asdict(self) | {"mask": shown(self.mask), "aoi": shown(self.aoi)}

    def taken(self) -> dt.datetime | None:
        """The moment that `datetime` states, None where it is empty.

        Raises:
            UsageError: It is none.
        """
        if not self.datetime:
            return None
        try:
            moment = dt.datetime.fromisoformat(self.datetime)
        except ValueError as error:
            raise UsageError(
                f"--datetime {self.datetime!r} is no date; pass one such as 2019-04-16 or 2019-04-16T10:00:31Z"
            ) from error
        return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
