"""The design of a sample: its strata, its points, and the map that it was drawn from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geocfl._version import __version__
from geocfl.core.legend import LulcClass

KEY = "GEOCFL_DESIGN"
"""Item of a GeoPackage's metadata that holds the design."""
FORMAT = 1
"""Version of its format."""
DESIGNS = ("stratified", "simple", "systematic")


@dataclass(frozen=True)
class Stratum:
    """A part of a map.

    Attributes:
        name: Name, such as that of a class.
        cells: Number of cells.
        hectares: Their area on the ground.
        points: Number of points that were drawn from it.
    """

    name: str
    cells: int
    hectares: float
    points: int


@dataclass(frozen=True)
class Design:
    """How a sample was drawn.

    Attributes:
        kind: One of `DESIGNS`.
        strata_from: ``"classes"``, the name of a file, or ``"map"`` for one stratum.
        allocation: How the points were divided, such as ``"proportional"`` or ``"rare:50"``.
        seed: Random seed.
        min_distance: Smallest distance of two points in meters.
        map: Name of the class raster.
        digest: SHA-256 of its cells and their place.
        crs: Its coordinate reference system.
        transform: Cell (column, row) to coordinates of `crs`.
        classes: Codes, names and colors of the map.
        mapped: One for each class: what the map says of the sampled population; its points are those drawn.
        strata: The strata.
        left_out: Hectares with data that are in no stratum or have no class.
        cells: (n, 4) row, column, class code and stratum (from 0) of each point; point number `i` is `cells[i - 1]`.
        hectares: (n,) area of the cell of each point.
    """

    kind: str
    strata_from: str
    allocation: str
    seed: int
    min_distance: float
    map: str
    digest: str
    crs: CRS
    transform: Affine
    classes: tuple[LulcClass, ...]
    mapped: tuple[Stratum, ...]
    strata: tuple[Stratum, ...]
    left_out: float
    cells: NDArray[np.int64]
    hectares: NDArray[np.float64]

    @property
    def total(self) -> float:
        """Hectares of the population."""
        return sum(stratum.hectares for stratum in self.strata)

    def centers(self) -> NDArray[np.float64]:
        """(n, 2) coordinates of the middles of the cells."""
        a, b, c, d, e, f = self.transform[:6]
        rows, columns = self.cells[:, 0] + 0.5, self.cells[:, 1] + 0.5
        return np.column_stack([a * columns + b * rows + c, d * columns + e * rows + f])

    def map_classes(self) -> NDArray[np.int64]:
        """(n,) place in `classes` of the class of each point."""
        places = {c.code: place for place, c in enumerate(self.classes)}
        return np.array([places[code] for code in self.cells[:, 2].tolist()], np.int64)

    def to_json(self) -> str:
        """The design as text, for metadata."""
        facts: dict[str, Any] = {
            "format": FORMAT,
            "geocfl": __version__,
            "design": self.kind,
            "strata_from": self.strata_from,
            "allocation": self.allocation,
            "seed": self.seed,
            "min_distance_m": self.min_distance,
            "map": self.map,
            "digest": self.digest,
            "crs": self.crs.to_wkt(),
            "transform": list(self.transform)[:6],
            "classes": [
                {"code": c.code, "name": c.name, "color": c.color} | _without_name(stratum)
                for c, stratum in zip(self.classes, self.mapped, strict=True)
            ],
            "strata": [asdict(s) | {"weight": s.hectares / self.total} for s in self.strata],
            "left_out_ha": self.left_out,
            "points": [
                [number, *cell, area]
                for number, (cell, area) in enumerate(
                    zip(self.cells.tolist(), self.hectares.tolist(), strict=True), start=1
                )
            ],
        }
        return json.dumps(facts)

    @classmethod
    def from_json(cls, text: str) -> Design:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: The text is no design.
        """
        try:
            facts = json.loads(text)
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']}")
            points = np.array(facts["points"], np.float64).reshape(-1, 6)
            return cls(
                kind=facts["design"],
                strata_from=facts["strata_from"],
                allocation=facts["allocation"],
                seed=facts["seed"],
                min_distance=facts["min_distance_m"],
                map=facts["map"],
                digest=facts["digest"],
                crs=CRS.from_wkt(facts["crs"]),
                transform=Affine(*facts["transform"]),
                classes=tuple(LulcClass(c["code"], c["name"], "", c["color"]) for c in facts["classes"]),
                mapped=tuple(_stratum(c) for c in facts["classes"]),
                strata=tuple(_stratum(s) for s in facts["strata"]),
                left_out=facts["left_out_ha"],
                cells=points[:, 1:5].astype(np.int64),
                hectares=points[:, 5],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"lacks {error}") from error


def _without_name(stratum: Stratum) -> dict[str, Any]:
    return {name: value for name, value in asdict(stratum).items() if name != "name"}


def _stratum(facts: dict[str, Any]) -> Stratum:
    return Stratum(str(facts["name"]), int(facts["cells"]), float(facts["hectares"]), int(facts["points"]))
