"""Searches of a STAC API on the loopback: pages, places, gaps, and servers that misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from geocfl.errors import OutputError, SceneError, UsageError
from geocfl.planning import catalogs
from geocfl.planning.choose import square_km
from geocfl.planning.find import find
from geocfl.scenes.formats.stac import find_items
from tests.planning.stac_api import CONFORMS, Api, item, serving

pytestmark = pytest.mark.integration

BOX = (13.0, 45.0, 14.0, 46.0)
SUMMER = "2022-06-01/2022-08-31"


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(Api([item("S2_33TUL_a", BOX, cloud=50), item("S2_33TUL_b", BOX, "2022-07-01", 5)])) as served:
        yield served


def searched(server: Api, out: Path, **options):
    return find(
        out / "items.json", **{"api": server.url, "collection": "s2", "bbox": BOX, "datetime": SUMMER, **options}
    )


def test_the_clearest_scene_is_written_as_the_server_has_it(api: Api, tmp_path: Path) -> None:
    found = searched(api, tmp_path)
    assert json.loads(found.path.read_text())["features"] == [api.items[1]]
    assert [name for name, _ in find_items(str(found.path))] == [f"{found.path}#S2_33TUL_b"]
    assert (found.searched, found.coverage, found.gaps) == (2, 1, [])
    assert found.frame()[["tile", "cloud", "id"]].to_numpy().tolist() == [["33TUL", 5, "S2_33TUL_b"]]
    assert "1 of the 2 scenes found cover all of the 8,6" in found.table()
    with pytest.raises(OutputError, match="already exists"):
        searched(api, tmp_path)
    assert len(searched(api, tmp_path, per_tile=2, overwrite=True).scenes) == 2


def test_every_page_is_read(api: Api, tmp_path: Path) -> None:
    api.items = [item(f"S2_33TUL_{i}", BOX, f"2022-06-{i % 28 + 1:02}", i % 90, number=i) for i in range(250)]
    api.items += [item(f"S2_33TUM_{i}", BOX, "2021-06-01") for i in range(50)]
    found = searched(api, tmp_path)
    assert len(api.searches) == 3
    assert found.searched == 250
    assert found.scenes[0].cloud == 0


@pytest.mark.parametrize("filters", [True, False], ids=["the server filters", "it cannot"])
def test_cloudy_scenes_are_left_out(api: Api, tmp_path: Path, filters: bool) -> None:
    api.conforms = api.conforms if filters else CONFORMS
    api.items.append(item("S2_33TUL_unknown", BOX, "2022-07-02", None))
    found = searched(api, tmp_path, max_cloud=20, per_tile=5)
    assert [scene.id for scene in found.scenes] == ["S2_33TUL_b"]
    assert ("query" in api.searches[0]) == filters


def test_gaps_are_named(api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    api.items = [item("S2_33TUL_a", (13.0, 45.0, 13.75, 46.0)), item("S2_33TUL_b", (13.8, 45.0, 13.9, 46.0))]
    found = searched(api, tmp_path)
    missing = [(13.9, 14.0), (13.75, 13.8)]
    assert found.coverage == pytest.approx(0.85, abs=0.001)
    assert [gap.bounds for gap in found.gaps] == [pytest.approx((w, 45.0, e, 46.0)) for w, e in missing]
    assert f"gap of {square_km(found.gaps[0]):,.2f} km2 around 13.9500, 45.5000" in found.table()
    assert shapely.geometry.shape(found.to_json()["gaps"]).area == pytest.approx(0.15)
    assert "a longer period may close them" in caplog.text


def test_an_area_of_polygons_in_another_crs(api: Api, tmp_path: Path) -> None:
    inside, outside = shapely.box(13.1, 45.1, 13.2, 45.2), shapely.box(13.6, 45.6, 13.7, 45.7)
    gpd.GeoSeries([inside, outside], crs=4326).to_crs(32633).to_file(tmp_path / "area.gpkg")
    api.items = [item("S2_33TUL_a", (13.0, 45.0, 13.5, 45.5)), item("S2_33TUM_b", (13.3, 45.3, 13.5, 45.5))]
    found = searched(api, tmp_path, bbox=None, aoi=tmp_path / "area.gpkg")
    assert [scene.id for scene in found.scenes] == ["S2_33TUL_a"], "the other lies between the polygons"
    assert found.area_km2 == pytest.approx(square_km(inside) + square_km(outside), rel=1e-6)
    assert found.coverage == pytest.approx(square_km(inside) / found.area_km2, rel=1e-6)


def test_a_box_across_180_degrees_is_searched_on_both_sides(api: Api, tmp_path: Path) -> None:
    api.items = [item("S2_60KYG_a", (178.0, -18, 180, -16)), item("S2_01KAB_b", (-180, -18, -178.5, -16))]
    found = searched(api, tmp_path, bbox=(179.0, -17.0, -179.0, -16.0))
    assert [body["bbox"] for body in api.searches] == [[-180, -17, -179, -16], [179, -17, 180, -16]]
    assert {scene.id for scene in found.scenes} == {"S2_60KYG_a", "S2_01KAB_b"}
    assert found.coverage == 1


def test_items_that_are_none_are_left_out(api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    api.items += [{**item("S2_33TUL_c", BOX), "properties": None, "bbox": BOX}]
    api._wanted = lambda *_: True  # type: ignore[method-assign]
    assert searched(api, tmp_path, per_tile=9).searched == 2
    assert "left out an Item of the search that is not valid" in caplog.text


@pytest.mark.parametrize(
    ("page", "status", "message"),
    [
        ("<html>Please log in</html>", 200, "does not answer as a STAC API does"),
        ("[]", 200, "does not answer as a STAC API does"),
        ('{"code": "NotFound"}', 404, "refuses the search of s2 (HTTP 404: .*NotFound.*); check `collection`"),
        ("no", 400, "refuses the search of s2 (HTTP 400: no)"),
        ("Request has expired", 403, "denies access (HTTP 403: Request has expired)"),
        ("oops", 500, "failed (HTTP 500: oops); try again later"),
        (json.dumps({"type": "FeatureCollection", "features": [], "links": []}), 200, "has no scene of this place"),
    ],
)
def test_what_servers_answer_is_one_sentence(api: Api, tmp_path: Path, page: str, status: int, message: str) -> None:
    api.page, api.status = page, status
    with pytest.raises(SceneError, match=message.replace("(", r"\(").replace(")", r"\)")) as caught:
        searched(api, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_server_that_does_not_answer(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogs, "TIMEOUT_S", 0.2)
    api.delay = 1
    with pytest.raises(SceneError, match=r"cannot be reached, is busy, or does not answer within 0\.2 s"):
        searched(api, tmp_path)


def test_a_busy_server_is_asked_again(api: Api, tmp_path: Path) -> None:
    api.busy = 2
    assert searched(api, tmp_path).searched == 2
    api.busy = 99
    with pytest.raises(SceneError, match="is busy"):
        searched(api, tmp_path, overwrite=True)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with serving(Api([])) as api:
        pass
    with pytest.raises(SceneError, match="cannot be reached"):
        searched(api, tmp_path)
    with pytest.raises(UsageError, match="`datetime` is 'june' but must be a day"):  # said before the server is asked
        searched(api, tmp_path, datetime="june")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datetime": "summer"}, "`datetime` is 'summer' but must be a day"),
        ({"datetime": "2024-13"}, "`datetime` is '2024-13' but must be a day"),
        ({"datetime": "2024-08/2024-06"}, "'2024-08/2024-06', which ends before it begins"),
        ({"bbox": None}, "give either `bbox` or `aoi`"),
        ({"aoi": "x.gpkg"}, "give either `bbox` or `aoi`"),
        ({"bbox": (13.0, 45.0, 13.0, 46.0)}, "bbox"),
        ({"per_tile": 0}, "`per_tile` is 0"),
        ({"max_cloud": 120.0}, "percentage from 0 to 100"),
        ({"sort": "clouds"}, "must be cloud or newest"),
        ({"api": "earthsearch"}, "must be one of earth-search, planetary-computer, copernicus, or the URL"),
        ({"collection": None}, "name the collection to search as `collection`"),
    ],
)
def test_parameters_are_checked(api: Api, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        searched(api, tmp_path, **options)
