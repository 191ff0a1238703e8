"""When a scene was taken: not when it was processed, and no number that only looks like a date."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.scenes.acquisition import ABSURD, LAUNCH, find_datetime, find_mission

TAKEN = datetime(2019, 4, 16, 10, 0, 31, tzinfo=UTC)
DAY = datetime(2019, 4, 16, tzinfo=UTC)

seconds = st.datetimes(LAUNCH.replace(tzinfo=None), datetime(2099, 12, 31)).map(
    lambda when: when.replace(microsecond=0, tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("S2A_MSIL2A_20190416T100031_N0211_R122_T33TUL_20190416T113410.SAFE", TAKEN),
        ("S2A_MSIL1C_20190416T100031_N9999_R122_T33TUL_20201104T184212.zip", TAKEN),
        ("T33TUL_20190416T100031_B04_10m.jp2", TAKEN),
        ("L1C_T33TUL_A019924_20190416T100031", TAKEN),
        ("L2A_T33TUL_20190416T100031_TCI_10m.jp2", TAKEN),
        ("S2A_OPER_PRD_MSIL1C_PDMC_20190605T193933_R065_V20190416T100031_20190416T100031.SAFE", TAKEN),
        ("S2B_33TUL_20190416_0_L2A.tif", DAY),
        ("S2C_4QGJ_20190416_1_L2A.tif", DAY),
        ("S2_L2A_20190416_aquileia_B04B03B02B08.tif", DAY),
        ("2019-04-16-00:00_2019-04-16-23:59_Sentinel-2_L2A_True_color.tiff", DAY),
        ("aoi_2019_04_16.tif", DAY),
        ("20190416100031.tif", TAKEN),
        ("2019-04-16T10-00-31.tif", TAKEN),
        ("aoi-20190416t100031z.tif", TAKEN),
        ("20190416_20190416T100031.tif", TAKEN),
    ],
)
def test_names_of_scenes(name: str, when: datetime) -> None:
    assert find_datetime(name, {}) == when


@pytest.mark.parametrize(
    "name",
    [
        "",
        "scene.tif",
        "S2_L2A_202206_dolomites.tif",
        "20191345.tif",  # the 13th month
        "20190416T250000.tif",  # 25 o'clock
        "20150622.tif",  # before the launch
        "19990416.tif",
        "21000101.tif",
        "120190416.tif",  # part of a longer number
        "201904161.tif",
        "2019-0416.tif",
        "S2A_OPER_MSI_L1C_TL_EPA__20160605T113933_A000734_T32TQR_N02.02",  # when it was made
        "\u0662\u0660\u0661\u0669\u0660\u0664\u0661\u0666.tif",
    ],
)
def test_names_without_an_acquisition(name: str) -> None:
    assert find_datetime(name, {}) is None


@pytest.mark.parametrize(
    ("tags", "when"),
    [
        ({"DATATAKE_1_DATATAKE_SENSING_START": "2019-04-16T10:00:31.024Z"}, TAKEN + timedelta(milliseconds=24)),
        ({"PRODUCT_START_TIME": "2019-04-16T10:00:31Z", "PRODUCT_STOP_TIME": "2019-04-16T10:20:31Z"}, TAKEN),
        ({"ACQUISITIONDATETIME": "2019-04-16 10:00:31"}, TAKEN),
        ({"datetime": "2019-04-16T12:00:31+02:00"}, TAKEN),
        ({"datetime": "2019-04-16"}, DAY),
        ({"GENERATION_TIME": "2020-11-04T18:42:12Z", "TIFFTAG_DATETIME": "2020:11:04 18:42:12"}, None),
        ({"datetime": "yesterday"}, None),
        ({"datetime": "0001-01-01T00:00:00+14:00"}, None),
        ({"datetime": "1970-01-01T00:00:00Z"}, None),
    ],
)
def test_tags(tags: dict[str, str], when: datetime | None) -> None:
    assert find_datetime("scene.tif", tags) == when


def test_tags_count_before_the_name_unless_they_are_none() -> None:
    name = "T33TUL_20190416T100031_B04.jp2"
    other = "2020-01-02T03:04:05Z"
    assert find_datetime(name, {"datetime": other}) == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert find_datetime(name, {"datetime": "0000-00-00", "PRODUCT_START_TIME": "none"}) == TAKEN


@given(seconds, st.timedeltas(timedelta(0), timedelta(days=3000)))
def test_processing_comes_after_and_does_not_count(when: datetime, later: timedelta) -> None:
    made = f"{min(when + later, ABSURD - timedelta(seconds=1)):%Y%m%dT%H%M%S}"
    assert find_datetime(f"S2A_MSIL2A_{when:%Y%m%dT%H%M%S}_N0500_R122_T33TUL_{made}.SAFE", {}) == when
    assert find_datetime(f"{made}_T33TUL_{when:%Y%m%dT%H%M%S}_B04.jp2", {}) == when
    found = find_datetime(f"a_{made}_b_{when:%Y%m%d}", {})
    assert found is not None
    assert found.date() == when.date()


@given(seconds, st.integers(-14 * 60, 14 * 60))
def test_any_zone_of_a_tag_is_made_utc(when: datetime, minutes: int) -> None:
    local = when.astimezone(timezone(timedelta(minutes=minutes)))
    found = find_datetime("", {"datetime": local.isoformat()})
    assert found == when
    assert found is not None
    assert found.tzinfo is UTC


@given(st.text() | st.text("0123456789T_-:.VS2MSIL", max_size=40), st.text())
def test_no_text_is_an_error(name: str, tag: str) -> None:
    found = find_datetime(name, {"datetime": tag})
    assert found is None or LAUNCH <= found < ABSURD


@pytest.mark.parametrize(
    ("name", "level", "mission"),
    [
        ("S2A_MSIL2A_20190416T100031_N0211_R122_T33TUL_20190416T113410.SAFE", "L2A", "Sentinel-2"),
        ("T33TUL_20190416T100031_B04_10m.jp2", "unknown", "Sentinel-2"),
        ("S2_2022_dolomites.tif", "unknown", "Sentinel-2"),
        ("sentinel-2_mosaic.tif", "unknown", "Sentinel-2"),
        ("scene.tif", "L1C", "Sentinel-2"),
        ("scene.tif", "unknown", None),
        ("LC09_L2SP_191028_20220601_B4.TIF", "unknown", None),
        ("PS2_20190416.tif", "unknown", None),
        ("demo_scene.tif", "unknown", None),
    ],
)
def test_only_what_is_said_to_be_from_sentinel_2_is(name, level, mission):
    assert find_mission(name, level) == mission
