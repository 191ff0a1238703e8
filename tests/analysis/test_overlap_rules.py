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
Cell = tuple[int, int, np.ndarray, float, float]
"""Code, confidence, probabilities, weight and correlation of a map's cell."""


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
    weights = np.array([weight for *_, weight, _ in cells])
    shares = weights / weights.sum()
    correlation = sum(share * cell[-1] for share, cell in zip(shares, cells, strict=True))
    # The variance of the weighted mean of errors of variance 1, each two of which have this correlation.
    variance = sum(a * b * (1 if i == j else correlation) for i, a in enumerate(shares) for j, b in enumerate(shares))
    logs = np.log([np.maximum(p / 100, 0.001) for _, _, p, *_ in cells])
    pooled = np.exp(shares @ logs / variance)
    return int(pooled.argmax()) + 1, 100 * pooled.max() / pooled.sum()


def write_bands(path: Path, like: Path, values: np.ndarray) -> None:
    with rasterio.open(like) as dataset:
        profile = {**dataset.profile, "driver": "GTiff", "count": len(values), "dtype": "uint8", "nodata": 255}
    for key in ("photometric", "colormap"):
        profile.pop(key, None)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)


def write_dated(folder: Path, number: int, codes: np.ndarray, rng: np.random.Generator, **place) -> tuple[Path, dict]:
    """A map with probabilities, a date and perhaps novelty and valid shares, and its cells by row and column."""
    sure, novelty, valid = rng.integers(0, 101, (3, *codes.shape))
    correlation = float(rng.choice([0, 0.5, 1, rng.random()]))
    probabilities = rng.integers(0, 101, (CLASSES, *codes.shape))
    lulc = write_map(folder / f"M{number}", codes, sure, **place)
    gone = codes == 0
    write_bands(folder / f"M{number}_probabilities.tif", lulc, np.where(gone, 255, probabilities).astype(np.uint8))
    weights = np.full(codes.shape, 0.5)
    for name, values in (("novelty", novelty), ("valid", valid.clip(1))):
        file = folder / f"M{number}_{name}.tif"
        file.unlink(missing_ok=True)
        if rng.random() < 0.7:
            write_bands(file, lulc, np.where(gone, 255, values)[None].astype(np.uint8))
            weights = np.maximum(1 - values / 100, 0.01) if name == "novelty" else weights * values / 100
    facts = {"scene": {"datetime": f"2022-0{number + 1}-01T10:00:00Z"}}
    if correlation < 1:  # as 1, if it is absent
        facts["model"] = {"name": "m", "correlation": correlation}
    (folder / f"M{number}_summary.json").write_text(json.dumps(facts))
    return lulc, {
        index: (
            int(code),
            int(sure[index]),
            probabilities[(slice(None), *index)],
            float(weights[index]),
            correlation,
        )
        for index, code in np.ndenumerate(codes)
        if code
    }


def write_one(
    path: Path, forest: int, *, novelty: int | None = None, valid: int | None = None, correlation: object = None
) -> Path:
    """A map of one cell that is Forest with so many percent, and else Pasture."""
    lulc = write_map(path, [[2]], 70)
    probabilities = np.zeros((CLASSES, 1, 1), np.uint8)
    probabilities[1], probabilities[5] = forest, 100 - forest
    write_bands(path.with_name(f"{path.name}_probabilities.tif"), lulc, probabilities)
    for name, value in (("novelty", novelty), ("valid", valid)):
        if value is not None:
            write_bands(path.with_name(f"{path.name}_{name}.tif"), lulc, np.full((1, 1, 1), value, np.uint8))
    if correlation is not None:
        facts = {"hash": path.name, "model": {"name": "m", "correlation": correlation}}
        path.with_name(f"{path.name}_summary.json").write_text(json.dumps(facts))
    return lulc


def fuse(folder: Path, *cells: dict) -> tuple[int, int]:
    """Code and confidence of the fused cell."""
    maps = [write_one(folder / f"M{number}", **cell) for number, cell in enumerate(cells)]
    made = mosaic(maps, folder / "X_lulc.tif", overlap="fuse").paths[0]
    return int(read(made)[0, 0]), int(read(confidence_of(made))[0, 0])


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


