"""What counts where maps overlap, against the rules written out cell by cell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from geocfl.analysis import mosaic_raster
from geocfl.analysis.mosaic import mosaic
from geocfl.errors import DataError, UsageError
from tests.analysis.test_mosaic import confidence_of, moved, read, write_map

CLASSES = 10
Cell = tuple[int, int, np.ndarray, int]
"""Code, confidence, probabilities and novelty of a map's cell."""


def surest(cells: list[Cell]) -> tuple[int, float]:
    return max(cells, key=lambda cell: cell[1])[:2]


def newest(cells: list[Cell]) -> tuple[int, float]:
    return cells[-1][:2]  # maps are written from the oldest to the newest


def majority(cells: list[Cell]) -> tuple[int, float]:
    votes = [cell for cell in cells if cell[0] != 255]
    if not votes:
        return 255, 0
    counts = {c: (sum(v[0] == c for v in votes), sum(v[1] for v in votes if v[0] == c), c) for c, *_ in votes}
    _, sure, code = max(counts.values())
    return code, sure / len(votes)


def fused(cells: list[Cell]) -> tuple[int, float]:
    weights = np.array([max(1 - novelty / 100, 0.01) for *_, novelty in cells])
    logs = np.log([np.maximum(p / 100, 0.001) for _, _, p, _ in cells])
    pooled = np.exp((weights[:, None] * logs).sum(axis=0) / weights.sum())
    return int(pooled.argmax()) + 1, 100 * pooled.max() / pooled.sum()


def write_bands(path: Path, like: Path, values: np.ndarray) -> None:
    with rasterio.open(like) as dataset:
        profile = {**dataset.profile, "driver": "GTiff", "count": len(values), "dtype": "uint8", "nodata": 255}
    for key in ("photometric", "colormap"):
        profile.pop(key, None)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)


def write_dated(folder: Path, number: int, codes: np.ndarray, rng: np.random.Generator, **place) -> tuple[Path, dict]:
    """A map with probabilities, novelty and a date, and its cells by row and column."""
    sure, novelty = rng.integers(0, 101, codes.shape), rng.integers(0, 101, codes.shape)
    probabilities = rng.integers(0, 101, (CLASSES, *codes.shape))
    lulc = write_map(folder / f"M{number}", codes, sure, **place)
    gone = codes == 0
    write_bands(folder / f"M{number}_probabilities.tif", lulc, np.where(gone, 255, probabilities).astype(np.uint8))
    write_bands(folder / f"M{number}_novelty.tif", lulc, np.where(gone, 255, novelty)[None].astype(np.uint8))
    when = {"scene": {"datetime": f"2022-0{number + 1}-01T10:00:00Z"}}
    (folder / f"M{number}_summary.json").write_text(json.dumps(when))
    return lulc, {
        index: (int(code), int(sure[index]), probabilities[(slice(None), *index)], int(novelty[index]))
        for index, code in np.ndenumerate(codes)
        if code
    }


@pytest.mark.parametrize(
    ("overlap", "rule"), [("confidence", surest), ("newest", newest), ("mode", majority), ("fuse", fused)]
)
@given(seed=st.integers(0, 10**6), maps=st.integers(1, 4), strip=st.sampled_from([1, 300, 1_000_000]))
@settings(max_examples=5)
def test_each_cell_is_by_the_rule(overlap, rule, tmp_path_factory, seed, maps, strip) -> None:
    folder, rng = tmp_path_factory.mktemp("rules"), np.random.default_rng(seed)
    here: dict[tuple[int, int], list[Cell]] = {}
    paths, places = [], rng.integers(0, 4, (maps, 2))
    for number, (top, left) in enumerate(places):
        codes = rng.choice([0, 1, 1, 2, 3, 10, 255], rng.integers(2, 6, 2))
        path, cells = write_dated(folder, number, codes, rng, pixel=moved(int(left), int(top)))
        paths.append(path)
        for (row, column), cell in cells.items():
            here.setdefault((row + int(top), column + int(left)), []).append(cell)
    order = rng.permutation(maps) if overlap == "newest" else range(maps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic_raster, "PASTED_CELLS", strip)
        made = mosaic([paths[i] for i in order], folder / "X_lulc.tif", overlap=overlap).paths[0]
    codes, sure = read(made), read(confidence_of(made))
    top, left = places.min(axis=0)
    for (row, column), code in np.ndenumerate(codes):
        cells = here.get((row + top, column + left), [])
        if not cells:
            assert (code, sure[row, column]) == (0, 255)
            continue
        expected, confidence = rule(cells)
        assert abs(sure[row, column] - confidence) <= 0.51
        if overlap != "fuse" or confidence > 55:  # else two classes may be equal to the last digit
            assert code == expected


