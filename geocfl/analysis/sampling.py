"""Samples of a map's cells, to assess its accuracy and estimate areas."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geocfl.analysis.allocation import ALLOCATIONS, FEWEST, allocate, sample_size
from geocfl.analysis.design import DESIGNS, Design, Stratum
from geocfl.analysis.draw import Drawn, draw_from_strata, draw_on_grid
from geocfl.analysis.sample_files import read_points, refuse_answered, sample_files, write_sample
from geocfl.analysis.strata import (
    Count,
    Mapped,
    Strata,
    class_strata,
    classes_of,
    count_cells,
    file_strata,
    one_stratum,
    open_mapped,
)
from geocfl.core.files import refuse_existing
from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.core.table import align
from geocfl.errors import DataError, UsageError, unknown_name
from geocfl.products.change_map import ChangeMap
from geocfl.products.scene_map import SceneMap

log = logging.getLogger("geocfl")


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """A sample of a map's cells.

    Attributes:
        design: How it was drawn.
        paths: The files that were written: the GeoPackage first.
    """

    design: Design
    paths: tuple[Path, ...]

    def frame(self) -> pd.DataFrame:
        """One row per stratum: ``stratum``, ``cells``, ``hectares``, ``weight`` (share of the area) and ``points``."""
        strata = self.design.strata
        return pd.DataFrame(
            {
                "stratum": [s.name for s in strata],
                "cells": [s.cells for s in strata],
                "hectares": [s.hectares for s in strata],
                "weight": [s.hectares / self.design.total for s in strata],
                "points": [s.points for s in strata],
            }
        )

    def points(self) -> gpd.GeoDataFrame:
        """The points as the GeoPackage holds them now: one row per cell, with its square."""
        return read_points(self.paths[0])

    def table(self) -> str:
        """The strata as aligned plain text, without a newline at the end."""
        rows = [
            (name, f"{cells:,}", f"{hectares:,.1f}", f"{weight:.1%}", f"{points:,}")
            for name, cells, hectares, weight, points in self.frame().itertuples(index=False)
        ]
        design = self.design
        total = (
            "Total",
            f"{sum(s.cells for s in design.strata):,}",
            f"{design.total:,.1f}",
            "",
            f"{len(design.cells):,}",
        )
        return align([("stratum", "cells", "hectares", "weight", "points"), *rows, total], text_columns=[0])

    def __repr__(self) -> str:
        """One line: points, strata and file."""
        strata = f"{len(self.design.strata)} strata" if self.design.kind == "stratified" else self.design.kind
        return f"<Sample: {len(self.design.cells):,} points, {strata}, of {self.design.map}; {self.paths[0]}>"

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False, float_format="{:,.3f}".format))


@declared
def sample(
    map: SceneMap | ChangeMap | str | Path,
    out: str | Path,
    *,
    size: int | None = None,
    target_se: float | None = None,
    expected_ua: float | Mapping[str, float] | None = None,
    design: str = "stratified",
    allocation: str = "proportional",
    at_least: int = FEWEST,
    strata: str | Path | None = None,
    by: str | None = None,
    layer: str | None = None,
    min_distance: float = 0.0,
    seed: int = 0,
    csv: bool = False,
    kml: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Sample:
    """Draws a random sample of a map's cells, whose true classes a person then answers in QGIS.

    Cells are drawn without replacement; in a stratum each has the same probability. Cells without a class are not
    sampled. The design, with which `geocfl.assess` weighs the answers, lies in the metadata of the GeoPackage.

    Args:
        map: A finished map, mosaic or change map, or a path as `geocfl.open_map` or `geocfl.open_change` takes it.
        out: GeoPackage to write, ``.gpkg``: layer ``sample`` with the cells' squares, an empty field ``reference``
            and a form for it; layer ``windows`` with the windows that decide the cells. A QGIS project, ``.qgz``, is
            written beside it.
        size: Number of points.
        target_se: Standard error of the overall accuracy, 0..1, from which the number of points is computed instead.
        expected_ua: Expected user's accuracies, 0..1: one for all classes, or one for each class by name; needed for
            `target_se` and for Neyman's allocation. The default is those of the model on its test patches.
        design: ``"stratified"``, ``"simple"`` (random) or ``"systematic"`` (a grid with a random start, about `size`
            points).
        allocation: Points of the strata: ``"proportional"`` to their areas, ``"equal"``, or ``"neyman"``.
        at_least: Points that every stratum gets at least, if it has so many cells; >= 2.
        strata: A raster of whole numbers or polygons that form the strata; the map's classes by default.
        by: Field that names the polygons of `strata`; those of the same name form one stratum.
        layer: Layer of `strata`; needed if the file has several.
        min_distance: Smallest distance of two points, in meters.
        seed: Random seed; the same seed gives the same sample.
        csv: Whether to write the points as ``.csv`` too, such as for Collect Earth.
        kml: Whether to write them as ``.kml`` too, for Google Earth.
        overwrite: Replace `out` if it exists; a sample with answers is never replaced.
        progress: Called with the rows of cells that are counted.

    Returns:
        The design and the files.

    Raises:
        DataError: `map` or `strata` cannot be used.
        UsageError: A parameter is not allowed, or `size` is too small for the strata.
        OutputError: `out` exists already, holds answers, or cannot be written.
    """
    _check(design, allocation, size, target_se, at_least, min_distance, strata)
    finished = open_mapped(map)
    files = sample_files(Path(out), csv=csv, kml=kml)
    for path in files:
        refuse_existing(path, overwrite=overwrite)
    refuse_answered(files[0])

    classes = classes_of(finished)
    if strata is not None:
        divided = file_strata(Path(strata), finished, by, layer)
    else:
        divided = class_strata(classes) if design == "stratified" else one_stratum()
    count = count_cells(finished, divided, progress)
    divided, count = _without_empty(finished, divided, count)
    if count.left_out:
        log.info("%.1f ha have no class or are in no stratum: no point lies there", count.left_out)
    cells, hectares = count.cells.sum(axis=1), count.hectares.sum(axis=1)
    weights = hectares / hectares.sum()
    accuracies = np.ones(0)
    if target_se is not None or allocation == "neyman":
        accuracies = (count.hectares @ _expected(finished, expected_ua, count)) / hectares
    if size is None:
        size = sample_size(weights, accuracies, float(target_se or 0), float(cells.sum()))
        log.info("%d points for a standard error of %g", size, target_se)
    points = np.array([min(size, int(cells.sum()))])
    if design == "stratified":
        shares = {"proportional": weights, "equal": np.ones(len(weights))}.get(allocation)
        if shares is None:
            shares = weights * np.sqrt(accuracies * (1 - accuracies))
        points = _allocate(size, shares, cells, at_least, divided)
    if design == "systematic":
        drawn = draw_on_grid(finished, divided, size, int(cells.sum()), seed)
    else:
        drawn = draw_from_strata(finished, divided, cells, points, seed, min_distance)
    made = _design(finished, divided, count, drawn)
    made = replace(
        made,
        kind=design,
        seed=seed,
        min_distance=float(min_distance),
        allocation=f"rare:{at_least}" if allocation == "proportional" and at_least > FEWEST else allocation,
    )
    write_sample(files, finished, made)
    if isinstance(finished, SceneMap) and "truecolor" not in finished.paths:
        log.info("the project has no picture of the scene; map it with truecolor among its products to have one")
    return Sample(made, tuple(files))


def _check(
    design: str,
    allocation: str,
    size: int | None,
    target_se: float | None,
    at_least: int,
    min_distance: float,
    strata: str | Path | None,
) -> None:
    """Refuses parameters that are not allowed.

    Raises:
        UsageError: One is not.
    """
    if design not in DESIGNS:
        raise UsageError(f"`design`: {unknown_name('design', design, DESIGNS)}")
    if allocation not in ALLOCATIONS:
        raise UsageError(f"`allocation`: {unknown_name('allocation', allocation, (*ALLOCATIONS, 'rare:MIN'))}")
    if (size is None) == (target_se is None):
        raise UsageError("give either `size`, the number of points, or `target_se`, from which it is computed")
    if size is not None and size < 1:
        raise UsageError(f"`size` is {size} but must be 1 or more")
    if target_se is not None and not 0 < target_se < 0.5:
        raise UsageError(f"`target_se` is {target_se} but must be a fraction, such as 0.01")
    if at_least < FEWEST:
        raise UsageError(f"`at_least` is {at_least} but must be {FEWEST} or more: fewer points have no variance")
    if not 0 <= min_distance < np.inf:
        raise UsageError(f"`min_distance` is {min_distance} but must be meters, 0 or more")
    if design != "stratified" and (strata is not None or allocation != "proportional" or at_least != FEWEST):
        raise UsageError(f"a {design} sample has no strata; leave out `strata` and `allocation`")
    if design == "systematic" and min_distance:
        raise UsageError("a systematic sample has the distance of its grid; leave out `min_distance`")


def _without_empty(finished: Mapped, strata: Strata, count: Count) -> tuple[Strata, Count]:
    """Strata with cells.

    Raises:
        DataError: There are none.
    """
    kept = np.flatnonzero(count.cells.sum(axis=1))
    if not len(kept):
        raise DataError(f"{finished.path}: has no cell with a class to sample; pass another map, or other `strata`")
    renumbered = np.full(len(strata.names) + 1, -1)  # the last is for cells in no stratum
    renumbered[kept] = np.arange(len(kept))
    read = strata.read
    shown = Strata(strata.source, [strata.names[k] for k in kept], lambda codes, rows: renumbered[read(codes, rows)])
    return shown, replace(count, cells=count.cells[kept], hectares=count.hectares[kept])


def _allocate(
    size: int, shares: NDArray[np.float64], cells: NDArray[np.int64], at_least: int, strata: Strata
) -> NDArray[np.int64]:
    """Points of each stratum; says which strata are smaller than asked for.

    Raises:
        UsageError: `size` is too small.
    """
    try:
        points = allocate(size, shares, cells, at_least)
    except ValueError as error:
        raise UsageError(f"`size`: {error}; use a larger `size`, or fewer `strata`") from error
    for name, n, drawn in zip(strata.names, cells, points, strict=True):
        if n == drawn:
            log.warning("%s has only %d cell%s, all of which are in the sample", name, n, "" if n == 1 else "s")
    if size > cells.sum():
        log.warning("the map has only %d cells with a class, all of which are in the sample", cells.sum())
    return points


def _expected(finished: Mapped, expected: float | Mapping[str, float] | None, count: Count) -> NDArray[np.float64]:
    """(K,) expected user's accuracies.

    Raises:
        UsageError: One is missing or not allowed, or none is known.
    """
    names = [c.name for c in classes_of(finished)]
    if expected is None:
        origin = finished.summary.get("model", {}).get("origin", {}) if "summary" in finished.paths else {}
        test = origin.get("metrics", {}).get("test", {})
        if test.get("accuracy") is None:
            raise UsageError(
                f"{finished.path}: does not state an accuracy of its model; give `expected_ua`, such as 0.8"
            )
        log.warning(
            "the expected user's accuracies are the model's on its test patches; land is harder: give `expected_ua`"
        )
        each = test.get("users_accuracy", {})
        expected = {name: float(test["accuracy"] if each.get(name) is None else each[name]) for name in names}
    if isinstance(expected, Mapping):
        for name in expected:
            if name not in names:
                raise UsageError(f"`expected_ua`: {unknown_name('class', name, names)}")
        missing = [
            name for name, area in zip(names, count.hectares.sum(axis=0), strict=True) if area and name not in expected
        ]
        if missing:
            raise UsageError(
                f"`expected_ua` lacks {', '.join(missing)}; give one for each class, or one number for all"
            )
        accuracies = np.array([float(expected.get(name, 0.5)) for name in names])
    else:
        accuracies = np.full(len(names), float(expected))
    if not ((accuracies >= 0) & (accuracies <= 1)).all():
        raise UsageError(f"`expected_ua` is {expected} but must be a fraction from 0 to 1, such as 0.8")
    if ((accuracies == 1) | (accuracies == 0)).all():
        raise UsageError(
            "`expected_ua` leaves no doubt of any class, so no sample is needed; give a lower one, such as 0.9"
        )
    return accuracies


def _design(finished: Mapped, strata: Strata, count: Count, drawn: Drawn) -> Design:
    """The facts of a sample that the parameters do not state."""
    classes = classes_of(finished)
    of_class = np.bincount(
        [[c.code for c in classes].index(code) for code in drawn.cells[:, 2]], minlength=len(classes)
    )
    of_stratum = np.bincount(drawn.cells[:, 3], minlength=len(strata.names))
    return Design(
        kind="",
        strata_from=strata.source,
        allocation="",
        seed=0,
        min_distance=0.0,
        map=finished.path.name,
        digest=count.digest,
        crs=finished.grid.crs,
        transform=finished.grid.cell_transform,
        classes=classes,
        mapped=_parts([c.name for c in classes], count.cells.sum(axis=0), count.hectares.sum(axis=0), of_class),
        strata=_parts(strata.names, count.cells.sum(axis=1), count.hectares.sum(axis=1), of_stratum),
        left_out=count.left_out,
        cells=drawn.cells,
        hectares=drawn.hectares,
    )


def _parts(
    names: list[str], cells: NDArray[np.int64], hectares: NDArray[np.float64], points: NDArray[np.int64]
) -> tuple[Stratum, ...]:
    numbers = zip(names, cells.tolist(), hectares.tolist(), points.tolist(), strict=True)
    return tuple(Stratum(*each) for each in numbers)
