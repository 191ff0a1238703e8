"""The memory that a run may use, and the strip height that fits into it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from geocfl.core.grid import CellGrid
from geocfl.core.lack import lacks_memory
from geocfl.core.machine import free_memory
from geocfl.errors import SceneError, UsageError

STRIP_ROWS = 1024
"""Pixel rows of a strip if memory allows: enough to keep the classifier busy, few enough to start soon."""
RESERVE = 250_000_000
"""Bytes for everything but strips: the classifier beyond its first batches, GDAL, and the products, whose libraries are
imported when the first map is written and take 150 MB."""
WORKING = 1_000_000_000
"""Bytes that a classifier takes for its first batches at most, unless it is far larger than the built-in ones."""
SHARE = 0.25
"""Fraction of the free memory to use if the user sets no limit."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def memory_budget(memory: int | str | None, sharers: int = 1) -> int:
    """Bytes that a process may use: what the user allows, else a quarter of what is free.

    Args:
        memory: Bytes, or text such as ``"2GB"``, ``"1.5 G"`` or ``"800MB"``; None if the user sets no limit.
        sharers: Processes of geocfl on this machine, which share the quarter.

    Raises:
        UsageError: It is not a size.
    """
    if memory is None:
        return int(free_memory() * SHARE / sharers) + resident()
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(memory), re.IGNORECASE)
    if not found or not float(found[1]):
        raise UsageError(f"`memory` is {memory!r} but must be a size, such as 2GB or 800MB")
    return int(min(float(found[1]), sys.maxsize) * _UNITS[found[2].upper()])


@contextmanager
def within_memory(path: str) -> Iterator[None]:
    """Turns a lack of memory in the block, on whatever device, into an error that names the scene.

    Raises:
        SceneError: Memory could not be allocated.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch and OpenVINO raise RuntimeErrors
        if not lacks_memory(error):
            raise
        raise SceneError(
            f"{path}: the memory is not enough; use a smaller `batch_size`, or free some memory"
        ) from error


def resident() -> int:
    """Resident memory of this process, bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def strip_bytes(grid: CellGrid, bands: int, itemsize: int, cell_rows: int, block_rows: int) -> int:
    """Peak memory of reading strips, bytes.

    Args:
        grid: The cells.
        bands: Bands read.
        itemsize: Bytes of a digital number.
        cell_rows: Rows of cells in a strip.
        block_rows: Pixel rows of the file's blocks.
    """
    width = grid.width + 2 * grid.footprint
    own = min(grid.height, cell_rows * grid.stride)
    aligned = block_rows if block_rows <= own else 0
    held = own + grid.footprint + aligned
    # One strip is in use, and the next is made from it, its digital numbers and its masks. If the file's blocks are
    # higher than strips, GDAL caches a row of blocks.
    strips = 3 * held * width * bands * 4
    reading = (own + aligned) * grid.width * (bands * itemsize + 4)
    cached = 0 if aligned else min(grid.height, block_rows) * grid.width * bands * itemsize
    return strips + reading + cached


def efficient_rows(grid: CellGrid, multiple: int = 1) -> int:
    """Rows of cells per strip if memory allows; the arguments are those of `choose_cell_rows`."""
    return max(1, min(-(-grid.rows // multiple), STRIP_ROWS // grid.stride // multiple)) * multiple


def choose_cell_rows(grid: CellGrid, bands: int, itemsize: int, block_rows: int, budget: int, multiple: int = 1) -> int:
    """Rows of cells per strip: as many as are efficient and fit into memory.

    Args:
        grid: The cells.
        bands: Bands read.
        itemsize: Bytes of a digital number.
        block_rows: Pixel rows of the file's blocks.
        budget: Bytes for strips.
        multiple: What the number of rows must be a multiple of.

    Raises:
        UsageError: Not even the fewest rows of cells fit.
    """

    def fits(rows: int) -> bool:
        return strip_bytes(grid, bands, itemsize, rows, block_rows) <= budget

    rows = efficient_rows(grid, multiple)
    while rows > multiple and not fits(rows):
        rows = max(1, rows // 2 // multiple) * multiple
    if not fits(rows):
        needed = strip_bytes(grid, bands, itemsize, rows, block_rows) - budget
        raise UsageError(
            f"`memory` is too little for a scene of this width, which needs {needed / 1e6:.0f} MB more; raise it, "
            "or, if you did not set it, close other programs",
            page="how-to/memory/",
        )
    return rows
