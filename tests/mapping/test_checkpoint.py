"""What is kept after every strip, and what of it counts when it was cut short."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from geocfl.core.grid import CellGrid
from geocfl.mapping.checkpoint import Checkpoint

GRID = CellGrid(256, 192, 64, 64, Affine(10, 0, 3e5, 0, -10, 5e6), None)
FACTS = {"backend": "mine", "cell_rows": 1}


def add(checkpoint: Checkpoint, value: int) -> None:
    codes = np.full((1, 3), value, np.uint8)
    inside = np.full((3, 64, 192), value / 10, np.float32)
    inside[2] += 1
    checkpoint.append(np.stack([codes, codes + 50]), inside, windows=3)


def started(folder: Path, strips: int = 2) -> Checkpoint:
    checkpoint = Checkpoint(folder, GRID, (0, 2), FACTS)
    for value in range(1, strips + 1):
        add(checkpoint, value)
    return checkpoint


def test_a_second_one_knows_what_is_done(tmp_path: Path) -> None:
    started(tmp_path)
    again = Checkpoint(tmp_path, GRID, (0, 2), FACTS)
    assert (again.row, again.windows) == (2, 6)
    assert again.cells.read_bytes() == bytes([1, 1, 1, 51, 51, 51, 2, 2, 2, 52, 52, 52])
    assert again.thumbnail().shape == (128, 192, 2)


def test_other_facts_begin_anew(tmp_path: Path) -> None:
    started(tmp_path)
    again = Checkpoint(tmp_path, GRID, (0, 2), FACTS | {"backend": "another"})
    assert (again.row, again.windows) == (0, 0)
    assert again.cells.stat().st_size == 0
    assert again.thumbnail().shape == (0, 192, 2)


def test_a_cpu_goes_on_where_a_gpu_is_gone(tmp_path: Path) -> None:
    gpu = {"backend": "torch on cuda", "cell_rows": 1, "gpu": True}
    checkpoint = Checkpoint(tmp_path, GRID, (0, 2), gpu)
    add(checkpoint, 1)
    add(checkpoint, 2)
    cpu = {"backend": "openvino on cpu", "cell_rows": 2, "gpu": False}
    for _ in range(2):  # it may be interrupted again
        again = Checkpoint(tmp_path, GRID, (0, 2), cpu)
        assert (again.row, again.windows, again.earlier) == (2, 6, ["torch on cuda"])
    add(again, 3)
    last = Checkpoint(tmp_path, GRID, (0, 2), cpu)
    assert last.row == 3
    assert last.cells.read_bytes()[:6] == bytes([1, 1, 1, 51, 51, 51])
    other = Checkpoint(tmp_path, GRID, (0, 2), gpu)
    assert (other.row, other.earlier) == (0, []), "a GPU begins anew after a CPU"


def test_rows_that_end_within_a_strip_of_the_cpu_begin_anew(tmp_path: Path) -> None:
    add(Checkpoint(tmp_path, GRID, (0, 2), {"backend": "g", "cell_rows": 1, "gpu": True}), 1)
    again = Checkpoint(tmp_path, GRID, (0, 2), {"backend": "c", "cell_rows": 2, "gpu": False})
    assert (again.row, again.earlier) == (0, [])


@pytest.mark.parametrize("tail", ['{"row": 3, "win', '{"row"', ""])
def test_a_strip_counts_from_when_its_line_is_whole(tmp_path: Path, tail: str) -> None:
    """Killed after the pixels of the third strip, and within its line."""
    checkpoint = started(tmp_path)
    log = tmp_path / "checkpoint.jsonl"
    before = log.read_text()
    add(checkpoint, 3)
    log.write_text(before + tail)
    again = Checkpoint(tmp_path, GRID, (0, 2), FACTS)
    assert again.row == 2
    assert again.cells.stat().st_size == 12
    add(again, 7)
    assert again.cells.read_bytes()[-6:] == bytes([7, 7, 7, 57, 57, 57])
    np.testing.assert_allclose(again.thumbnail()[128:, :, 0], 0.7)
    np.testing.assert_allclose(again.thumbnail()[128:, :, 1], 1.7)


@pytest.mark.parametrize("name", ["cells", "thumbnail"])
def test_lost_pixels_begin_anew(tmp_path: Path, name: str) -> None:
    started(tmp_path)
    (tmp_path / name).write_bytes(b"")
    assert Checkpoint(tmp_path, GRID, (0, 2), FACTS).row == 0


def test_garbage_begins_anew(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "checkpoint.jsonl").write_bytes(b"\x00\xff\n")
    assert Checkpoint(tmp_path, GRID, (0, 2), FACTS).row == 0


def test_cells_may_have_more_values(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, GRID, [0], FACTS, cell_bands=[*"abcd"])
    values = np.arange(12, dtype=np.uint8).reshape(4, 1, 3)
    checkpoint.append(values, np.zeros((1, 64, 192), np.float32), windows=3)
    assert checkpoint.cells.read_bytes() == bytes(range(12))
    assert Checkpoint(tmp_path, GRID, [0], FACTS, cell_bands=[*"abcd"]).row == 1
