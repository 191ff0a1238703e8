from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB, Scaling
from geocfl.core.transfer import to_reflectance
from geocfl.data.mosaics import BLOCKS, GROUP, SIDE, TILES, mosaic_batches
from geocfl.data.patches import RGB, Patches
from geocfl.data.placed import PlacedPatches, place, stored_pixels
from geocfl.training.loop import augmented_batches
from geocfl.training.recipe import DENSE, resolve

CPU, META = torch.device("cpu"), torch.device("meta")
BUSY = replace(DENSE["augmentation"], surface=0.5)
"""Every change at once."""


def noise(dtype: type = np.uint8, scaling: Scaling = EUROSAT_RGB, count: int = 20) -> Patches:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, 3, 16, 16), dtype, endpoint=True)
    return Patches(values, np.arange(count) % 10, tuple(map(str, range(count))), RGB, scaling, EUROSAT, "noise")


@given(
    dtype=st.sampled_from([np.uint8, np.uint16]),
    scale=st.floats(0.1, 1e5),
    offset=st.floats(-2000, 2000),
)
def test_stored_numbers_become_the_same_reflectance_to_the_bit(dtype, scale, offset):
    patches, chosen = noise(dtype, Scaling(scale, offset)), np.array([3, 0, 19])
    device = to_reflectance(stored_pixels(patches, CPU)[torch.from_numpy(chosen)], patches.scaling)
    assert np.array_equal(device.numpy().view(np.int32), patches.reflectance(chosen).view(np.int32))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_batches_are_made_on_the_device_of_the_patches(dtype, resident):
    """On the meta device, an operation with a tensor of the CPU fails, and so does reading a number."""
    patches = noise(dtype)
    placed = PlacedPatches(patches, META, stored_pixels(patches, META) if resident else None)
    settings = resolve("d", batch_size=8, input_size=32, augmentation=BUSY)
    batches = list(augmented_batches(placed, np.arange(20), settings, 1))
    assert [(tuple(x.shape), x.device.type, y.device.type) for x, y in batches] == [
        ((n, 3, 32, 32), "meta", "meta") for n in (8, 8, 4)
    ]
    mosaics, labels = next(mosaic_batches(placed, np.arange(20), BUSY, GROUP, torch.Generator().manual_seed(0)))
    assert (mosaics.device.type, tuple(mosaics.shape)) == ("meta", (GROUP // TILES, 3, SIDE * 16, SIDE * 16))
    assert (labels.device.type, len(labels)) == ("meta", GROUP)


def test_where_they_lie_does_not_change_the_random_numbers(monkeypatch):
    patches, settings = noise(), resolve("d", batch_size=8, input_size=32, augmentation=BUSY)
    usual = list(augmented_batches(place(patches, CPU), np.arange(20), settings, 1))
    stored = PlacedPatches(patches, CPU, stored_pixels(patches, CPU))
    monkeypatch.setattr(  # the path of a GPU, on the CPU
        PlacedPatches, "reflectance", lambda self, indices: to_reflectance(self._pixels[indices], self.patches.scaling)
    )
    for (x, y), (x_device, y_device) in zip(usual, augmented_batches(stored, np.arange(20), settings, 1), strict=True):
        assert torch.equal(x, x_device)
        assert torch.equal(y, y_device)


def test_other_numbers_are_converted_on_the_cpu():
    patches = noise()
    floats = replace(patches, pixels=patches.pixels.astype(np.float32))
    x = PlacedPatches(floats, CPU).reflectance(np.arange(3))
    assert torch.equal(x, torch.from_numpy(patches.reflectance(np.arange(3))))


def test_patches_that_do_not_fit_are_sent_batch_by_batch(caplog, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    made = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr("geocfl.data.placed.stored_pixels", full)
    monkeypatch.setattr("geocfl.data.placed.PlacedPatches", lambda *given: made.append(given))
    patches, gpu = noise(), torch.device("cuda")
    place(patches, gpu)
    assert made == [(patches, gpu)]
    assert "cuda: too little memory for all patches (0.0 GB); they are sent batch by batch" in caplog.text


@pytest.mark.parametrize("dense", [False, True])
def test_the_cpu_goes_on_where_a_device_cannot_prepare_a_batch(caplog, dense):
    """The meta device stands for a GPU whose memory ends with the third batch."""
    patches, settings = noise(np.uint16, count=60), resolve("d", batch_size=8, input_size=32, augmentation=BUSY)

    def batches(placed):
        if dense:
            return mosaic_batches(placed, np.arange(60), BUSY, GROUP, torch.Generator().manual_seed(0))
        return augmented_batches(placed, np.arange(60), settings, 1)

    usual, placed = list(batches(place(patches, CPU))), PlacedPatches(patches, META, stored_pixels(patches, META))
    labels, times = placed.labels, itertools.count()

    def full(indices):
        if placed.device == META and next(times) >= 2 * (len(BLOCKS) if dense else 1):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return labels(indices)

    placed.labels = full
    got = list(batches(placed))
    on_cpu = [x.device == CPU for x, _ in got]
    assert on_cpu == sorted(on_cpu)
    assert not on_cpu[0]
    assert on_cpu[-1]
    assert caplog.text.count("the CPU prepares them") == 1
    for (x, y), (x_usual, y_usual), cpu in zip(got, usual, on_cpu, strict=True):
        assert x.shape == x_usual.shape
        assert not cpu or (torch.equal(x, x_usual) and torch.equal(y, y_usual))


def test_a_gpu_gives_the_same_batches(caplog, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    patches, settings = noise(np.uint16), resolve("d", batch_size=8, input_size=32, augmentation=BUSY)
    usual = list(augmented_batches(place(patches, CPU), np.arange(20), settings, 1))
    for free, warnings in (((10**9, 10**9), 0), ((0, 10**9), 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: free)
        placed = place(patches, torch.device("cuda"))
        assert sum("sent batch by batch" in record.getMessage() for record in caplog.records) == warnings
        for (x, y), (x_gpu, y_gpu) in zip(usual, augmented_batches(placed, np.arange(20), settings, 1), strict=True):
            assert x_gpu.is_cuda
            torch.testing.assert_close(x_gpu.cpu(), x, atol=2e-3 * float(x.abs().max()), rtol=0)
            assert torch.equal(y_gpu.cpu(), y)
