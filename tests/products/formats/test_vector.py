"""Vector files, read back by what people read them with."""

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
from affine import Affine
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, UNCLASSIFIED, Legend, LulcClass
from geocfl.errors import UsageError
from geocfl.products.formats import vector, vector_formats
from geocfl.products.formats.qml import polygons_qml, windows_qml
from geocfl.products.formats.vector import probability_fields, write_default_styles, write_polygons, write_windows
from geocfl.products.formats.vector_formats import VECTOR_FORMATS, check_vector_format
from geocfl.products.polygons import dissolve, simplify
from geocfl.products.scratch import ENTROPY, NOVELTY, PROBABILITY

FILES = {"gpkg": "S_lulc.gpkg", "geoparquet": "S.parquet", "flatgeobuf": "S.fgb", "geojson": "S.geojson"}


@pytest.fixture
def polygons(cells_of, grid_of, codes):
    return dissolve(cells_of(codes), grid_of(codes, 16, (3, 5)), EUROSAT)


@pytest.fixture
def detailed(cells_of, codes):
    """A work raster with entropies and probabilities: the class's own is 50 %, the next one's 40 %."""
    probabilities = np.zeros((10, *codes.shape), np.uint8)
    for code in range(1, 11):
        probabilities[code - 1][codes == code] = 50
        probabilities[code % 10][codes == code] = 40
    probabilities[:, codes == 0] = 255
    return cells_of(codes, np.where(codes == 0, 255, 50), np.where(codes == 0, 255, 30), *probabilities)


def read(path):
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, layer=None)


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_every_format_holds_the_same_polygons(tmp_path, polygons, format):
    path = tmp_path / FILES[format]
    write_polygons(polygons, path, format)
    frame = read(path).sort_values(["class_code", "area_ha"])
    assert list(frame.columns[:4]) == ["class_code", "class_name", "area_ha", "confidence"]
    wanted = polygons.sort_values(["class_code", "area_ha"])
    assert frame.class_code.tolist() == wanted.class_code.tolist()
    assert frame.class_name.tolist() == wanted.class_name.tolist()
    assert frame.area_ha.to_numpy() == pytest.approx(wanted.area_ha.to_numpy())
    assert set(frame.geom_type) == {"Polygon"}
    assert frame.crs.to_epsg() == (4326 if format == "geojson" else 32633)
    assert frame.to_crs(32633).area.sum() == pytest.approx(wanted.area.sum(), rel=1e-5)


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_bytes_repeat(tmp_path, polygons, format):
    path = tmp_path / FILES[format]
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    contents = []
    for _ in range(2):
        path.unlink(missing_ok=True)
        write_polygons(polygons, path, format)
        contents.append(path.read_bytes())
        time.sleep(0.6)
    assert contents[0] == contents[1]
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") == before


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_a_map_without_data_has_an_empty_layer(tmp_path, cells_of, grid_of, format):
    codes, path = np.zeros((3, 3)), tmp_path / FILES[format]
    write_polygons(dissolve(cells_of(codes), grid_of(codes), EUROSAT), path, format)
    assert read(path).empty
    if format == "gpkg":
        info = pyogrio.read_info(path, layer="lulc")
        assert info["geometry_type"] == "Polygon"
        assert list(info["fields"]) == ["class_code", "class_name", "area_ha", "confidence"]


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_simplified_multipolygons_fit_every_format(tmp_path, polygons, format):
    parts = polygons.geometry.tolist()
    parts[0] = shapely.MultiPolygon([parts[0], shapely.box(0, 0, 1, 1)])
    write_polygons(polygons.set_geometry(parts).set_crs(polygons.crs), tmp_path / FILES[format], format)
    frame = read(tmp_path / FILES[format])
    assert "MultiPolygon" in set(frame.geom_type)
    assert len(frame) == len(polygons)


def test_geojson_is_as_rfc_7946_wants_it(tmp_path, cells_of):
    """UTM zone 60 beyond its eastern edge: the scene crosses the antimeridian."""
    codes = np.array([[1, 1, 2, 2]])
    grid = CellGrid(64, 256, 64, 64, Affine(1000, 0, 600_000, 0, -1000, 7_000_000), CRS.from_epsg(32660))
    write_polygons(dissolve(cells_of(codes), grid, EUROSAT), tmp_path / "S.geojson", "geojson")
    content = json.loads((tmp_path / "S.geojson").read_text())
    assert "crs" not in content
    frame = read(tmp_path / "S.geojson")
    assert frame.total_bounds[0] == pytest.approx(-180)
    assert frame.total_bounds[2] == pytest.approx(180)
    assert (shapely.area(frame.geometry.to_numpy()) < 40).all()  # square degrees: none runs around the globe
    for polygon in frame.geometry.explode():
        assert polygon.exterior.is_ccw


@pytest.mark.parametrize("west", [179.99, 179.985])
def test_geojson_at_180_degrees_holds_polygons_only(tmp_path, cells_of, west):
    """Cells that only touch 180 degrees from the east are no collections of polygons and lines."""
    codes = np.random.default_rng(0).integers(1, 4, (8, 8))
    grid = CellGrid(80, 80, 10, 10, Affine(0.001, 0, west, 0, -0.001, 17), CRS.from_epsg(4326))
    polygons = dissolve(cells_of(codes), grid, EUROSAT)
    write_polygons(polygons, tmp_path / "S.geojson", "geojson")
    features = json.loads((tmp_path / "S.geojson").read_text())["features"]
    assert {feature["geometry"]["type"] for feature in features} <= {"Polygon", "MultiPolygon"}
    assert [feature["properties"]["class_code"] for feature in features] == polygons.class_code.tolist()
    areas = [shapely.geometry.shape(feature["geometry"]).area for feature in features]
    assert areas == pytest.approx(polygons.area.tolist(), rel=1e-3)
    assert set(features[0]["properties"]) == {"class_code", "class_name", "area_ha", "confidence"}


