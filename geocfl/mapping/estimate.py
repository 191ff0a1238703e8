"""What a stride means for a scene: cells, time and memory, in one line."""

from __future__ import annotations

from geocfl.core.grid import CellGrid

COMMON_STRIDES = (64, 32, 16)


def stride_estimate(
    name: str,
    grid: CellGrid,
    gsd: float,
    share: float,
    rate: float,
    memory: int,
    *,
    interpolate: bool = False,
    dense: bool = False,
) -> str:
    """One line with cell size, cells and time at the chosen stride and at the common ones, and the memory needed.

    Args:
        name: The scene's name.
        grid: Its cells.
        gsd: Meters per pixel.
        share: Share of the scene's pixels with data, 0..1; windows without data are not classified.
        rate: Windows per second.
        memory: Peak memory of the process, bytes.
        interpolate: Whether only a quarter of the cells is classified, where the stride allows it.
        dense: Whether the model is dense: its time does not depend on the stride.
    """

    def line(stride: int, note: str = "") -> str:
        cells = -(-grid.height // stride) * -(-grid.width // stride)
        windows = cells / 4 if interpolate and 2 * stride <= grid.window else cells
        if dense:
            windows = cells * (stride / grid.window) ** 2
        return f"{cells:,} cells of {stride * gsd:g} m{note}, about {_duration(share * windows / rate)}"

    others = [f"`stride={stride}`: {line(stride)}" for stride in COMMON_STRIDES if stride != grid.stride]
    own = line(grid.stride, "" if share > 0.995 else f" ({share:.0%} with data)")
    return f"{name}: {own}, {memory / 1e9:.1f} GB of memory ({'; '.join(others)})"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
