import pytest

from geocfl.errors import SceneError, UsageError
from geocfl.scenes.bands import band_name, find_bands


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("B04", "B04"), ("B4", "B04"), ("b8a", "B8A"), ("B08 (842 nm)", "B08"), ("Band 4", "B04"), ("red", "B04"),
        ("Blue", "B02"), ("T33TVM_20190416_B03_10m", "B03"), ("B12", "B12"), ("NIR", "B08"),
        ("B13", None), ("AB4", None), ("gray", None), ("", None), (None, None), ("SCL", None),
    ],
)  # fmt: skip
def test_band_names_as_files_spell_them(text: str | None, band: str | None) -> None:
    assert band_name(text) == band


def test_descriptions_count_before_colors() -> None:
    colors = ["red", "green", "blue"]
    assert find_bands("s.tif", ["B02", "B03", "B04"], colors) == ({"B02": 1, "B03": 2, "B04": 3}, "")
    assert find_bands("s.tif", [None, None, None], colors) == ({"B04": 1, "B03": 2, "B02": 3}, "")
    assert find_bands("s.tif", [None], ["gray"]) == ({}, "")


@pytest.mark.parametrize("count", [3, 4, 10, 12, 13])
def test_bands_without_names_are_in_the_common_order_of_so_many(count: int) -> None:
    found, note = find_bands("s.tif", [None] * count, ["gray"] + ["undefined"] * (count - 1))
    assert list(found.values()) == list(range(1, count + 1))
    assert found["B04"] == (1 if count == 3 else 3 if count in (4, 10) else 4)
    assert f"its {count} bands have no names and are assumed to be {', '.join(found)}" in note
    assert "`bands`" in note


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["BLUE", "BROADNIR", "NIR", "SWIR1"], {"B02": 1, "B08": 2, "B8A": 3, "B11": 4}),
        (["B1 Blue", "B2 Green", "B3 Red"], {"B02": 1, "B03": 2, "B04": 3}),
        (["Band 1 (490 nm)", "Band 2 (0.56 um)"], {"B02": 1, "B03": 2}),
        (["Band 4", "Band 3", "Band 2"], {"B04": 1, "B03": 2, "B02": 3}),
        (["B01", "B02", "B03", "B04"], {"B01": 1, "B02": 2, "B03": 3, "B04": 4}),
        (["SCL", "B2", "B3", "B4"], {"B02": 2, "B03": 3, "B04": 4}),
        (["Red Edge 1", "red_edge_2", "red mask", "rhos_665"], {"B05": 1, "B06": 2, "B04": 4}),
    ],
)
def test_labels_of_other_programs(labels: list[str], found: dict[str, int]) -> None:
    assert find_bands("s.tif", labels, ["gray"] * len(labels)) == (found, "")


def test_a_band_that_is_there_twice() -> None:
    with pytest.raises(SceneError, match=r"s\.tif: two of its bands are named B04; .*`bands`"):
        find_bands("s.tif", ["B04", "B03", "B04"], ["gray"] * 3)


def test_the_users_choice_counts_before_descriptions() -> None:
    assert find_bands("s.tif", ["B02", "B03"], ["gray"] * 2, {"B04": 2, "b8a": 1}) == ({"B04": 2, "B8A": 1}, "")

    assert find_bands("s.tif", ["B02", "B03"], ["gray"] * 2, ["B08", "B04"]) == ({"B08": 1, "B04": 2}, "")


@pytest.mark.parametrize("chosen", ["B04=3", {"B99": 1}, ["gray"], {"B04": 1, "B4": 1}])
def test_malformed_choices(chosen) -> None:
    with pytest.raises(UsageError, match="`bands`"):
        find_bands("s.tif", ["B02"], ["gray"], chosen)


def test_an_index_that_the_file_does_not_have() -> None:
    with pytest.raises(SceneError, match=r"s\.tif: has no band 2 for B04, only 1"):
        find_bands("s.tif", ["B02"], ["gray"], {"B04": 2})
