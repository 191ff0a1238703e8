"""The figures of patches in a report: the most confident errors, and samples of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from geocfl.core.legend import Legend, LulcClass
from geocfl.data.patches import RGB, Patches
from geocfl.evaluation.plots import FAINT, INK, MUTED, percent

PATCH_DPI = 200
"""Resolution of the figures with patches: a patch has a multiple of 64 px, so that its pixels are equally large."""
MAX_ERRORS, MAX_ERRORS_PER_PAIR, ERROR_COLUMNS = 24, 3, 6
"""Largest number of errors shown, of those with the same true and predicted class, and of those in a row."""
SAMPLES, SAMPLED_CLASSES, CLASS_COLUMNS = 4, 60, 5
"""Patches shown per class, classes shown (the first of the legend), and classes in a row."""
WHITE, GAMMA = 0.3, 1.25
"""Largest reflectance shown as white, and the gamma that brightens dark pixels, such as most land."""


def true_color(reflectance: NDArray[np.floating], bands: Sequence[str], white: float) -> NDArray[np.float64]:
    """Patches in true color from B04, B03 and B02, or else their first band in gray.

    Args:
        reflectance: (N, B, H, W); NaN is shown black.
        bands: Names of the B bands.
        white: Reflectance shown as white; `WHITE` is used where it is larger.

    Returns:
        (N, H, W, 3), 0..1.
    """
    chosen = [bands.index(band) for band in RGB] if set(RGB) <= set(bands) else [0, 0, 0]
    shown = np.nan_to_num(reflectance[:, chosen].astype(np.float64)) / min(white, WHITE)
    colors: NDArray[np.float64] = shown.clip(0, 1).transpose(0, 2, 3, 1) ** (1 / GAMMA)
    return colors


def confident_errors(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most confident errors, spread over the classes.

    Args:
        probabilities: (N, C) of the classes.
        labels: (N,) true classes, 0..C-1.

    Returns:
        (n,) rows of errors, n <= `MAX_ERRORS`, the most confident first, with at most `MAX_ERRORS_PER_PAIR` of each
        pair of true and predicted class.
    """
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    pairs: dict[tuple[int, int], int] = {}
    chosen = []
    for row in wrong:
        pair = int(labels[row]), int(predicted[row])
        pairs[pair] = pairs.get(pair, 0) + 1
        if pairs[pair] <= MAX_ERRORS_PER_PAIR:
            chosen.append(row)
    return np.array(chosen[:MAX_ERRORS], dtype=np.int64)


def errors_figure(
    patches: Patches,
    indices: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    legend: Legend,
    white: float = WHITE,
) -> Figure | None:
    """Misclassified patches with their true and predicted classes.

    Args:
        patches: The data set.
        indices: (N,) indices of the classified patches.
        probabilities: (N, C) of the classes, in the order of `indices`.
        legend: The C classes.
        white: Reflectance shown as white, see `true_color`.

    Returns:
        The figure; None if there is no error.
    """
    rows = confident_errors(probabilities, patches.labels[indices])
    if not len(rows):
        return None
    side, strip, lines, gap, head = 1.28, 0.2, 0.36, 0.16, 0.26
    colors = true_color(patches.reflectance(indices[rows]), patches.bands, white)
    columns, step = min(ERROR_COLUMNS, max(len(rows), 3)), 2 * strip + side + lines + gap
    figure, axes = _canvas(columns * (side + gap) - gap, head + -(-len(rows) // columns) * step - gap)
    axes.text(0, head / 2, "Above each patch: true class; below: predicted class", va="center", fontsize=8)
    for place, (row, image) in enumerate(zip(rows, colors, strict=True)):
        x, y = place % columns * (side + gap), head + place // columns * step
        predicted = int(probabilities[row].argmax())
        _draw_strip(axes, x, y, side, strip, legend[int(patches.labels[indices[row]]) + 1])
        _draw_patch(axes, x, y + strip, side, image)
        _draw_strip(axes, x, y + strip + side, side, strip, legend[predicted + 1])
        confidence, below = f"confidence {percent(probabilities[row, predicted])}", y + 2 * strip + side
        axes.text(x + side / 2, below + 0.1, confidence, ha="center", va="center", fontsize=7)
        name = _shorten(PurePath(patches.names[indices[row]]).name, 32)
        axes.text(x + side / 2, below + 0.25, name, ha="center", va="center", fontsize=5.2, color=MUTED)
    return figure


def samples_figure(patches: Patches, indices: NDArray[np.int64], legend: Legend, white: float = WHITE) -> Figure:
    """A few patches of each class, always the same ones for the same `indices`.

    Args:
        patches: The data set.
        indices: Indices of the patches to choose from.
        legend: Their classes; the first `SAMPLED_CLASSES` are shown.
        white: Reflectance shown as white, see `true_color`.
    """
    side, strip, gap, between = 0.96, 0.25, 0.02, 0.16
    shown = list(legend)[:SAMPLED_CLASSES]
    width, height, columns = 2 * side + gap, strip + 2 * (side + gap), min(CLASS_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = _canvas(columns * (width + between) - between, rows * (height + between) - between)
    for place, lulc in enumerate(shown):
        x, y = place % columns * (width + between), place // columns * (height + between)
        members = indices[patches.labels[indices] == lulc.code - 1]
        chosen = np.sort(np.random.default_rng(lulc.code).permutation(members)[:SAMPLES])
        axes.add_patch(Rectangle((x, y), width, height, color=FAINT, linewidth=0, zorder=-1))
        _draw_strip(axes, x, y, width, strip, lulc)
        if not len(chosen):
            axes.text(x + width / 2, y + height / 2, "no patches", ha="center", fontsize=8, color=MUTED)
            continue
        for number, image in enumerate(true_color(patches.reflectance(chosen), patches.bands, white)):
            down, right = divmod(number, 2)
            _draw_patch(axes, x + right * (side + gap), y + strip + gap + down * (side + gap), side, image)
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches with a margin, and axes in inches from the top left corner."""
    margin = 0.1
    figure = Figure(figsize=(width + 2 * margin, height + 2 * margin), dpi=PATCH_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
    return figure, axes


def _draw_patch(axes: Axes, x: float, y: float, side: float, image: NDArray[np.float64]) -> None:
    # "none" keeps the pixels of a patch in an SVG; "nearest" would resample them.
    axes.imshow(image, extent=(x, x + side, y + side, y), interpolation="none", aspect="auto")


def _draw_strip(axes: Axes, x: float, y: float, width: float, height: float, lulc: LulcClass) -> None:
    """The name of a class on its color; the text scales with the strip."""
    axes.add_patch(Rectangle((x, y), width, height, color=lulc.color, linewidth=0))
    luminance = float(np.dot(to_rgb(lulc.color), (0.299, 0.587, 0.114)))
    ink = INK if luminance > 0.55 else "white"
    where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 35 * height, "color": ink}
    axes.text(x + width / 2, y + height / 2, _shorten(lulc.name, 24), **where)


def _shorten(text: str, most: int) -> str:
    """Text with its middle left out if it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2]}\N{HORIZONTAL ELLIPSIS}{text[-(most // 2 - 1) :]}"
