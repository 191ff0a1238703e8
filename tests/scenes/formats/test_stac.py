"""STAC Items as catalogs write them: which asset is which band, and what makes its numbers reflectance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.radiometry import EUROSAT_RGB, Scaling
from geocfl.errors import SceneError
from geocfl.scenes.bands import BANDS
from geocfl.scenes.formats.stac import find_item, find_items
from geocfl.scenes.source import Band, Source
from tests.scenes.range_server import RangeServer

COG, JP2 = "image/tiff; application=geotiff; profile=cloud-optimized", "image/jp2"
EO, EO_2 = (f"https://stac-extensions.github.io/eo/v{version}/schema.json" for version in ("1.1.0", "2.0.0"))
TAKEN = datetime(2025, 3, 2, 9, 50, 29, tzinfo=UTC)
COMMON = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B8A": "nir08"}

Json = dict[str, Any]


def item(assets: Json, version: str = "1.0.0", **properties: object) -> Json:
    return {
        "type": "Feature",
        "stac_version": version,
        "stac_extensions": [EO_2 if version == "1.1.0" else EO],
        "id": "S2B_33UXP_20250302_0",
        "geometry": None,
        "properties": {"datetime": "2025-03-02T09:50:29Z", **properties},
        "links": [],
        "assets": assets,
    }


def earth_search(applied: bool = True) -> Json:
    """As Element 84's Earth Search v1 has it."""
    told = [{"nodata": 0, "data_type": "uint16", "spatial_resolution": 10, "scale": 0.0001, "offset": -0.1}]
    folder = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/33/U/XP"
    assets: Json = {}
    for band, key in {**COMMON, "B05": "rededge1", "B11": "swir16"}.items():
        eo = [{"name": key, "common_name": "rededge" if key == "rededge1" else key}]
        common = {"eo:bands": eo, "raster:bands": told, "gsd": 10, "roles": ["data", "reflectance"]}
        assets[f"{key}-jp2"] = {"href": f"s3://sentinel-s2-l2a/{band}.jp2", "type": JP2, **common}
        assets[key] = {"href": f"{folder}/{band}.tif", "type": COG, **common}
    eight_bit = {"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}
    assets["scl"] = {"href": f"{folder}/SCL.tif", "type": COG, "raster:bands": [eight_bit], "roles": ["data"]}
    assets["aot"] = {"href": f"{folder}/AOT.tif", "type": COG, "raster:bands": [told[0] | {"scale": 0.001}]}
    picture = [{"name": key, "common_name": key} for key in ("red", "green", "blue")]
    assets["visual"] = {"href": f"{folder}/TCI.tif", "type": COG, "roles": ["visual"], "eo:bands": picture}
    assets["thumbnail"] = {"href": f"{folder}/thumbnail.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    assets["granule_metadata"] = {"href": f"{folder}/metadata.xml", "type": "application/xml", "roles": ["metadata"]}
    told_of_all = {
        "platform": "sentinel-2b",
        "s2:processing_baseline": "05.11",
        "s2:product_type": "S2MSI2A",
        "earthsearch:boa_offset_applied": applied,
    }
    return item(assets, **told_of_all) | {"collection": "sentinel-2-l2a"}


def planetary_computer(baseline: str = "05.11") -> Json:
    """As Microsoft's Planetary Computer has it: nothing on digital numbers."""
    folder = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/33/U/XP"
    assets = {
        band: {
            "href": f"{folder}/R10m/T33UXP_{band}_10m.tif?sig=TOKEN",
            "type": COG,
            "eo:bands": [{"name": band, "common_name": name}],
            "roles": ["data"],
        }
        for band, name in COMMON.items()
    }
    picture = [{"name": band} for band in ("B04", "B03", "B02")]
    assets["SCL"] = {"href": f"{folder}/R20m/T33UXP_SCL_20m.tif?sig=TOKEN", "type": COG, "roles": ["data"]}
    assets["visual"] = {"href": f"{folder}/TCI.tif?sig=TOKEN", "type": COG, "eo:bands": picture, "roles": ["data"]}
    assets["preview"] = {"href": f"{folder}/p.tif", "type": COG, "eo:bands": picture, "roles": ["thumbnail"]}
    assets["tilejson"] = {"href": "https://example.com/tilejson.json", "type": "application/json"}
    told = {"platform": "Sentinel-2B", "s2:processing_baseline": baseline, "s2:product_type": "S2MSI2A"}
    return item(assets, **told) | {"collection": "sentinel-2-l2a"}


def copernicus() -> Json:
    """As the Copernicus Data Space has it: STAC 1.1, JP2s at each resolution, fields of the asset for its bands."""
    folder = "s3://eodata/Sentinel-2/MSI/L2A/S2B.SAFE/GRANULE/IMG_DATA"
    assets: Json = {
        f"{band}_{meters}m": {
            "href": f"{folder}/R{meters}m/T33UXP_{band}_{meters}m.jp2",
            "type": JP2,
            "gsd": meters,
            "bands": [{"name": band, "eo:common_name": COMMON[band]}],
            "raster:scale": 0.0001,
            "raster:offset": -0.1,
            "nodata": 0,
            "data_type": "uint16",
            "roles": ["data", "reflectance"],
        }
        for meters in (60, 20, 10)
        for band in COMMON
        if (band, meters) not in {("B8A", 10), ("B08", 20), ("B08", 60)}
    }
    assets["SCL_60m"] = {"href": f"{folder}/R60m/SCL_60m.jp2", "type": JP2, "gsd": 60, "roles": ["data"]}
    assets["SCL_20m"] = {"href": f"{folder}/R20m/SCL_20m.jp2", "type": JP2, "gsd": 20, "roles": ["data"]}
    assets["TCI_10m"] = {"href": f"{folder}/R10m/TCI_10m.jp2", "type": JP2, "gsd": 10, "roles": ["visual"]}
    assets["Product"] = {"href": "https://example.com/$value", "type": "application/zip", "roles": ["data"]}
    told = {"constellation": "sentinel-2", "product:type": "S2MSI2A", "processing:version": "05.11"}
    return item(assets, "1.1.0", **told) | {"collection": "sentinel-2-l2a"}


@pytest.fixture
def save(tmp_path: Path):
    def save(content: object, name: str = "item.json") -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return save


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as server:
        yield server


def find(path: str):
    source = find_item(path)
    assert source is not None
    return source


def test_earth_search_takes_the_offset_for_applied_and_geotiff_before_jp2(save) -> None:
    source = find(save(earth_search()))
    assert set(source.bands) == {"B02", "B03", "B04", "B05", "B08", "B8A", "B11"}
    folder = "/vsicurl/https://sentinel-cogs.s3.us-west-2.amazonaws.com/33/U/XP"
    assert source.bands["B04"] == Band(f"{folder}/B04.tif", 1, Scaling(10_000))
    assert source.bands["B05"].path == f"{folder}/B05.tif"
    assert source.scl == Band(f"{folder}/SCL.tif")
    assert source.scaling_source == "the Item's earthsearch:boa_offset_applied, no offset"
    assert (source.level, source.taken, source.nodata) == ("L2A", TAKEN, 0)
    assert source.stem == "S2B_33UXP_20250302_0"
    assert source.notes == ()


def test_earth_search_without_the_offset_applied(save) -> None:
    source = find(save(earth_search(applied=False)))
    assert source.bands["B04"].scaling == Scaling(10_000, -1000)
    assert source.scaling_source == "the Item's raster:bands"


def test_the_offset_is_not_taken_off_the_jp2s_of_esa(save) -> None:
    content = earth_search()
    content["assets"] = {key: asset for key, asset in content["assets"].items() if key.endswith("-jp2")}
    source = find(save(content))
    assert source.bands["B04"] == Band("/vsis3/sentinel-s2-l2a/B04.jp2", 1, Scaling(10_000, -1000))
    assert source.scaling_source == "the Item's raster:bands"


def test_planetary_computer_says_nothing_of_digital_numbers(save) -> None:
    source = find(save(planetary_computer()))
    assert set(source.bands) == set(COMMON)
    assert source.bands["B8A"].path.endswith("/R10m/T33UXP_B8A_10m.tif?sig=TOKEN")  # the token passes through
    assert {band.scaling for band in source.bands.values()} == {None}
    assert source.scl is not None
    assert (source.scaling_source, source.level, source.nodata) == ("", "L2A", None)
    assert len(source.notes) == 1
    assert "processing baseline 05.11" in source.notes[0]
    assert "`offset=-1000`" in source.notes[0]
    assert find(save(planetary_computer("02.14"))).notes == ()


@pytest.mark.parametrize(
    "told",
    [
        {"sentinel:processing_baseline": "04.00"},
        {"sentinel2:processing_baseline": 4.0},
        {"s2:processing_baseline": "0400"},
        {"s2:product_uri": "S2B_MSIL2A_20220302T100029_N0400_R122_T33UXP_20220302T140000.SAFE"},
    ],
)
def test_every_property_that_states_the_baseline_counts(save, told: Json) -> None:
    (note,) = find(save(item({"B04": {"href": "B04.tif"}}, **told))).notes
    assert "processing baseline 04.00" in note
    stated = {"B04": {"href": "B04.tif", "raster:bands": [{"scale": 0.0001}]}}
    source = find(save(item(stated, **told)))
    assert (source.notes, source.baseline) == ((), "04.00")  # the pixels decide
    applied = find(save(item(stated, **told, **{"earthsearch:boa_offset_applied": True})))
    assert (applied.notes, applied.baseline) == ((), "")


def test_copernicus_in_stac_1_1_takes_the_finest_of_each_band(save) -> None:
    source = find(save(copernicus()))
    assert {band: found.path[-7:-4] for band, found in source.bands.items()} == {
        "B02": "10m", "B03": "10m", "B04": "10m", "B08": "10m", "B8A": "20m",
    }  # fmt: skip
    assert source.bands["B04"].scaling == Scaling(10_000, -1000)
    assert source.scaling_source == "the Item's bands"
    assert source.bands["B04"].path.startswith("/vsis3/eodata/")
    assert source.scl is not None
    assert source.scl.path.endswith("SCL_20m.jp2")
    assert (source.level, source.nodata, source.notes) == ("L2A", 0, ())


def test_bands_of_one_asset_are_told_by_their_order(save) -> None:
    bands = [
        {"name": band, "raster:scale": scale, "raster:offset": 0, "nodata": 0}
        for band, scale in (("B02", 0.0001), ("B03", 0.0001), ("nothing", 1), ("B04", 0.0002))
    ]
    source = find(save(item({"image": {"href": "./stack.tif", "bands": bands}}, "1.1.0")))
    assert {band: (found.index, found.scaling) for band, found in source.bands.items()} == {
        "B02": (1, Scaling(10_000)), "B03": (2, Scaling(10_000)), "B04": (4, Scaling(5000)),
    }  # fmt: skip


def test_items_of_before_1_0_are_brought_up_to_date(save, tmp_path: Path) -> None:
    content = item({"B04": {"href": "B04.tif", "eo:bands": [1]}, "B03": {"href": "B03.tif", "eo:bands": [0]}}, "0.9.0")
    content["stac_extensions"] = ["eo"]
    content["properties"]["eo:bands"] = [{"name": "green"}, {"name": "red"}]
    source = find(save(content))
    assert {band: found.path for band, found in source.bands.items()} == {
        "B03": str(tmp_path / "B03.tif"), "B04": str(tmp_path / "B04.tif"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "band"),
    [
        *((band, band) for band in BANDS),
        *((f"{band.lower()}_20m", band) for band in BANDS),
        *(("coastal", "B01"), ("rededge2", "B06"), ("rededge3", "B07"), ("nir08", "B8A"), ("nir09", "B09")),
        *(("cirrus", "B10"), ("swir16", "B11"), ("swir22", "B12"), ("red_20m", "B04"), ("nir-jp2", "B08")),
    ],
)
def test_keys_that_name_bands(save, key: str, band: str) -> None:
    assert set(find(save(item({key: {"href": "x.tif"}}))).bands) == {band}


def test_places_are_relative_to_the_file(save, tmp_path: Path) -> None:
    uri = (tmp_path / "a b" / "B02.tif").as_uri()
    assets = {"B04": {"href": "./up/B04.tif"}, "B03": {"href": str(tmp_path / "B03.tif")}, "B02": {"href": uri}}
    source = find(save(item(assets)))
    assert source.bands["B04"].path == str(tmp_path / "up/B04.tif")
    assert source.bands["B03"].path == str(tmp_path / "B03.tif")
    assert source.bands["B02"].path == str(tmp_path / "a b/B02.tif")


@pytest.mark.parametrize("name", ["items/S2B.json", "items/S2B_33UXP_20250302_0_L2A", "items/S2B_N05.11"])
def test_places_are_relative_to_the_url(server: RangeServer, folder: Path, name: str) -> None:
    (folder / "items").mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(item({"B04": {"href": "../B04.tif"}, "B03": {"href": "s3://b/B03.tif"}})))
    if name.endswith(".11"):  # no ending that says JSON, nor a media type
        assert find_item(server.url(name)) is None
        return
    source = find(f"{server.url(name)}?token=SECRET")
    assert source.bands["B04"].path == f"/vsicurl/{server.url('B04.tif')}"
    assert source.bands["B03"].path == "/vsis3/b/B03.tif"
    assert source.path == server.url(name)


@pytest.mark.parametrize("href", ["file:///etc/B04.tif", r"C:\B04.tif", "/vsimem/B04.tif", "/vsizip/x.zip/B04.tif"])
def test_items_from_servers_name_no_files_of_this_machine(server: RangeServer, folder: Path, href: str) -> None:
    (folder / "foreign.json").write_text(json.dumps(item({"B04": {"href": href}})))
    try:
        source = find(server.url("foreign.json"))
    except SceneError as error:
        assert "B04 is a local file" in str(error)  # noqa: PT017 - or, resolved against the URL, none
    else:
        assert source.bands["B04"].path.startswith(f"/vsicurl/{server.url('')}")


def test_what_servers_answer(server: RangeServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    with pytest.raises(SceneError, match=r"/none\.json: does not exist \(HTTP 404\)"):
        find_item(server.url("none.json"))
    (folder / "retried.json").write_text(json.dumps(item({"B04": {"href": "B04.tif"}})))
    server.fail("retried.json", status=503, times=1)
    assert find_item(server.url("retried.json"))
    server.fail("retried.json", status=500)
    with pytest.raises(SceneError, match=r"the server failed 2 times \(HTTP 500\)"):
        find_item(server.url("retried.json"))
    (folder / "broken.json").write_text('{"type": "Feat')
    with pytest.raises(SceneError, match=r"broken\.json: is not valid JSON; download it again"):
        find_item(server.url("broken.json"))


def test_rasters_on_servers_are_not_fetched(server: RangeServer, folder: Path) -> None:
    (folder / "B04.tif").write_bytes(bytes(100))
    assert find_item(server.url("B04.tif?token=x")) is None
    assert server.requests("B04.tif") == []
    (folder / "raster.bin").write_bytes(bytes(10_000_000))
    assert find_item(server.url("raster.bin")) is None


@pytest.mark.parametrize("path", ["B04.tif", "none.json", "s3://bucket/B04.tif", "s3://bucket/x", "/vsimem/item.json"])
def test_what_is_something_else(path: str) -> None:
    assert find_item(path) is None


@pytest.mark.parametrize(
    "content",
    [
        [], 3, {}, {"type": "Feature", "geometry": None, "properties": {}},
        {"type": "FeatureCollection", "features": [{"type": "Feature"}]},
    ],
)  # fmt: skip
def test_json_that_is_no_stac(save, content: object) -> None:
    assert find_item(save(content, "aoi.geojson")) is None


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"type": "Catalog", "stac_version": "1.0.0"}, "Catalog"),
        ({"type": "Collection", "stac_version": "1.1.0"}, "Collection"),
        ({"stac_version": "0.9.0", "id": "x", "links": []}, "Catalog"),
    ],
)
def test_other_objects_of_stac(save, content: object, kind: str) -> None:
    with pytest.raises(SceneError, match=rf"item\.json: is a STAC {kind}, not an Item; use the file or URL of an Item"):
        find_item(save(content))


