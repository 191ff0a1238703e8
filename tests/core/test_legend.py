import colorsys
import json

import numpy as np
import pytest

from geocfl.core.colors import least_distances
from geocfl.core.legend import EUROSAT, WITHHELD, Legend, LulcClass


def test_eurosat_is_numbered_as_in_the_paper() -> None:
    assert EUROSAT[1].name == "Annual Crop"
    assert EUROSAT[4].name == "Highway"
    assert EUROSAT[10].name == "Sea Lake"
    assert [c.folder for c in EUROSAT] == sorted(c.folder for c in EUROSAT)


def test_colors_are_distinct_and_parse() -> None:
    assert len({c.rgb for c in EUROSAT}) == 10
    assert EUROSAT[1].rgb == (0xFC, 0xDB, 0x62)


def test_json_round_trip() -> None:
    assert Legend.from_json(json.loads(json.dumps(EUROSAT.to_json()))) == EUROSAT


def test_own_folders_get_names_and_colors() -> None:
    legend = Legend.from_folders(["glacier", "BareRock", "snow_field", "Forest"])
    assert legend.names == ["Bare Rock", "Forest", "Glacier", "Snow Field"]
    assert legend[2].color == EUROSAT[2].color
    assert len({c.color for c in Legend.from_folders([f"c{i}" for i in range(30)])}) == 30


@pytest.mark.parametrize(
    "legend",
    [
        EUROSAT,
        Legend.from_folders(list("abcdefghij")),
        Legend.from_folders([*(c.folder for c in EUROSAT), "Rock", "Snow"]),
    ],
    ids=["built-in", "own", "extended"],
)
def test_color_blind_readers_can_tell_all_classes_apart(legend: Legend) -> None:
    colors = [c.color for c in legend] + [WITHHELD.color]
    pairs = np.triu_indices(len(colors), 1)
    assert least_distances(colors, colors)[pairs].min() > 20


def test_colors_are_those_of_common_maps() -> None:
    hues = {c.name: colorsys.rgb_to_hls(*(part / 255 for part in c.rgb)) for c in EUROSAT}
    for name, (low, high) in {
        "Forest": (90, 165),
        "Pasture": (90, 150),
        "River": (190, 215),
        "Sea Lake": (200, 230),
    }.items():
        assert low <= 360 * hues[name][0] <= high
    assert 360 * hues["Residential"][0] < 15
    assert 40 < 360 * hues["Annual Crop"][0] < 60
    assert hues["Highway"][2] == 0
    assert hues["Forest"][1] < hues["Pasture"][1] < hues["Herbaceous Vegetation"][1]
    assert hues["Sea Lake"][1] < hues["River"][1]


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
