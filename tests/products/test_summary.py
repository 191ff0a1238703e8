import json

import numpy as np
import pytest

from geocfl.core.legend import EUROSAT
from geocfl.products import scratch as work
from geocfl.products.summary import class_table, format_table


def test_counts_cells_cut_at_the_scene(cells_of, grid_of):
    codes = np.array([[1, 1, 2], [0, 255, 2]])
    grid = grid_of(codes, stride=64, cut=(14, 24))
    confidence = np.array([[40, 60, 80], [255, 30, 100]])
    table = class_table(cells_of(codes, confidence), grid, EUROSAT)

    crop, forest = table["classes"][:2]
    assert crop == {
        "code": 1,
        "name": "Annual Crop",
        "cells": 2,
        "pixels": 2 * 64 * 64,
        "hectares": pytest.approx(2 * 40.96),
        "share": pytest.approx(2 * 64 * 64 / (2 * 64 * 64 + 40 * (64 + 50))),
        "confidence": 0.5,
    }
    assert forest["pixels"] == 40 * (64 + 50)
    assert forest["confidence"] == 0.9
    assert table["nodata"] == {"cells": 1, "pixels": 64 * 50, "hectares": pytest.approx(32)}
    assert table["unclassified"]["cells"] == 1
    assert table["total"] == {
        "cells": 6,
        "pixels": grid.height * grid.width,
        "hectares": pytest.approx(grid.height * grid.width / 100),
    }
    assert table["classes"][2] == {
        "code": 3,
        "name": "Herbaceous Vegetation",
        "cells": 0,
        "pixels": 0,
        "hectares": 0.0,
        "share": 0.0,
        "confidence": None,
    }
    assert json.loads(json.dumps(table)) == table


def test_strips_do_not_matter(cells_of, grid_of, monkeypatch):
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 11, (700, 300))
    cells, grid = cells_of(codes, np.where(codes, rng.integers(0, 101, codes.shape), 255)), grid_of(codes, 3, (1, 2))
    at_once = class_table(cells, grid, EUROSAT)
    monkeypatch.setattr(work, "STRIP_CELLS", 1)
    for a, b in zip(class_table(cells, grid, EUROSAT)["classes"], at_once["classes"], strict=True):
        for key in ("name", "cells", "pixels", "confidence"):
            assert a[key] == b[key]
        assert a["hectares"] == pytest.approx(b["hectares"], rel=1e-12)


def test_geographic_areas_are_geodesic(cells_of, grid_of):
    from pyproj import Geod

    codes = np.full((3, 4), 5)
    grid = grid_of(codes, epsg=4326)
    west, south, east, north = grid.bounds()
    # Densified, for parallels are no geodesics.
    along = np.linspace(west, east, 5001)
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(
        [*along, *along[::-1]], [south] * len(along) + [north] * len(along)
    )
    hectares = class_table(cells_of(codes), grid, EUROSAT)["classes"][4]["hectares"]
    assert hectares == pytest.approx(area / 1e4, rel=1e-7)


def test_nothing_classified(cells_of, grid_of):
    codes = np.zeros((2, 2))
    table = class_table(cells_of(codes), grid_of(codes), EUROSAT)
    assert {row["share"] for row in table["classes"]} == {None}
    assert "No data" in format_table(table)


def test_refuses_codes_without_a_class(cells_of, grid_of):
    codes = np.array([[11]])
    with pytest.raises(ValueError, match="not in the legend"):
        class_table(cells_of(codes), grid_of(codes), EUROSAT)


def test_table_reads_well(cells_of, grid_of, codes):
    lines = format_table(class_table(cells_of(codes), grid_of(codes), EUROSAT)).splitlines()
    assert lines[0].split() == ["code", "class", "cells", "hectares", "share", "confidence"]
    assert [line[6:29].strip() for line in lines[2:12]] == EUROSAT.names
    assert lines[-1].split() == ["Total", "108", "4,423.7"]
    assert lines[-2].split() == ["0", "No", "data", "9", "368.6"]
    assert max(map(len, lines)) <= 80
