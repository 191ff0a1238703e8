"""The windows of a scene that labels describe: around points, and on a grid in polygons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely import STRtree

from geocfl.analysis.reproject import Polygons, onto_map
from geocfl.core.areas import SQUARE_METERS_PER_HECTARE
from geocfl.core.grid import CellGrid
from geocfl.errors import DataError
from geocfl.labeling.labels import Labels

TILE = 2048
"""Side in pixels of the squares in which large polygons are divided, so that memory is bounded."""
TIE = 0.01
"""Difference of the shares of two classes of a window below which neither leads."""
OVERLAPS = ("refuse", "share")
"""What to do where labels of different classes overlap."""
SMALL = "polygon too small or narrow"
EDGE = "point too close to the scene's edge"
SHARED = "shared with another class"
TWICE = "too close to a window of its class"
"""Why a label gives no window, or a window is left out."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a scene with their classes.

    Attributes:
        rows: (n,) int64, first pixel row.
        columns: (n,) int64, first pixel column.
        classes: (n,) int64, code of the class.
        shares: (n,) share of the window that polygons of its class cover, 0..1; NaN around a point outside them.
        points: (n,) int64, index of the label in the middle of the window; -1 for a window in a polygon.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    classes: NDArray[np.int64]
    shares: NDArray[np.float64]
    points: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Windows:
        """The chosen windows."""
        return Windows(
            self.rows[chosen], self.columns[chosen], self.classes[chosen], self.shares[chosen], self.points[chosen]
        )

    def squares(self, window: int) -> Polygons:
        """(n,) their squares in pixels."""
        squares: Polygons = shapely.box(self.columns, self.rows, self.columns + window, self.rows + window)
        return squares


@dataclass(frozen=True, eq=False)
class Found:
    """What the labels give in a scene.

    Attributes:
        windows: Their windows.
        left_out: Number of labels and windows that were left out, by reason.
        inside: (F,) which labels lie in the scene, at least in part.
    """

    windows: Windows
    left_out: Counter[str]
    inside: NDArray[np.bool_]


def find_windows(labels: Labels, grid: CellGrid, *, min_share: float, spacing: int, overlap: str) -> Found:
    """The windows of a scene that labels describe.

    A point describes the window around it. In the polygons of a class, windows lie on a grid, for each separate area
    the one with the most windows; a window counts if these polygons cover enough of it.

    Args:
        labels: The labels.
        grid: The scene's pixels, and the side of its windows.
        min_share: Smallest share of a window that polygons of its class cover, above 0 and at most 1. Around a point,
            polygons of another class cover at most the rest.
        spacing: Smallest distance between windows of a class in pixels, along rows or columns. Points may be closer.
        overlap: ``"refuse"`` raises an error where labels of different classes overlap; ``"share"`` gives a window to
            the class that covers more of it.

    Raises:
        DataError: Labels of different classes overlap, or cannot be reprojected.
    """
    shapes = _in_pixels(labels, grid)
    points = np.flatnonzero(labels.points & ~shapely.is_empty(shapes))
    areas, classes = _areas(shapes[~labels.points], labels.classes[~labels.points])
    tree = STRtree(areas)
    left_out: Counter[str] = Counter()
    around = _around_points(shapes, points, labels.classes, grid, left_out)
    disputed = _disputed(around, areas, classes, tree, grid.window)
    if overlap == "refuse":
        _refuse_areas(labels, grid, areas, classes, tree)
        if disputed.any():
            number = labels.features[around.points[disputed][0]]
            raise DataError(
                f"{labels.path}: the point of feature {number} lies in or beside a label of another class; correct "
                "one, or use `overlap='share'` to leave such points out"
            )
    within = _within_areas(areas, classes, grid, min_share, spacing, left_out)
    found = _joined([around, *within])
    own, other = _covered(found, areas, classes, tree, grid.window)
    is_point = found.points >= 0
    found.shares[is_point] = np.where(own > 0, own, np.nan)[is_point]
    shared = np.where(is_point, other > 1 - min_share, other > found.shares - TIE)
    shared[: len(around)] |= disputed
    left_out[SHARED] += int(shared.sum())
    found = found[~shared]
    apart = _apart(found, spacing)
    left_out[TWICE] += int((~apart).sum())
    return Found(found[apart], left_out, ~shapely.is_empty(shapes))


