"""Assesses a map with an answered sample: checks the answers, estimates, and writes tables and a report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from geocfl.analysis.answers import Answers, fill_in, read_answers
from geocfl.analysis.design import Design
from geocfl.analysis.estimators import Accuracy, Estimates, Population, estimate_accuracy, post_strata
from geocfl.analysis.sample_files import read_design, read_points
from geocfl.analysis.strata import NONE, Mapped, classes_of, digest_of, open_mapped, places_of
from geocfl.analysis.suggest_files import refuse_suggestions
from geocfl.core.files import refuse_existing, replacing
from geocfl.core.keywords import declared
from geocfl.core.table import spreadsheet_text
from geocfl.errors import DataError
from geocfl.evaluation.assessment import Assessment
from geocfl.evaluation.assessment_words import notes_of
from geocfl.products.change_map import ChangeMap
from geocfl.products.scene_map import SceneMap
from geocfl.products.storage import open_raster

FILES = ("report.html", "assessment.json", "classes.csv", "matrix.csv")
"""Files of an assessment, in its folder."""


@declared
def assess(
    map: SceneMap | ChangeMap | str | Path,
    sample: str | Path,
    *,
    answers: str | Path | None = None,
    out: str | Path | None = None,
    post_stratify: bool = False,
    missing_at_random: bool = False,
    overwrite: bool = False,
) -> Assessment:
    """Estimates a map's accuracy and the area of each class from an answered sample.

    Where the strata are the map's classes, the estimators are the stratified ones of Olofsson et al. 2014; where they
    differ, the ratio estimators of Stehman 2014. Simple random and systematic samples are post-stratified by the map's
    classes. Points without a design only give the accuracy of these points.

    Args:
        map: The map that the sample was drawn from, or a path as `geocfl.open_map` or `geocfl.open_change` takes it.
        sample: The sample, from `geocfl.sample`, with answers in the field ``reference``; or points of any other vector
            file that has such a field.
        answers: CSV file with columns ``id``, the number of the point, and ``reference``, such as from Collect Earth:
            answers that replace those in the sample.
        out: Folder for ``report.html``, ``assessment.json``, ``classes.csv`` and ``matrix.csv``.
        post_stratify: Whether to read the map's classes at the points again; assesses another map than the sampled
            one, such as a newer version of it.
        missing_at_random: Whether to leave out points without an answer, as if chance had chosen them.
        overwrite: Replace files in `out`.

    Returns:
        The estimates, as data frames, text and arrays.

    Raises:
        DataError: The sample is of another map, was changed, has answers that are no classes, or lacks answers.
        OutputError: A file exists already or cannot be written.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        for name in FILES:
            refuse_existing(folder / name, overwrite=overwrite)
    finished, path = open_mapped(map), Path(sample)
    points = read_points(path)
    refuse_suggestions(path)
    design = read_design(path)
    classes = classes_of(finished)
    if design is not None and not post_stratify:
        _require_same_map(path, finished, design)
    if answers is not None:
        fill_in(Path(answers), points)
    given = read_answers(path if answers is None else Path(answers), points, classes, design)
    _require_answers(path, given, missing_at_random)
    places = _places(path, points, design, given, finished)
    if design is None or post_stratify:
        mapped = _read_classes(path, finished, places, given)
    else:
        mapped = design.map_classes()[given.points]
    if design is None:
        accuracy, strata, hectares = _of_points(mapped, given.reference, len(classes)), "", math.nan
    else:
        accuracy, strata = _estimate(design, mapped, given, len(classes), reread=post_stratify)
        hectares = design.total * accuracy.sampled
    found = Assessment(
        map=finished.path.name,
        sample=path.name,
        classes=classes,
        accuracy=accuracy,
        design=design,
        hectares=hectares,
        missing=given.missing,
        reread=post_stratify and design is not None,
        strata=strata,
        places=places,
        correct=mapped == given.reference,
        notes=(),
    )
    found = replace(found, notes=tuple(notes_of(found)))
    if folder is not None:
        found = replace(found, paths=tuple(folder / name for name in FILES))
        _write(found, finished)
    return found


def _require_same_map(path: Path, finished: Mapped, design: Design) -> None:
    """Refuses a map that the sample was not drawn from.

    Raises:
        DataError: Its cells are others.
    """
    if digest_of(finished) != design.digest:
        raise DataError(
            f"{path}: was drawn from another map, or {finished.path} has changed since; pass the sampled map, "
            f"{design.map}, or use `post_stratify=True` to read the classes of this one at the points"
        )


def _require_answers(path: Path, answers: Answers, missing_at_random: bool) -> None:
    """Refuses a sample with gaps unless told that they are random.

    Raises:
        DataError: Points have no answer.
    """
    if answers.missing and not missing_at_random:
        total = answers.missing + len(answers.points)
        raise DataError(
            f"{path}: {answers.missing} of {total} points have no answer or are gone; answer them, or use "
            "`missing_at_random=True` if they are missing by chance, and not because they are hard to answer"
        )


