"""Files that need a token: the token of their collection is fetched when they are opened, and kept while it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geocfl.errors import SceneError
from geocfl.scenes import find_source, open_scene, signing
from tests.planning.stac_api import item
from tests.scenes.range_server import RangeServer

RGB = ("B04", "B03", "B02")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """Three band files, and the token of their collection; it stands in for the catalog and its store."""
    for number, band in enumerate(RGB, start=1):
        with rasterio.open(
            tmp_path / f"{band}.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16",
            crs="EPSG:32633", transform=rasterio.Affine(10, 0, 3e5, 0, -10, 5e6),
        ) as dataset:  # fmt: skip
            dataset.write(np.full((1, 64, 64), 1000 * number, np.uint16))
    write_token(tmp_path, hours=1)
    monkeypatch.setattr(signing, "CATALOG", "127.0.0.1")
    monkeypatch.setattr(signing, "STORES", ("127.0.0.1",))
    monkeypatch.setattr(signing, "_known", {})
    with RangeServer(tmp_path) as served:
        monkeypatch.setattr(signing, "TOKENS", served.url(""))
        yield served


def write_token(folder: Path, hours: float) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    (folder / "sentinel-2-l2a").write_text(json.dumps({"token": "se=later&sig=abc", "msft:expiry": ends}))


def write_item(server: RangeServer, folder: Path, catalog: str) -> Path:
    content = item("S2_33TUL_a", (12, 45, 13, 46))
    content["links"] = [{"rel": "root", "href": catalog}]
    content["assets"] = {band: {"href": server.url(f"{band}.tif"), "eo:bands": [{"name": band}]} for band in RGB}
    path = folder / "item.json"
    path.write_text(json.dumps(content))
    return path


def asked(server: RangeServer) -> int:
    return len(server.requests("sentinel-2-l2a"))


def test_files_get_the_token_of_their_collection_when_they_are_opened(server: RangeServer, tmp_path: Path) -> None:
    source = find_source(write_item(server, tmp_path, server.url("")))
    assert asked(server) == 0
    for _ in range(2):
        with open_scene(source, needed=RGB) as scene:
            assert scene.read(RGB, 0, 1)[:, 0, 0] == pytest.approx([0.1, 0.2, 0.3])
            assert all(path.endswith("?se=later&sig=abc") for path in scene.files)
    assert asked(server) == 1


def test_a_token_that_ends_soon_is_fetched_again(server: RangeServer, tmp_path: Path) -> None:
    write_token(tmp_path, hours=0.05)
    source = find_source(write_item(server, tmp_path, server.url("")))
    for times in (1, 2):
        with open_scene(source, needed=RGB):
            assert asked(server) == times


def test_files_of_other_catalogs_and_signed_ones_get_none(server: RangeServer, tmp_path: Path) -> None:
    assert find_source(write_item(server, tmp_path, "https://example.com/api")).tokens == ""
    path = write_item(server, tmp_path, server.url(""))
    path.write_text(path.read_text().replace(".tif", ".tif?sig=mine"))
    signed = signing.signed(find_source(path))
    assert all(band.path.endswith(".tif?sig=mine") for band in signed.bands.values())


@pytest.mark.parametrize("answer", ["<html>", "[]", '{"token": "a"}', '{"token": "a", "msft:expiry": "soon"}'])
def test_a_server_without_a_token_is_one_sentence(server: RangeServer, tmp_path: Path, answer: str) -> None:
    (tmp_path / "sentinel-2-l2a").write_text(answer)
    with pytest.raises(SceneError, match="gave no token for the files; sign the Item with the package"):
        open_scene(find_source(write_item(server, tmp_path, server.url(""))))
