"""A device that computes reflectance from digital numbers; the CPU stands for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

import geocfl
from geocfl.core.grid import CellGrid
from geocfl.core.numbers import Numbers, known, reflectance
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.settings import MapSettings
from geocfl.mapping.strips import scene_strips
from geocfl.models.backends import load_backend
from geocfl.models.backends.jobs import tiles
from geocfl.scenes import find_source, open_scene
from geocfl.scenes.reading import Reading

BANDS = ("B04", "B03", "B02")
TRANSFORM = Affine(10, 0, 3e5, 0, -10, 5e6)
EXACT = MapSettings(
    backend="torch", precision="float32", stride=16, min_confidence=0.15, products=("lulc", "confidence")
)


def scene_file(path: Path, dtype: str = "uint16", **profile: object) -> Path:
    """A scene of 200 x 260 px with a diagonal edge, a hole, single missing pixels, and saturated ones."""
    numbers = np.random.default_rng(0).integers(1, 255, (3, 200, 260)).astype(dtype)
    if dtype != "uint8":
        numbers *= 20
    rows, columns = np.indices(numbers.shape[1:])
    numbers[:, columns < 70 - rows // 2] = 0
    numbers[:, 150:170, 190:230] = numbers[:, ::41, ::37] = 0
    numbers[:, 20:60, 200:] = np.iinfo(dtype).max
    with rasterio.open(
        path, "w", driver="GTiff", height=200, width=260, count=3, dtype=dtype, crs="EPSG:32633", transform=TRANSFORM,
        **profile,
    ) as dataset:  # fmt: skip
        dataset.write(numbers)
        dataset.descriptions = BANDS
    return path


def on_a_device(backend):
    """A back end of torch on the CPU that works as on a GPU."""
    backend._on_host, backend.takes_numbers, backend._pads = False, True, True
    return backend


@pytest.mark.parametrize(
    ("dtype", "reading"),
    [
        ("uint16", Reading()),
        ("uint16", Reading(offset=-1000)),
        ("uint16", Reading(nodata=300)),
        ("uint8", Reading(scale=924, offset=-1)),
    ],
)
@pytest.mark.parametrize("cell_rows", [2, 1000])
def test_stored_strips_become_the_same_reflectance_on_the_device(
    tmp_path: Path, tiny_model: Path, dtype: str, reading: Reading, cell_rows: int
) -> None:
    mask = np.zeros((200, 260), np.uint8)
    mask[90:120, 100:140] = 1
    with rasterio.open(
        tmp_path / "mask.tif", "w", driver="GTiff", height=200, width=260, count=1, dtype="uint8", crs="EPSG:32633",
        transform=TRANSFORM,
    ) as dataset:  # fmt: skip
        dataset.write(mask, 1)
    path, grid = scene_file(tmp_path / "s.tif", dtype), CellGrid(200, 260, 48, 64, TRANSFORM, None)
    backend = on_a_device(load_backend(geocfl.load_model(tiny_model), "torch", "cpu", "float32"))
    how = replace(reading, mask=tmp_path / "mask.tif", mask_classes=(1,))
    with open_scene(path, how) as scene:
        usual = list(scene_strips(scene, BANDS, grid, cell_rows))
        stored = list(scene_strips(scene, BANDS, grid, cell_rows, stored=True))
    assert len(usual) == len(stored)
    for want, got in zip(usual, stored, strict=True):
        assert isinstance(got.pixels, Numbers)
        assert got.pixels.planes.dtype == dtype
        strip = backend.place(got.pixels).strip.numpy()
        assert np.array_equal(np.isnan(strip), np.isnan(want.pixels))
        assert np.array_equal(strip.view(np.int32)[~np.isnan(strip)], want.pixels.view(np.int32)[~np.isnan(strip)])
        assert np.array_equal(reflectance(got.inside), want.inside, equal_nan=True)
        assert np.array_equal(known(got.inside), known(want.inside))
        for name in ("valid", "chosen", "masked"):
            assert np.array_equal(getattr(got, name), getattr(want, name)), name


def test_numbers_that_devices_do_not_take_are_read_as_reflectance(tmp_path: Path) -> None:
    path = scene_file(tmp_path / "s.tif", "int16")
    with open_scene(path) as scene:
        (strip,) = scene_strips(scene, BANDS, CellGrid(200, 260, 64, 64, TRANSFORM, None), 10, stored=True)
    assert strip.pixels.dtype == np.float32


@pytest.mark.parametrize("stride", [7, 16, 64])
def test_a_device_cuts_and_fills_the_windows_of_the_host(tmp_path: Path, tiny_model: Path, stride: int) -> None:
    host = load_backend(geocfl.load_model(tiny_model), "torch", "cpu", "float32")
    device = on_a_device(load_backend(geocfl.load_model(tiny_model), "torch", "cpu", "float32"))
    grid = CellGrid(200, 260, stride, 64, TRANSFORM, None)
    with open_scene(scene_file(tmp_path / "s.tif")) as scene:
        (usual,) = scene_strips(scene, BANDS, grid, grid.rows)
        (stored,) = scene_strips(scene, BANDS, grid, grid.rows, stored=True)
    cells = np.nonzero(np.ones_like(usual.valid))  # also windows without any data
    want = host._cutter(host.place(usual.pixels), *cells, stride)
    for got in (
        device._cutter(device.place(stored.pixels), *cells, stride),
        device._cutter(device.place(usual.pixels), *cells, stride),
    ):
        for part in (slice(0, 5), slice(0, len(cells[0]))):
            assert np.array_equal(got(part).numpy(), want(part).numpy(), equal_nan=True)


def test_a_device_cuts_and_fills_the_tiles_of_the_host(
    tmp_path: Path, tiny_dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geocfl.models.backends.jobs.TILE", 96)
    model = geocfl.load_model(tiny_dense)
    host = load_backend(model, "torch", "cpu", "float32")
    device = on_a_device(load_backend(model, "torch", "cpu", "float32"))
    grid = CellGrid(200, 260, 16, 64, TRANSFORM, None, model.context)
    with open_scene(scene_file(tmp_path / "s.tif")) as scene:
        (usual,) = scene_strips(scene, BANDS, grid, grid.rows)
        (stored,) = scene_strips(scene, BANDS, grid, grid.rows, stored=True)
    parts = list(tiles(*np.nonzero(usual.valid), 16, model, usual.pixels.shape[1:]))
    assert len(parts) == 9
    want = list(host._tiles(host.place(usual.pixels), parts))
    for pixels in (stored.pixels, usual.pixels):
        for a, b in zip(device._tiles(device.place(pixels), parts), want, strict=True):
            assert torch.equal(a, b)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["tiny_model", "tiny_dense"])
def test_the_map_of_a_device_is_that_of_the_host(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("geocfl.mapping.memory.STRIP_ROWS", 64)
    monkeypatch.setattr("geocfl.models.backends.jobs.TILE", 96)
    source = find_source(scene_file(tmp_path / "s.tif"))
    model = geocfl.load_model(request.getfixturevalue(kind))
    Mapper(model, EXACT, device="cpu", batch_size=16).map(source, tmp_path / "host")
    mapper = Mapper(model, EXACT, device="cpu", batch_size=16)
    placed, place = [], on_a_device(mapper.classifier.backend).place
    monkeypatch.setattr(mapper.classifier.backend, "place", lambda pixels: placed.append(pixels) or place(pixels))
    mapper.map(source, tmp_path / "device")
    assert placed
    assert all(isinstance(pixels, Numbers) for pixels in placed)
    # A last batch that is filled up changes the last bits of its sums.
    for name, most in (("lulc", 0), ("confidence", 1)):
        a, b = (rasterio.open(tmp_path / where / f"s_{name}.tif").read(1).astype(int) for where in ("host", "device"))
        assert np.abs(a - b).max() <= most


@pytest.mark.parametrize("kind", ["tiny_model", "tiny_dense"])
def test_a_gpu_maps_digital_numbers(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = geocfl.load_model(request.getfixturevalue(kind))
    grid = CellGrid(200, 260, 16, 64, TRANSFORM, None, model.context)
    with open_scene(scene_file(tmp_path / "s.tif")) as scene:
        (usual,) = scene_strips(scene, BANDS, grid, grid.rows)
        (stored,) = scene_strips(scene, BANDS, grid, grid.rows, stored=True)
    gpu, cpu = (load_backend(model, "torch", name, "float32") for name in ("cuda", "cpu"))
    assert gpu.takes_numbers
    placed = gpu.place(stored.pixels)
    assert placed.strip.is_cuda
    assert np.array_equal(placed.strip.cpu().numpy(), usual.pixels, equal_nan=True)
    rows, columns = np.nonzero(usual.valid)
    found = []
    for backend, pixels in ((gpu, stored.pixels), (cpu, usual.pixels)):
        probabilities = np.full((len(rows), 10), np.nan, np.float32)
        for part in backend.classify(backend.place(pixels), rows, columns, 16):
            probabilities[part.windows] = part.probabilities
        found.append(probabilities)
    np.testing.assert_allclose(*found, atol=1e-3)
