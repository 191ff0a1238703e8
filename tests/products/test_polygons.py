"""Polygons of cells: what they are, and what simplifying leaves as it was."""

import time

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize

from geocfl.core.legend import EUROSAT, NODATA, UNCLASSIFIED
from geocfl.products import scratch as work
from geocfl.products.polygons import dissolve, simplify
from geocfl.products.scratch import NOVELTY
from geocfl.products.summary import class_table


def test_pieces_join_by_sides_only(cells_of, grid_of):
    codes = np.array([[1, 1, 2], [1, 2, 2], [0, 1, 255]])
    confidence = np.array([[90, 60, 10], [30, 20, 60], [255, 77, 40]])
    frame = dissolve(cells_of(codes, confidence), grid_of(codes, cut=(14, 24)), EUROSAT)
    frame = frame.sort_values("area_ha", ascending=False)
    assert list(frame.columns) == ["class_code", "class_name", "area_ha", "confidence", "geom"]
    assert frame.class_name.tolist() == ["Annual Crop", "Forest", "Annual Crop", "Unclassified"]
    assert frame.class_code.tolist() == [1, 2, 1, 255]
    assert frame.area_ha.tolist() == pytest.approx([122.88, 0.01 * 64 * (40 + 64 + 40), 0.01 * 64 * 50, 0.01 * 40 * 50])
    assert frame.confidence.tolist() == pytest.approx([0.6, 0.3, 0.77, 0.4])
    assert set(frame.geom_type) == {"Polygon"}
    assert frame.crs.to_epsg() == 32633
    assert tuple(frame.total_bounds) == grid_of(codes, cut=(14, 24)).bounds()


def test_novelty_is_the_mean_of_the_cells(cells_of, grid_of):
    codes = np.array([[1, 1, 2], [1, 2, 2], [0, 1, 255]])
    novelty = np.array([[90, 60, 10], [30, 20, 60], [255, 77, 100]])
    frame = dissolve(cells_of(codes, None, novelty, names=[NOVELTY]), grid_of(codes), EUROSAT)
    assert list(frame.columns) == ["class_code", "class_name", "area_ha", "confidence", "novelty", "geom"]
    assert sorted(frame.novelty) == pytest.approx([30, 60, 77, 100])
    assert frame.confidence.tolist() == [0.5] * 4


@given(data=st.data(), epsg=st.sampled_from([32633, 4326]), strip=st.sampled_from([1, 1_000_000]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_polygons_are_the_raster(cells_of, grid_of, data, epsg, strip):
    shape = st.tuples(st.integers(1, 12), st.integers(1, 12))
    codes = data.draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 2, 10, 255]), fill=st.nothing()))
    percent = data.draw(arrays(np.uint8, codes.shape, elements=st.integers(0, 100)))
    confidence = np.where(codes == NODATA, 255, percent)
    stride = data.draw(st.integers(1, 64))
    cut = data.draw(st.tuples(st.integers(0, stride - 1), st.integers(0, stride - 1)))
    cells, grid = cells_of(codes, confidence), grid_of(codes, stride, cut, epsg)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "STRIP_CELLS", strip)
        frame = dissolve(cells, grid, EUROSAT)

    # Rasterized at the scene's own pixels, they give the codes back.
    pixels = np.kron(codes, np.ones((stride, stride), np.uint8))[: grid.height, : grid.width]
    shapes = list(zip(frame.geometry, frame.class_code, strict=True))
    burnt = (
        rasterize(shapes, pixels.shape, transform=grid.transform, dtype="uint8") if shapes else np.zeros_like(pixels)
    )
    assert (burnt == pixels).all()

    # Where they meet they have the same corners, so that they can be simplified and reprojected without gaps.
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())

    # Valid, and apart from one another: what they cover together is what each covers.
    assert frame.is_valid.all()
    assert shapely.union_all(frame.geometry.to_numpy()).area == pytest.approx(
        shapely.area(frame.geometry.to_numpy()).sum(), rel=1e-9
    )
    if epsg != 4326:
        assert frame.area_ha.to_numpy() == pytest.approx(frame.geometry.area.to_numpy() / 1e4, rel=1e-9)

    # Areas and confidences are those of the raster.
    table = class_table(cells, grid, EUROSAT)
    hectares = frame.groupby("class_code").area_ha.sum()
    for row in table["classes"]:
        assert hectares.get(row["code"], 0.0) == pytest.approx(row["hectares"], rel=1e-9)
    assert hectares.get(UNCLASSIFIED, 0.0) == pytest.approx(table["unclassified"]["hectares"], rel=1e-9)
    for piece in frame.itertuples():
        inside = rasterize([piece.geom], codes.shape, transform=grid.cell_transform, dtype="uint8") == 1
        if not any(cut):
            assert piece.confidence == pytest.approx(confidence[inside].mean() / 100)


def test_a_hole_and_a_pinch_stay_valid(cells_of, grid_of):
    codes = np.array([[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 2, 1], [1, 1, 1, 2]])
    frame = dissolve(cells_of(codes), grid_of(codes), EUROSAT)
    assert frame.is_valid.all()
    assert (frame.class_code == 2).sum() == 3


@pytest.mark.integration
def test_half_a_million_cells_within_a_minute(cells_of, grid_of):
    codes = np.random.default_rng(0).integers(1, 11, (690, 690))  # at their most fragmented
    started = time.process_time()  # not the wall clock: other processes may have the cores
    dissolve(cells_of(codes), grid_of(codes, 16), EUROSAT)
    assert time.process_time() - started < 60


@given(data=st.data(), meters=st.sampled_from([100, 1000, 5000]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_simplified_polygons_still_share_their_borders(cells_of, grid_of, data, meters):
    codes = data.draw(arrays(np.uint8, (12, 12), elements=st.sampled_from([0, 1, 1, 2, 10, 255]), fill=st.nothing()))
    grid = grid_of(codes)
    whole = dissolve(cells_of(codes), grid, EUROSAT)
    simple = simplify(whole, grid, meters)
    shapes = simple.geometry.to_numpy()
    assert shapely.coverage_is_valid(shapes)
    assert simple.is_valid.all()
    assert not simple.is_empty.any()
    assert shapely.get_num_coordinates(shapes).sum() <= shapely.get_num_coordinates(whole.geometry.to_numpy()).sum()
    # What the map covers stays, and so do the figures of the cells.
    assert shapely.area(shapes).sum() == pytest.approx(whole.area.sum())
    assert simple.drop(columns="geom").equals(whole.drop(columns="geom"))


def test_simplifying_takes_the_steps_out_of_a_slope(cells_of, grid_of):
    codes = np.tril(np.ones((20, 20), np.uint8)) + 1
    grid = grid_of(codes, 16)
    whole = dissolve(cells_of(codes), grid, EUROSAT)
    assert shapely.get_num_coordinates(whole.geometry.to_numpy()).min() > 38
    assert shapely.get_num_coordinates(simplify(whole, grid, 300).geometry.to_numpy()).max() < 12
    assert simplify(whole, grid, 0) is whole
