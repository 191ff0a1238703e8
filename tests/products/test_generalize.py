"""Small pieces merged, against the same rule written down plainly."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geocfl.core.legend import EUROSAT
from geocfl.products.generalize import merge_small
from geocfl.products.polygons import dissolve
from geocfl.products.scratch import NOVELTY, open_cells


def merged(tmp_path, cells, grid, hectares):
    merge_small(cells, tmp_path / "merged", grid, hectares)
    with open_cells(tmp_path / "merged") as dataset:
        return dataset.read()


def test_a_piece_goes_to_the_neighbor_of_the_longest_border(tmp_path, cells_of, grid_of):
    codes = np.array(
        [
            [1, 1, 1, 1, 2, 2],
            [1, 1, 1, 3, 2, 2],
            [1, 1, 1, 3, 2, 2],
            [1, 1, 1, 2, 2, 2],
        ]
    )
    confidence = np.arange(24).reshape(4, 6)
    result = merged(tmp_path, cells_of(codes, confidence), grid_of(codes), 100)
    expected = codes.copy()
    expected[codes == 3] = 1  # three sides to class 1, three to 2: the larger one, of 13 cells
    assert (result[0] == expected).all()
    assert (result[1] == confidence).all()


def test_what_no_data_surrounds_stays(tmp_path, cells_of, grid_of):
    codes = np.array([[1, 0, 2], [0, 0, 2]])
    assert (merged(tmp_path, cells_of(codes), grid_of(codes), 1e6)[0] == codes).all()


def plainly(codes, areas, rows, columns, least):
    """The smallest piece first, found anew in the whole map each time."""
    codes = codes.astype(int).copy()
    height, width = codes.shape
    stuck: set[tuple] = set()
    while True:
        pieces, cells_in = np.zeros_like(codes), [[]]
        for start in zip(*np.nonzero(codes), strict=True):
            if pieces[start]:
                continue
            number, todo, found = len(cells_in), [start], []
            pieces[start] = number
            while todo:
                i, j = todo.pop()
                found.append((i, j))
                for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= a < height and 0 <= b < width and not pieces[a, b] and codes[a, b] == codes[i, j]:
                        pieces[a, b] = number
                        todo.append((a, b))
            cells_in.append(found)
        sizes = [round(sum(areas[c] for c in found), 6) for found in cells_in]
        small = [n for n in range(1, len(cells_in)) if sizes[n] < least and tuple(sorted(cells_in[n])) not in stuck]
        if not small:
            return codes
        piece = min(small, key=lambda n: (sizes[n], min(cells_in[n])))
        borders: dict[int, float] = {}
        for i, j in cells_in[piece]:
            for a, b, side in (
                (i - 1, j, columns[j]),
                (i + 1, j, columns[j]),
                (i, j - 1, rows[i]),
                (i, j + 1, rows[i]),
            ):
                if 0 <= a < height and 0 <= b < width and pieces[a, b] not in (0, piece):
                    borders[pieces[a, b]] = borders.get(pieces[a, b], 0) + side
        if not borders:
            stuck.add(tuple(sorted(cells_in[piece])))
            continue
        target = max(borders, key=lambda n: (borders[n], sizes[n], -codes[cells_in[n][0]]))
        for cell in cells_in[piece]:
            codes[cell] = codes[cells_in[target][0]]


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_the_rule(tmp_path, cells_of, grid_of, data):
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    codes = data.draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255]), fill=st.nothing()))
    grid = grid_of(codes, 64, (data.draw(st.integers(1, 20)), data.draw(st.integers(21, 50))))
    rows, columns = grid.row_pixels(), grid.column_pixels()
    areas = grid.areas().rows.T @ grid.areas().columns
    least = data.draw(st.sampled_from([0.0, 30.0, 60.0, 100.0, 1000.0]))
    result = merged(tmp_path, cells_of(codes), grid, least)[0]
    frame = dissolve(tmp_path / "merged", grid, EUROSAT)
    assert frame.area_ha.sum() == pytest.approx(areas[codes != 0].sum())
    assert ((result == 0) == (codes == 0)).all()
    for piece in frame[frame.area_ha < least - 1e-9].itertuples():  # alone among cells without data
        others = frame[frame.index != piece.Index]
        assert not (others.intersection(piece.geom).length > 0).any()
    assert (result == plainly(codes, areas, rows, columns, least)).all()


def test_a_fragmented_tile_takes_seconds(tmp_path, cells_of, grid_of):
    codes = np.random.default_rng(0).integers(1, 11, (200, 200))
    result = merged(tmp_path, cells_of(codes), grid_of(codes, 16), 50)[0]
    frame = dissolve(tmp_path / "merged", grid_of(codes, 16), EUROSAT)
    assert frame.area_ha.min() >= 50
    assert (result == codes).mean() > 0.1


def test_merged_polygons_keep_the_novelty_of_the_cells(tmp_path, cells_of, grid_of):
    codes = np.array([[1, 1, 1], [1, 2, 1]])
    novelty = np.array([[10, 20, 30], [40, 80, 60]])
    cells = cells_of(codes, None, novelty, names=[NOVELTY])
    merge_small(cells, tmp_path / "merged", grid_of(codes), 50)
    (polygon,) = dissolve(tmp_path / "merged", grid_of(codes), EUROSAT).itertuples()
    assert (polygon.class_code, polygon.novelty, polygon.confidence) == (1, 40, 0.5)
