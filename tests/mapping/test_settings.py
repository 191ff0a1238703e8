"""Settings of a map, as Python takes them."""

import datetime as dt
import json
from pathlib import Path
from typing import get_type_hints

import numpy as np
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
        ({"max_novelty": 101}, "`max_novelty` is 101 but must be between 0 and 100 percent"),
        ({"max_novelty": "95"}, "`max_novelty` is '95'"),
        ({"max_masked": -1}, "`max_masked` is -1 but must be between 0 and 1"),
        ({"simplify": float("nan")}, "`simplify` is nan but must be 0 or more meters"),
        ({"bbox": (1, 2, 3, 4), "aoi": "a.gpkg"}, "`bbox` and `aoi` exclude each other"),
        ({"datetime": "yesterday"}, "`datetime` is 'yesterday', which is not a date"),
        ({"datetime": 2019}, "`datetime` is 2019, which is not a date"),
        ({"stride": "64"}, "`stride` is '64' but must be a whole number"),
        ({"stride": 16.5}, "`stride` is 16.5 but must be a whole number"),
        ({"min_area": None}, "`min_area` is None but must be a number"),
        ({"scale": "10000"}, "`scale` is '10000' but must be a number or None"),
        ({"warp": "no"}, "`warp` is 'no' but must be True or False"),
        ({"backend": None}, "`backend` is None but must be text"),
        ({"smooth": "yes"}, "`smooth` is 'yes' but must be True or False"),
        ({"smooth_keep": ("River",)}, "`smooth_keep` has no effect without smoothing; add `smooth=True`"),
        ({"smooth": True, "smooth_keep": "River"}, "`smooth_keep` is the text 'River' but must be a sequence"),
        ({"mask": 5}, "`mask` is 5 but must be a path or None"),
        ({"products": "lulc"}, "`products` is the text 'lulc' but must be a sequence"),
        ({"products": None}, "`products` is None but must be a sequence of names"),
        ({"products": (3,)}, "`products` is .* but must be a sequence of names"),
        ({"vector": "gpkg"}, "`vector` is the text 'gpkg' but must be a sequence"),
        ({"bbox": (1, 2, 3)}, "`bbox` 1,2,3 is not west,south,east,north"),
        ({"bbox": "1234"}, r"`bbox` '1234' is not .* use one such as `bbox=\(13"),
        ({"bbox": 5}, "`bbox` 5 is not west"),
        ({"bands": "B04"}, "`bands` is 'B04' but must be names"),
        ({"bands": {"B04": "3"}}, "`bands` is .* or map names to numbers"),
        ({"bands": (3, 2, 1)}, "`bands` is .* must be names"),
        ({"bands": 3}, "`bands` is 3 but must be names"),
        ({"mask_classes": "3"}, "`mask_classes` is '3' but must be numbers"),
        ({"mask_classes": 3}, "`mask_classes` is 3 but must be numbers"),
        ({"mask_classes": ()}, r"`mask_classes` is \(\) but must be numbers"),
    ],
)
def test_values_out_of_range(options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MapSettings(**options)


def test_values_of_numpy_become_plain() -> None:
    how = MapSettings(
        stride=np.int64(16), min_confidence=np.float32(0.5), bands={"B04": np.uint8(1)}, products=["lulc"],
        bbox=np.array([13.2, 45.7, 13.4, 45.8]), mask_classes=np.array([8, 3]),
    )  # fmt: skip
    said = json.loads(json.dumps(how.to_json()))
    assert (said["stride"], said["min_confidence"], said["bands"]) == (16, 0.5, {"B04": 1})
    assert (said["bbox"], said["mask_classes"]) == ([13.2, 45.7, 13.4, 45.8], [3, 8])


def test_the_moment_in_utc() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    noon = dt.datetime(2019, 4, 16, 12, tzinfo=dt.UTC)
    for given in (noon, noon.astimezone(zone), noon.replace(tzinfo=None), "2019-04-16T12:00", "2019-04-16T14:00+02:00"):
        assert MapSettings(datetime=given).taken() == noon
    assert MapSettings().taken() is None
    day = MapSettings(datetime=dt.date(2019, 4, 16))
    assert day.taken() == dt.datetime(2019, 4, 16, tzinfo=dt.UTC)
    assert day.to_json()["datetime"] == "2019-04-16"


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
