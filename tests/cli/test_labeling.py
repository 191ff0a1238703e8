import json
from pathlib import Path

import numpy as np
import pytest

from geocfl.cli import parse
from geocfl.errors import UsageError
from tests.analysis.featured import featured_map, finish
from tests.cli.program import run


def test_points_are_parsed() -> None:
    assert parse.point("13.4, 45.8") == (13.4, 45.8)
    assert parse.point("-70,-33") == (-70.0, -33.0)
    for text in ("13.4", "13.4,45.8,1", "here,there"):
        with pytest.raises(UsageError, match="must be longitude,latitude"):
            parse.point(text)


@pytest.mark.integration
@pytest.mark.extra("geoparquet")
def test_similar(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 4, (5, 6))
    _, grid = featured_map(tmp_path, codes, rng.normal(size=(5, 6, 8)))
    x, y = grid.cell_transform @ (0.5, 0.5)
    done = run("similar", "S_lulc.tif", f"{x},{y}", "--n", 3, "--out", "s.gpkg", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["rank", "similarity", "class", "longitude", "latitude"]
    assert len(lines) == 6
    assert lines[-1] == "  s.gpkg"
    found = json.loads(run("similar", "S_lulc.tif", f"{x},{y}", "--n", 3, "--json", cwd=tmp_path).stdout)
    assert [each["rank"] for each in found] == [1, 2, 3]
    outside = run("similar", "S_lulc.tif", "-70.1,-33", cwd=tmp_path, code=2)
    assert outside.stderr.startswith("geocfl: POINT -70.1,-33 is outside the map S_lulc.tif")
    many = run("similar", "S_lulc.tif", f"{x},{y}", "--n", 31, cwd=tmp_path, code=2)
    assert "--n is 31 but must be from 1 to the 30 cells with data of S_lulc.tif" in many.stderr
    run("similar", "S_lulc.tif", f"{x},{y}", "--rooster", "s.tif", cwd=tmp_path, code=2)


@pytest.mark.integration
@pytest.mark.extra("geoparquet")
def test_suggest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    finish(tmp_path, rng.integers(1, 4, (9, 9)), rng.normal(size=(9, 9, 4)))
    done = run("suggest", "S_lulc.tif", "--n", 5, "--classes", "Snow,Bare Rock", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["class", "on", "the", "map", "windows"]
    assert any(line.split() == ["Total", "5"] for line in lines)
    assert lines[-2:] == ["  suggest.gpkg", "  suggest.qgz"]
    again = run("suggest", "S_lulc.tif", "--n", 5, cwd=tmp_path, code=1)
    assert again.stderr.splitlines()[-1].startswith("geocfl: suggest.gpkg: already exists; use --overwrite to replace")
    many = run("suggest", "S_lulc.tif", "--n", 500, "--out", "b.gpkg", cwd=tmp_path, code=2)
    assert "geocfl: --n is 500, but S_lulc.tif has only" in many.stderr
    refused = run("assess", "S_lulc.tif", "suggest.gpkg", cwd=tmp_path, code=1)
    assert "holds suggestions of geocfl suggest" in refused.stderr
    counts = json.loads(run("suggest", "S_lulc.tif", "--n", 5, "--out", "c.gpkg", "--json", cwd=tmp_path).stdout)
    assert sum(row["windows"] for row in counts) == 5
