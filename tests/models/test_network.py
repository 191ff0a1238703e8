from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import timm
import torch
import torchgeo.models
from safetensors.torch import save_file
from torch.nn import functional as F

from geocfl.data.patches import EUROSAT_BANDS, RGB
from geocfl.errors import ModelError, UsageError
from geocfl.models.bundle import Bundle
from geocfl.models.network import (
    BACKBONES,
    DenseReflectance,
    Reflectance,
    backbone_facts,
    build_network,
    choose_device,
    has_fast_bfloat16,
    layer_names,
    read_weights,
    symmetries,
    with_reflectance,
)
from geocfl.models.weights import load_weights


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("bands", [3, 4, 13])
def test_backbones_take_their_bands_and_give_their_classes(backbone, bands):
    network, size = build_network(backbone, bands, 7).eval(), BACKBONES[backbone].input_size
    with torch.inference_mode():
        assert network(torch.zeros(2, bands, size, size)).shape == (2, 7)
    first, last = layer_names(network, backbone)
    assert {f"{first}.weight", f"{last}.weight"} <= set(network.state_dict())


def test_stage_dropout_acts_in_training_only_and_renames_nothing():
    plain, dropping = build_network("resnet18", 3, 4), build_network("resnet18", 3, 4, stage_dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stages: dict[str, torch.Tensor] = {}
    for index in range(1, 5):
        getattr(dropping, f"layer{index}").register_forward_hook(
            lambda *arguments, index=index: stages.__setitem__(f"layer{index}", arguments[2])
        )
    with torch.inference_mode():
        torch.testing.assert_close(dropping.eval()(x), plain.eval()(x))
        assert not torch.equal(dropping.train()(x), dropping(x))
    for stage, output in stages.items():
        dead = (output == 0).all(dim=(2, 3)).float().mean()
        assert 0.2 < float(dead) < 0.8, f"about half of the channels of {stage} are dropped as a whole"


def test_stage_dropout_needs_a_resnet():
    with pytest.raises(UsageError, match="ResNet, not lite0"):
        build_network("lite0", 3, 4, stage_dropout=0.25)


def test_unknown_backbones_are_refused_with_the_known_ones():
    for call in (backbone_facts, lambda name: build_network(name, 3, 4)):
        with pytest.raises(UsageError, match="choose from: resnet18, resnet34, resnet50, lite0"):
            call("vit")


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


class Malicious:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"conv1.weight": Malicious()}, path),
        lambda path: path.write_bytes(pickle.dumps({"conv1.weight": Malicious()}, protocol=2)),
        lambda path: torch.save({"conv1.weight": "no tensor"}, path),
        lambda path: torch.save([1, 2], path),
        lambda path: path.write_bytes(b"neither"),
    ],
    ids=["code", "bare pickle", "text", "list", "noise"],
)
def test_files_of_more_than_tensors_are_refused(tmp_path, capsys, write):
    write(tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: not a readable weights file"):
        read_weights(tmp_path / "w.pth")
    assert "must not run" not in capsys.readouterr().out


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


def test_reflectance_is_clipped_normalized_and_scaled():
    module = Reflectance(torch.nn.Identity(), (0.0, 0.5), (0.1, 0.2), (0.05, 0.1), 4)
    x = torch.tensor([[[[float("nan"), -1.0], [0.1, 9.0]], [[0.2, 0.3], [float("nan"), 0.5]]]])
    normalized = torch.tensor([[[[0.0, -2.0], [0.0, 8.0]], [[0.0, 1.0], [0.0, 3.0]]]])
    expected = F.interpolate(normalized, (4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(module(x), expected)
    assert module(torch.zeros(1, 2, 8, 4)).shape == (1, 2, 4, 4)
    already = torch.full((1, 2, 4, 4), 0.2)
    torch.testing.assert_close(module(already)[0, :, 0, 0], torch.tensor([2.0, 0.0]))


def test_the_symmetries_of_a_square_are_eight():
    square = torch.arange(4.0).view(1, 1, 2, 2)
    found = [tuple(view.flatten().int().tolist()) for view in symmetries(square, 8)]
    assert len(set(found)) == 8
    assert found[:2] == [(0, 1, 2, 3), (1, 3, 0, 2)], "as it is, then turned"
    assert found[4] == (1, 0, 3, 2), "the fifth is mirrored"
    for view in symmetries(square, 8)[:, None]:
        again = {tuple(v.flatten().int().tolist()) for v in symmetries(view, 8)}
        assert again == set(found), "the symmetries of a symmetry are the same ones"


@pytest.mark.parametrize("tta", [1, 2, 4, 8])
def test_tta_averages_the_logits(tta):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 4))
    x = torch.rand(5, 3, 3, 3)
    facts = (0.0, 1.0), (0.1,) * 3, (0.2,) * 3, 3
    plain, module = Reflectance(network, *facts), Reflectance(network, *facts, tta)
    sides = [plain(side) for side in (x, x.rot90(1, (2, 3)), x.rot90(2, (2, 3)), x.rot90(3, (2, 3)))]
    sides += [plain(x.flip(3).rot90(quarter, (2, 3))) for quarter in range(4)]
    torch.testing.assert_close(module(x), torch.stack(sides[:tta]).mean(0))
    turned = module(x.rot90(1, (2, 3)))
    if tta in (4, 8):
        torch.testing.assert_close(turned, module(x), msg="which way is up does not matter")
    else:
        assert not torch.allclose(turned, module(x))


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="`device` 'cuda:99' is not available here"):
        choose_device("cuda:99")
    for name, message in (("toaster", "unknown `device` 'toaster'; choose from"), ("gpu", "did you mean 'cuda'")):
        with pytest.raises(UsageError, match=message):
            choose_device(name)


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


