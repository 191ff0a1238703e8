"""SLD by its structure, and by MapServer as a judge, which draws the maps with it and their legends."""

import os
import shutil
import subprocess
from io import BytesIO
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from geocfl.core.legend import EUROSAT, Legend, shown_classes
from geocfl.products.formats.sld import lulc_sld, polygons_sld

SLD = {"sld": "http://www.opengis.net/sld", "ogc": "http://www.opengis.net/ogc"}
AWKWARD = Legend.from_folders(['Wald & <Wiese> "1"', "]]>", "Öde"])
CELL = 8
MAPFILE = """
MAP
  SIZE 10 10
  EXTENT {extent}
  PROJECTION "init=epsg:32633" END
  IMAGETYPE PNG24
  IMAGECOLOR 255 255 255
  WEB METADATA "ows_enable_request" "*" "ows_title" "maps" "ows_srs" "EPSG:32633" END END
  LAYER NAME "lulc" TYPE RASTER STATUS ON DATA "{raster}" PROCESSING "NODATA=0" END
  LAYER
    NAME "lulc_polygons" TYPE POLYGON STATUS ON
    CONNECTIONTYPE OGR CONNECTION "{polygons}" DATA "lulc"
  END
END
"""


@pytest.mark.parametrize("legend", [EUROSAT, AWKWARD])
@pytest.mark.parametrize("unclassified", [False, True])
def test_raster_sld_maps_exact_values(legend, unclassified):
    root = ET.fromstring(lulc_sld(legend, unclassified=unclassified))
    assert root.tag == f"{{{SLD['sld']}}}StyledLayerDescriptor"
    assert root.get("version") == "1.0.0"
    (color_map,) = root.findall(
        "sld:NamedLayer/sld:UserStyle/sld:FeatureTypeStyle/sld:Rule/sld:RasterSymbolizer/sld:ColorMap", SLD
    )
    assert color_map.get("type") == "values"
    assert [(e.get("quantity"), e.get("label"), e.get("color")) for e in color_map] == [
        (str(c.code), c.name, c.color) for c in shown_classes(legend, unclassified=unclassified)
    ]


@pytest.mark.parametrize("legend", [EUROSAT, AWKWARD])
@pytest.mark.parametrize("unclassified", [False, True])
def test_polygon_sld_has_a_rule_a_class(legend, unclassified):
    root = ET.fromstring(polygons_sld(legend, unclassified=unclassified))
    rules = root.findall("sld:NamedLayer/sld:UserStyle/sld:FeatureTypeStyle/sld:Rule", SLD)
    found = []
    for rule in rules:
        equal = rule.find("ogc:Filter/ogc:PropertyIsEqualTo", SLD)
        assert equal.findtext("ogc:PropertyName", None, SLD) == "class_code"
        fill, stroke = (
            rule.findtext(f"sld:PolygonSymbolizer/sld:{part}/sld:CssParameter[@name='{part.lower()}']", None, SLD)
            for part in ("Fill", "Stroke")
        )
        assert fill == stroke
        # The schema's sequence: a name, a title, a filter, a symbolizer.
        assert [child.tag.split("}")[1] for child in rule] == ["Name", "Title", "Filter", "PolygonSymbolizer"]
        found.append((equal.findtext("ogc:Literal", None, SLD), rule.findtext("sld:Title", None, SLD), fill))
    assert found == [(str(c.code), c.name, c.color) for c in shown_classes(legend, unclassified=unclassified)]


@pytest.fixture
def mapserver(tmp_path):
    """Asks MapServer, which has a raster without colors and the polygons of its cells."""
    if shutil.which("mapserv") is None:
        pytest.skip("no mapserv (Debian's mapserver-bin) to draw with")
    codes = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 255, 0]], np.uint8)
    transform = Affine(640, 0, 600_000, 0, -640, 5_100_000)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": 4, "height": 3, "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "lulc.tif", "w", transform=transform, **profile) as dataset:
        dataset.write(codes, 1)
    rows, columns = codes.nonzero()
    squares = [
        shapely.box(*(transform @ (c, r + 1)), *(transform @ (c + 1, r))) for r, c in zip(rows, columns, strict=True)
    ]
    frame = gpd.GeoDataFrame({"class_code": codes[rows, columns].astype(int)}, geometry=squares, crs="EPSG:32633")
    frame.to_file(tmp_path / "lulc.gpkg", layer="lulc")
    west, south, east, north = rasterio.transform.array_bounds(3, 4, transform)
    (tmp_path / "maps.map").write_text(
        MAPFILE.format(
            extent=f"{west} {south} {east} {north}", raster=tmp_path / "lulc.tif", polygons=tmp_path / "lulc.gpkg"
        )
    )
    (tmp_path / "config").write_text('CONFIG\n  ENV\n    MS_MAP_PATTERN "."\n  END\nEND\n')
    common = {"map": tmp_path / "maps.map", "SERVICE": "WMS", "VERSION": "1.1.1", "FORMAT": "image/png"}

    def ask(**query):
        done = subprocess.run(
            ["mapserv", "-nh", f"QUERY_STRING={urlencode(common | query)}"],
            env=os.environ | {"MAPSERVER_CONFIG_FILE": str(tmp_path / "config")},
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.startswith(b"\x89PNG"), done.stdout[:1000]
        return np.asarray(Image.open(BytesIO(done.stdout)).convert("RGB"))

    size = {"BBOX": f"{west},{south},{east},{north}", "SRS": "EPSG:32633", "WIDTH": 4 * CELL, "HEIGHT": 3 * CELL}
    return codes, lambda **query: ask(**size | query)


@pytest.mark.parametrize(("layer", "sld"), [("lulc", lulc_sld), ("lulc_polygons", polygons_sld)])
def test_mapserver_draws_the_classes_in_their_colors(mapserver, layer, sld):
    codes, ask = mapserver
    style = sld(EUROSAT, unclassified=True)
    drawn = ask(REQUEST="GetMap", LAYERS=layer, STYLES="", SLD_BODY=style)[CELL // 2 :: CELL, CELL // 2 :: CELL]
    for c in shown_classes(EUROSAT, unclassified=True):
        assert tuple(drawn[codes == c.code][0]) == c.rgb, c.name
    assert tuple(drawn[codes == 0][0]) == (255, 255, 255)

    legend = ask(REQUEST="GetLegendGraphic", LAYER=layer, STYLE="", SLD_VERSION="1.1.0", SLD_BODY=style)
    seen = {tuple(color) for color in legend.reshape(-1, 3)}
    assert {c.rgb for c in shown_classes(EUROSAT, unclassified=True)} <= seen
