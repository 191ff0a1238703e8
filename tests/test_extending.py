"""A loss and a backbone that are defined outside the package: train, load, map and predict with them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor, nn

import geocfl
from geocfl.losses import LOSSES
from geocfl.models.backbones import BACKBONES, build_network, layer_names
from geocfl.models.weights import load_weights


class Margin(nn.Module):
    """A loss with a focusing parameter."""

    def __init__(self, counts: Sequence[int], gamma: float) -> None:
        super().__init__()
        self.counts, self.gamma = list(counts), gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return nn.functional.multi_margin_loss(logits.float(), target, margin=self.gamma)


def mine(bands: int, classes: int, dropout: float) -> nn.Module:
    """A backbone without the methods of timm's networks."""
    return nn.Sequential(
        nn.Conv2d(bands, 8, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, classes),
    )


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    before = set(LOSSES), set(BACKBONES)
    assert geocfl.register_loss("margin", gamma=0.5)(Margin) is Margin
    geocfl.register_backbone("mine", mine, input_size=32)
    yield
    for registry, names in zip((LOSSES, BACKBONES), before, strict=True):
        for name in set(registry) - names:
            del registry[name]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_patches: Callable[..., Path]) -> geocfl.Run:
    folder = tmp_path_factory.mktemp("extending")
    data = write_patches(folder / "data")
    return geocfl.train(
        data, folder / "mine", backbone="mine", loss="margin", gamma=0.8, epochs=2, batch_size=8, device="cpu"
    )


def test_a_training_uses_them(run: geocfl.Run) -> None:
    assert (run.model.backbone, run.model.input_size) == ("mine", 32)
    assert (run.model.origin["loss"], run.model.origin["gamma"], run.model.origin["weights"]) == ("margin", 0.8, "none")
    assert isinstance(run.model.network().network, nn.Sequential)


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=pytest.mark.extra("onnx"))])
def test_the_model_predicts_and_maps(run: geocfl.Run, tmp_path: Path, backend: Any) -> None:
    dn = np.random.default_rng(0).integers(200, 2000, (3, 128, 192), dtype=np.uint16)
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", height=128, width=192, count=3, dtype="uint16", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    model = geocfl.load_model(run.path)
    found = model.predict(dn / np.float32(10_000), backend=backend, device="cpu", precision="float32")
    assert found.codes.shape == (2, 3)
    mapped = geocfl.map_scene(
        tmp_path / "s.tif", tmp_path / "out", model=run.path, scale=10_000, backend=backend, device="cpu",
        precision="float32",
    )  # fmt: skip
    with rasterio.open(mapped.paths["lulc"]) as lulc:
        np.testing.assert_array_equal(lulc.read(1), found.codes)


def test_a_process_without_the_backbone_says_how_to_add_it(run: geocfl.Run) -> None:
    code = f"import geocfl; geocfl.load_model({str(run.path)!r}).network()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    last = done.stderr.splitlines()[-1]
    assert last.endswith("model.json: unknown backbone 'mine'; add it with geocfl.register_backbone first")


@pytest.mark.integration
def test_a_cosine_head_and_a_teacher_fit_a_network_with_a_layer_before_the_last(
    run: geocfl.Run, tmp_path: Path
) -> None:
    geocfl.register_backbone("mobile", "mobilenetv3_small_050", input_size=32)
    options: dict[str, Any] = {"backbone": "mobile", "epochs": 1, "batch_size": 8, "device": "cpu"}
    data = run.path.parent / "data"
    geocfl.train(data, tmp_path / "ldam", loss="ldam", **options)
    student = geocfl.train(data, tmp_path / "student", loss="ce", teacher=(tmp_path / "ldam",), **options)
    assert student.model.origin["teacher"] == str(tmp_path / "ldam")


def test_a_network_of_timm_needs_its_name_only() -> None:
    geocfl.register_backbone("vit", "test_vit", input_size=160)
    network = build_network("vit", 4, 5, head="cosine").eval()
    assert network(torch.zeros(1, 4, 160, 160)).shape == (1, 5)
    assert layer_names(network, "vit") == ("patch_embed.proj", "head")
    load_weights(network, "vit", "none", ("B04",) * 4)


def test_weights_need_a_network_that_names_its_layers(tmp_path: Path) -> None:
    with pytest.raises(geocfl.UsageError, match="mine does not name its first and last layer; set its pretrained_cfg"):
        load_weights(build_network("mine", 3, 2), "mine", str(tmp_path / "w.pth"), ("B04", "B03", "B02"))


@pytest.mark.parametrize("options", [{"loss": "logit-adjusted"}, {"teacher": True}, {"teacher": True, "hint": 0.0}])
def test_a_backbone_without_features_is_refused_before_the_training(
    run: geocfl.Run, tmp_path: Path, options: dict[str, Any]
) -> None:
    if "teacher" in options:
        options = options | {"loss": "ce", "teacher": (run.path,)}
    data = run.path.parent / "data"
    with pytest.raises(geocfl.UsageError, match="the backbone mine has no forward_features"):
        geocfl.train(data, tmp_path / "out", backbone="mine", device="cpu", **options)
    assert not (tmp_path / "out").exists()


def test_a_comparison_refuses_a_backbone_without_features_first(run: geocfl.Run, tmp_path: Path) -> None:
    with pytest.raises(geocfl.UsageError, match="the backbone mine has no"):
        geocfl.compare(
            run.path.parent / "data", tmp_path / "out", backbone="mine", losses=("ce", "logit-adjusted"),
            imbalances=("none",), seeds=(0,), device="cpu",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: geocfl.register_loss("ce", Margin), "a loss named 'ce' is already registered; choose another `name`"),
        (lambda: geocfl.register_loss("margin"), "a loss named 'margin' is already registered"),
        (lambda: geocfl.register_loss("other", Margin, gamma=-1.0), "`gamma` is -1.0 but must be a number >= 0"),
        (lambda: geocfl.register_loss("other", Margin, head="round"), "unknown `head` 'round'"),
        (lambda: geocfl.register_loss("other", Margin, gama=1.0), "did you mean 'gamma'"),
        (lambda: geocfl.register_loss("other", "focal"), "`make` is 'focal' but must be a class or function"),
        (lambda: geocfl.register_backbone("other", 18), "`make` is 18 but must be a name in timm, or a class"),
        (lambda: geocfl.register_backbone("lite0", mine), "a backbone named 'lite0' is already registered"),
        (lambda: geocfl.register_backbone("other", "resnet19"), "timm has no network 'resnet19'"),
    ],
)
def test_what_cannot_be_registered_is_refused(register: Callable[[], Any], message: str) -> None:
    with pytest.raises(geocfl.UsageError, match=message):
        register()
    assert "other" not in LOSSES
    assert "other" not in BACKBONES


def test_the_examples_of_the_docstrings_work() -> None:
    for function in (geocfl.register_loss, geocfl.register_backbone):
        for block in (function.__doc__ or "").split("```python\n")[1:]:
            code = textwrap.dedent(block.partition("```")[0].rstrip())
            exec(code, {"geocfl": geocfl, "nn": nn, "Sequence": Sequence})
    criterion = LOSSES["smoothed"].make([1, 2], 0.1, "exponent")
    assert criterion(torch.zeros(2, 2), torch.tensor([0, 1])) > 0
    assert build_network("small", 3, 4, dropout=0.1)(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    assert BACKBONES["convnext"].weights == "imagenet"
