"""Zonal statistics: hectares of each class in each zone of a finished map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
from numpy.typing import NDArray

from geocfl.analysis.coverage import hectares_by_code, hectares_outside, place_zones
from geocfl.analysis.vectors import Name
from geocfl.analysis.zones import read_zones
from geocfl.core.files import refuse_existing, replacing
from geocfl.core.keywords import declared
from geocfl.core.legend import NODATA, UNCLASSIFIED, WITHHELD, Legend
from geocfl.core.progress import Progress, silent
from geocfl.core.table import align, spreadsheet_text
from geocfl.errors import UsageError
from geocfl.products.formats.qml import zones_qml
from geocfl.products.formats.vector import fixed_date, write_default_styles
from geocfl.products.formats.vector_formats import GEOMETRY
from geocfl.products.scene_map import SceneMap, georeferenced

LAYER = "zones"
"""Layer of the GeoPackage that is written."""
ENDINGS = (".csv", ".gpkg")
NULL = "NULL"
"""A zone without a name in tables of text, where nothing would look like an empty name."""
SHOWN = 0.005
"""Hectares from which a line of the text table is shown: less than this is 0.00."""


@dataclass(frozen=True, eq=False, repr=False)
class ZonalStatistics:
    """Hectares by zone and class.

    Attributes:
        legend: The map's legend.
        zones: (Z,) names of the zones in the order of the file, None for NULL; numbers from 1 if no field names them.
        hectares: (Z, N) hectares of each class.
        unclassified: (Z,) hectares with data but without a class.
        nodata: (Z,) hectares on the map without data.
        outside: (Z,) hectares of the zone outside the map; geodesic, since the map's projection may not reach there.
        outlines: (Z,) the zones' polygons, in the coordinate reference system of their file.
    """

    legend: Legend
    zones: list[Name]
    hectares: NDArray[np.float64]
    unclassified: NDArray[np.float64]
    nodata: NDArray[np.float64]
    outside: NDArray[np.float64]
    outlines: gpd.GeoSeries

    def frame(self) -> pd.DataFrame:
        """The long form: one row per zone and class, then rows for hectares without a class and outside the map.

        The columns are ``zone``, ``code`` (missing outside the map), ``class``, ``hectares`` and ``share`` (0..1, of
        the zone's hectares that have a class; missing in the other rows, and if no hectare has one).
        """
        names = [*self.legend.names, WITHHELD.name, "No data", "Outside the map"]
        codes = [*(c.code for c in self.legend), UNCLASSIFIED, NODATA, None]
        hectares = np.column_stack([self.hectares, self.unclassified, self.nodata, self.outside])
        classified = self.hectares.sum(axis=1, keepdims=True)
        share = np.full(hectares.shape, np.nan)
        np.divide(self.hectares, classified, out=share[:, : len(self.legend)], where=classified > 0)
        return pd.DataFrame(
            {
                "zone": self._column([zone for zone in self.zones for _ in names]),
                "code": pd.array(codes * len(self.zones), "Int64"),
                "class": names * len(self.zones),
                "hectares": hectares.ravel(),
                "share": share.ravel(),
            }
        )

    def wide(self) -> gpd.GeoDataFrame:
        """The wide form: one row per zone with its polygon, and a field of hectares for each class and for the rest."""
        columns = dict(zip(hectare_fields(self.legend), self.hectares.T, strict=True))
        rest = {"unclassified_ha": self.unclassified, "nodata_ha": self.nodata, "outside_ha": self.outside}
        zones = {"zone": self._column(self.zones)}
        return gpd.GeoDataFrame({**zones, **columns, **rest}, geometry=self.outlines).rename_geometry(GEOMETRY)

    def _column(self, zones: list[Name]) -> Any:
        """Names of zones as a column: whole numbers stay whole where some are missing."""
        whole = None in zones and not any(isinstance(zone, str) for zone in zones)
        return pd.array(zones, "Int64") if whole else zones

    def table(self) -> str:
        """The classes of each zone as aligned plain text, without a newline at the end."""
        lines = [("zone", "code", "class", "hectares", "share")]
        frame = self.frame()
        for zone, code, name, hectares, share in frame[frame.hectares >= SHOWN].itertuples(index=False):
            number = "" if pd.isna(code) else str(code)
            lines.append(
                (
                    NULL if pd.isna(zone) else str(zone),
                    number,
                    name,
                    f"{hectares:,.2f}",
                    "" if pd.isna(share) else f"{share:.1%}",
                )
            )
        return align(lines, text_columns=[0, 2])

    def __repr__(self) -> str:
        """One line: number of zones, hectares mapped and outside the map."""
        hectares = f"{self.hectares.sum():,.0f} ha of {len(self.legend)} classes"
        outside = f", {self.outside.sum():,.0f} ha outside the map" if self.outside.sum() >= SHOWN else ""
        return f"<ZonalStatistics: {len(self.zones):,} zone{'' if len(self.zones) == 1 else 's'}, {hectares}{outside}>"

    def _repr_html_(self) -> str:
        frame = self.frame()
        return str(
            frame[frame.hectares >= SHOWN].to_html(index=False, na_rep="", max_rows=60, float_format="{:,.3f}".format)
        )


@declared
def stats(
    map: SceneMap | str | Path,
    zones: str | Path,
    *,
    by: str | None = None,
    layer: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ZonalStatistics:
    """Computes zonal statistics: the hectares of each class in each zone.

    A cell that a zone covers in part counts by that part. Areas are those of the map's cells on the ground, cut at the
    scene's rectangle, so a zone around the whole scene has the hectares of the map's summary. Zones in another
    coordinate reference system are reprojected.

    Args:
        map: A finished map or mosaic, or a path as `geocfl.open_map` takes it.
        zones: Polygons, in any format that GDAL reads, or GeoParquet; also in an archive, as ``/vsizip/a.zip/b.shp``.
        by: Field that names the zones; polygons of the same name form one zone. By default each polygon is a zone.
        layer: Layer of `zones`; needed if the file has several.
        out: File to write too: ``.csv`` (the long form) or ``.gpkg`` (the wide form, layer ``zones``).
        overwrite: Replace `out` if it exists.
        progress: Called with the zones that are done.

    Returns:
        Hectares by zone and class, as arrays, data frames and text.

    Raises:
        DataError: `map` is no map, or `zones` holds no polygons, has no coordinate reference system, or lies elsewhere.
        UsageError: `out` has another ending, or `zones` has no such layer or field.
        OutputError: `out` exists already or cannot be written.
    """
    target = Path(out) if out else None
    if target and target.suffix.lower() not in ENDINGS:
        raise UsageError(f"`out` is {target} but must end in .csv or .gpkg")
    if target:
        refuse_existing(target, overwrite=overwrite)
    finished, source = georeferenced(map), Path(zones)
    names, outlines = read_zones(source, layer, by)
    placed = place_zones(source, outlines, finished)
    by_code = hectares_by_code(finished, placed.shapes, progress)
    legend = finished.legend
    table = ZonalStatistics(
        legend=legend,
        zones=names,
        hectares=by_code[:, 1 : len(legend) + 1],
        unclassified=by_code[:, UNCLASSIFIED],
        nodata=by_code[:, NODATA],
        outside=hectares_outside(outlines, placed, finished.grid),
        outlines=outlines,
    )
    if target:
        _write(table, target)
    return table


def hectare_fields(legend: Legend) -> list[str]:
    """Names of the fields of hectares, such as ``"annual_crop_ha"``; unique even if class names are not."""
    taken = ["zone", "unclassified_ha", "nodata_ha", "outside_ha"]
    for c in legend:
        name = "_".join("".join(s if s.isalnum() else " " for s in c.name.lower()).split())
        field = f"{name or 'class'}_ha"
        taken.append(field if field not in taken else f"{name or 'class'}_{c.code}_ha")
    return taken[4:]


def _write(table: ZonalStatistics, path: Path) -> None:
    """Writes the long form as CSV or the wide form as GeoPackage."""
    with replacing(path) as partial:
        if path.suffix.lower() == ".csv":
            frame = table.frame()
            frame["zone"] = [NULL if pd.isna(zone) else spreadsheet_text(zone) for zone in frame["zone"]]
            frame["class"] = [spreadsheet_text(name) for name in frame["class"]]
            frame.to_csv(partial, index=False, float_format="%.6f", lineterminator="\n", encoding="utf-8")
            return
        with fixed_date():
            pyogrio.write_dataframe(
                table.wide(),
                partial,
                layer=LAYER,
                driver="GPKG",
                geometry_type="MultiPolygon",
                promote_to_multi=True,
                GEOMETRY_NAME=GEOMETRY,
                VERSION="1.2",  # GDAL before 3.7, and so QGIS 3.22, warns about newer ones
            )
        legend = table.legend
        write_default_styles(partial, {LAYER: zones_qml(legend.classes, hectare_fields(legend), "zone")})