def _in_pixels(labels: Labels, grid: CellGrid) -> Polygons:
    """The labels in pixel coordinates, cut to the scene; empty outside."""
    shapes: Polygons = labels.shapes.copy()
    polygons = ~labels.points
    shapes[polygons] = shapely.make_valid(onto_map(labels.path, shapes[polygons], labels.crs, grid))
    target = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if target != labels.crs:
        transformer = pyproj.Transformer.from_crs(labels.crs, target, always_xy=True)
        shapes[~polygons] = shapely.transform(shapes[~polygons], transformer.transform, interleaved=False)
    back = ~grid.transform
    shapes = shapely.transform(
        shapes, lambda x, y: (back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f), interleaved=False
    )
    outside = ~shapely.intersects(shapes, shapely.box(0, 0, grid.width, grid.height))
    shapes[outside] = shapely.Point()
    shapes[polygons] = shapely.intersection(shapes[polygons], shapely.box(0, 0, grid.width, grid.height))
    return shapes


def _areas(shapes: Polygons, classes: NDArray[np.int64]) -> tuple[Polygons, NDArray[np.int64]]:
    """The separate areas of each class, and their classes."""
    areas: list[shapely.Geometry] = []
    codes: list[int] = []
    for code in np.unique(classes):
        parts = shapely.get_parts(shapely.union_all(shapes[classes == code]))
        parts = parts[shapely.area(parts) > 0]
        areas += list(parts)
        codes += [int(code)] * len(parts)
    return np.array(areas, object), np.array(codes, np.int64)


def _around_points(
    shapes: Polygons, points: NDArray[np.int64], classes: NDArray[np.int64], grid: CellGrid, left_out: Counter[str]
) -> Windows:
    """The windows in whose middle a point lies, each once."""
    x, y = np.floor(shapely.get_coordinates(shapes[points])).astype(np.int64).T
    rows, columns = y - grid.window // 2, x - grid.window // 2
    fits = (rows >= 0) & (columns >= 0)
    fits &= (rows + grid.window <= grid.height) & (columns + grid.window <= grid.width)
    left_out[EDGE] += int((~fits).sum())
    found = Windows(rows, columns, classes[points], np.full(len(points), np.nan), points)[fits]
    _, first = np.unique(np.stack([found.rows, found.columns, found.classes]), axis=1, return_index=True)
    left_out[TWICE] += len(found) - len(first)
    return found[np.sort(first)]


def _disputed(
    around: Windows, areas: Polygons, classes: NDArray[np.int64], tree: STRtree, window: int
) -> NDArray[np.bool_]:
    """Which windows around points have their middle in an area of another class, or such a point near it."""
    middles = shapely.points(around.columns + window / 2, around.rows + window / 2)
    disputed = np.zeros(len(around), bool)
    point, area = tree.query(middles, predicate="intersects")
    disputed[point[around.classes[point] != classes[area]]] = True
    one, other = STRtree(middles).query(shapely.buffer(middles, window / 4, cap_style="square"), predicate="intersects")
    disputed[one[around.classes[one] != around.classes[other]]] = True
    return disputed


def _refuse_areas(labels: Labels, grid: CellGrid, areas: Polygons, classes: NDArray[np.int64], tree: STRtree) -> None:
    """Refuses areas of different classes that overlap by more than a pixel's width; borders are drawn twice.

    Raises:
        DataError: They do.
    """
    one, other = tree.query(areas, predicate="intersects")
    different = classes[one] < classes[other]
    one, other = one[different], other[different]
    common = shapely.intersection(areas[one], areas[other])
    wide = ~shapely.is_empty(shapely.buffer(common, -0.5))
    if wide.any():
        number = np.flatnonzero(wide)[shapely.area(common[wide]).argmax()]
        place = common[number].representative_point()
        x, y = grid.transform @ (place.x, place.y)
        across, down = grid.meters_per_pixel()
        first, second = (labels.legend[int(classes[k[number]])].name for k in (one, other))
        hectares = common[number].area * across * down / SQUARE_METERS_PER_HECTARE
        raise DataError(
            f"{labels.path}: labels of {first} and {second} overlap, most around x={x:.6g}, y={y:.7g} "
            f"({hectares:,.1f} ha); correct them, or use `overlap='share'` to give windows to the larger share"
        )


