"""Maps whose truth is known, and samples with answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from geocfl.analysis.sampling import Sample
from geocfl.core.grid import CellGrid
from geocfl.core.legend import EUROSAT
from tests.analysis.test_zonal import write_map


def made_map(folder: Path, seed: int = 0, wrong: float = 0.12) -> tuple[Path, np.ndarray, CellGrid]:
    """A map of 60 x 80 cells in blocks of four classes and three cells of Sea Lake; its truth, and its grid."""
    rng = np.random.default_rng(seed)
    codes = np.kron(rng.choice([1, 2, 2, 2, 8, 9], size=(12, 16)), np.ones((5, 5), int)).astype(np.uint8)
    codes[0, :3] = 10
    codes[5:9, 5:9] = 0
    codes[20] = 255
    truth = codes.copy()
    flipped = rng.random(codes.shape) < wrong
    truth[flipped] = rng.choice([1, 2, 8, 9], int(flipped.sum()))
    path, grid = write_map(folder, codes, cut=(20, 30))
    return path, truth, grid


def answer(sample: Sample, truth: np.ndarray, *, leave: int = 0) -> None:
    """Answers all points from the truth, but the last `leave`, as QGIS does: in place."""
    names = [EUROSAT[int(truth[row, column])].name for row, column in sample.design.cells[:, :2]]
    put(sample.paths[0], dict(enumerate(names[: len(names) - leave], start=1)))


def put(path: Path, answers: Mapping[int, str | None]) -> None:
    """Writes answers by the number of the point."""
    change(path, *(f"UPDATE sample SET reference = {value!r} WHERE id = {key}" for key, value in answers.items()))


def change(path: Path, *statements: str) -> None:
    """Runs SQL on the GeoPackage; its triggers, which need functions of GDAL, are dropped."""
    with sqlite3.connect(path) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement in statements:
            connection.execute(statement.replace("None", "NULL"))
    connection.close()
