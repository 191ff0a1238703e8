from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from geocfl.errors import UsageError
from geocfl.models.backbones import BACKBONES, backbone_facts, build_network, layer_names


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


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_larger_residual_networks_read_any_bands(backbone):
    network = build_network(backbone, 4, 10).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 4, 64, 64)).shape == (1, 10)
