"""An updated mosaic equals a new one, byte for byte, and only what has changed is read for it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from shapely import box

from geocfl.analysis import mosaic_raster
from geocfl.analysis.alignment import AlignedMap
from geocfl.analysis.mosaic import mosaic
from geocfl.errors import OutputError
from geocfl.products import staging
from tests.analysis.test_mosaic import moved, read, write_map, write_regions
from tests.analysis.test_overlap_rules import write_dated

NEIGHBOR = CRS.from_epsg(32632)
"""Maps of this zone are reprojected."""
EAST, NORTH = 464_203, 25_155
"""Meters from a place's coordinates in the maps' own zone to those in the neighboring one."""


def write_version(folder: Path, number: int, rng: np.random.Generator, *, foreign: bool = False) -> None:
    """Map number `number`, at a place of its own choice, with another hash in its summary each time."""
    codes = rng.choice([0, 1, 1, 2, 3, 10, 255], rng.integers(2, 7, 2))
    left, top = (int(n) for n in rng.integers(0, 9, 2))
    place: dict[str, Any] = {"pixel": moved(left, top)}
    if foreign:
        place = {"pixel": moved(left + EAST / 160, top - NORTH / 160), "crs": NEIGHBOR}
    write_dated(folder, number, codes, rng, **place)
    summary = folder / f"M{number}_summary.json"
    content = json.loads(summary.read_text())
    if rng.random() < 0.8:  # else it is recognized by the content of its rasters
        summary.write_text(json.dumps({**content, "hash": rng.bytes(8).hex()}))


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*_lulc.tif")}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("overlap", ["confidence", "newest", "mode", "fuse"])
@given(
    seed=st.integers(0, 10**6),
    steps=st.lists(st.sampled_from(["add", "change", "remove", "nothing"]), min_size=1, max_size=3),
    foreign=st.booleans(),
    strip=st.sampled_from([30, 1_000_000]),
)
@settings(max_examples=4)
def test_an_update_equals_a_new_mosaic(overlap, tmp_path_factory, seed, steps, foreign, strip) -> None:
    folder, rng = tmp_path_factory.mktemp("update"), np.random.default_rng(seed)
    maps, numbers = folder / "maps", [1, 2, 3]
    for number in numbers:
        write_version(maps, number, rng, foreign=foreign and number == 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic_raster, "PASTED_CELLS", strip)
        mosaic(maps, folder / "kept" / "X_lulc.tif", overlap=overlap, update=True)
        for step, what in enumerate(steps):
            if what == "add":
                numbers.append(int(rng.choice([n for n in range(9) if n not in numbers])))
                write_version(maps, numbers[-1], rng)
            elif what == "change":
                write_version(maps, int(rng.choice(numbers)), rng)
            elif what == "remove" and len(numbers) > 1:
                gone = numbers.pop(int(rng.integers(len(numbers))))
                for file in maps.glob(f"M{gone}_*"):
                    file.unlink()
            mosaic(maps, folder / "kept" / "X_lulc.tif", overlap=overlap, update=True)
            mosaic(maps, folder / f"new{step}" / "X_lulc.tif", overlap=overlap)
            assert content(folder / "kept") == content(folder / f"new{step}")


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Maps A, B and C, side by side; A and B overlap."""
    for name, left in zip("ABC", (0, 3, 9), strict=True):
        write_map(tmp_path / "maps" / name, np.full((4, 5), 1), pixel=moved(left, 0))
    return tmp_path / "maps"