def test_a_collection_of_items_is_for_another_option(save) -> None:
    with pytest.raises(SceneError, match=r"item\.json: is a STAC ItemCollection, not an Item; use it as `stac_items`"):
        find_item(save({"type": "FeatureCollection", "features": [earth_search()]}))


def renamed(content: Json, name: str) -> Json:
    return deepcopy(content) | {"id": name}


COLLECTION = {"type": "FeatureCollection", "features": [renamed(earth_search(), "A"), renamed(copernicus(), "B")]}


@pytest.mark.parametrize(
    "content",
    [
        COLLECTION,
        COLLECTION | {"stac_version": "1.0.0", "type": "ItemCollection"},
        COLLECTION["features"],
        "\n".join([json.dumps(each) for each in COLLECTION["features"]]) + "\n\n",
        "\ufeff" + json.dumps(COLLECTION),
    ],
    ids=["GeoJSON", "with a version", "list", "one a line", "byte order mark"],
)
def test_items_in_one_file(save, content: object) -> None:
    path = save(content, "items.json")
    found = dict(find_items(path))
    assert list(found) == [f"{path}#A", f"{path}#B"]
    for name, each in zip("AB", COLLECTION["features"], strict=True):
        source, alone = found[f"{path}#{name}"], find(save(each, "alone.json"))
        assert source == replace(alone, path=f"{path}#{name}")


