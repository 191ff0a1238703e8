"""Folders and names of maps: functions of each scene alone."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.errors import SceneError, UsageError
from geocfl.scenes.collect import Listed
from geocfl.scenes.layout import arrange, check_layout
from geocfl.scenes.source import Band, Source

TAKEN = datetime(2022, 6, 1, 10, tzinfo=UTC)


def scene(path: str, stem: str = "", taken: datetime | None = TAKEN) -> Listed:
    stem = stem or path.rsplit("/", 1)[-1].split(".", maxsplit=1)[0]
    return Listed(path, Source(path, stem, {"B04": Band(path)}, taken=taken))


def folder(listed: Listed, layout: str, taken: datetime | None = None) -> str:
    (arranged,) = arrange([listed], layout, taken)
    if arranged.error:
        raise arranged.error
    return arranged.folder


@pytest.mark.parametrize(
    ("path", "layout", "expected"),
    [
        ("in/S2B_33TUL_20220601_0_L2A.tif", "{mgrs}/{year}", "33TUL/2022"),
        ("in/S2B_3TUL_20220601_0_L2A.tif", "{mgrs}", "03TUL"),
        ("in/T33TUL_20220601T100031_B04.jp2", "tiles/{mgrs}/{year}-{month}-{day}", "tiles/33TUL/2022-06-01"),
        ("in/S2A_MSIL2A_20220601T100031_N0400_R122_T33TUL_20220601T113410.SAFE", "{mgrs}", "33TUL"),
        (
            "https://example.com/33/HLS.S30.T33TUL.2022152T100031.v2.0/B04.tif",
            "{folder}",
            "HLS.S30.T33TUL.2022152T100031.v2.0",
        ),
        ("in/2019/S.tif", "{folder}", "2019"),
        ("in/2019/S.tif", "by name/{name}", "by name/S"),
        ("s3://bucket/33TUL/2019/S.tif", "{folder}", "2019"),
        ("in/S.tif", "", ""),
    ],
)
def test_the_folder_of_a_scene(path: str, layout: str, expected: str) -> None:
    assert folder(scene(path), layout) == expected


def test_the_user_s_time_comes_first_then_the_scene_s_then_that_of_its_name() -> None:
    listed = scene("in/S2B_33TUL_20210601_0_L2A.tif", taken=None)
    assert folder(listed, "{year}") == "2021"
    assert folder(scene(listed.path), "{year}") == "2022"
    assert folder(scene(listed.path), "{year}", datetime(2019, 1, 1, tzinfo=UTC)) == "2019"


@pytest.mark.parametrize(("layout", "field"), [("{mgrs}", "mgrs"), ("{year}/{month}", "year")])
def test_a_scene_that_lacks_a_field_fails_alone(layout: str, field: str) -> None:
    other, lacking = scene("S2B_33TUL_20220601_0_L2A.tif"), scene("in/my_scene.tif", taken=None)
    fine, failed = arrange([other, lacking], layout)
    assert fine.source is not None
    assert failed.source is None
    assert re.match(rf"in/my_scene\.tif: does not state the {field} that `layout` asks for", str(failed.error))
    assert isinstance(failed.error, SceneError)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("{tile}/{year}", "unknown field of `layout` 'tile'; choose from: mgrs"),
        ("{years}", "did you mean 'year'"),
        ("{}", "unknown field"),
        ("{year!r}", "more of year than its name"),
        ("{year:>9}", "more of year than its name"),
        ("{year.real}", "unknown field"),
        ("{year", "brace"),
        ("year}", "brace"),
        ("/maps", "no folder below the output folder"),
        ("../{year}", "no folder below the output folder"),
        ("a/../b", "no folder below the output folder"),
        ("{year}/", "no folder below the output folder"),
        (".hidden", "no folder below the output folder"),
        ("a\\b", "no folder below the output folder"),
        ("C:", "no folder below the output folder"),
        ("{{x}}", ""),
    ],
)
def test_layouts_that_are_refused(layout: str, message: str) -> None:
    if not message:
        return check_layout(layout)
    with pytest.raises(UsageError, match=re.escape(message)):
        check_layout(layout)
    return None


def test_two_scenes_of_one_name_are_refused() -> None:
    listed = [scene("2019/S.tif"), scene("T.tif"), scene("2020/s.tif"), scene("2021/S.tif")]
    message = (
        "2019/S.tif and 2020/s.tif would both be mapped as S, and there are 1 more such pairs; use "
        "`layout={folder}` to keep the folders of the scenes apart, or map them into different folders"
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        arrange(listed)
    assert [each.folder for each in arrange(listed[:1] + listed[2:], "{folder}")] == ["2019", "2020", "2021"]
    with pytest.raises(
        UsageError, match=r"a/2019/S\.tif and b/2019/S\.tif would both be mapped as S; rename one, or map"
    ):
        arrange([scene("a/2019/S.tif"), scene("b/2019/S.tif")], "{folder}")


def test_a_scene_that_cannot_be_read_has_no_name() -> None:
    broken = Listed("2020/S.tif", None, SceneError("2020/S.tif: broken"))
    assert arrange([scene("2019/S.tif"), broken])[1] is broken


paths = st.from_regex(r"([abA]/){0,2}[sStT]{1,2}(_33TU[LM])?\.tif", fullmatch=True)


@given(st.lists(paths, unique=True, max_size=8), st.sampled_from(["", "{folder}", "{mgrs}/{year}"]), st.randoms())
def test_folder_and_name_do_not_depend_on_the_list(named: list[str], layout: str, chance: random.Random) -> None:
    listed = [scene(path) for path in named]
    try:
        arranged = arrange(listed, layout)
    except UsageError:
        return
    chance.shuffle(listed)
    by_path = {each.path: each for each in arranged}
    for each in listed[: chance.randint(0, len(listed))]:
        (alone,) = arrange([each], layout)
        assert (alone.folder, alone.source) == (by_path[each.path].folder, by_path[each.path].source)