def _places(
    path: Path, points: gpd.GeoDataFrame, design: Design | None, answers: Answers, finished: Mapped
) -> NDArray[np.float64]:
    """(n, 2) coordinates of the answered points in the map's coordinate reference system."""
    target = pyproj.CRS.from_wkt(finished.grid.crs.to_wkt())
    if design is not None:
        x, y = design.centers()[answers.points].T
        middles = gpd.GeoSeries(gpd.points_from_xy(x, y), crs=design.crs.to_wkt())
    else:
        if points.crs is None:
            raise DataError(f"{path}: has no coordinate reference system; assign one, such as by ogr2ogr -a_srs")
        middles = points.geometry.iloc[answers.points].to_crs(target).centroid
    middles = middles.to_crs(target)
    return np.column_stack([middles.x, middles.y])


def _read_classes(path: Path, finished: Mapped, places: NDArray[np.float64], answers: Answers) -> NDArray[np.int64]:
    """(n,) classes of the map at places.

    Raises:
        DataError: It has none at some of them.
    """
    with open_raster(finished.path) as dataset:
        codes = np.array([values[0] for values in dataset.sample(places.tolist(), indexes=1)])
        bounds = ~dataset.transform @ (places[:, 0], places[:, 1])
        inside = (np.array(bounds) >= 0).all(axis=0) & (bounds[0] < dataset.width) & (bounds[1] < dataset.height)
    found = np.where(inside, places_of(codes, classes_of(finished)), NONE)
    if (without := np.flatnonzero(found == NONE)).size:
        example = int(answers.points[without[0]]) + 1
        raise DataError(
            f"{path}: {len(without)} of {len(found)} answered points, such as {example}, have no class on "
            f"{finished.path}; pass a map that covers them, or delete these points"
        )
    return found


def _estimate(
    design: Design, mapped: NDArray[np.int64], answers: Answers, classes: int, *, reread: bool
) -> tuple[Accuracy, str]:
    """The estimates, and what they are stratified by."""
    strata, name = design.cells[answers.points, 3], "strata" if design.kind == "stratified" else "map"
    if design.kind == "stratified" and design.strata_from == "classes" and not reread:
        name = "classes"
    parts = design.strata
    population = Population(
        np.array([part.hectares for part in parts]), np.array([part.cells for part in parts], np.float64)
    )
    if design.kind != "stratified" and not reread:
        parts, name = design.mapped, "classes"
        whole = Population(
            np.array([part.hectares for part in parts]), np.array([part.cells for part in parts], np.float64)
        )
        population, strata = post_strata(whole, mapped)
    found = estimate_accuracy(population, strata, mapped, answers.reference, classes, design.hectares[answers.points])
    return found, name


def _of_points(mapped: NDArray[np.int64], reference: NDArray[np.int64], classes: int) -> Accuracy:
    """Shares of points without errors, which only a design gives."""
    one = Population(np.ones(1), np.full(1, np.inf))
    found = estimate_accuracy(one, np.zeros(len(mapped), np.int64), mapped, reference, classes)

    def bare(estimates: Estimates) -> Estimates:
        unknown = np.full_like(estimates.value, np.nan)
        return Estimates(estimates.value, unknown, unknown, unknown)

    none = np.full(classes, np.nan)
    return Accuracy(
        counts=found.counts,
        matrix=found.matrix,
        overall=bare(found.overall),
        users=bare(found.users),
        producers=bare(found.producers),
        f1=bare(found.f1),
        area=Estimates(none, none, none, none),
        sampled=1.0,
    )


def _write(found: Assessment, finished: Mapped) -> None:
    """Writes the files, the report last."""
    from geocfl.evaluation.assessment_report import report_page

    page, facts, classes, matrix = found.paths
    for path, text in (
        (matrix, _csv(_long_matrix(found))),
        (classes, _csv(found.frame().reset_index())),
        (facts, json.dumps(found.to_json(), indent=2) + "\n"),
        (page, report_page(found, finished)),
    ):
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def _csv(frame: pd.DataFrame) -> str:
    for column in frame.columns.intersection(["class", "map", "reference"]):
        frame[column] = [spreadsheet_text(value) for value in frame[column]]
    return str(frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def _long_matrix(found: Assessment) -> pd.DataFrame:
    """The matrix with a row for each pair of classes: points and estimated share of the area."""
    names = [c.name for c in found.classes]
    return pd.DataFrame(
        {
            "map": np.repeat(names, len(names)),
            "reference": np.tile(names, len(names)),
            "points": found.accuracy.counts.ravel(),
            "share": found.accuracy.matrix.ravel(),
        }
    )
