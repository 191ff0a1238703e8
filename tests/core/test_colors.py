import numpy as np
import pytest

from geocfl.core.colors import distinct_colors, least_distances
from geocfl.core.legend import EUROSAT

VIENOT = {
    "red-blind": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "green-blind": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}
"""Another model of color-blind eyes: Vienot, Brettel and Mollon 1999, for linear red, green and blue."""


def test_distances_are_those_of_cielab() -> None:
    assert least_distances(["#000000"], ["#ffffff"]).item() == pytest.approx(100, abs=0.1)
    assert least_distances(["#777777"], ["#777777"]).item() == 0
    grays = least_distances(["#636363"], ["#777777"]).item()  # L* of 42.0 and 50.0, for all eyes
    assert grays == pytest.approx(8.0, abs=0.2)


def test_distances_are_those_of_the_eyes_that_see_least() -> None:
    # The colors of version 0.2: red-blind eyes saw Forest in Residential, green-blind eyes in Highway.
    assert least_distances(["#14532d"], ["#d7263d", "#4a4a4a"])[0] == pytest.approx([6.5, 14.6], abs=0.05)


@pytest.mark.parametrize("eyes", VIENOT)
def test_the_legend_is_clear_by_another_model_of_color_blindness_too(eyes: str) -> None:
    rgb = np.array([c.rgb for c in EUROSAT]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VIENOT[eyes]).T, 0, 1)
    shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    colors = ["#" + bytes(color).hex() for color in (255 * shown).round().astype(np.uint8)]
    assert least_distances(colors, colors)[np.triu_indices(len(colors), 1)].min() > 15


def test_new_colors_keep_their_distance_from_those_in_use() -> None:
    taken = [c.color for c in EUROSAT]
    chosen = distinct_colors(3, taken)
    assert least_distances(chosen, taken).min() > 20
    assert distinct_colors(2, taken) == chosen[:2]
    assert len(set(distinct_colors(150, taken))) == 150
