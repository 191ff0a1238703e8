from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.errors import SceneError
from geocfl.mapping.blocks import Blocks
from geocfl.mapping.checkpoint import Checkpoint
from geocfl.mapping.classifier import Classifier
from geocfl.mapping.divide import classify_block, divide
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.settings import MapSettings
from geocfl.products.files import FILES
from geocfl.products.lock import BusyError
from geocfl.scenes import Source, find_source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    dn = np.random.default_rng(0).integers(200, 2000, (3, 333, 150), dtype=np.uint16)
    dn[:, 100:160] = 0  # no data
    with rasterio.open(
        tmp_path / "S2A_20240601T100031.tif", "w", driver="GTiff", height=333, width=150, count=3, dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6), blockysize=16,
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return find_source(tmp_path / "S2A_20240601T100031.tif")


@pytest.fixture
def mapper(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Mapper:
    monkeypatch.setattr("geocfl.mapping.memory.STRIP_ROWS", 50)  # so that a block has several strips
    settings = MapSettings(stride=7, products=["all"], vector=["gpkg"])
    return Mapper(geocfl.load_model(tiny_model), settings, memory="4GB")


@pytest.mark.parametrize(("windows", "refined"), [(1, False), (200, False), (900, False), (200, True)])
def test_joined_blocks_are_the_scene(
    tmp_path: Path, source: Source, mapper: Mapper, windows: int, refined: bool
) -> None:
    if refined:
        settings = replace(mapper.settings, interpolate=True, smooth=True)
        mapper = Mapper(mapper.model, settings, memory="4GB")
    blocks = divide(mapper, source, tmp_path / "blocks", overwrite=False, windows=windows)
    assert blocks is not None
    starts, stops = zip(*blocks.rows, strict=True)
    assert (starts[0], stops[-1], starts[1:]) == (0, 48, stops[:-1])
    assert all(start % blocks.cell_rows == 0 for start in starts)
    for first, last in reversed(blocks.rows):  # in whatever order
        classify_block(mapper, source, blocks, first, last)
    joined = mapper.map(source, tmp_path / "blocks", blocks=blocks)
    assert joined.summary["timing"]["windows"] == 0
    whole = mapper.map(source, tmp_path / "whole")
    for name in FILES.keys() - {"summary"} & whole.paths.keys():
        assert joined.paths[name].read_bytes() == whole.paths[name].read_bytes(), name
    assert joined.summary | {"timing": None} == whole.summary | {"timing": None}
    assert {path.name for path in (tmp_path / "blocks").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


def test_small_and_finished_scenes_are_not_divided(tmp_path: Path, source: Source, mapper: Mapper) -> None:
    assert divide(mapper, source, tmp_path / "maps", overwrite=False, windows=48 * 22) is None
    assert not (tmp_path / "maps").exists()
    mapper.map(source, tmp_path / "maps")
    assert divide(mapper, source, tmp_path / "maps", overwrite=False, windows=10) is None


def test_a_block_that_is_there_is_not_classified_again(
    tmp_path: Path, source: Source, mapper: Mapper, monkeypatch
) -> None:
    blocks = divide(mapper, source, tmp_path / "maps", overwrite=False, windows=200)
    assert blocks is not None
    classify_block(mapper, source, blocks, *blocks.rows[0])
    with monkeypatch.context() as patch:
        patch.delattr(Classifier, "classify")
        classify_block(mapper, source, blocks, *blocks.rows[0])
    assert [path for path in blocks.parent.iterdir() if path.is_dir()] == [blocks.folder(0)]  # no attempt is left


def test_what_blocks_lack_is_classified(tmp_path: Path, source: Source, mapper: Mapper, tiny_model: Path) -> None:
    blocks = divide(mapper, source, tmp_path / "maps", overwrite=False, windows=200)
    assert blocks is not None
    other = Mapper(mapper.model, mapper.settings, memory="4GB", batch_size=5)  # another checkpoint's facts
    first, second, third, *_ = blocks.rows
    for each, rows in ((mapper, first), (other, second), (mapper, third)):
        classify_block(each, source, blocks, *rows)
    result = mapper.map(source, tmp_path / "maps", blocks=blocks)
    whole = mapper.map(source, tmp_path / "whole")
    assert result.paths["lulc"].read_bytes() == whole.paths["lulc"].read_bytes()
    assert 0 < result.summary["timing"]["windows"] < whole.summary["timing"]["windows"]


def test_blocks_count_although_the_scene_was_begun_before(
    tmp_path: Path, source: Source, mapper: Mapper, monkeypatch
) -> None:
    def stop(what: str, done: int, total: int, unit: str) -> None:
        if done > 300:  # of the second strip
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapper.map(source, tmp_path / "maps", progress=stop)
    blocks = divide(mapper, source, tmp_path / "maps", overwrite=False, windows=200)
    assert blocks is not None
    assert (blocks.parent / "checkpoint.jsonl").read_text().count("\n") > 1
    for rows in blocks.rows:
        classify_block(mapper, source, blocks, *rows)
    assert mapper.map(source, tmp_path / "maps", blocks=blocks).summary["timing"]["windows"] == 0


def test_blocks_whose_folder_is_gone_are_another_s(tmp_path: Path, source: Source, mapper: Mapper) -> None:
    with pytest.raises(BusyError, match="let one of them finish"):
        classify_block(mapper, source, Blocks(tmp_path / "maps/.s.partial", 7, 1, ((0, 7),)), 0, 7)


def test_a_scene_that_cannot_be_read_leaves_nothing(tmp_path: Path, source: Source, mapper: Mapper) -> None:
    blocks = Blocks(tmp_path / "maps/.s.partial", 7, 1, ((0, 7),))
    blocks.parent.mkdir(parents=True)
    Path(source.path).write_bytes(Path(source.path).read_bytes()[:2000])
    with pytest.raises(SceneError):
        classify_block(mapper, source, blocks, 0, 7)
    assert not list(blocks.parent.iterdir())


def test_a_server_that_fails_costs_only_unfinished_strips(
    tmp_path: Path, source: Source, mapper: Mapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapper.map(source, tmp_path / "unbroken")
    blocks = divide(mapper, source, tmp_path / "out", overwrite=False, windows=600)
    assert blocks is not None
    first, last = blocks.rows[-1]
    assert last - first > blocks.cell_rows
    for rows in blocks.rows[:-1]:
        classify_block(mapper, source, blocks, *rows)
    whole, appended = Checkpoint.append, []

    def fail_after_one(checkpoint: Checkpoint, *strip: object) -> None:
        if appended:
            raise SceneError("the server failed 5 times (HTTP 503)", transient=True)
        appended.append(checkpoint.row)
        whole(checkpoint, *strip)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "append", fail_after_one)
        with pytest.raises(SceneError, match="503"):
            classify_block(mapper, source, blocks, first, last)
    assert blocks.folder(blocks.rows[0][0]).exists()
    rows = []
    monkeypatch.setattr(
        Checkpoint, "append", lambda checkpoint, *strip: (rows.append(checkpoint.row), whole(checkpoint, *strip))
    )
    classify_block(mapper, source, blocks, first, last)
    assert rows[0] == first + blocks.cell_rows
    assert not list(blocks.parent.glob("*.kept"))
    joined = mapper.map(source, tmp_path / "out", blocks=blocks)
    unbroken = (tmp_path / "unbroken" / joined.paths["lulc"].name).read_bytes()
    assert joined.paths["lulc"].read_bytes() == unbroken
