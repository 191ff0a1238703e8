import json
import shutil
import sqlite3
import subprocess
import time

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize

from geocfl.legend import EUROSAT, NODATA, UNCLASSIFIED
from geocfl.products import cells as work
from geocfl.products.summary import class_table
from geocfl.products.vector import write_polygons


def test_pieces_join_by_sides_only(tmp_path, cells_of, grid_of):
    codes = np.array([[1, 1, 2], [1, 2, 2], [0, 1, 255]])
    confidence = np.array([[90, 60, 10], [30, 20, 60], [255, 77, 40]])
    write_polygons(cells_of(codes, confidence), tmp_path / "S_lulc.gpkg", grid_of(codes, cut=(14, 24)), EUROSAT)

    frame = gpd.read_file(tmp_path / "S_lulc.gpkg", layer="lulc").sort_values("area_ha", ascending=False)
    assert list(frame.columns) == ["class_code", "class_name", "area_ha", "confidence", "geometry"]
    assert frame.class_name.tolist() == ["Annual Crop", "Forest", "Annual Crop", "Unclassified"]
    assert frame.class_code.tolist() == [1, 2, 1, 255]
    assert frame.area_ha.tolist() == pytest.approx([122.88, 0.01 * 64 * (40 + 64 + 40), 0.01 * 64 * 50, 0.01 * 40 * 50])
    assert frame.confidence.tolist() == pytest.approx([0.6, 0.3, 0.77, 0.4])
    assert set(frame.geom_type) == {"Polygon"}
    assert frame.crs.to_epsg() == 32633
    assert tuple(frame.total_bounds) == grid_of(codes, cut=(14, 24)).bounds()


@given(data=st.data(), epsg=st.sampled_from([32633, 4326]), strip=st.sampled_from([1, 1_000_000]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_polygons_are_the_raster(tmp_path, cells_of, grid_of, data, epsg, strip):
    shape = st.tuples(st.integers(1, 12), st.integers(1, 12))
    codes = data.draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 2, 10, 255]), fill=st.nothing()))
    percent = data.draw(arrays(np.uint8, codes.shape, elements=st.integers(0, 100)))
    confidence = np.where(codes == NODATA, 255, percent)
    stride = data.draw(st.integers(1, 64))
    cut = data.draw(st.tuples(st.integers(0, stride - 1), st.integers(0, stride - 1)))
    cells, grid, path = cells_of(codes, confidence), grid_of(codes, stride, cut, epsg), tmp_path / "S_lulc.gpkg"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "STRIP_CELLS", strip)
        write_polygons(cells, path, grid, EUROSAT)
    frame = gpd.read_file(path, layer="lulc")

    # Rasterised at the scene's own pixels, they give the codes back.
    pixels = np.kron(codes, np.ones((stride, stride), np.uint8))[: grid.height, : grid.width]
    shapes = list(zip(frame.geometry, frame.class_code, strict=True))
    burnt = (
        rasterize(shapes, pixels.shape, transform=grid.transform, dtype="uint8") if shapes else np.zeros_like(pixels)
    )
    assert (burnt == pixels).all()

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
        inside = rasterize([piece.geometry], codes.shape, transform=grid.cell_transform, dtype="uint8") == 1
        if not any(cut):
            assert piece.confidence == pytest.approx(confidence[inside].mean() / 100)


def test_a_hole_and_a_pinch_stay_valid(tmp_path, cells_of, grid_of):
    codes = np.array([[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 2, 1], [1, 1, 1, 2]])
    write_polygons(cells_of(codes), tmp_path / "S_lulc.gpkg", grid_of(codes), EUROSAT)
    frame = gpd.read_file(tmp_path / "S_lulc.gpkg", layer="lulc")
    assert frame.is_valid.all()
    assert (frame.class_code == 2).sum() == 3


def test_a_map_without_data_has_an_empty_layer(tmp_path, cells_of, grid_of):
    codes = np.zeros((3, 3))
    write_polygons(cells_of(codes), tmp_path / "S_lulc.gpkg", grid_of(codes), EUROSAT)
    info = pyogrio.read_info(tmp_path / "S_lulc.gpkg", layer="lulc")
    assert info["features"] == 0
    assert info["geometry_type"] == "Polygon"
    assert list(info["fields"]) == ["class_code", "class_name", "area_ha", "confidence"]


def test_bytes_repeat(tmp_path, cells_of, grid_of, codes):
    cells, grid, path = cells_of(codes), grid_of(codes), tmp_path / "S_lulc.gpkg"
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    write_polygons(cells, path, grid, EUROSAT)
    first = path.read_bytes()
    time.sleep(1.1)
    write_polygons(cells, path, grid, EUROSAT)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("S_")] == ["S_lulc.gpkg"]
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") == before


def test_half_a_million_cells_within_a_minute(tmp_path, cells_of, grid_of):
    codes = np.random.default_rng(0).integers(1, 11, (690, 690))  # at their most fragmented
    started = time.process_time()  # not the wall clock: other processes may have the cores
    write_polygons(cells_of(codes), tmp_path / "S_lulc.gpkg", grid_of(codes, 16), EUROSAT)
    assert time.process_time() - started < 60


def test_default_style_is_registered(tmp_path, cells_of, grid_of, codes):
    write_polygons(cells_of(codes), tmp_path / "S_lulc.gpkg", grid_of(codes), EUROSAT)
    with sqlite3.connect(tmp_path / "S_lulc.gpkg") as database:
        contents = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
        styles = database.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, update_time, styleQML FROM layer_styles"
        ).fetchall()
    database.close()
    assert contents == {"lulc": "features", "layer_styles": "attributes"}
    ((table, geometry, default, date, qml),) = styles
    assert (table, geometry, default) == ("lulc", "geom", 1)
    assert date.startswith("2000-01-01T00:00:00")
    assert "categorizedSymbol" in qml
    assert "Unclassified" in qml


def test_ogrinfo_reads_it_without_a_warning(tmp_path, cells_of, grid_of, codes):
    if shutil.which("ogrinfo") is None:
        pytest.skip("ogrinfo is not on PATH")
    write_polygons(cells_of(codes), tmp_path / "S_lulc.gpkg", grid_of(codes), EUROSAT)
    done = subprocess.run(
        ["ogrinfo", "-so", "-al", tmp_path / "S_lulc.gpkg"], check=True, capture_output=True, text=True
    )
    assert "Warning" not in done.stderr + done.stdout
    assert "Layer name: lulc" in done.stdout
    assert json.dumps("EPSG") + ",32633" in done.stdout