def _within_areas(
    areas: Polygons,
    classes: NDArray[np.int64],
    grid: CellGrid,
    min_share: float,
    spacing: int,
    left_out: Counter[str],
) -> list[Windows]:
    """Windows on a grid in each area."""
    found = []
    for code in np.unique(classes):
        mine = areas[classes == code]
        tree = STRtree(mine)
        for left, top, right, bottom in shapely.bounds(mine):
            tiles = product(
                range(int(top), max(int(np.ceil(bottom)), int(top) + 1), TILE),
                range(int(left), max(int(np.ceil(right)), int(left) + 1), TILE),
            )
            count = 0
            for row, column in tiles:
                ends = min(row + TILE, int(np.ceil(bottom))), min(column + TILE, int(np.ceil(right)))
                rows, columns, shares = _on_grid(mine, tree, (row, column), ends, grid, min_share, spacing)
                count += len(rows)
                found.append(Windows(rows, columns, np.full(len(rows), code), shares, np.full(len(rows), -1, np.int64)))
            left_out[SMALL] += not count
    return found


def _on_grid(
    areas: Polygons,
    tree: STRtree,
    start: tuple[int, int],
    stop: tuple[int, int],
    grid: CellGrid,
    min_share: float,
    spacing: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, columns and shares of the windows of the best grid, with their middles from `start` to `stop`."""
    side, half = grid.window, grid.window // 2
    low = [max(0, start[axis] - half) for axis in (0, 1)]
    high = [min(size - side, max(stop[axis] - half, low[axis])) for axis, size in enumerate((grid.height, grid.width))]
    if high[0] < low[0] or high[1] < low[1]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    shape = (high[0] - low[0] + side, high[1] - low[1] + side)
    near = areas[tree.query(shapely.box(low[1], low[0], low[1] + shape[1], low[0] + shape[0]))]
    pixels = rasterize(near, shape, transform=Affine.translation(low[1], low[0]), dtype=np.uint8)
    sums = np.pad(pixels.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    shares = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
    row, column = _best_offset(np.where(shares >= min_share, shares, 0), spacing)
    rows, columns = np.nonzero(shares[row::spacing, column::spacing] >= min_share)
    rows, columns = rows * spacing + row, columns * spacing + column
    return rows + low[0], columns + low[1], shares[rows, columns]


def _best_offset(shares: NDArray[np.float64], spacing: int) -> tuple[int, int]:
    """The row and column at which a grid has the most windows, and of those the highest shares.

    Args:
        shares: Share of the window that starts at each pixel; 0 for windows that do not count.
        spacing: Pixels between the windows of a grid.
    """
    height, width = (-(-size // spacing) * spacing for size in shares.shape)
    padded = np.pad(shares, ((0, height - shares.shape[0]), (0, width - shares.shape[1])))
    offsets = padded.reshape(height // spacing, spacing, width // spacing, spacing)
    counts, totals = (offsets > 0).sum((0, 2)), offsets.sum((0, 2))
    score = np.where(counts == counts.max(), totals, -1)
    best = np.argwhere(score >= score.max() - 1e-6)
    row, column = best[np.abs(best - best.mean(0)).sum(1).argmin()]  # the middle one of those that are as good
    return int(row), int(column)


def _joined(parts: list[Windows]) -> Windows:
    names = ("rows", "columns", "classes", "shares", "points")
    return Windows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _covered(
    found: Windows, areas: Polygons, classes: NDArray[np.int64], tree: STRtree, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) share of each window that its own class covers, and the largest share that another class covers."""
    squares = found.squares(window)
    one, area = tree.query(squares, predicate="intersects")
    covered = np.zeros((len(found), int(classes.max(initial=0)) + 1))
    common = shapely.area(shapely.intersection(squares[one], areas[area]))
    np.add.at(covered, (one, classes[area]), common / window**2)
    everyone = np.arange(len(found))
    within = found.classes < covered.shape[1]
    own = np.zeros(len(found))
    own[within] = covered[everyone[within], found.classes[within]]
    covered[everyone[within], found.classes[within]] = 0
    return own, covered.max(1, initial=0)


def _apart(found: Windows, spacing: int) -> NDArray[np.bool_]:
    """Which windows to keep so that those of a class have their spacing; points come first and are all kept."""
    kept = np.ones(len(found), bool)
    places: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for number, (row, column, code, point) in enumerate(
        zip(found.rows.tolist(), found.columns.tolist(), found.classes.tolist(), found.points.tolist(), strict=True)
    ):
        y, x = row // spacing, column // spacing
        near = (each for i, j in product((-1, 0, 1), repeat=2) for each in places.get((code, y + i, x + j), ()))
        if point < 0 and any(abs(row - r) < spacing and abs(column - c) < spacing for r, c in near):
            kept[number] = False
        else:
            places.setdefault((code, y, x), []).append((row, column))
    return kept
