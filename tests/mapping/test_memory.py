"""Sizes as users write them, and strips that fit."""

import pytest
from affine import Affine

from geocfl.core.grid import CellGrid
from geocfl.errors import SceneError, UsageError
from geocfl.mapping.memory import (
    STRIP_ROWS,
    choose_cell_rows,
    memory_budget,
    resident,
    strip_bytes,
    within_memory,
)


def grid(width: int, stride: int = 64, height: int = 10_980) -> CellGrid:
    return CellGrid(height, width, stride, 64, Affine(10, 0, 3e5, 0, -10, 5e6), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2e9), ("1.5 gb", 1.5e9), ("800MB", 8e8), ("800M", 8e8), ("2GiB", 2e9), ("1000000", 1e6), ("3k", 3e3)],
)
def test_sizes(text: str, expected: float) -> None:
    assert memory_budget(text) == expected


@pytest.mark.parametrize("text", ["much", "-1GB", "0GB", "2 XB", "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="2GB"):
        memory_budget(text)


def test_by_default_a_quarter_of_what_is_free() -> None:
    import psutil

    assert resident() < memory_budget(None) < resident() + 0.5 * psutil.virtual_memory().total


@pytest.mark.parametrize("width", [64, 10_980, 40_000])
@pytest.mark.parametrize("stride", [1, 16, 64])
@pytest.mark.parametrize("block_rows", [1, 512, 10_980])
def test_strips_are_as_high_as_fits(width: int, stride: int, block_rows: int) -> None:
    cells = grid(width, stride)
    tried = []
    for budget in (10**9, 3 * 10**9, 10**11):
        try:
            rows = choose_cell_rows(cells, 3, 2, block_rows, budget)
        except UsageError:
            assert strip_bytes(cells, 3, 2, 1, block_rows) > budget
            continue
        assert strip_bytes(cells, 3, 2, rows, block_rows) <= budget
        tried.append(rows)
    assert tried == sorted(tried)
    assert tried[-1] == STRIP_ROWS // stride


def test_too_little_is_said_with_what_is_missing() -> None:
    with pytest.raises(UsageError, match=r"`memory` is too little for a scene of this width, which needs \d+ MB more"):
        choose_cell_rows(grid(40_000), 3, 2, 512, 10**7)


@pytest.mark.parametrize("stride", [7, 16, 30])
def test_strips_of_an_even_number_of_rows(stride: int) -> None:
    cells = grid(10_980, stride)
    for megabytes in range(60, 1500, 20):
        budget = megabytes * 10**6
        if strip_bytes(cells, 3, 2, 2, 512) > budget:
            with pytest.raises(UsageError, match="too little"):
                choose_cell_rows(cells, 3, 2, 512, budget, multiple=2)
            continue
        rows = choose_cell_rows(cells, 3, 2, 512, budget, multiple=2)
        assert rows % 2 == 0
        assert strip_bytes(cells, 3, 2, rows, 512) <= budget
    assert choose_cell_rows(grid(640, 30, height=70), 3, 2, 512, 10**9, multiple=2) == 4


@pytest.mark.parametrize("memory", ["9" * 400, "9" * 400 + "TB", 10**400])
def test_absurd_memory_is_no_limit(memory: int | str) -> None:
    assert memory_budget(memory) > 10**18


def test_a_lack_of_memory_is_one_sentence() -> None:
    import torch

    message = r"^s\.tif: the memory is not enough; use a smaller `batch_size`"
    for allocate in (lambda: bytearray(1 << 60), lambda: torch.empty(1 << 58)):
        with pytest.raises(SceneError, match=message), within_memory("s.tif"):
            allocate()
    with pytest.raises(RuntimeError, match="shape"), within_memory("s.tif"):
        raise RuntimeError("shape")
