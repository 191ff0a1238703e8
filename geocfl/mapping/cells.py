"""The cells of a map: read back from the finished map where its files suffice, else classified."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geocfl.core.ahead import import_ahead
from geocfl.core.grid import CellGrid
from geocfl.core.progress import Progress
from geocfl.errors import OutputError, SceneError
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.checkpoint import CHECKPOINT, Checkpoint
from geocfl.mapping.classifier import Classifier
from geocfl.mapping.memory import resident
from geocfl.mapping.saved import SavedCheckpoint
from geocfl.mapping.strips import scene_strips
from geocfl.products.files import FILES
from geocfl.products.formats.truecolor import thumbnail_step
from geocfl.products.restore import MapCells
from geocfl.products.scratch import BANDS
from geocfl.products.staging import Staging
from geocfl.products.update import Update
from geocfl.scenes import Scene

log = logging.getLogger("geocfl")


@dataclass(frozen=True)
class Cells:
    """Cells that products are made from.

    Attributes:
        path: Work raster.
        thumbnail: (h, w, 3) reflectance of every n-th pixel of the scene; empty if it is not needed.
        classifier: The back ends that classified them.
        masked: Cells left empty because of the mask.
        windows: Windows classified for them now.
        seconds: How long that took.
        restored: Whether they come from the finished map.
    """

    path: Path
    thumbnail: NDArray[np.float32]
    classifier: str
    masked: int
    windows: int
    seconds: float
    restored: bool


def restored(
    classifier: Classifier,
    scene: Scene,
    grid: CellGrid,
    held: MapCells,
    update: Update,
    folder: Path,
    progress: Progress,
) -> Cells | None:
    """The cells of the finished map, as far as they are needed; None if the scene must be classified."""
    summary = update.summary
    if summary is None:
        return None
    started, path = time.perf_counter(), folder / "cells-held"
    if not held.suffice or not held.write(path, grid):
        lacking = ", ".join("classes" if name == "code" else name for name in sorted(held.missing)) or "readable cells"
        log.log(classifier.level, "%s: classified again, because its map holds no %s", scene.name, lacking)
        return None
    also = "; the scene is read for its picture" if update.pictures else ""
    log.log(classifier.level, "%s: products are made from the finished map, without classification%s", scene.name, also)
    thumbnail = np.empty((0, 0, len(classifier.shown)), np.float32)
    if update.pictures:
        thumbnail = _picture(classifier, scene, grid, update, folder, progress)
    seconds = time.perf_counter() - started
    return Cells(path, thumbnail, summary["settings"]["classifier"], summary["masked_cells"], 0, seconds, True)


def _picture(
    classifier: Classifier, scene: Scene, grid: CellGrid, update: Update, folder: Path, progress: Progress
) -> NDArray[np.float32]:
    """Reads the scene for its thumbnail only."""
    rows = classifier.picture_rows(scene, grid)
    step = thumbnail_step(grid, detail=update.detail)
    checkpoint = Checkpoint(
        folder, grid, classifier.shown, {"picture": rows}, cell_bands=BANDS[:1], thumbnail_step=step
    )
    for strip in scene_strips(
        scene, classifier.model.bands, grid, rows, checkpoint.row, classifier.settings.max_masked
    ):
        checkpoint.append(np.zeros((1, *strip.valid.shape), np.uint8), strip.inside, 0)
        progress(scene.name, checkpoint.row * grid.columns, grid.rows * grid.columns, "window")
    return checkpoint.thumbnail()


def classified(
    classifier: Classifier,
    scene: Scene,
    grid: CellGrid,
    update: Update,
    folder: Path,
    blocks: Blocks | None,
    saved: SavedCheckpoint | None,
    progress: Progress,
) -> Cells:
    """Classifies what is not classified yet."""
    if saved and blocks is None:
        saved.fetch(folder)
    checkpoint, rows = _begin(classifier, scene, grid, update, folder, blocks, saved)
    resumed = checkpoint.windows
    loaded = resident()

    def paced(rate: float) -> None:
        import_ahead("geocfl.products.write")
        classifier.announce(scene, grid, rows, loaded, rate)

    with saved.kept(folder) if saved else nullcontext():
        seconds = classifier.classify(scene, grid, rows, checkpoint, progress, paced=paced)
        _refuse_empty(scene, checkpoint)
    return Cells(
        checkpoint.cells,
        checkpoint.thumbnail(),
        ", then ".join([*checkpoint.earlier, repr(classifier.backend)]),
        checkpoint.masked,
        checkpoint.windows - resumed,
        seconds,
        False,
    )


def _begin(
    classifier: Classifier,
    scene: Scene,
    grid: CellGrid,
    update: Update,
    folder: Path,
    blocks: Blocks | None,
    saved: SavedCheckpoint | None,
) -> tuple[Checkpoint, int]:
    """The scene's checkpoint, with the rows of `blocks` if there are any, and the rows of cells in a strip."""
    step = thumbnail_step(grid, detail=update.detail)
    if blocks is None:
        rows = classifier.cell_rows(scene, grid)
        log.log(classifier.level, "%r", classifier.backend)
        appended = partial(saved.save_sometimes, folder) if saved else lambda: None
        return classifier.checkpoint(folder, grid, rows, step, appended=appended), rows
    (folder / CHECKPOINT).unlink(missing_ok=True)  # blocks begin at the first row
    checkpoint = classifier.checkpoint(folder, grid, blocks.cell_rows, step)
    checkpoint.join([blocks.folder(first) for first, _ in blocks.rows])
    return checkpoint, blocks.cell_rows


def _refuse_empty(scene: Scene, checkpoint: Checkpoint) -> None:
    """Raises SceneError if no window was classified."""
    if not checkpoint.windows:
        remedy = "raise `max_masked`" if checkpoint.masked else "check the scene's nodata value"
        raise SceneError(
            f"{scene.path}: no cell has data in half of its pixels, so there is nothing to map; {remedy}",
            page="how-to/clouds/",
        )


def refuse_others(held: MapCells, cells: Path, grid: CellGrid, staging: Staging) -> None:
    """Raises OutputError if cells differ from those of the finished map whose files stay."""
    try:
        agree = held.agree(cells, grid)
    except (RasterioError, OSError, ValueError):
        agree = False
    if not agree:
        raise OutputError(
            f"{staging.target(FILES['summary'])}: the cells of this map were classified on another device or are "
            "damaged, so that no product can be added; use `redo=True` to map the scene again",
            page="how-to/resume/",
        )
