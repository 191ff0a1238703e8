"""A catalog entry: valid by the schemas, right about the files, and the same wherever it is written."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import antimeridian
import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from pystac.validation import validate
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.crs import CRS

from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT, Legend, LulcClass
from geocfl.products.files import FILES
from geocfl.products.formats.raster import write_confidence, write_lulc
from geocfl.products.formats.stac import class_names, footprint, relative_href, write_item
from geocfl.products.summary import class_table

SCHEMAS = Path(__file__).parents[2] / "schemas"
WHEN = datetime(2019, 4, 16, 10, 0, 31, tzinfo=UTC)
NAMES = {key: f"S{suffix}" for key, suffix in FILES.items() if key != "stac"}
HALF = 20037508.342789244
"""Meters from Greenwich to the antimeridian in web Mercator."""


@pytest.fixture(scope="module")
def validator() -> JsonSchemaSTACValidator:
    """pystac's own, with the schemas of extensions at hand; another one would need a network, and fail."""
    validator = JsonSchemaSTACValidator()
    for file in SCHEMAS.glob("*-v*.json"):
        schema = json.loads(file.read_text(encoding="utf-8"))
        validator.schema_cache[schema["$id"].rstrip("#")] = schema
    return validator


def summary_of(cells: Path, grid: CellGrid, scene: str = "S.tif") -> dict[str, Any]:
    """What of a summary an Item needs."""
    facts = {"geocfl": "1.2.3", "scene": {"file": scene}, "model": {"name": "m"}}
    return facts | dict(class_table(cells, grid, EUROSAT))


@pytest.fixture
def write(tmp_path: Path, cells_of: Callable[..., Path]) -> Callable[..., pystac.Item]:
    """Writes the rasters of a map and its Item, and reads the Item with pystac."""

    def write(
        codes: np.ndarray, grid: CellGrid, scene: str = "S.tif", out: str = "out", names: dict[str, str] = NAMES
    ) -> pystac.Item:
        cells, folder = cells_of(codes), tmp_path / out
        folder.mkdir(parents=True)
        write_lulc(cells, folder / NAMES["lulc"], grid, EUROSAT, {})
        write_confidence(cells, folder / NAMES["confidence"], grid, {})
        place = {"crs": grid.crs, "transform": grid.cell_transform, "height": grid.rows, "width": grid.columns}
        with rasterio.open(
            folder / NAMES["probabilities"], "w", driver="GTiff", count=10, dtype="uint8", nodata=255, **place
        ) as dataset:
            dataset.descriptions = EUROSAT.names
            dataset.scales = (0.01,) * 10
        for name in ("entropy", "novelty", "valid", "sets"):
            write_confidence(cells, folder / NAMES[name], grid, {})
        with rasterio.open(folder / NAMES["truecolor"], "w", driver="GTiff", count=3, dtype="uint8", **place):
            pass
        path = folder / "S.stac.json"
        write_item(path, "S", grid, EUROSAT, summary_of(cells, grid, scene), names, WHEN)
        return pystac.Item.from_file(path)

    return write


def place(crs: str | int, transform: Affine, height: int = 300, width: int = 500) -> CellGrid:
    return CellGrid(height, width, 64, 64, transform, CRS.from_user_input(crs))


def north_up(x: float, y: float) -> Affine:
    return Affine(10, 0, x, 0, -10, y)


ALBERS = "+proj=aea +lat_0=45 +lon_0=10 +lat_1=40 +lat_2=50 +datum=WGS84 +units=m +type=crs"
PLACES = {
    "northern": place(32633, north_up(600_000, 5_100_000)),
    "southern": place(32733, north_up(600_000, 9_100_000)),
    "equator": place(32633, north_up(600_000, 1_500)),
    "UTM edge": place(32633, north_up(100_000, 5_100_000)),
    "Fiji, over the antimeridian": place(32701, north_up(160_000, 8_100_000), 3000, 3000),
    "Fiji, beyond the antimeridian": place(32760, north_up(830_000, 8_100_000)),
    "Fiji, up to the antimeridian": place(3857, north_up(HALF - 5000, -2_000_000)),
    "Fiji, from the antimeridian on": place(3857, north_up(HALF, -2_000_000)),
    "rotated": place(32633, Affine.translation(6e5, 5.1e6) @ Affine.rotation(30) @ Affine.scale(10, -10)),
    "south up": place(32633, Affine(10, 0, 600_000, 0, 10, 5_100_000)),
    "mirrored": place(32633, Affine(-10, 0, 600_000, 0, -10, 5_100_000)),
    "no EPSG code": place(ALBERS, north_up(0, 0)),
    "ESRI's code": place("ESRI:102001", north_up(0, 0)),
    "north pole": place(3413, north_up(-300_000, 300_000), 60_000, 60_000),
    "south pole": place(3031, north_up(-300_000, 300_000), 60_000, 60_000),
    "degrees": place(4326, Affine(1e-4, 0, 13, 0, -1e-4, 46)),
    "degrees to 360": place(4326, Affine(1e-4, 0, 179.99, 0, -1e-4, 46)),
}