def update(maps: Path, monkeypatch: pytest.MonkeyPatch, out: Path | None = None, **options: Any) -> set[str]:
    """Updates the mosaic and returns the first letters of the maps that are read."""
    whole, seen = AlignedMap.read, set()

    def reading(part: AlignedMap, path: Path, *rest: Any) -> Any:
        seen.add(path.name[0])
        return whole(part, path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(AlignedMap, "read", reading)
        mosaic(maps, out or maps.parent / "X_lulc.tif", update=True, **options)
    return seen


def test_only_what_has_changed_is_read(three, monkeypatch) -> None:
    assert update(three, monkeypatch) == {"A", "B", "C"}
    assert update(three, monkeypatch) == set()
    write_map(three / "C", np.full((4, 5), 2), pixel=moved(9, 0))
    assert update(three, monkeypatch) == {"C"}
    write_map(three / "D", np.full((4, 5), 3), pixel=moved(9, -4))  # the mosaic grows upward
    assert update(three, monkeypatch) == {"D"}
    write_map(three / "A", np.full((4, 5), 4), 90, pixel=moved(0, 0))
    assert update(three, monkeypatch) == {"A", "B"}
    for file in three.glob("A_*"):
        file.unlink()
    assert update(three, monkeypatch) == {"B"}
    codes = read(three.parent / "X_lulc.tif")
    assert codes.tolist() == [[0] * 6 + [3] * 5] * 4 + [[1] * 5 + [0] + [2] * 5] * 4


def test_a_date_that_changes_is_in_the_summary(three, monkeypatch) -> None:
    for day in (1, 2):
        summary = {"hash": "h", "cells": "c", "scene": {"datetime": f"2022-06-0{day}T10:00:00Z"}}
        (three / "A_summary.json").write_text(json.dumps(summary))
        assert update(three, monkeypatch) == ({"A", "B", "C"} if day == 1 else set())
        record = json.loads((three.parent / "X_summary.json").read_text())
        assert record["scene"]["datetime"] == summary["scene"]["datetime"]


def test_an_edited_mosaic_or_summary_is_made_anew(three, monkeypatch) -> None:
    update(three, monkeypatch)
    before, target, summary = (
        content(three.parent / "maps"),
        three.parent / "X_lulc.tif",
        three.parent / "X_summary.json",
    )
    whole = target.read_bytes()
    record = json.loads(summary.read_text())
    for spoiled in ({**record, "hash": "", "maps": [1]}, {**record, "hash": "", "scene": {}}, {**record, "hash": ""}):
        summary.write_text(json.dumps(spoiled))
        target.write_bytes(whole + b"\0" if spoiled["scene"] and spoiled["maps"] != [1] else whole)
        assert update(three, monkeypatch) == {"A", "B", "C"}
        assert (target.read_bytes(), json.loads(summary.read_text())) == (whole, record)
    assert content(three.parent / "maps") == before


def test_what_an_update_must_not_replace_is_refused(three, monkeypatch, tmp_path) -> None:
    update(three, monkeypatch)
    with pytest.raises(OutputError, match=r"X_lulc\.tif: was made with `overlap=confidence`; pass the same"):
        update(three, monkeypatch, overlap="mode")
    (tmp_path / "X_summary.json").unlink()
    write_map(three / "C", np.full((4, 5), 2), pixel=moved(9, 0))
    with pytest.raises(OutputError, match=r"X_lulc\.tif: already exists"):
        update(three, monkeypatch)
    assert update(three, monkeypatch, overwrite=True) == {"A", "B", "C"}
    (tmp_path / "Y_lulc.vrt").write_text("<VRTDataset/>")
    with pytest.raises(OutputError, match=r"Y_lulc\.vrt: already exists"):
        mosaic(three, tmp_path / "Y_lulc.vrt", update=True)


def test_an_update_makes_only_regions_of_changed_maps(three, monkeypatch, tmp_path, caplog) -> None:
    with rasterio.open(three / "A_lulc.tif") as first, rasterio.open(three / "C_lulc.tif") as last:
        (west, _, middle, north), (_, south, east, _) = first.bounds, last.bounds
    shapes = {"ab": box(west, south, middle, north), "c": box(middle + 500, south, east, north), "far": box(0, 0, 9, 9)}
    how: dict[str, Any] = {"regions": write_regions(tmp_path / "r.gpkg", shapes), "by": "name"}
    mosaic(three, tmp_path / "kept", update=True, **how)
    first_times = times(tmp_path / "kept")
    assert set(first_times) == {"ab_lulc.tif", "c_lulc.tif"}
    write_map(three / "C", np.full((4, 5), 2), pixel=moved(9, 0))
    assert update(three, monkeypatch, tmp_path / "kept", **how) == {"C"}
    changed = times(tmp_path / "kept")
    assert {name for name in changed if changed[name] != first_times[name]} == {"c_lulc.tif"}
    mosaic(three, tmp_path / "new", **how)
    assert content(tmp_path / "kept") == content(tmp_path / "new")
    for file in three.glob("C_*"):
        file.unlink()
    with caplog.at_level(logging.INFO, "geocfl"):
        mosaic(three, tmp_path / "kept", update=True, **how)
    assert "c_lulc.tif: removed, because no map has data there any more" in caplog.text
    assert "far_lulc.tif: removed" not in caplog.text
    mosaic(three, tmp_path / "newer", **how)
    assert content(tmp_path / "kept") == content(tmp_path / "newer")
    assert times(tmp_path / "kept") == {"ab_lulc.tif": first_times["ab_lulc.tif"]}


def test_a_virtual_mosaic_is_written_anew_if_it_would_change(three, tmp_path) -> None:
    target = tmp_path / "X_lulc.vrt"
    mosaic(three, target, update=True)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("X_lulc.*")}
    assert mosaic(three, target, update=True).classes[""]["total"]["cells"] == 14 * 4
    assert {file: file.stat().st_mtime_ns for file in before} == before
    write_map(three / "D", np.full((4, 5), 255), pixel=moved(14, 0))
    mosaic(three, target, update=True)
    mosaic(three, tmp_path / "Y_lulc.vrt")
    assert target.read_bytes() == (tmp_path / "Y_lulc.vrt").read_bytes()
    assert target.with_suffix(".qml").read_bytes() == (tmp_path / "Y_lulc.qml").read_bytes()


def test_a_killed_update_is_finished_by_the_next(three, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    update(three, monkeypatch)
    write_map(three / "C", np.full((4, 5), 2), pixel=moved(9, 0))
    whole = staging.put

    def killed(source: Path, target: Path) -> None:
        if target.name.endswith("_confidence.tif"):
            raise KeyboardInterrupt
        whole(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(staging, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            update(three, monkeypatch)
    assert not (three.parent / "X_summary.json").exists()
    assert update(three, monkeypatch) == set()
    assert read(three.parent / "X_lulc.tif")[0, -1] == 2
    assert not list(three.parent.glob(".*"))