def test_windows_are_the_cells(tmp_path, detailed, grid_of, codes, monkeypatch):
    monkeypatch.setattr(vector, "WINDOWS_AT_A_TIME", 30)  # in several parts
    grid, path = grid_of(codes, 16, (3, 5)), tmp_path / "S_lulc.gpkg"
    write_windows(detailed, path, grid, EUROSAT)
    frame = gpd.read_file(path, layer="windows")
    assert list(frame.columns) == [
        "class_code", "class_name", "confidence", *probability_fields(EUROSAT), "geometry",
    ]  # fmt: skip
    assert len(frame) == (codes != 0).sum()
    assert frame.class_code.tolist() == codes[codes != 0].tolist()
    pixels = np.outer(grid.row_pixels(), grid.column_pixels())[codes != 0]
    assert frame.area.to_numpy() == pytest.approx(pixels * 100.0)
    assert tuple(frame.total_bounds)[2] == grid.bounds()[2]
    first = frame[frame.class_code == 1].iloc[0]
    assert (first.class_name, first.confidence, first.p_annual_crop, first.p_forest) == ("Annual Crop", 0.5, 0.5, 0.4)
    assert frame[frame.class_code == UNCLASSIFIED].class_name.unique().tolist() == ["Unclassified"]
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())


def test_windows_have_their_novelty(tmp_path, cells_of, grid_of, codes):
    values = np.where(codes == 0, 255, 30)
    names = [NOVELTY, ENTROPY, *[PROBABILITY] * 10]
    cells = cells_of(codes, None, np.arange(codes.size).reshape(codes.shape) % 101, *[values] * 11, names=names)
    write_windows(cells, tmp_path / "S_lulc.gpkg", grid_of(codes), EUROSAT)
    frame = gpd.read_file(tmp_path / "S_lulc.gpkg", layer="windows")
    assert list(frame.columns[:5]) == ["class_code", "class_name", "confidence", "novelty", "p_annual_crop"]
    assert frame.novelty.tolist() == (np.flatnonzero(codes) % 101).tolist()
    assert set(frame.confidence) == {0.5}
    assert set(frame.p_sea_lake) == {0.3}


def test_fields_of_probability_are_apart():
    names = ["a b", "a_b", "A-B", "é!", "?", "1"]
    legend = Legend(tuple(LulcClass(code, name, name, "#000000") for code, name in enumerate(names, 1)))
    fields = probability_fields(legend)
    assert len(set(fields)) == 6
    assert all(field.startswith("p_") for field in fields)


def test_every_layer_has_its_default_style(tmp_path, polygons, detailed, grid_of, codes):
    path = tmp_path / "S_lulc.gpkg"
    write_polygons(polygons, path, "gpkg")
    write_windows(detailed, path, grid_of(codes, 16, (3, 5)), EUROSAT)
    styles = {"lulc": polygons_qml(EUROSAT, unclassified=True), "windows": windows_qml(EUROSAT)}
    write_default_styles(path, styles)
    with sqlite3.connect(path) as database:
        contents = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
        rows = database.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, update_time, styleQML FROM layer_styles"
        ).fetchall()
    database.close()
    assert contents == {"lulc": "features", "windows": "features", "layer_styles": "attributes"}
    assert {row[0]: row[4] for row in rows} == styles
    for _, geometry, default, date, _ in rows:
        assert (geometry, default) == ("geom", 1)
        assert date.startswith("2000-01-01T00:00:00")


@pytest.mark.parametrize("format", VECTOR_FORMATS)
def test_a_crs_without_a_code_is_kept(tmp_path, cells_of, codes, format):
    crs = CRS.from_string("+proj=laea +lat_0=47 +lon_0=13 +x_0=0 +y_0=0 +ellps=GRS80 +units=m")
    grid = CellGrid(9 * 16, 12 * 16, 16, 64, Affine(10, 2, 5000, 2, -10, 9000), crs)  # and rotated
    frame = dissolve(cells_of(codes), grid, EUROSAT)
    write_polygons(simplify(frame, grid, 50), tmp_path / FILES[format], format)
    again = read(tmp_path / FILES[format])
    if format != "geojson":
        assert again.crs.equals(frame.crs, ignore_axis_order=True)
    assert again.to_crs(frame.crs).area.sum() == pytest.approx(frame.area.sum(), rel=1e-4)


@pytest.mark.integration
def test_ogrinfo_reads_it_without_a_warning(tmp_path, polygons, detailed, grid_of, codes):
    if shutil.which("ogrinfo") is None:
        pytest.skip("ogrinfo is not on PATH")
    path = tmp_path / "S_lulc.gpkg"
    write_polygons(polygons, path, "gpkg")
    write_windows(detailed, path, grid_of(codes, 16, (3, 5)), EUROSAT)
    done = subprocess.run(["ogrinfo", "-so", "-al", path], check=True, capture_output=True, text=True)
    assert "Warning" not in done.stderr + done.stdout
    assert "Layer name: lulc" in done.stdout
    assert "Layer name: windows" in done.stdout
    assert json.dumps("EPSG") + ",32633" in done.stdout


def test_unknown_formats_and_missing_packages(monkeypatch):
    with pytest.raises(UsageError, match="choose from: gpkg, geoparquet"):
        check_vector_format("shapefile")
    monkeypatch.setattr(vector_formats, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        check_vector_format("geoparquet")