def test_the_schemas_are_used(
    write: Callable[..., pystac.Item], validator: JsonSchemaSTACValidator, grid_of: Callable[..., CellGrid]
) -> None:
    item = write(np.ones((1, 1)), grid_of(np.ones((1, 1))))
    for change in (
        lambda: item.properties.update({"proj:shape": [1]}),
        lambda: item.assets["lulc"].extra_fields["raster:bands"][0].update(data_type="byte"),
        lambda: item.assets["lulc"].extra_fields["classification:classes"][0].update(name="no data"),
        lambda: item.properties.update({"processing:software": "geocfl"}),
    ):
        kept = copy.deepcopy((item.properties, item.assets["lulc"].extra_fields))
        change()
        with pytest.raises(pystac.STACValidationError):
            validate(item, validator=validator)
        item.properties, item.assets["lulc"].extra_fields = kept
    validate(item, validator=validator)


@pytest.mark.parametrize("name", PLACES)
def test_an_item_is_valid_wherever_the_scene_lies(
    write: Callable[..., pystac.Item], validator: JsonSchemaSTACValidator, name: str
) -> None:
    grid = PLACES[name]
    codes = np.full((min(grid.rows, 5), min(grid.columns, 8)), 2)
    grid = CellGrid(codes.shape[0] * 64, codes.shape[1] * 64, 64, 64, grid.transform, grid.crs)
    item = write(codes, grid, names={"lulc": NAMES["lulc"]})
    extensions = validate(item, validator=validator)
    assert len(extensions) == 5  # core, processing, projection, raster, classification
    assert item.geometry is not None
    assert item.bbox == pytest.approx(antimeridian.bbox(item.geometry))


@pytest.mark.parametrize("name", PLACES)
def test_footprint_holds_the_scene_and_nothing_else(name: str) -> None:
    """Judged by points of the scene, and ones just outside, brought to longitude and latitude one by one."""
    grid = PLACES[name]
    shape = footprint(grid)
    assert shape is not None
    assert shape.is_valid
    assert all(shapely.is_ccw(part.exterior) for part in shapely.get_parts(shape))
    to_lonlat = pyproj.Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)

    def inside(column: float, row: float) -> bool:
        lon, lat = to_lonlat.transform(*(grid.transform @ (column * grid.width, row * grid.height)))
        return bool(shape.covers(shapely.Point((lon + 180) % 360 - 180, lat)))

    rng = np.random.default_rng(0)
    assert all(inside(column, row) for column, row in rng.uniform(0.002, 0.998, (200, 2)))
    for outside in (-0.003, 1.003):
        assert not any(inside(outside, t) or inside(t, outside) for t in np.linspace(0.1, 0.9, 20))


def test_over_the_antimeridian_there_are_two_parts_and_a_box_from_east_to_west() -> None:
    shape = footprint(PLACES["Fiji, over the antimeridian"])
    assert isinstance(shape, shapely.MultiPolygon)
    west, south, east, north = antimeridian.bbox(shape)
    assert 179 < west < 180
    assert -180 < east < -179
    assert south < north < 0
    for name in ("Fiji, up to the antimeridian", "Fiji, from the antimeridian on"):
        assert isinstance(footprint(PLACES[name]), shapely.Polygon)


@settings(max_examples=40)
@given(
    st.floats(-20e6, 20e6),
    st.floats(-15e6, 15e6),
    st.floats(0, 2 * math.pi),
    st.sampled_from([(10, -10), (10, 10), (60, -20)]),
)
def test_footprints_are_valid_in_any_orientation(x: float, y: float, angle: float, pixel: tuple[int, int]) -> None:
    turned = Affine.translation(x, y) @ Affine.rotation(math.degrees(angle)) @ Affine.scale(*pixel)
    shape = footprint(place(3857, turned, 2000, 3000))
    assert shape is not None
    assert shape.is_valid
    assert shape.area < 1  # not the world but for the scene
    west, _, east, _ = antimeridian.bbox(shape)
    assert (east - west) % 360 < 3