def test_weights_and_worth_by_hand(tmp_path: Path) -> None:
    """Two maps: one of novelty 20 and a whole window, one of novelty 60 and half a window.

    They weigh 0.8 and 0.4 * 0.5 = 0.2, so that they count as (0.8 + 0.2)^2 / (0.8^2 + 0.2^2) = 1 / 0.68 = 1.4706 maps.
    With a correlation of 0.5 these are worth 1.4706 / (1 + 0.4706 * 0.5) = 1.1905 independent ones. The mean logarithms
    are 0.8 ln 0.8 + 0.2 ln 0.3 = -0.4193 of Forest, 0.8 ln 0.2 + 0.2 ln 0.7 = -1.3589 of Pasture and ln 0.001 of each
    of the eight others. 1.1905 times these give 0.6070, 0.1983 and 0.0021 together, of which Forest has 75.2%.
    """
    first, second = {"forest": 80, "novelty": 20, "valid": 100}, {"forest": 30, "novelty": 60, "valid": 50}
    half, alike, alone = ({"correlation": r} for r in (0.5, 1.0, 0.0))
    assert fuse(tmp_path / "half", first | half, second | half) == (2, 75)
    # Alike, they are worth 1: 0.6575 of 0.6575 + 0.2569 + 0.0080. Independent, they are worth 1.4706: 0.5397 of 0.5397
    # + 0.1355 + 0.0003.
    assert fuse(tmp_path / "alike", first | alike, second | alike) == (2, 71)
    assert fuse(tmp_path / "alone", first | alone, second | alone) == (2, 80)
    # Maps of two models have the mean of their correlations, by weight: 0.2 * 1, and 1.4706 / 1.0941 = 1.3441.
    assert fuse(tmp_path / "mixed", first | alone, second | alike) == (2, 78)
    assert fuse(tmp_path / "unknown", first, second) == (2, 71)
    for number, wrong in enumerate(("0.5", -0.1, 1.5, float("nan"), None, [0.5])):
        words = {"correlation": wrong}
        assert fuse(tmp_path / f"wrong{number}", first | words, second | words) == (2, 71)


@given(forest=st.integers(0, 100), maps=st.integers(1, 5), correlation=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=15)
def test_one_map_and_maps_that_err_alike_stay_as_they_are(tmp_path_factory, forest, maps, correlation) -> None:
    folder = tmp_path_factory.mktemp("alike")
    code, sure = fuse(folder, *[{"forest": forest, "correlation": correlation}] * maps)
    if forest != 50:
        assert code == (2 if forest > 50 else 6)
    if maps == 1 or correlation == 1:
        assert abs(sure - max(forest, 100 - forest)) <= 1, "up to the least probability of other classes"
    else:
        assert sure >= max(forest, 100 - forest) - 1


@given(seed=st.integers(0, 10**6), maps=st.integers(2, 5))
@settings(max_examples=10)
def test_the_order_of_maps_does_not_matter(tmp_path_factory, seed, maps) -> None:
    folder, rng = tmp_path_factory.mktemp("order"), np.random.default_rng(seed)
    cells = [
        {
            "forest": int(rng.integers(0, 101)),
            "novelty": int(rng.integers(0, 101)),
            "valid": int(rng.integers(1, 101)),
            "correlation": float(rng.random()),
        }
        for _ in range(maps)
    ]
    (code, sure), (other, again) = fuse(folder / "a", *cells), fuse(folder / "b", *cells[::-1])
    assert abs(sure - again) <= 1, "sums differ in the last digit"
    assert code == other or sure == 50


def test_unlike_land_counts_less(tmp_path: Path) -> None:
    two = [{"forest": 70, "novelty": 0}] * 2
    code, sure = fuse(tmp_path, *two, {"forest": 2, "novelty": 99})
    assert code == 2
    assert 67 <= sure <= 70


def test_a_map_without_novelty_counts_as_one_of_mean_novelty(tmp_path: Path) -> None:
    def fused_with(name: str, *novelties: int | None) -> tuple[int, int]:
        cells = zip((90, 20, 30), novelties, strict=True)
        return fuse(tmp_path / name, *({"forest": forest, "novelty": novelty} for forest, novelty in cells))

    mixed, even = fused_with("mixed", 10, None, 90), fused_with("even", 0, 0, 0)
    assert mixed == fused_with("known", 10, 50, 90)
    assert mixed != even
    assert even == fused_with("none", None, None, None)


@pytest.mark.parametrize("name", ["novelty", "valid"])
def test_a_raster_of_other_cells_is_refused(name: str, tmp_path: Path) -> None:
    maps = [write_one(tmp_path / letter, 80) for letter in "AB"]
    other = write_map(tmp_path / "other" / "A", np.ones((2, 3)))
    write_bands(tmp_path / f"A_{name}.tif", other, np.full((1, 2, 3), 1, np.uint8))
    with pytest.raises(DataError, match=rf"A_{name}\.tif: has other cells than A_lulc\.tif"):
        mosaic(maps, tmp_path / "X_lulc.tif", overlap="fuse")
    mosaic(maps, tmp_path / "X_lulc.tif")  # which does not read it


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
