import json

import pytest

from geocfl.core.legend import EUROSAT, Legend, LulcClass


def test_eurosat_is_numbered_as_in_the_paper() -> None:
    assert EUROSAT[1].name == "Annual Crop"
    assert EUROSAT[4].name == "Highway"
    assert EUROSAT[10].name == "Sea Lake"
    assert [c.folder for c in EUROSAT] == sorted(c.folder for c in EUROSAT)


def test_colors_are_distinct_and_parse() -> None:
    assert len({c.rgb for c in EUROSAT}) == 10
    assert EUROSAT[1].rgb == (0xF4, 0xD3, 0x5E)


def test_json_round_trip() -> None:
    assert Legend.from_json(json.loads(json.dumps(EUROSAT.to_json()))) == EUROSAT


def test_own_folders_get_names_and_colors() -> None:
    legend = Legend.from_folders(["glacier", "BareRock", "snow_field", "Forest"])
    assert legend.names == ["Bare Rock", "Forest", "Glacier", "Snow Field"]
    assert legend[2].color == EUROSAT[2].color
    assert len({c.color for c in Legend.from_folders([f"c{i}" for i in range(30)])}) == 30


def test_eurosat_folders_in_any_order_are_eurosat() -> None:
    assert Legend.from_folders([c.folder for c in reversed(list(EUROSAT))]) is EUROSAT


@pytest.mark.parametrize("code", [0, 11, 255])
def test_codes_outside_are_no_class(code: int) -> None:
    with pytest.raises(KeyError):
        EUROSAT[code]


def test_broken_legends_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.\.N"):
        Legend((LulcClass(2, "A", "A", "#000000"),))
    with pytest.raises(ValueError, match="color"):
        Legend.from_json([{"code": 1, "name": "A", "folder": "A", "color": "red; }"}])
    with pytest.raises(ValueError, match="254"):
        Legend.from_folders([str(i) for i in range(255)])
