"""Comparison with a map of other classes: how much of each of its classes lies in each class of a map."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geocfl.analysis.change_cells import read_codes
from geocfl.analysis.crosswalk import PAGE, ForeignClass, read_crosswalk
from geocfl.analysis.overlap import PairCounter, PairTable, overlap
from geocfl.core.files import refuse_existing, replacing
from geocfl.core.keywords import declared
from geocfl.core.legend import NODATA, UNCLASSIFIED, Legend
from geocfl.core.progress import Progress, counted, silent
from geocfl.core.table import align, spreadsheet_text
from geocfl.errors import DataError, UsageError
from geocfl.products.scene_map import SceneMap, georeferenced
from geocfl.products.storage import open_raster
from geocfl.products.summary import GDAL_CACHE

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("geocfl")

CELLS = 1_000_000
"""Cells that are compared at a time."""
MISSING, OTHER = 0, 255
"""Numbers of no data and of codes without a row in the crosswalk; the rows have the numbers between."""
LISTED = 3
"""Classes of the other map in a line of the text table."""


@dataclass(frozen=True, eq=False, repr=False)
class MapComparison:
    """How much of each class of another map lies in each class of a map.

    Attributes:
        legend: The map's legend.
        foreign: The classes of the other map, as in the crosswalk.
        hectares: (N + 1, F + 2) hectares where both maps have data. Rows: the map's classes, then unclassified cells.
            Columns: the other map's classes, then codes without a row in the crosswalk, then no data.
    """

    legend: Legend
    foreign: list[ForeignClass]
    hectares: NDArray[np.float64]

    @property
    def agreement(self) -> float:
        """Share of the comparable hectares whose classes correspond, 0..1; NaN if nothing is comparable.

        Comparable is what has a class on the map, and on the other map a class with a counterpart.
        """
        return _ratio(self._agreeing().sum(), self._comparable().sum())

    def by_class(self) -> pd.DataFrame:
        """One row per class of the map, with index ``code``.

        The columns are ``class``, ``hectares`` (where the other map has data), ``comparable_ha``, ``agreeing_ha`` and
        ``agreement`` (0..1, of the comparable hectares; NaN without any).
        """
        import pandas as pd

        known = self.hectares[: len(self.legend), :-1].sum(axis=1)
        comparable, agreeing = self._comparable().sum(axis=1), self._agreeing().sum(axis=1)
        return pd.DataFrame(
            {
                "class": self.legend.names,
                "hectares": known,
                "comparable_ha": comparable,
                "agreeing_ha": agreeing,
                "agreement": [_ratio(a, b) for a, b in zip(agreeing, comparable, strict=True)],
            },
            index=pd.Index([c.code for c in self.legend], name="code"),
        )

    def frame(self) -> pd.DataFrame:
        """The long table: one row per class of the map and class of the other map that meet.

        The columns are ``code``, ``class``, ``other_code`` (missing for codes without a row in the crosswalk and for
        no data), ``other_class``, ``hectares``, ``share`` (0..1, of the class's hectares where the other map has data;
        NaN for no data) and ``agrees`` (missing where the classes are not comparable).
        """
        import pandas as pd

        shares = self._shares()
        names = [*((c.code, c.name) for c in self.legend), (UNCLASSIFIED, "Unclassified")]
        others = [*((f.code, f.name) for f in self.foreign), (None, "Other codes"), (None, "No data")]
        corresponds = self._corresponds()
        rows: list[dict[str, Any]] = []
        for i, (code, name) in enumerate(names):
            for j, (other, foreign) in enumerate(others):
                comparable = i < len(self.legend) and j < len(self.foreign) and self.foreign[j].classes
                if self.hectares[i, j]:
                    rows.append(
                        {
                            "code": code,
                            "class": name,
                            "other_code": other,
                            "other_class": foreign,
                            "hectares": self.hectares[i, j],
                            "share": shares[i, j] if j < len(others) - 1 else np.nan,
                            "agrees": bool(corresponds[i, j]) if comparable else None,
                        }
                    )
        columns = ["code", "class", "other_code", "other_class", "hectares", "share", "agrees"]
        return pd.DataFrame(rows, columns=columns).astype({"other_code": "Int64", "agrees": "boolean"})

    def table(self) -> str:
        """The agreement of each class, with the largest classes of the other map in it, as plain text."""
        shares = self._shares()
        lines: list[tuple[str, ...]] = [("class", "hectares", "agreement", "largest classes of the other map in it")]
        names = [*(f.name for f in self.foreign), "other codes"]
        for code, row in self.by_class().iterrows():
            if not row["hectares"]:
                continue
            own = shares[int(str(code)) - 1, :-1]
            largest = [f"{names[j]} {own[j]:.0%}" for j in np.argsort(-own, kind="stable")[:LISTED] if own[j]]
            lines.append((row["class"], f"{row['hectares']:,.1f}", _percent(row["agreement"]), ", ".join(largest)))
        total = self.hectares[: len(self.legend), :-1].sum()
        lines.append(("Total", f"{total:,.1f}", _percent(self.agreement), ""))
        return align(lines, text_columns=[0, 3])

    def __repr__(self) -> str:
        """One line: classes, hectares and agreement."""
        return (
            f"<MapComparison: {len(self.legend)} classes with {len(self.foreign)} others, "
            f"{self._comparable().sum():,.0f} ha comparable, agreement {_percent(self.agreement)}>"
        )

    def _repr_html_(self) -> str:
        return str(self.by_class().to_html(na_rep="", float_format="{:,.3f}".format))

    def _corresponds(self) -> NDArray[np.bool_]:
        """(N, F) whether the classes correspond."""
        return np.array([[c.code in f.classes for f in self.foreign] for c in self.legend])

    def _comparable(self) -> NDArray[np.float64]:
        """(N, F) hectares of classes that have a counterpart."""
        counterpart = np.array([bool(f.classes) for f in self.foreign])
        return np.where(counterpart, self.hectares[: len(self.legend), : len(self.foreign)], 0.0)

    def _agreeing(self) -> NDArray[np.float64]:
        return np.where(self._corresponds(), self._comparable(), 0.0)

    def _shares(self) -> NDArray[np.float64]:
        """Shares of each row where the other map has data."""
        known = self.hectares[:, :-1].sum(axis=1, keepdims=True)
        shares: NDArray[np.float64] = np.divide(self.hectares, known, out=np.zeros_like(self.hectares), where=known > 0)
        return shares


@declared
def compare_maps(
    map: SceneMap | str | Path,
    other: str | Path,
    legend: str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> MapComparison:
    """Compares a map with a map of other classes, such as ESA WorldCover.

    Counts on the finer cells of the two: each takes the class of the other map's cell in which its middle lies. The
    hectares are those of these cells on the ground. The maps may be in different coordinate reference systems.

    Args:
        map: A finished map or mosaic, or a path as `geocfl.open_map` takes it.
        other: A raster of class codes, one band of bytes, in any format that GDAL reads. Its declared value of no data
            is no data; 0 is, too, unless `legend` has it.
        legend: Crosswalk: a CSV file with a row for each code of `other` and the columns ``code``, ``name`` and
            ``class``, which names the corresponding classes of `map`, with semicolons between several; empty if there
            are none.
        out: CSV file to write the long table to.
        overwrite: Replace `out` if it exists.
        progress: Called with the strips that are done.

    Returns:
        Hectares by pair of classes, shares and agreement.

    Raises:
        DataError: A map or the crosswalk cannot be read, `legend` names a class that `map` lacks, or the maps do not
            overlap.
        UsageError: `out` does not end in ``.csv``.
        OutputError: `out` exists already or cannot be written.
    """
    target = Path(out) if out else None
    if target and target.suffix.lower() != ".csv":
        raise UsageError(f"`out` is {target} but must end in .csv")
    if target:
        refuse_existing(target, overwrite=overwrite)
    own = georeferenced(map)
    foreign = read_crosswalk(Path(legend), own.legend)
    second, nodata = _open_other(Path(other))
    table, odd = _count(own, second, nodata, foreign, progress)
    if odd:
        log.warning(
            "%s: codes %s are not in %s and count as other codes", other, ", ".join([str(code) for code in odd]), legend
        )
    columns = [*range(1, len(foreign) + 1), OTHER, MISSING]
    rows = [*(c.code for c in own.legend), UNCLASSIFIED]
    result = MapComparison(own.legend, foreign, table.hectares[np.ix_(rows, columns)])
    if not result.hectares[:, :-1].any():
        raise DataError(f"{other}: has no data where {own.path} has; pass overlapping maps", page=PAGE)
    if target:
        with replacing(target) as partial:
            frame = result.frame()
            for column in ("class", "other_class"):
                frame[column] = [spreadsheet_text(name) for name in frame[column]]
            frame.to_csv(partial, index=False, float_format="%.6f", lineterminator="\n", encoding="utf-8")
    return result


def _open_other(path: Path) -> tuple[SceneMap, int | None]:
    """The other map, and its value of no data.

    Raises:
        DataError: It is no raster of codes.
    """
    if not path.exists() and not str(path).startswith("/vsi"):
        raise DataError(f"{path}: no such file; pass a raster of class codes", page=PAGE)
    try:
        with open_raster(path) as dataset:
            kind, count, nodata = dataset.dtypes[0], dataset.count, dataset.nodata
    except RasterioError as error:
        raise DataError(f"{path}: not a raster that GDAL reads; pass a raster of class codes", page=PAGE) from error
    if count != 1 or kind != "uint8":
        raise DataError(
            f"{path}: has {count} band{'s' * (count > 1)} of {kind}, but codes must be one band of bytes; "
            "convert it, as with gdal_translate -b 1 -ot Byte",
            page=PAGE,
        )
    return georeferenced(SceneMap({"lulc": path})), None if nodata is None else int(nodata)


def _count(
    own: SceneMap, second: SceneMap, nodata: int | None, foreign: list[ForeignClass], progress: Progress
) -> tuple[PairTable, list[int]]:
    """Counts pairs of the map's codes and numbers of the other map's classes; also gives codes without a row."""
    own_is_finer = _cell_area(own) < _cell_area(second)
    both = overlap(own, second) if own_is_finer else overlap(second, own)
    ours, theirs = (both.first, both.second) if own_is_finer else (both.second, both.first)
    numbers = np.full(256, OTHER, np.uint8)
    numbers[NODATA] = MISSING
    for number, entry in enumerate(foreign, start=1):
        numbers[entry.code] = number
    if nodata is not None:
        numbers[nodata] = MISSING
    elif numbers[0] != MISSING and not theirs.copied:  # GDAL fills what lies outside with 0
        raise DataError(
            f"{second.path}: the crosswalk has code 0, but the raster declares no value of no data; "
            "declare one, as with gdal_edit.py -a_nodata 255",
            page=PAGE,
        )
    counter, seen = PairCounter(both.grid), np.zeros(256, np.int64)
    strips = list(both.strips(CELLS))
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        for rows in counted(strips, progress, own.path.name, len(strips), "strip"):
            codes = read_codes(ours, both, rows, len(own.legend))
            values = theirs.read(second.path, both.grid, rows, slice(0, both.grid.columns))
            seen += np.bincount(values[codes != NODATA], minlength=256)
            counter.add(rows, codes, numbers[values])
    return counter.table, np.flatnonzero((seen > 0) & (numbers == OTHER)).tolist()


def _cell_area(m: SceneMap) -> float:
    """Square meters of a cell in the middle of a map."""
    across, down = m.grid.meters_per_pixel()
    return across * down * m.grid.stride**2


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{share:.1%}"
