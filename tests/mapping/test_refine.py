"""Refinement of work raster files: blocks do not show, and cells without data stay without."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

import geocfl
from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA, UNCLASSIFIED
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.errors import UsageError
from geocfl.mapping.encode import Decision
from geocfl.mapping.interpolate import cells_to_classify, interpolate
from geocfl.mapping.refine import Refinement
from geocfl.mapping.settings import MapSettings
from geocfl.mapping.smooth import smooth
from geocfl.products.scratch import NO_CONFIDENCE, open_cells, write_header

CLASSES = 4


def write_cells(path: Path, grid: CellGrid, decision: Decision, p: np.ndarray, valid: np.ndarray, chosen: np.ndarray):
    cells = np.full((len(decision.bands), *valid.shape), NO_CONFIDENCE, np.uint8)
    cells[0] = np.where(valid, UNCLASSIFIED, NODATA)
    cells[:, chosen] = decision.of(p[chosen])
    path.write_bytes(cells.transpose(1, 0, 2).tobytes())
    write_header(path, grid.rows, grid.columns, decision.bands)


@pytest.mark.parametrize("stride", [7, 16, 32])
@pytest.mark.parametrize(("between", "smoothed"), [(True, False), (False, True), (True, True)])
def test_the_height_of_blocks_does_not_show(tmp_path: Path, stride: int, between: bool, smoothed: bool) -> None:
    rng = np.random.default_rng(stride)
    grid = CellGrid(37 * stride - 3, 23 * stride, stride, 64, Affine(10, 0, 0, 0, -10, 0), None)
    shape = grid.rows, grid.columns
    p = rng.dirichlet(np.full(CLASSES, 0.3), shape).astype(np.float32)
    valid = rng.random(shape) < 0.9
    valid[10:15] = False
    chosen = cells_to_classify(valid, grid.rows) if between else valid
    decision = Decision(CLASSES, 0.4, detail=True, logits=True)
    write_cells(tmp_path / "cells", grid, decision, p, valid, chosen)
    refinement, results = Refinement(between, smoothed, keep=(2,)), []
    for number, rows in enumerate((1, 2, 3, 8, 36, 37)):
        path = tmp_path / str(number)
        refinement.apply(tmp_path / "cells", path, grid, decision, block_values=rows * grid.columns * CLASSES)
        results.append(path.read_bytes())
    assert all(one == results[0] for one in results)
    with open_cells(path) as dataset:
        found, names = dataset.read(), dataset.descriptions
    assert names == replace(decision, logits=False).bands
    np.testing.assert_array_equal(found[0] == NODATA, ~valid)
    assert (found[1:, ~valid] == NO_CONFIDENCE).all()

    expected = p
    if between:
        logits = interpolate(np.where(chosen[..., None], np.log(np.maximum(p, 1e-7)), np.nan).astype(np.float32))
        expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if smoothed:
        expected = smooth(expected, valid, stride, 64, keep=(2,))
    np.testing.assert_allclose(found[3:, valid] / 100, expected[valid].T, atol=0.015)
    assert ((found[0] == UNCLASSIFIED) == (valid & (found[1] < 40))).all()


def test_products_are_those_after_refinement(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    path, truth = tmp_path / "s.tif", tmp_path / "truth.tif"
    write_synthetic_scene(path, truth, size=512)
    options = {
        "model": tiny_model, "stride": 32, "products": ["lulc", "confidence", "probabilities"], "smooth": True,
        "interpolate": True, "backend": "torch", "device": "cpu", "precision": "float32", "min_confidence": 0.2,
    }  # fmt: skip
    whole = geocfl.map_scene(path, tmp_path / "whole", **options)
    monkeypatch.setattr("geocfl.mapping.memory.STRIP_ROWS", 100)
    strips = geocfl.map_scene(path, tmp_path / "strips", **options)
    for name in ("lulc", "confidence", "probabilities"):
        assert whole.paths[name].read_bytes() == strips.paths[name].read_bytes()
    plain = geocfl.map_scene(path, tmp_path / "plain", **options | {"smooth": False, "interpolate": False})
    total = np.count_nonzero(plain.lulc)
    assert np.count_nonzero(whole.lulc) == total < plain.lulc.size
    assert plain.summary["timing"]["windows"] == total
    assert 0.25 <= whole.summary["timing"]["windows"] / total < 0.35
    difference = np.abs(whole.confidence - plain.confidence)
    assert 0 < np.nanmax(difference) < 0.2
    assert (whole.summary["settings"]["smooth"], plain.summary["settings"]["smooth"]) == (True, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smooth": True}, "`smooth` needs windows that overlap; use a `stride` of less than .* 64 px"),
        ({"interpolate": True}, "`interpolate` needs a `stride` of at most 32 px"),
        ({"stride": 16, "smooth": True, "smooth_keep": ("Rivers",)}, "`smooth_keep`: unknown class 'Rivers'; did you"),
    ],
)
def test_what_cannot_be_refined_is_refused(tiny_model: Path, settings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Refinement.of(MapSettings(**settings), geocfl.load_model(tiny_model))


def test_dense_models_have_no_cells_to_interpolate(tiny_model: Path) -> None:
    dense = replace(geocfl.load_model(tiny_model), feature_stride=16)
    with pytest.raises(UsageError, match="tiny gives fine cells at no extra cost; leave it out"):
        Refinement.of(MapSettings(stride=16, interpolate=True), dense)


def test_classes_to_keep_are_named_as_in_the_legend_or_in_folders(tiny_model: Path) -> None:
    how = MapSettings(stride=16, smooth=True, smooth_keep=["River", "Sea Lake", "SeaLake"])
    assert Refinement.of(how, geocfl.load_model(tiny_model)).keep == (9, 10, 10)


@pytest.mark.parametrize("smoothed", [False, True])
def test_novelty_is_interpolated_and_not_smoothed(tmp_path: Path, smoothed: bool) -> None:
    """Novelty rises along the columns; the saturated cell, which is not classified, keeps its 100."""
    grid = CellGrid(5 * 16, 9 * 16, 16, 64, Affine(10, 0, 0, 0, -10, 0), None)
    valid = np.ones((5, 9), bool)
    chosen = cells_to_classify(valid, 5)
    assert not chosen[1, 1]
    decision = Decision(CLASSES, logits=True, novelty=True, max_novelty=70, conformal=(0.5,) * CLASSES)
    p = np.random.default_rng(0).dirichlet(np.full(CLASSES, 0.3), (5, 9)).astype(np.float32)
    novelty = np.broadcast_to(10 * np.arange(9, dtype=np.float32), (5, 9))
    cells = np.full((len(decision.bands), 5, 9), NO_CONFIDENCE, np.uint8)
    cells[0], cells[2, 1, 1] = UNCLASSIFIED, 100
    cells[:, chosen] = decision.of(p[chosen], novelty[chosen])
    (tmp_path / "cells").write_bytes(cells.transpose(1, 0, 2).tobytes())
    Refinement(True, smoothed).apply(tmp_path / "cells", tmp_path / "refined", grid, decision)
    with open_cells(tmp_path / "refined") as dataset:
        code, _, unlike, members = dataset.read()
        assert dataset.descriptions == ("code", "confidence", "novelty", "members")
    expected = novelty.copy()
    expected[1, 1] = 100
    np.testing.assert_array_equal(unlike, expected)
    np.testing.assert_array_equal(code == UNCLASSIFIED, expected > 70)
    assert (members < 1 << CLASSES).all()
