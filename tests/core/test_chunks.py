from __future__ import annotations

import numpy as np
import pytest

from geocfl.core import chunks


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (7, 5), (100, 3), (40, 1000)])
def test_each_row_is_computed_once(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 100)
    counts = np.zeros(shape, int)

    def work(rows: slice) -> None:
        counts[rows] += 1

    chunks.in_chunks(work, *shape)
    assert (counts == 1).all()


def test_an_error_of_a_chunk_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 10)

    def work(rows: slice) -> None:
        if rows.start == 30:
            raise ValueError("row 30")

    with pytest.raises(ValueError, match="row 30"):
        chunks.in_chunks(work, 50, 1)