def test_one_item_and_one_line_of_items(save) -> None:
    for file in ("one.json", "one.ndjson", "one.txt"):
        ((name, source),) = find_items(save(earth_search(), file))
        assert isinstance(source, Source)
        assert name.endswith(f"{file}#S2B_33UXP_20250302_0")


def test_an_item_that_is_none_does_not_stop_the_others(save) -> None:
    polygon = {"type": "Feature", "geometry": None, "properties": {}}
    nothing = renamed(item({}), "bare")
    path = save([polygon, renamed(earth_search(), "A"), nothing, 7, {"type": "Catalog", "stac_version": "1.0.0"}])
    found = find_items(path)
    assert [name.rpartition("#")[2] for name, _ in found] == ["1", "A", "bare", "4", "5"]
    assert isinstance(found[1][1], Source)
    no_item = "is not a STAC Item; remove it"
    for index, message in {0: no_item, 2: "none of its assets", 3: no_item, 4: "is a STAC Catalog"}.items():
        name, error = found[index]
        assert isinstance(error, SceneError)
        assert str(error).startswith(f"{name}: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "FeatureCollection", "features": []}, "holds no STAC Item"),
        ([], "holds no STAC Item"),
        ("", "holds no STAC Item"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, "holds no STAC Item"),
        (7, "holds no STAC Item"),
        ({"type": "Catalog", "stac_version": "1.0.0"}, "is a STAC Catalog, not an Item"),
        ('{"type": "Feature"}\n{"ty', "not valid JSON"),
        ("scene.tif\n", "not valid JSON"),
    ],
)
def test_files_without_items(save, content: object, message: str) -> None:
    with pytest.raises(SceneError, match=rf"items\.json: .*{message}"):
        find_items(save(content, "items.json"))


