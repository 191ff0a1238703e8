"""The pipeline with a classifier whose answer is known: the mean of a window's first band."""

import contextlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine

from geocfl.core.grid import CellGrid
from geocfl.core.numbers import Numbers
from geocfl.core.windows import cut
from geocfl.errors import SceneError
from geocfl.mapping import pipeline
from geocfl.mapping.checkpoint import Checkpoint
from geocfl.mapping.encode import Decision
from geocfl.mapping.pipeline import classify_scene
from geocfl.models.backends.base import Classified
from geocfl.products.scratch import open_cells
from geocfl.scenes import open_scene

TRANSFORM = Affine(10, 0, 3e5, 0, -10, 5e6)


class Brightness:
    """Class 1..4 by mean reflectance in quarters of 0..1, with probability 0.7; counts what it sees."""

    takes_numbers = False

    def __init__(self, batch_size: int = 7, stop_after: int | None = None) -> None:
        self.batch_size = batch_size
        self.stop_after = stop_after
        self.seen = 0

    def place(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def classify(self, placed, rows, columns, stride):
        for start in range(0, len(rows), self.batch_size):
            if self.stop_after is not None and self.seen >= self.stop_after:
                raise KeyboardInterrupt
            chosen = slice(start, start + self.batch_size)
            windows = cut(placed, 64, rows[chosen] * stride, columns[chosen] * stride)
            self.seen += len(windows)
            level = np.clip((4 * np.nanmean(windows[:, 0], axis=(1, 2))).astype(int), 0, 3)
            yield Classified(np.where(np.arange(4) == level[:, None], 0.7, 0.1).astype(np.float32), None, chosen)


def scene_file(path: Path, dn: np.ndarray) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=dn.shape[0], width=dn.shape[1], count=1, dtype="uint16", crs="EPSG:32633",
        transform=TRANSFORM, nodata=0, compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.write(dn, 1)
        dataset.descriptions = ("B04",)
    return path


def run(
    path: Path,
    stride: int,
    out: Path,
    backend: Brightness | None = None,
    cell_rows: int = 1,
    thumbnail_step: int = 1,
):
    out.mkdir(exist_ok=True)
    backend = backend or Brightness()
    with open_scene(path) as scene:
        grid = CellGrid(scene.height, scene.width, stride, 64, scene.transform, scene.crs)
        result = Checkpoint(out, grid, [0], {"cell_rows": cell_rows}, thumbnail_step=thumbnail_step)
        classify_scene(scene, ("B04",), grid, backend, Decision(4), cell_rows, result)
    with open_cells(result.cells) as dataset:
        return result, dataset.read(1), dataset.read(2)


class Device(Brightness):
    """The same on a device that takes digital numbers."""

    takes_numbers = True

    def place(self, pixels: Numbers) -> np.ndarray:
        return pixels.reflectance()


def test_strips_are_kept_while_a_device_classifies(tmp_path: Path) -> None:
    path = scene_file(tmp_path / "s.tif", blocks(300, 200))
    _, *host = run(path, 16, tmp_path / "host", cell_rows=4)
    with contextlib.suppress(KeyboardInterrupt):
        run(path, 16, tmp_path / "device", Device(stop_after=150), cell_rows=4)
    rest = Device()
    _, *device = run(path, 16, tmp_path / "device", rest, cell_rows=4)
    assert 0 < rest.seen < 150, "the strips before the interruption were kept"
    for expected, got in zip(host, device, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_checkpoint_that_cannot_be_written_ends_the_work_of_a_device(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoint, "append", full)
    with pytest.raises(OSError, match="No space left"):
        run(scene_file(tmp_path / "s.tif", blocks(300, 200)), 64, tmp_path / "out", Device(), cell_rows=100)


def blocks(height: int, width: int) -> np.ndarray:
    levels = np.random.default_rng(0).integers(1, 10_000, (height // 5, width // 5))
    return levels.repeat(5, axis=0).repeat(5, axis=1).astype(np.uint16)


def test_cells_get_their_windows_class(tmp_path: Path) -> None:
    levels = np.array([[1, 2, 3], [4, 3, 2]])
    dn = np.kron(levels * 2500 - 1250, np.ones((64, 64))).astype(np.uint16)
    result, codes, confidence = run(scene_file(tmp_path / "s.tif", dn), 64, tmp_path / "out")
    np.testing.assert_array_equal(codes, levels)
    assert (confidence == 70).all()
    assert result.windows == 6


def test_strips_and_batches_do_not_show(tmp_path: Path) -> None:
    dn = blocks(200, 250)
    path = scene_file(tmp_path / "s.tif", dn)
    _, whole, _ = run(path, 16, tmp_path / "a", Brightness(10_000), cell_rows=1000)
    first, pieces, _ = run(path, 16, tmp_path / "b", Brightness(3), cell_rows=2)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_allclose(first.thumbnail()[..., 0], dn / 10_000, rtol=1e-6)


def test_the_thumbnail_is_aligned(tmp_path: Path) -> None:
    dn = np.random.default_rng(0).integers(1, 10_000, (200, 170), dtype=np.uint16)
    result, *_ = run(scene_file(tmp_path / "s.tif", dn), 10, tmp_path / "out", thumbnail_step=4)
    np.testing.assert_allclose(result.thumbnail()[..., 0], dn[::4, ::4] / 10_000, rtol=1e-6)


def test_windows_without_data_never_reach_the_classifier(tmp_path: Path) -> None:
    dn = np.full((128, 192), 5000, np.uint16)
    dn[:, 60:] = 0
    backend = Brightness()
    result, codes, confidence = run(scene_file(tmp_path / "s.tif", dn), 64, tmp_path / "out", backend)
    assert backend.seen == result.windows == 2
    np.testing.assert_array_equal(codes, [[3, 0, 0], [3, 0, 0]])
    np.testing.assert_array_equal(confidence == 255, codes == 0)


@pytest.mark.parametrize("stride", [16, 64])
@pytest.mark.parametrize("stop_after", [0, 1, 30, 90])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, stride: int, stop_after: int) -> None:
    path = scene_file(tmp_path / "s.tif", blocks(300, 400))
    whole, *_ = run(path, stride, tmp_path / "whole", cell_rows=3)
    stopped = Brightness(stop_after=stop_after)
    with contextlib.suppress(KeyboardInterrupt):
        run(path, stride, tmp_path / "again", stopped, cell_rows=3)
    rest = Brightness()
    again, *_ = run(path, stride, tmp_path / "again", rest, cell_rows=3)
    for name in ("cells", "cells.hdr", "thumbnail", "checkpoint.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    assert again.windows == whole.windows
    repeated = stopped.seen + rest.seen - whole.windows
    assert 0 <= repeated < 3 * -(-400 // stride) + 7  # one strip at most


@pytest.mark.parametrize("measured", [0.5, 1e9])
def test_the_rate_of_the_first_windows_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: float
) -> None:
    monkeypatch.setattr(pipeline, "MEASURED", measured)
    seconds = itertools.count()
    # Only in this module: other threads look at the clock, too.
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    rates: list[float] = []
    path = scene_file(tmp_path / "s.tif", blocks(256, 640))
    with open_scene(path) as scene:
        grid = CellGrid(scene.height, scene.width, 64, 64, scene.transform, scene.crs)
        checkpoint = Checkpoint(tmp_path, grid, [0], {})
        backend = Brightness(batch_size=5)
        classify_scene(scene, ("B04",), grid, backend, Decision(4), 2, checkpoint, paced=rates.append)
    if measured > 1:
        assert rates == [40 / 9], "40 windows in 8 batches and the end, each a second"
    else:
        assert rates == [5.0], "the second batch, a second after the first one"


def test_broken_pixels_end_in_one_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 60_000, (300, 300)).astype(np.uint16)
    path = scene_file(tmp_path / "s.tif", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"s\.tif"):
        run(path, 64, tmp_path / "out")
