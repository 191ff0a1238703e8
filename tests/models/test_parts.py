"""Batches for which a device lacks memory; a limit on the CPU stands for it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import geocfl
from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import RGB, Patches
from geocfl.errors import UsageError
from geocfl.evaluation.held_out import augmented_scores, patch_features
from geocfl.evaluation.logits import patch_logits
from geocfl.models import parts
from geocfl.models.parts import InParts

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unsaid() -> None:
    parts._say.cache_clear()


def in_room(room: int):
    """Doubles numbers, a few of them at a time; keeps the sizes of its inputs."""
    numbers, seen = torch.arange(10.0), []

    def compute(part: slice) -> tuple[Tensor, None]:
        if part.stop - part.start > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        seen.append(part.stop - part.start)
        return 2 * numbers[part], None

    return compute, seen


@pytest.mark.parametrize(("room", "count"), [(10, 1), (9, 2), (3, 4), (1, 16)])
def test_a_batch_is_computed_in_as_few_parts_as_fit(room: int, count: int, caplog: pytest.LogCaptureFixture) -> None:
    compute, seen = in_room(room)
    in_parts = InParts(CPU)
    with caplog.at_level(logging.WARNING, "geocfl"):
        for n in (10, 10, 3):
            doubled, nothing = in_parts(n, compute)
            assert torch.equal(doubled, 2 * torch.arange(float(n)))
            assert nothing is None
    assert in_parts.parts == count
    assert max(seen) <= room
    assert caplog.text.count("too little memory for a whole batch") == (count > 1)


def test_a_device_without_memory_for_one_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="cpu: too little memory for a single input; use `device=cpu`"):
        InParts(CPU)(10, in_room(0)[0])


def test_other_errors_stay_as_they_are() -> None:
    def broken(_: slice) -> tuple[Tensor]:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        InParts(CPU)(4, broken)


def test_evaluation_and_calibration_go_on_in_parts(tiny_dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 3, 64, 64), dtype=np.uint8)
    patches = Patches(pixels, np.arange(7) % 10, tuple("abcdefg"), RGB, EUROSAT_RGB, EUROSAT, "noise")
    module, every = geocfl.load_model(tiny_dense).network(), np.arange(7)

    def results() -> list[Tensor]:
        changed = augmented_scores(module, patches, every, Augmentation(), seed=0)
        return [patch_logits(module, patches, every), patch_features(module, patches, every), *changed]

    whole, normalize, sizes = results(), module.normalize, []

    def narrow(x: Tensor) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(x))
        return normalize(x)

    monkeypatch.setattr(module, "normalize", narrow)
    for found, expected in zip(results(), whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert sizes == [2, 2, 2, 1] * 3