def test_a_cosine_head_bounds_its_logits():
    torch.manual_seed(0)
    network = build_network("resnet18", 3, 4, head="cosine").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = network.forward_head(network.forward_features(x), pre_logits=True)
        expected = 30 * F.cosine_similarity(features[:, None], network.fc.weight[None], dim=2)
        torch.testing.assert_close(network(x), expected)
    torch.testing.assert_close(network.fc.weight.norm(dim=1), torch.ones(4))
    with pytest.raises(UsageError, match="unknown head 'round'; choose from: linear, cosine"):
        build_network("resnet18", 3, 4, head="round")


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


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_larger_residual_networks_read_any_bands(backbone):
    network = build_network(backbone, 4, 10).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 4, 64, 64)).shape == (1, 10)


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


@pytest.fixture(scope="module", params=["lite0", "resnet18"])
def dense(request, tiny_model) -> DenseReflectance:
    """A dense network of random weights that reads windows of 64 px scaled to 128, 4 x 4 features in each."""
    torch.manual_seed(0)
    bundle = replace(Bundle.load(tiny_model), backbone=request.param, input_size=128, feature_stride=16)
    module = with_reflectance(build_network(request.param, 3, 10), bundle).eval()
    assert isinstance(module, DenseReflectance)
    return module


@torch.inference_mode()
def test_a_window_without_context_is_that_of_a_windowed_model(dense, tiny_model):
    bundle = replace(Bundle.load(tiny_model), input_size=128)
    windowed = with_reflectance(dense.network, bundle).eval()
    assert not isinstance(windowed, DenseReflectance)
    x = 0.3 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x[0, :, :5] = torch.nan
    torch.testing.assert_close(dense.patches_of(x), windowed(x), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_window_by_itself_is_mirrored(dense):
    x = 0.3 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    around = torch.nn.functional.pad(x, [32] * 4, mode="reflect")
    torch.testing.assert_close(dense(x), dense.head(dense.window_features(around)[:, 2, 2]))
    torch.testing.assert_close(dense.features(x), dense.window_features(around)[:, 2, 2])


@torch.inference_mode()
def test_windows_are_means_of_the_features_in_them(dense):
    image = 0.3 * torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    spatial = dense.network.forward_features(dense.normalize(image))
    assert spatial.shape[2:] == (8, 12), "one every 16 px"
    features = dense.window_features(image)
    assert features.shape[:3] == (2, 5, 9)
    for i, j in ((0, 0), (2, 3), (4, 8)):
        torch.testing.assert_close(features[:, i, j], spatial[:, :, i : i + 4, j : j + 4].mean((2, 3)))
    torch.testing.assert_close(dense.window_features(image, 4), features[:, ::4, ::4])
    logits = dense.patches_of(image)
    torch.testing.assert_close(logits, dense.head(features[:, ::4, ::4].reshape(12, -1)))


def test_dropout_of_dense_features_acts_in_training_only(tiny_model):
    bundle = replace(Bundle.load(tiny_model), backbone="resnet18", input_size=64, feature_stride=32)
    module = with_reflectance(build_network("resnet18", 3, 10, dropout=0.5), bundle).eval()
    assert isinstance(module, DenseReflectance)
    image = torch.rand(1, 3, 64, 128) * 0.3
    with torch.inference_mode():
        assert torch.equal(module.patches_of(image), module.patches_of(image))
        module.train()
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
        assert not torch.equal(module.patches_of(image), module.patches_of(image))