def test_a_missing_file_of_items(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"items\.json: cannot be read \(No such file"):
        find_items(str(tmp_path / "items.json"))


def test_one_page_of_a_search_is_said(save, caplog: pytest.LogCaptureFixture) -> None:
    find_items(save(COLLECTION))
    assert not caplog.messages
    find_items(save(COLLECTION | {"links": [{"rel": "next", "href": "https://example.com/search?page=2"}]}))
    assert len(caplog.messages) == 1
    assert "is one page of a search, with only 2 of its Items" in caplog.messages[0]


def test_items_refer_to_where_they_say_they_lie(server: RangeServer, folder: Path) -> None:
    relative = {"B04": {"href": "./B04.tif", "type": COG, "eo:bands": [{"name": "B04"}]}}
    told = [
        [{"rel": "self", "href": "https://example.com/items/A.json"}],
        [{"rel": "self", "href": "file:///etc/A.json"}],
        [],
    ]
    features = [renamed(item(relative), str(number)) | {"links": links} for number, links in enumerate(told)]
    (folder / "search.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    sources = [source for _, source in find_items(server.url("search.json") + "?token=secret")]
    here = server.url("B04.tif")
    assert [source.bands["B04"].path for source in sources if isinstance(source, Source)] == [
        "/vsicurl/https://example.com/items/B04.tif", f"/vsicurl/{here}", f"/vsicurl/{here}",
    ]  # fmt: skip
    assert all("secret" not in source.path for source in sources if isinstance(source, Source))


def test_items_from_a_server_name_no_file_of_this_machine(server: RangeServer, folder: Path) -> None:
    local = {"B04": {"href": "file:///etc/B04.tif", "type": COG, "eo:bands": [{"name": "B04"}]}}
    (folder / "search.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item(local)]}))
    ((_, error),) = find_items(server.url("search.json"))
    assert "is a local file" in str(error)


PUBLIC, PRIVATE, MACHINE = "https://8.8.8.8/items", "http://192.168.1.7/items", "http://127.0.0.1:8080/items"


@pytest.mark.parametrize(
    ("server", "href", "allowed"),
    [
        (PUBLIC, "./B04.tif", True),
        (PUBLIC, "https://9.9.9.9/B04.tif", True),  # catalogs and their files often lie on different servers
        (PUBLIC, "s3://bucket/B04.tif", True),
        (PUBLIC, "http://192.168.1.7/B04.tif", False),
        (PUBLIC, "http://127.0.0.1/B04.tif", False),
        (PUBLIC, "http://169.254.169.254/latest/B04.tif", False),
        (PUBLIC, "http://8.8.8.8@127.0.0.1/B04.tif", False),
        (PRIVATE, "https://9.9.9.9/B04.tif", True),
        (PRIVATE, "http://10.0.0.1/B04.tif", True),
        (PRIVATE, "http://127.0.0.1/B04.tif", False),
        (MACHINE, "http://127.0.0.1:9090/B04.tif", True),
        (MACHINE, "http://10.0.0.1/B04.tif", True),
        (PUBLIC, "file:///etc/B04.tif", False),
        (MACHINE, "file:///etc/B04.tif", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("own_place", ["", "http://127.0.0.1/items/A.json"])
def test_an_item_from_a_server_names_nothing_that_fewer_can_reach(
    monkeypatch: pytest.MonkeyPatch, server: str, href: str, allowed: bool, own_place: str
) -> None:
    content = item({"B04": {"href": href, "type": COG}})
    if own_place and not href.startswith("."):  # it may say anything about itself
        content["links"] = [{"rel": "self", "href": own_place}]
    answer = json.dumps({"type": "FeatureCollection", "features": [content]}).encode()
    monkeypatch.setattr("geocfl.scenes.formats.stac.fetch", lambda url, wanted: answer)
    ((_, found),) = find_items(f"{server}/A.json?token=SECRET")
    assert "SECRET" not in str(found)
    if allowed:
        assert isinstance(found, Source)
    else:
        assert isinstance(found, SceneError)
        assert "download the Item and use the copy if you trust it" in str(found)


@pytest.mark.parametrize("server", [PUBLIC, MACHINE])
def test_an_item_from_a_server_holds_no_descriptions_for_gdal(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    content = item({"B04": {"href": "vrt:///etc/B04.tif", "type": COG}})
    answer = json.dumps({"type": "FeatureCollection", "features": [content]}).encode()
    monkeypatch.setattr("geocfl.scenes.formats.stac.fetch", lambda url, wanted: answer)
    ((_, error),) = find_items(f"{server}/A.json")
    assert "asset B04 is no file and no address of one, but a description for GDAL" in str(error)


def test_a_local_item_may_name_anything(save) -> None:
    for href in ("http://127.0.0.1/B04.tif", "http://192.168.1.7/B04.tif", "file:///data/B04.tif"):
        assert find(save(item({"B04": {"href": href}}))).bands["B04"].path.endswith("/B04.tif")


def test_items_in_buckets_are_to_be_downloaded() -> None:
    with pytest.raises(SceneError, match=r"s3://bucket/item\.json: Items are read only from files and https://"):
        find_item("s3://bucket/item.json")


def test_two_assets_for_one_band(save) -> None:
    assets = {key: {"href": f"{key}.tif", "type": COG, "eo:bands": [{"name": "B04"}]} for key in ("a", "b")}
    with pytest.raises(SceneError, match="has B04 twice, as the assets a and b; remove one of them"):
        find_item(save(item(assets)))
    for better, worse in (({"gsd": 10}, {"gsd": 20}), ({}, {"roles": ["overview"]}), ({"href": "b.tif"}, {})):
        chosen = deepcopy(assets)
        chosen["a"] |= {"href": "b.tif"} if "href" in better else worse
        chosen["b"] |= better
        assert find(save(item(chosen))).bands["B04"].path.endswith("b.tif")


def test_items_without_a_band(save) -> None:
    content = item({"thumbnail": {"href": "t.png", "type": "image/png"}, "vv": {"href": "vv.tif"}})
    with pytest.raises(SceneError, match=r"none of its assets \(thumbnail, vv\) is a Sentinel-2 band; use an Item"):
        find_item(save(content))


@pytest.mark.parametrize("make", [earth_search, planetary_computer, copernicus])
def test_a_picture_is_used_where_nothing_else_is_there(save, make) -> None:
    content = make()
    pictures = {"visual", "TCI_10m", "thumbnail", "preview"}
    content["assets"] = {key: asset for key, asset in content["assets"].items() if key in pictures}
    source = find(save(content))
    assert {band: found.index for band, found in source.bands.items()} == {"B04": 1, "B03": 2, "B02": 3}
    assert {found.scaling for found in source.bands.values()} == {EUROSAT_RGB}
    assert "TCI" in source.bands["B04"].path
    assert "has no bands, so its picture" in source.notes[0]
    assert source.scaling_source == "EuroSAT's 8-bit stretch"


@pytest.mark.parametrize(("scale", "offset"), [(0, 0), ("x", 0), (-1, 0), (0.0001, "nan"), (None, 1)])
def test_impossible_scalings(save, scale: object, offset: object) -> None:
    content = item({"B04": {"href": "x.tif", "raster:bands": [{"scale": scale, "offset": offset}]}})
    with pytest.raises(SceneError, match=r"its asset B04 has the scale .* which are not valid"):
        find_item(save(content))


def test_scale_1_and_offset_0_say_nothing(save) -> None:
    source = find(save(item({"B04": {"href": "x.tif", "raster:bands": [{"scale": 1.0, "offset": 0.0}]}})))
    assert source.bands["B04"].scaling is None
    assert source.scaling_source == ""


def test_other_satellites_are_said(save) -> None:
    source = find(save(item({"red": {"href": "x.tif"}}, platform="landsat-8")))
    assert "is from landsat-8, whose bands differ from those of Sentinel-2" in source.notes[0]


def test_ranges_of_time_and_levels(save) -> None:
    told = {"datetime": None, "start_datetime": "2025-03-02T10:50:29+01:00", "end_datetime": "2025-03-03T00:00:00Z"}
    source = find(save(item({"B04": {"href": "x.tif"}}, **told) | {"id": "S2B_MSIL1C_20250302T095029"}))
    assert (source.taken, source.level) == (TAKEN, "L1C")
    assert find(save(item({"B04": {"href": "x.tif"}}))).level == "unknown"


@pytest.mark.parametrize(
    ("name", "stem"), [("../../etc/x", "etc_x"), ("a b/c", "a_b_c"), ("..", "item"), ("é" * 300, "é" * 75)]
)
def test_ids_become_safe_names(save, name: str, stem: str) -> None:
    assert find(save(item({"B04": {"href": "x.tif"}}) | {"id": name})).stem == stem


@pytest.mark.parametrize("broken", [{"properties": None}, {"assets": []}, {"assets": {"B04": {}}}, {"id": None}])
def test_broken_items(save, broken: Json) -> None:
    content = item({"B04": {"href": "x.tif"}})
    try:
        find_item(save(content | broken))
    except SceneError as error:
        assert "\n" not in str(error)  # noqa: PT017 - some are forgiven


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "href",
    "type",
    "roles",
    "eo:bands",
    "bands",
    "raster:bands",
    "gsd",
    "nodata",
    "proj:transform",
    "raster:scale",
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, anything)), anything)
def test_whatever_a_stranger_writes_is_one_sentence_or_none(tmp_path_factory, asset: Json, value: object) -> None:
    path = tmp_path_factory.mktemp("strange") / "item.json"
    path.write_text(json.dumps(item({"B04": {"href": "x.tif"} | asset}, platform=value, **{"s2:product_type": value})))
    try:
        find_item(str(path))
    except SceneError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - any other error fails the test


@pytest.mark.parametrize("told", [{"proj:code": "EPSG:32632"}, {"proj:epsg": 32632}], ids=str)
def test_the_item_gives_the_crs_of_rasters_without_one(save, told: Json) -> None:
    source = find(save(item({"B04": {"href": "./B04.tif", "type": "image/tiff"}}, **told)))
    assert source.crs in ("EPSG:32632", "epsg:32632")


@pytest.mark.parametrize("told", [{}, {"proj:code": "EPSG:1"}, {"proj:code": None}], ids=str)
def test_an_item_without_a_known_crs_gives_none(save, told: Json) -> None:
    assert find(save(item({"B04": {"href": "./B04.tif", "type": "image/tiff"}}, **told))).crs is None


@pytest.mark.parametrize("name", ["sentinel-2", "Sentinel 2", "sentinel_2", "Sentinel-2A"])
def test_no_spelling_of_sentinel_2_is_another_satellite(save, name: str) -> None:
    source = find(save(item({"B04": {"href": "./B04.tif", "type": "image/tiff"}}, constellation=name)))
    assert not any("differ from those of Sentinel-2" in note for note in source.notes)


@pytest.mark.parametrize("href", ["raw.vrt", "file:///etc/passwd", "secret", "/vsisubfile/0_10,x"])
def test_local_assets_that_may_show_other_files_are_refused(tmp_path: Path, href: str) -> None:
    path = tmp_path / "item.json"
    bands = {name: {"href": href, "eo:bands": [{"name": name}]} for name in ("B04", "B03", "B02")}
    path.write_text(json.dumps(item(bands)))
    with pytest.raises(SceneError, match="is neither a GeoTIFF nor a JPEG 2000"):
        find_item(str(path))


@pytest.mark.parametrize("scale", [2**70, 1e308, 1e-320, float("nan"), 10**400, None])
def test_absurd_scales_are_refused(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "item.json"
    said = [{"scale": scale, "offset": -0.1}]
    bands = {b: {"href": f"{b}.tif", "eo:bands": [{"name": b}], "raster:bands": said} for b in ("B04", "B03", "B02")}
    path.write_text(json.dumps(item(bands)))
    with pytest.raises(SceneError, match="which are not valid; correct the Item"):
        find_item(str(path))


@pytest.mark.parametrize(
    "href",
    [
        "WMS:http://example.com/?layers=x",
        'NETCDF:"/etc/hostname":B04',
        "GTIFF_DIR:1:/etc/hostname",
        "<VRTDataset rasterXSize='1' rasterYSize='1'/>",
        " <GDAL_WMS/>",
        "vrt://scene.tif?bands=1",
    ],
)
def test_assets_that_describe_a_raster_for_gdal_are_refused(save, href) -> None:
    with pytest.raises(SceneError, match="its asset red is no file and no address of one"):
        find_item(save(item({"red": {"href": href, "eo:bands": [{"name": "B04"}]}})))
