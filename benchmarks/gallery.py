"""Draws the map of a real scene for the documentation's gallery, with numbers beside its errors.

    python benchmarks/gallery.py scene.tif picture.png [--title "Aquileia"] [--offset -1000] [--mark COLUMN,ROW ...]

The map has a stride of 16 pixels and is computed in float32, so it is the same on every processor. Marks are pixels of
the scene, after warping if it was warped; they are numbered in the order given. The script prints the class table.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before anything draws: no window

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import geocfl

STRIDE = 16


def draw(scene_map: geocfl.SceneMap, picture: Path, title: str, marks: list[tuple[float, float]]) -> None:
    """Writes the map as a PNG.

    Args:
        scene_map: A map with a stride of `STRIDE`.
        picture: The PNG to write.
        title: Headline.
        marks: (column, row) of the scene's pixels to number, from 1.
    """
    rows, columns = scene_map.lulc.shape
    figure, axes = plt.subplots(figsize=(9, 1 + 6.3 * rows / columns), layout="compressed")
    scene_map.plot(axes)
    axes.set(xticks=[], yticks=[], title="")
    axes.set_title(title, loc="left")
    for number, (column, row) in enumerate(marks, 1):
        number_at(axes, number, scene_map.transform @ (column / STRIDE, row / STRIDE))
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def number_at(axes: Axes, number: int, point: tuple[float, float]) -> None:
    """Draws a number in a white circle at a point of the map."""
    circle = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "black"}
    axes.text(*point, str(number), fontsize=9, weight="bold", ha="center", va="center", bbox=circle)


def pixel(text: str) -> tuple[float, float]:
    """Reads ``"column,row"``."""
    column, row = (float(part) for part in text.split(","))
    return column, row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--title", default="")
    parser.add_argument("--offset", type=float, help="as for geocfl map")
    parser.add_argument("--mark", type=pixel, nargs="*", default=[], metavar="COLUMN,ROW")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene_map = geocfl.map_scene(
            options.scene, folder, stride=STRIDE, offset=options.offset, precision="float32", allow_no_crs=True
        )
        draw(scene_map, options.picture, options.title or options.scene.stem, options.mark)
        print(scene_map.table())


if __name__ == "__main__":
    main()
