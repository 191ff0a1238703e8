"""Files and folders without permission are one sentence that names them, wherever they are met."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import geocfl
from geocfl.cli import app
from geocfl.models.bundle import WEIGHTS

CAPABILITIES = 0x20080522
"""Version 3 of the structures of Linux: a header, then effective, permitted and inheritable of two times 32 bits."""
OVERRIDES = ~0b110
"""All capabilities but those to ignore the permissions of files."""


@pytest.fixture
def bound() -> Iterator[None]:
    """Permissions hold in this thread and in those that it starts, even for root."""
    if sys.platform == "win32":
        pytest.skip("other permissions")
    if os.geteuid():
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may do all")
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    fewer = (ctypes.c_uint32 * 6)(held[0] & OVERRIDES, *held[1:])
    assert libc.capset(header, fewer) == 0
    yield
    assert libc.capset(header, held) == 0


@pytest.fixture(scope="module")
def mapped(scene: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene, a model, the map of both, and patches."""
    folder = tmp_path_factory.mktemp("all")
    shutil.copy(scene, folder / "s.tif")
    shutil.copytree(tiny_model, folder / "tiny")
    geocfl.map_scene(folder / "s.tif", folder / "maps", model=tiny_model, backend="torch")
    (folder / "locked").mkdir()
    (folder / "zones.geojson").write_text("{}")
    return folder


@pytest.fixture
def place(mapped: Path, write_patches: Callable[..., Path], tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A copy of it, which is the current folder."""
    folder = shutil.copytree(mapped, tmp_path / "here")
    write_patches(folder / "patches", each=8)
    monkeypatch.chdir(folder)
    yield folder
    for each in folder.rglob("*"):  # pytest removes it later
        each.chmod(0o700)


MAP = ["map", "--model", "tiny", "--backend", "torch", "--out", "o", "s.tif"]
STATS = ["stats", "maps/s_lulc.tif", "--zones", "zones.geojson"]
MOSAIC = ["mosaic", "maps", "--out", "m_lulc.tif"]
LEARN = ["--data", "patches", "--split", "random:0.5", "--out", "o"]


@pytest.mark.parametrize(
    ("locked", "command"),
    [
        ("s.tif", MAP),
        ("tiny", MAP),
        ("tiny/model.json", MAP),
        (f"tiny/{WEIGHTS}", MAP),
        ("zones.geojson", [*MAP, "--aoi", "zones.geojson"]),
        ("zones.geojson", [*MAP, "--stac-items", "zones.geojson"]),
        ("maps/s_confidence.tif", [*MAP, "--mask", "maps/s_confidence.tif"]),
        ("locked", [*MAP, "--mask", "locked/m.tif"]),
        ("locked", ["map", "--model", "tiny", "locked/s.tif"]),
        ("locked", ["map", "--model", "tiny", "locked"]),
        ("locked", ["map", "--model", "tiny", "locked/*.tif"]),
        ("locked", ["map", "--model", "tiny", "s.tif", "--out", "locked/o"]),
        ("locked", ["map", "--model", "tiny", "s.tif", "maps/s_confidence.tif", "--out", "locked"]),
        ("locked", ["info", "locked"]),
        ("maps", STATS),
        ("locked", [*STATS[:3], "locked/zones.gpkg"]),
        ("locked", [*STATS, "--out", "locked/table.csv"]),
        ("maps", MOSAIC),
        ("maps/s_lulc.tif", MOSAIC),
        ("maps/s_confidence.tif", MOSAIC),
        ("locked", ["mosaic", "maps", "--out", "locked/m_lulc.tif"]),
        ("locked", ["mosaic", "maps", "--out", "locked/m_lulc.vrt"]),
        ("patches", ["train", *LEARN]),
        ("patches/River", ["train", *LEARN]),
        ("patches/River/River_1.png", ["train", *LEARN]),
        ("locked", ["train", *LEARN[:-1], "locked/run"]),
        ("locked", ["train", *LEARN, "--config", "locked/config.json"]),
        ("tiny", ["train", *LEARN, "--backbone", "lite0", "--weights", "tiny"]),
        ("locked", ["evaluate", "locked", *LEARN]),
        ("locked", ["compare", *LEARN, "--results", "locked/runs.jsonl", "--dry-run"]),
        ("locked", ["export", "tiny", "--format", "stac-mlm", "--out", "locked/m.stac.json"]),
        (f"tiny/{WEIGHTS}", ["export", "tiny", "--format", "torchscript"]),
    ],
)
def test_what_may_not_be_read_or_written_is_one_sentence(
    place: Path, bound: None, locked: str, command: list[str]
) -> None:
    (place / locked).chmod(0)
    done = CliRunner().invoke(app, command)
    assert done.exit_code in (1, 2)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert "unexpected" not in done.output
    said = "".join(done.output.split("geocfl: ")[-1].split())
    assert any(part in said for part in Path(locked).parts)
    assert "denied" in said.casefold() or "notreadable" in said or "PermissionError" in said
    assert not (place / "o").exists()
