from __future__ import annotations

import pytest
import torch

from geocfl.errors import UsageError
from geocfl.models.devices import choose_device, has_fast_bfloat16


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="`device` 'cuda:99' is not available here"):
        choose_device("cuda:99")
    for name, message in (("toaster", "unknown `device` 'toaster'; choose from"), ("gpu", "did you mean 'cuda'")):
        with pytest.raises(UsageError, match=message):
            choose_device(name)


def test_a_torch_without_cuda_is_named(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UsageError, match="is built without CUDA; install a build"):
        choose_device("cuda:99")


def test_bfloat16_can_be_forced(monkeypatch):
    cpu = torch.device("cpu")
    for value, expected in (("on", True), ("off", False)):
        monkeypatch.setenv("GEOCFL_BFLOAT16", value)
        assert has_fast_bfloat16(cpu) is expected
    monkeypatch.delenv("GEOCFL_BFLOAT16")
    assert isinstance(has_fast_bfloat16(cpu), bool)
    monkeypatch.setenv("GEOCFL_BFLOAT16", "yes")
    with pytest.raises(UsageError, match="neither on nor off"):
        has_fast_bfloat16(cpu)
