from __future__ import annotations

from types import SimpleNamespace
from urllib.error import URLError

import pytest
import timm
import torch
import torchgeo.models
from safetensors.torch import save_file

from geocfl.data.patches import EUROSAT_BANDS, RGB
from geocfl.errors import ModelError, UsageError
from geocfl.models.backbones import build_network
from geocfl.models.weights import load_weights


@pytest.fixture(scope="module")
def resnet() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return build_network("resnet18", 3, 1000).state_dict()


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "lightning.ckpt"])
def test_local_weights_start_the_body_and_the_head_is_zero(tmp_path, resnet, file):
    if file.endswith(".safetensors"):
        save_file(resnet, tmp_path / file)
    elif file.endswith(".pth"):
        torch.save({f"module.{name}": value for name, value in resnet.items()}, tmp_path / file)
    else:
        torch.save({"state_dict": {f"backbone.{name}": value for name, value in resnet.items()}}, tmp_path / file)
    network = build_network("resnet18", 3, 4)
    load_weights(network, "resnet18", str(tmp_path / file), RGB)
    torch.testing.assert_close(network.state_dict()["conv1.weight"], resnet["conv1.weight"])
    torch.testing.assert_close(network.state_dict()["layer4.1.bn2.bias"], resnet["layer4.1.bn2.bias"])
    with torch.inference_mode():
        assert not network.eval()(torch.randn(2, 3, 64, 64)).any()


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_weights_of_unnamed_bands_keep_the_mean_response(tmp_path, resnet, bands):
    save_file(resnet, tmp_path / "w.safetensors")
    network = build_network("resnet18", bands, 4)
    load_weights(network, "resnet18", str(tmp_path / "w.safetensors"), EUROSAT_BANDS[:bands])
    stem = network.state_dict()["conv1.weight"]
    assert stem.shape[1] == bands
    if bands % 3 == 0:
        torch.testing.assert_close(stem.sum(1), resnet["conv1.weight"].sum(1))
    torch.testing.assert_close(stem[:, 0], resnet["conv1.weight"][:, 0] * 3 / bands)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, get_state_dict) -> None:
    """Replaces the weights of torchgeo's own enumeration, whose names and bands are kept."""
    theirs = torchgeo.models.ResNet18_Weights

    class Weights:
        def __iter__(self):
            return iter(theirs)

        def __getitem__(self, key):
            assert key == name
            return SimpleNamespace(meta=theirs[key].meta, get_state_dict=get_state_dict)

    monkeypatch.setattr(torchgeo.models, "ResNet18_Weights", Weights())


def test_torchgeo_weights_are_picked_by_band_name(monkeypatch, resnet):
    stem = torch.arange(13.0).view(1, 13, 1, 1).expand(64, 13, 7, 7)
    stand_in(monkeypatch, "SENTINEL2_ALL_MOCO", lambda progress: {**resnet, "conv1.weight": stem})
    # torchgeo's weights have B8A after B08 (place 8), EuroSAT's files have it last.
    for bands, places in (
        (RGB, [3, 2, 1]),
        (("B8A", "B09", "B12"), [8, 9, 12]),
        (EUROSAT_BANDS, [*range(8), 9, 10, 11, 12, 8]),
    ):
        network = build_network("resnet18", len(bands), 4)
        load_weights(network, "resnet18", "SENTINEL2_ALL_MOCO", bands)
        assert network.state_dict()["conv1.weight"][0, :, 0, 0].tolist() == places


def test_offline_torchgeo_weights_name_the_alternatives(monkeypatch):
    def fail(progress: bool) -> None:
        raise URLError("Name or service not known")

    stand_in(monkeypatch, "SENTINEL2_RGB_MOCO", fail)
    with pytest.raises(ModelError, match=r"SENTINEL2_RGB_MOCO cannot be downloaded \(URLError\)") as caught:
        load_weights(build_network("resnet18", 3, 4), "resnet18", "SENTINEL2_RGB_MOCO", RGB)
    message = str(caught.value)
    assert "\n" not in message
    for alternative in (".safetensors or .pth", "`weights=none`", "`backbone=lite0`"):
        assert alternative in message


def test_offline_imagenet_weights_name_the_alternatives(monkeypatch):
    network = build_network("resnet18", 3, 4)

    def fail(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ModelError, match="imagenet cannot be downloaded"):
        load_weights(network, "resnet18", "imagenet", RGB)


@pytest.mark.parametrize(("backbone", "known"), [("resnet18", "SENTINEL2_RGB_MOCO"), ("lite0", "imagenet, none")])
def test_unknown_weights_are_refused_with_the_known_ones(backbone, known):
    with pytest.raises(UsageError, match=known):
        load_weights(build_network(backbone, 3, 4), backbone, "SENTINEL2_RGB_DINOSAUR", RGB)


def test_no_weights_change_nothing():
    network = build_network("lite0", 3, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_weights(network, "lite0", "none", RGB)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.extra("lite0")
@pytest.mark.parametrize("bands", [3, 13])
def test_lite0_starts_from_its_wheel(bands):
    network = build_network("lite0", bands, 4)
    load_weights(network, "lite0", "imagenet", EUROSAT_BANDS[:bands])
    state = network.state_dict()
    # Trained batch normalization has left its start, and the statistics are those of the layers they stand with.
    assert not torch.equal(state["bn1.running_var"], torch.ones_like(state["bn1.running_var"]))
    assert float(state["conv_stem.weight"].std()) > 0.05
    assert state["conv_stem.weight"].shape[1] == bands


def test_missing_and_foreign_weights_are_named(tmp_path, resnet):
    network = build_network("resnet18", 3, 4)
    with pytest.raises(ModelError, match="no such weights file"):
        load_weights(network, "resnet18", str(tmp_path / "w.pth"), RGB)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="do not fit a resnet18"):
        load_weights(network, "resnet18", str(tmp_path / "other.safetensors"), RGB)
    save_file({**resnet, "layer1.0.conv1.weight": torch.zeros(2, 2, 3, 3)}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="do not fit a resnet18"):
        load_weights(network, "resnet18", str(tmp_path / "odd.safetensors"), RGB)


@pytest.mark.extra("lite0")
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_imagenet_weights_of_lite0_fill_all_but_the_head(head):
    network = build_network("lite0", 3, 5, head=head)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_weights(network, "lite0", "imagenet", ("B04", "B03", "B02"))
    same = [name for name, value in network.state_dict().items() if torch.equal(value, before[name])]
    assert all(name.startswith("classifier.") or "num_batches" in name for name in same), same
    if head == "cosine":
        assert network.classifier.weight.abs().sum() > 0, "directions of zero length are none"


def test_torchgeo_weights_of_a_resnet50(monkeypatch):
    from torchgeo.models import ResNet50_Weights

    donor = build_network("resnet50", 3, 10)

    def offline(self: object, **_: object) -> dict[str, torch.Tensor]:
        return {name: value for name, value in donor.state_dict().items() if not name.startswith("fc.")}

    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", offline)
    network = build_network("resnet50", 3, 10)
    load_weights(network, "resnet50", "SENTINEL2_RGB_MOCO", ("B04", "B03", "B02"))
    assert torch.equal(network.layer4[2].conv3.weight, donor.layer4[2].conv3.weight)
    assert not network.fc.weight.any()