def test_a_scene_of_no_known_place_has_no_geometry(
    write: Callable[..., pystac.Item], validator: JsonSchemaSTACValidator
) -> None:
    nowhere = place(32633, north_up(6e8, 5_100_000), 64, 64)
    assert footprint(nowhere) is None
    item = write(np.ones((1, 1)), nowhere)
    validate(item, validator=validator)
    assert item.geometry is None
    assert item.bbox is None


def test_projection_is_by_code_where_there_is_one(write: Callable[..., pystac.Item]) -> None:
    codes = np.full((5, 8), 2)

    def projection(name: str) -> ProjectionExtension[pystac.Item]:
        grid = PLACES[name]
        grid = CellGrid(310, 500, 64, 64, grid.transform, grid.crs)
        return ProjectionExtension.ext(write(codes, grid, out=name))

    assert projection("southern").code == "EPSG:32733"
    assert projection("ESRI's code").code == "ESRI:102001"
    free = projection("no EPSG code")
    assert free.code is None
    assert pyproj.CRS.from_user_input(free.wkt2) == pyproj.CRS.from_user_input(ALBERS)
    assert free.bbox == [0, -3100, 5000, 0]
    rotated = projection("rotated")
    assert rotated.geometry is not None
    assert shapely.geometry.shape(rotated.geometry).area == pytest.approx(310 * 500 * 100)


def test_rasters_are_as_the_files_say(
    write: Callable[..., pystac.Item], codes: np.ndarray, grid_of: Callable[..., CellGrid]
) -> None:
    grid = grid_of(codes, 32, cut=(10, 20))
    item = write(codes, grid)
    for key in ("lulc", "confidence", "probabilities", "truecolor"):
        asset = item.assets[key]
        with rasterio.open(asset.get_absolute_href()) as dataset:
            projection = ProjectionExtension.ext(asset)
            assert projection.shape == list(dataset.shape)
            assert projection.transform == list(dataset.transform)[:6]
            bands = RasterExtension.ext(asset).bands
            assert bands is not None
            assert [band.data_type for band in bands] == list(dataset.dtypes)
            assert [band.nodata for band in bands] == list(dataset.nodatavals)
            assert [band.scale or 1 for band in bands] == list(dataset.scales)
            assert {band.spatial_resolution for band in bands} == {320}
    assert [
        band.to_dict()["description"] for band in RasterExtension.ext(item.assets["probabilities"]).bands or []
    ] == (EUROSAT.names)
    assert item.common_metadata.gsd == 10
    assert item.datetime == WHEN


def test_classes_are_the_legend_with_the_cells_counted(
    write: Callable[..., pystac.Item], codes: np.ndarray, grid_of: Callable[..., CellGrid]
) -> None:
    classes = ClassificationExtension.ext(write(codes, grid_of(codes)).assets["lulc"]).classes
    assert classes is not None
    assert {c.value: c.count for c in classes} == {v: int((codes == v).sum()) for v in (*range(11), 255)}
    assert [c.value for c in classes if c.nodata] == [0]
    assert sum(c.percentage or 0 for c in classes) == pytest.approx(100, abs=1e-3)
    sea = classes[10]
    assert (sea.name, sea.title, sea.color_hint) == ("sea_lake", "Sea Lake", "0F468C")
    whole = write(np.ones((2, 2)), grid_of(np.ones((2, 2))), out="whole")
    assert len(ClassificationExtension.ext(whole.assets["lulc"]).classes or []) == 11  # nothing withheld


def test_assets_have_media_types_and_roles(
    write: Callable[..., pystac.Item], codes: np.ndarray, grid_of: Callable[..., CellGrid]
) -> None:
    assets = write(codes, grid_of(codes)).assets
    assert list(assets) == list(NAMES)
    assert {asset.title for asset in assets.values()}.isdisjoint({None, ""})
    cog, xml, sld = "image/tiff; application=geotiff; profile=cloud-optimized", "application/xml", "vnd.ogc.sld+xml"
    assert {key: (asset.media_type, *(asset.roles or ())) for key, asset in assets.items()} == {
        "lulc": (cog, "data"),
        "attributes": (xml, "metadata"),
        "lulc_style": (xml, "style"),
        "lulc_sld": (f"application/{sld}", "style"),
        "confidence": (cog, "data"),
        "confidence_style": (xml, "style"),
        "probabilities": (cog, "data"),
        "entropy": (cog, "data"),
        "entropy_style": (xml, "style"),
        "novelty": (cog, "data"),
        "novelty_style": (xml, "style"),
        "valid": (cog, "data"),
        "valid_style": (xml, "style"),
        "sets": (cog, "data"),
        "sets_style": (xml, "style"),
        "features": ("application/vnd.apache.parquet", "data"),
        "zarr": ("application/zip", "data"),
        "gpkg": ("application/geopackage+sqlite3", "data"),
        "geoparquet": ("application/vnd.apache.parquet", "data"),
        "flatgeobuf": ("application/vnd.flatgeobuf", "data"),
        "geojson": ("application/geo+json", "data"),
        "polygons_style": (xml, "style"),
        "polygons_sld": (f"application/{sld}", "style"),
        "truecolor": (cog, "visual"),
        "project": ("application/x-qgis-project", "metadata"),
        "preview": ("image/png", "overview"),
        "report": ("text/html", "metadata"),
        "summary": ("application/json", "metadata"),
    }


