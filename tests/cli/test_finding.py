"""``geocfl find`` as a user runs it, and the map of what it finds."""

import json
from pathlib import Path

import pytest
import rasterio

from tests.cli.program import run
from tests.planning.stac_api import Api, item, serving
from tests.scenes.range_server import RangeServer


@pytest.mark.integration
def test_what_is_found_is_mapped(scene: Path, tiny_model: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    with rasterio.open(scene) as dataset:
        bands = dict(zip(dataset.descriptions, dataset.read(), strict=True))
        profile = {**dataset.profile, "count": 1}
    for band in ("B04", "B03", "B02"):
        with rasterio.open(served / f"{band}.tif", "w", **profile) as dataset:
            dataset.write(bands[band], 1)
    with RangeServer(served) as files, serving(Api([])) as api:
        for day, (name, cloud) in enumerate((("S2_33TUL_clear", 2), ("S2_33TUL_cloudy", 60)), start=10):
            found = item(name, (12.0, 45.0, 13.0, 46.0), f"2022-06-{day}", cloud)
            found["assets"] = {
                band: {"href": files.url(f"{band}.tif"), "eo:bands": [{"name": band}]} for band in ("B04", "B03", "B02")
            }
            api.items.append(found)
        where = ("--api", api.url, "--collection", "s2", "--bbox", "12.2,45.2,12.4,45.4", "--datetime", "2022-06")
        done = run("find", *where, cwd=tmp_path)
        assert "S2_33TUL_clear" in done.stdout
        assert "1 of the 2 scenes found cover all of the" in done.stdout
        assert done.stdout.endswith("\n  items.json\n")
        assert json.loads(run("find", *where, "--json", "--overwrite", cwd=tmp_path).stdout)["coverage"] == 1
        assert "already exists; use --overwrite" in run("find", *where, cwd=tmp_path, code=1).stderr
        assert "`" not in run("find", *where, "--max-cloud", "1", "--overwrite", cwd=tmp_path, code=1).stderr
        run(
            "map", "--stac-items", "items.json", "--model", tiny_model, "--backend", "torch", "--out", "o", cwd=tmp_path
        )
    assert (tmp_path / "o" / "S2_33TUL_clear_lulc.tif").exists()
