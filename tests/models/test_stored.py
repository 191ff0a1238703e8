from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geocfl.errors import ModelError
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.models.network import load_network
from geocfl.models.stored import FEATURES, read_stored, write_stored


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def made_up() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(40, 1280, generator=rng) * torch.linspace(0, 3, 1280), torch.arange(40) % 10


def test_they_are_read_as_they_were_written(folder):
    features, labels = made_up()
    write_stored(folder, features, labels)
    stored = read_stored(Bundle.load(folder))
    assert stored is not None
    assert torch.equal(stored.labels, labels)
    step = (features.max(0).values - features.min(0).values) / 255
    assert bool(((stored.features - features).abs() <= step / 2 + 1e-6).all())


def test_a_bundle_may_have_none(folder):
    assert read_stored(Bundle.load(folder)) is None


def test_they_do_not_change_the_digest(folder):
    before = Bundle.load(folder).digest()
    write_stored(folder, *made_up())
    assert Bundle.load(folder).digest() == before, "maps do not depend on them"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(labels=t["labels"][:5].clone()), "do not fit together"),
        (lambda t: t.update(low=t["low"][:5].clone()), "do not fit together"),
        (lambda t: t["step"].fill_(torch.inf), "not finite numbers"),
        (lambda t: t["labels"].fill_(200), "of no class of tiny"),
        (lambda t: t.pop("labels"), "not a readable file of stored features"),
    ],
)
def test_a_broken_file_is_refused(folder, change, message):
    write_stored(folder, *made_up())
    file = folder / FEATURES
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    change(tensors)
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(ModelError, match=message) as error:
        read_stored(Bundle.load(folder))
    assert str(file) in str(error.value)


def test_a_file_that_was_cut_off_is_refused(folder):
    write_stored(folder, *made_up())
    content = (folder / FEATURES).read_bytes()
    (folder / FEATURES).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="not a readable file of stored features"):
        read_stored(Bundle.load(folder))


def test_those_of_other_weights_are_refused(folder, tiny_dense):
    write_stored(folder, *made_up())
    (folder / "model.safetensors").write_bytes((tiny_dense / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="not the stored features of the weights beside it"):
        read_stored(Bundle.load(folder))


def test_those_of_the_built_in_model_are_whole():
    model = Bundle.load(DEFAULT_MODEL)
    stored = read_stored(model)
    assert stored is not None
    assert torch.bincount(stored.labels).tolist() == [150] * 10
    with torch.inference_mode():
        predicted = load_network(model).head(stored.features).argmax(1)
    assert (predicted == stored.labels).float().mean() > 0.9, "the model's own last layer knows them"
    assert sum(file.stat().st_size for file in model.folder.iterdir()) <= 10_000_000