def test_the_same_map_gives_the_same_bytes_anywhere(
    tmp_path: Path, write: Callable[..., pystac.Item], codes: np.ndarray, grid_of: Callable[..., CellGrid]
) -> None:
    write(codes, grid_of(codes), out="a")
    write(codes, grid_of(codes), out="b/c")
    text = (tmp_path / "a/S.stac.json").read_bytes()
    assert text == (tmp_path / "b/c/S.stac.json").read_bytes()
    assert text.endswith(b"}\n")
    assert b"\r" not in text
    item = json.loads(text)
    assert item["links"] == []
    assert str(tmp_path) not in text.decode()
    assert all(asset["href"] == f"./{NAMES[key]}" for key, asset in item["assets"].items())
    assert item["properties"]["processing:software"] == {"geocfl": "1.2.3"}


def test_names_of_scenes_are_text(
    write: Callable[..., pystac.Item],
    validator: JsonSchemaSTACValidator,
    codes: np.ndarray,
    grid_of: Callable[..., Any],
) -> None:
    item = write(codes, grid_of(codes), scene='<script>*a*[b](c)&amp;"ü.tif')
    validate(item, validator=validator)
    assert r"of \<script\>\*a\*\[b\](c)\&amp;" in item.properties["processing:lineage"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))
def test_references_name_the_file_and_are_references(name: str) -> None:
    href = relative_href(name)
    assert href.startswith("./")
    assert unquote(href[2:]) == name
    assert not set(' "#<>?[\\]^`{|}\n\t') & set(href)


def test_plain_names_are_left_as_they_are() -> None:
    assert relative_href("S2_Zürich-(1)_lulc.tif") == "./S2_Zürich-(1)_lulc.tif"
    assert relative_href("50% a#b.tif") == "./50%25%20a%23b.tif"


printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)  # a legend refuses other names


@given(st.lists(printable | st.text("aA1_ é", min_size=1), min_size=1, max_size=9))
def test_names_of_classes_fit_the_extension_and_differ(names: list[str]) -> None:
    legend = Legend(tuple(LulcClass(i + 1, name, name, "#000000") for i, name in enumerate(names)))
    made = class_names(legend)
    assert len(set(made)) == len(names)
    assert all(name.isascii() and name.replace("_", "a").isalnum() for name in made)


def test_names_of_classes() -> None:
    names = ["Annual Crop", "annual-crop", "Forêt", "森林", "a/b"]
    legend = Legend(tuple(LulcClass(i + 1, name, name, "#000000") for i, name in enumerate(names)))
    assert class_names(legend) == ["annual_crop_1", "annual_crop_2", "foret_3", "class_4", "a_b_5"]
    assert class_names(EUROSAT)[:3] == ["annual_crop", "forest", "herbaceous_vegetation"]


def test_stac_validator_agrees(
    tmp_path: Path, write: Callable[..., pystac.Item], validator: JsonSchemaSTACValidator, codes: np.ndarray
) -> None:
    stac_validator = pytest.importorskip("stac_validator.stac_validator", reason="stac-validator is not installed")
    write(codes, CellGrid(9 * 64, 12 * 64, 64, 64, PLACES["rotated"].transform, PLACES["rotated"].crs))
    schemas = {}
    for index, (uri, schema) in enumerate(validator.schema_cache.items()):
        file = tmp_path / f"schema{index}.json"
        file.write_text(json.dumps(schema))
        schemas[uri] = str(file)
    judge = stac_validator.StacValidate(str(tmp_path / "out/S.stac.json"), schema_map=schemas)
    assert judge.run(), judge.message
    assert len(judge.message[0]["schema"]) == 5
