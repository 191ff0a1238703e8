"""Divides a large scene into blocks of rows, and classifies one block."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from geocfl.core.progress import Progress, silent
from geocfl.errors import resumable
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.mapper import Mapper, cells_of
from geocfl.mapping.measured import Measured
from geocfl.products.formats.truecolor import thumbnail_step
from geocfl.products.lock import BusyError
from geocfl.scenes import Source

BLOCK_WINDOWS = 100_000
"""Windows in a block, roughly: minutes of work, so that the seconds of starting and joining a block do not matter."""


def divide(mapper: Mapper, source: Source, out: str | Path, *, overwrite: bool, windows: int) -> Blocks | None:
    """Divides a large scene that is not yet mapped; None if it is small or already classified.

    None also if no folder is there for blocks that all tasks see: `out` is in an object store, and the mapper's `work`
    is none or in one, too.

    Args:
        mapper: Maps the scene.
        source: The scene.
        out: Output folder, visible to all tasks.
        overwrite: As for `geocfl.map_scene`.
        windows: Approximate number of windows per block.

    Raises:
        GeocflError: The scene cannot be read, or its products exist already.
    """
    if not mapper.orders.is_shared(out):
        return None
    with mapper.opened(source) as scene:
        grid = cells_of(scene, mapper.model, mapper.settings.stride)
        if grid.rows * grid.columns <= windows:
            return None
        update = mapper.orders.update(source, out, mapper.orders.order(out, scene), overwrite=overwrite)
        with mapper.orders.staging(source, out, update, overwrite=overwrite) as staging:
            if staging.state == "done" or mapper.held(update, staging).suffice:
                return None
            strip = mapper.classifier.cell_rows(scene, grid)
            step = max(1, round(windows / (strip * grid.columns))) * strip
            starts = range(0, grid.rows, step)
            step_shown = thumbnail_step(grid, detail=update.detail)
            return Blocks(staging.folder, strip, step_shown, tuple((row, min(row + step, grid.rows)) for row in starts))


def classify_block(
    mapper: Mapper,
    source: Source,
    blocks: Blocks,
    first: int,
    last: int,
    progress: Progress = silent,
    measured: Measured | None = None,
) -> None:
    """Classifies a block unless it exists. Its folder appears all at once, so two workers may do the same block.

    After a transient error, or if `progress` stops the work, the finished strips are kept for the next attempt.

    Raises:
        BusyError: Another process mapped the same scene and removed the partial folder.
        GeocflError: The scene cannot be read.
    """
    whole, measured = blocks.folder(first), measured or Measured()
    measured.stage = "open"
    if whole.exists():
        return
    attempt, kept = whole.with_name(f"{whole.name}.{uuid.uuid4().hex[:8]}"), whole.with_name(f"{whole.name}.kept")
    try:
        try:
            os.rename(kept, attempt)
        except FileNotFoundError:
            attempt.mkdir()
    except FileNotFoundError as error:
        raise BusyError(
            f"{blocks.parent}: removed by another geocfl that maps the same scene; let one of them finish"
        ) from error
    try:
        with mapper.opened(source) as scene, measured.reading(scene):
            grid = cells_of(scene, mapper.model, mapper.settings.stride)
            checkpoint = mapper.classifier.checkpoint(attempt, grid, blocks.cell_rows, blocks.thumbnail_step, first)
            resumed, measured.stage = checkpoint.windows, "classify"
            seconds = mapper.classifier.classify(scene, grid, blocks.cell_rows, checkpoint, progress, last=last)
            measured.seconds["classify"], measured.windows = seconds, checkpoint.windows - resumed
        try:
            os.rename(attempt, whole)
        except OSError:  # another worker was faster
            if not whole.exists():
                raise
    except BaseException as error:
        if resumable(error):
            with suppress(OSError):  # another worker has kept its strips
                os.rename(attempt, kept)
        raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
