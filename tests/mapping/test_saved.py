"""Copies of checkpoints, from which another machine resumes."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

import pytest

import geocfl
from geocfl.errors import OutputError
from geocfl.mapping import saved
from geocfl.mapping.divide import classify_block, divide
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.saved import SavedCheckpoint
from geocfl.mapping.settings import MapSettings
from geocfl.scenes import find_source
from tests.mapping.test_checkpoint import add, started
from tests.mapping.test_many import write_scene
from tests.products.test_stores import s3

__all__ = ["s3"]  # a fixture

upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")


@pytest.fixture(params=["disk", "memory", pytest.param("s3", marks=pytest.mark.integration)])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    bucket = uuid.uuid4().hex
    if request.param == "s3":
        folder = upath.UPath(f"s3://{bucket}/work", **request.getfixturevalue("s3"))
        folder.fs.mkdir(bucket)
        return folder
    return upath.UPath(f"memory://{bucket}/work") if request.param == "memory" else tmp_path / "work"


def stop_after(windows: int) -> Any:
    def stop(what: str, done: int, total: int, unit: str) -> None:
        if done > windows:
            raise KeyboardInterrupt

    return stop


def files(folder: Any) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*")) if folder.exists() else []


@pytest.mark.parametrize("store", [False, True])
def test_another_machine_resumes(
    tmp_path: Path, tiny_model: Path, work: Any, store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geocfl.mapping.memory.STRIP_ROWS", 16)
    scene = write_scene(tmp_path / "S2A_20240601T100031.tif")
    out = upath.UPath(f"memory://{uuid.uuid4().hex}/maps") if store else tmp_path / "maps"
    options = {"model": tiny_model, "stride": 8, "work": work}
    for machine in ("first", "second"):
        (tmp_path / machine).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "first"))
    with pytest.raises(KeyboardInterrupt):
        geocfl.map_scene(scene, out, progress=stop_after(200), **options)
    assert any(name == "checkpoint.jsonl" for name in files(work)) or list(work.glob("*/.*/checkpoint.jsonl"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "second"))
    if not store:
        (tmp_path / "maps").rename(tmp_path / "gone")
    there = geocfl.map_scene(scene, out, **options)
    here = geocfl.map_scene(scene, tmp_path / "here", model=tiny_model, stride=8)
    windows = here.summary["timing"]["windows"]
    assert there.summary["timing"]["windows"] <= windows - 200 + 25  # all but the strip that was under way
    assert there.paths["lulc"].read_bytes() == here.paths["lulc"].read_bytes()
    assert there.paths["preview"].read_bytes() == here.paths["preview"].read_bytes()
    assert not files(work)


def test_only_what_is_farther_is_fetched(tmp_path: Path, work: Any) -> None:
    for name, strips in (("far", 3), ("near", 1), ("new", 0)):
        (tmp_path / name).mkdir()
        if strips:
            started(tmp_path / name, strips)
    copy = SavedCheckpoint(work / "S")
    copy.fetch(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
    copy.save(tmp_path / "near")
    copy.fetch(tmp_path / "far")
    assert started(tmp_path / "far", 0).row == 3
    copy.save(tmp_path / "far")
    for name in ("near", "new"):
        copy.fetch(tmp_path / name)
        assert started(tmp_path / name, 0).row == 3
        assert (tmp_path / name / "cells").read_bytes() == (tmp_path / "far/cells").read_bytes()
    copy.remove()
    assert not files(work)


def test_a_copy_that_broke_off_holds_the_strips_before(
    tmp_path: Path, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    checkpoint = started(tmp_path / "here", 2)
    copy = SavedCheckpoint(work / "S")
    copy.fetch(tmp_path / "here")
    copy.save(tmp_path / "here")
    add(checkpoint, 3)
    whole = saved._put

    def fail(source: Path, target: Path) -> None:
        if source.name == "checkpoint.jsonl":
            raise OSError("gone")
        whole(source, target)

    monkeypatch.setattr(saved, "_put", fail)
    copy.save(tmp_path / "here")
    copy.fetch(tmp_path / "there")
    assert started(tmp_path / "there", 0).row == 2


def test_copies_are_made_from_time_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, made = [1000.0], []
    monkeypatch.setattr(saved.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(saved, "_put", lambda *_: now.__setitem__(0, now[0] + 2))
    copy = SavedCheckpoint(tmp_path / "work")
    monkeypatch.setattr(copy, "save", lambda folder, save=copy.save: (made.append(now[0]), save(folder)))
    for _ in range(300):
        now[0] += 1
        copy.save_sometimes(tmp_path)
    assert made == [1030.0, 1156.0, 1282.0]  # three files of 2 s: then after twenty times as long


def test_a_folder_that_cannot_be_used_is_named_before_the_work(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "work").touch()
    scene = write_scene(tmp_path / "S2A_20240601T100031.tif")
    with pytest.raises(OutputError, match=r"work.*cannot be used.*choose another `work`"):
        geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model, work=tmp_path / "work")


def test_a_store_that_fails_later_does_not_stop_the_map(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError("gone")

    monkeypatch.setattr(saved, "_put", fail)
    monkeypatch.setattr(saved, "PAUSE", 0.0)
    scene = write_scene(tmp_path / "S2A_20240601T100031.tif")
    with caplog.at_level(logging.WARNING, "geocfl"):
        assert (
            geocfl.map_scene(scene, tmp_path / "maps", model=tiny_model, work=tmp_path / "work").paths["lulc"].exists()
        )
    assert "the work goes on without" in caplog.text


def test_blocks_of_a_scene_for_a_store_lie_in_the_folder_for_work(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geocfl.mapping.memory.STRIP_ROWS", 16)
    source = find_source(write_scene(tmp_path / "S2A_20240601T100031.tif"))
    bundle, settings = geocfl.load_model(tiny_model), MapSettings(stride=8)
    out = upath.UPath(f"memory://{uuid.uuid4().hex}/maps")
    assert divide(Mapper(bundle, settings), source, out, overwrite=False, windows=100) is None
    mapper = Mapper(bundle, settings, work=tmp_path / "work")
    blocks = divide(mapper, source, out, overwrite=False, windows=100)
    assert blocks is not None
    assert tmp_path / "work" in blocks.parent.parents
    for rows in blocks.rows:
        classify_block(mapper, source, blocks, *rows)
    joined = mapper.map(source, out, blocks=blocks)
    assert joined.summary["timing"]["windows"] == 0
    whole = mapper.map(source, tmp_path / "whole")
    assert joined.paths["lulc"].read_bytes() == whole.paths["lulc"].read_bytes()
    assert not any(path.is_file() for path in (tmp_path / "work").rglob("*"))
