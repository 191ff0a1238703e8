"""The networks that predict are timm's, to the bit."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geocfl.models.backbones import build_network


@pytest.mark.parametrize("shape", [(2, 3, 96, 96), (1, 3, 224, 160), (1, 4, 97, 131)])
@pytest.mark.parametrize(
    ("backbone", "head"),
    [("lite0", "linear"), ("lite0", "cosine"), ("resnet18", "linear"), ("resnet34", "linear"), ("resnet50", "cosine")],
)
def test_they_give_the_numbers_of_timm(shape: tuple[int, ...], backbone: str, head: str) -> None:
    torch.manual_seed(0)
    ours = build_network(backbone, shape[1], 7, head=head, predicts=True).eval()
    timms = build_network(backbone, shape[1], 7, head=head).eval()
    assert type(ours) is not type(timms)
    assert list(ours.state_dict()) == list(timms.state_dict())
    for layer in timms.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 2)
    ours.load_state_dict(timms.state_dict())
    x = torch.randn(shape)
    with torch.inference_mode():
        assert torch.equal(ours(x), timms(x))
        features = timms.forward_features(x)
        assert torch.equal(ours.forward_features(x), features)
        pooled = timms.forward_head(features, pre_logits=True)
        assert torch.equal(ours.forward_head(features, pre_logits=True), pooled)
        assert torch.equal(ours.get_classifier()(pooled), timms.get_classifier()(pooled))


@pytest.mark.parametrize("backbone", ["lite0", "resnet18"])
def test_the_torch_back_end_imports_neither_timm_nor_torchvision(
    tmp_path: Path, tiny_dense: Path, backbone: str
) -> None:
    model = tiny_dense
    if backbone == "resnet18":
        from geocfl.models.bundle import Bundle

        model = tmp_path / "resnet"
        facts = {"name": "resnet", "backbone": backbone, "input_size": 64, "feature_stride": 0, "novelty": ()}
        network = build_network(backbone, 3, 10)
        replace(Bundle.load(tiny_dense), **facts).save(model, network.state_dict())
    code = (
        "import sys\n"
        "from geocfl.models.backends import load_backend\n"
        "from geocfl.models.bundle import Bundle\n"
        "load_backend(Bundle.load(sys.argv[1]), 'torch', 'cpu')\n"
        "print(*{'timm', 'torchvision', 'torchgeo', 'sympy', 'torch._dynamo'}.intersection(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
