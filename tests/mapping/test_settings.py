"""Settings of a map, as Python takes them."""

import datetime as dt
import json
from pathlib import Path
from typing import get_type_hints

import pytest

import geocfl
from geocfl.errors import UsageError
from geocfl.mapping.settings import MapOptions, MapSettings


def test_options_are_the_fields_of_the_settings() -> None:
    assert get_type_hints(MapOptions) == get_type_hints(MapSettings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 3}, "`min_confidence` is 3 but must be between 0 and 1"),
        ({"max_masked": -1}, "`max_masked` is -1 but must be between 0 and 1"),
        ({"simplify": float("nan")}, "`simplify` is nan but must be 0 or more meters"),
        ({"bbox": (1, 2, 3, 4), "aoi": "a.gpkg"}, "`bbox` and `aoi` exclude each other"),
        ({"datetime": "yesterday"}, "`datetime` is 'yesterday', which is not a date"),
        ({"datetime": 2019}, "`datetime` is 2019, which is not a date"),
    ],
)
def test_values_out_of_range(options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MapSettings(**options)


def test_the_moment_in_utc() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    noon = dt.datetime(2019, 4, 16, 12, tzinfo=dt.UTC)
    for given in (noon, noon.astimezone(zone), noon.replace(tzinfo=None), "2019-04-16T12:00", "2019-04-16T14:00+02:00"):
        assert MapSettings(datetime=given).taken() == noon
    assert MapSettings().taken() is None


def test_settings_as_json() -> None:
    how = MapSettings(
        bands={"B04": 1}, datetime=dt.datetime(2019, 4, 16, tzinfo=dt.UTC), mask=Path("clouds.tif"),
        mask_classes={8, 3}, bbox=(13.2, 45.7, 13.4, 45.8), aoi=None,
    )  # fmt: skip
    said = json.loads(json.dumps(how.to_json()))
    assert said["bands"] == {"B04": 1}
    assert said["datetime"] == "2019-04-16T00:00:00+00:00"
    assert (said["mask"], said["mask_classes"], said["aoi"]) == ("clouds.tif", [3, 8], None)
    assert said["products"] == ["default"]
    secret = MapSettings(mask="https://example.com/m.tif?sig=secret")
    assert secret.to_json()["mask"] == "https://example.com/m.tif"
    assert secret.to_json(redacted=False)["mask"] == "https://example.com/m.tif?sig=secret"


def test_an_unknown_option_names_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown parameter 'strides'; did you mean 'stride'"):
        geocfl.map_scene("s.tif", tmp_path, strides=16)
    with pytest.raises(UsageError, match="unknown parameter 'worker'; did you mean 'workers'"):
        geocfl.map_scenes("s.tif", tmp_path, worker=2)