def test_maps_that_agree_stay_as_sure_and_unlike_land_counts_less(tmp_path: Path) -> None:
    paths = []
    for number, (forest, pasture, novelty) in enumerate([(70, 30, 0), (70, 30, 0), (2, 98, 99)]):
        path = write_map(tmp_path / f"M{number}", [[2]], 70)
        probabilities = np.zeros((CLASSES, 1, 1), np.uint8)
        probabilities[1], probabilities[5] = forest, pasture
        write_bands(tmp_path / f"M{number}_probabilities.tif", path, probabilities)
        write_bands(tmp_path / f"M{number}_novelty.tif", path, np.full((1, 1, 1), novelty, np.uint8))
        paths.append(path)
    two = mosaic(paths[:2], tmp_path / "two_lulc.tif", overlap="fuse").paths[0]
    three = mosaic(paths, tmp_path / "three_lulc.tif", overlap="fuse").paths[0]
    assert (read(two)[0, 0], read(three)[0, 0]) == (2, 2)
    assert read(confidence_of(two))[0, 0] == pytest.approx(70, abs=1)
    assert 67 <= read(confidence_of(three))[0, 0] <= 70


def test_a_map_without_novelty_counts_as_one_of_mean_novelty(tmp_path: Path) -> None:
    def fuse(name: str, *novelties: int | None) -> tuple[int, int]:
        paths = []
        for number, (novelty, forest) in enumerate(zip(novelties, (90, 20, 30), strict=False)):
            path = write_map(tmp_path / name / f"M{number}", [[2]], 70)
            probabilities = np.zeros((CLASSES, 1, 1), np.uint8)
            probabilities[1], probabilities[5] = forest, 100 - forest
            write_bands(path.with_name(f"M{number}_probabilities.tif"), path, probabilities)
            if novelty is not None:
                write_bands(path.with_name(f"M{number}_novelty.tif"), path, np.full((1, 1, 1), novelty, np.uint8))
            paths.append(path)
        made = mosaic(paths, tmp_path / f"{name}_lulc.tif", overlap="fuse").paths[0]
        return int(read(made)[0, 0]), int(read(confidence_of(made))[0, 0])

    mixed, even = fuse("mixed", 10, None, 90), fuse("even", 0, 0, 0)
    assert mixed == fuse("known", 10, 50, 90)
    assert mixed != even
    assert even == fuse("none", None, None, None)


def test_what_a_rule_needs_is_named(tmp_path: Path) -> None:
    maps = [write_map(tmp_path / name, [[1]]) for name in "AB"]
    cases = [
        (
            "fuse",
            DataError,
            "A_probabilities.tif is not beside it; map the scene with `products=default,probabilities`",
        ),
        ("newest", DataError, "A_lulc.tif: does not say when its scene was taken"),
        ("newst", UsageError, "did you mean 'newest'"),
    ]
    for overlap, error, words in cases:
        with pytest.raises(error, match=words):
            mosaic(maps, tmp_path / "X_lulc.tif", overlap=overlap)
    with pytest.raises(UsageError, match="`overlap` needs the cells"):
        mosaic(maps, tmp_path / "X_lulc.vrt", overlap="mode")
