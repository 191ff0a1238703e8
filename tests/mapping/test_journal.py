"""What is kept after every strip, and what of it counts when it was cut short."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from geocfl.grid import CellGrid
from geocfl.mapping.journal import Journal

GRID = CellGrid(256, 192, 64, 64, Affine(10, 0, 3e5, 0, -10, 5e6), None)
FACTS = {"backend": "mine", "cell_rows": 1}


def add(journal: Journal, value: int) -> None:
    codes = np.full((1, 3), value, np.uint8)
    journal.append(codes, codes + 50, np.full((2, 64, 192), value / 10, np.float32), windows=3)


def started(folder: Path, strips: int = 2) -> Journal:
    journal = Journal(folder, GRID, 2, FACTS)
    for value in range(1, strips + 1):
        add(journal, value)
    return journal


def test_a_second_one_knows_what_is_done(tmp_path: Path) -> None:
    started(tmp_path)
    again = Journal(tmp_path, GRID, 2, FACTS)
    assert (again.row, again.windows) == (2, 6)
    assert again.cells.read_bytes() == bytes([1, 1, 1, 51, 51, 51, 2, 2, 2, 52, 52, 52])
    assert again.thumbnail().shape == (2, 128, 192)


def test_other_facts_begin_anew(tmp_path: Path) -> None:
    started(tmp_path)
    again = Journal(tmp_path, GRID, 2, FACTS | {"backend": "another"})
    assert (again.row, again.windows) == (0, 0)
    assert again.cells.stat().st_size == 0
    assert again.thumbnail().shape == (2, 0, 192)


@pytest.mark.parametrize("tail", ['{"row": 3, "win', '{"row"', ""])
def test_a_strip_counts_from_when_its_line_is_whole(tmp_path: Path, tail: str) -> None:
    """Killed after the pixels of the third strip, and within its line."""
    journal = started(tmp_path)
    log = tmp_path / "journal.jsonl"
    before = log.read_text()
    add(journal, 3)
    log.write_text(before + tail)
    again = Journal(tmp_path, GRID, 2, FACTS)
    assert again.row == 2
    assert again.cells.stat().st_size == 12
    add(again, 7)
    assert again.cells.read_bytes()[-6:] == bytes([7, 7, 7, 57, 57, 57])
    np.testing.assert_allclose(again.thumbnail()[:, 128:], 0.7)


@pytest.mark.parametrize("name", ["cells", "thumbnail"])
def test_lost_pixels_begin_anew(tmp_path: Path, name: str) -> None:
    started(tmp_path)
    (tmp_path / name).write_bytes(b"")
    assert Journal(tmp_path, GRID, 2, FACTS).row == 0


def test_garbage_begins_anew(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "journal.jsonl").write_bytes(b"\x00\xff\n")
    assert Journal(tmp_path, GRID, 2, FACTS).row == 0


def test_it_leaves_nothing(tmp_path: Path) -> None:
    started(tmp_path).delete()
    assert not list(tmp_path.iterdir())
