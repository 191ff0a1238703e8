"""The lite0 that predicts is timm's, to the bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geocfl.models.backbones import build_network


@pytest.mark.parametrize("shape", [(2, 3, 96, 96), (1, 3, 224, 160), (1, 4, 97, 131)])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_it_gives_the_numbers_of_timm(shape: tuple[int, ...], head: str) -> None:
    torch.manual_seed(0)
    ours = build_network("lite0", shape[1], 7, head=head, predicts=True).eval()
    timms = build_network("lite0", shape[1], 7, head=head).eval()
    assert type(ours) is not type(timms)
    assert list(ours.state_dict()) == list(timms.state_dict())
    ours.load_state_dict(timms.state_dict())
    x = torch.randn(shape)
    with torch.inference_mode():
        assert torch.equal(ours(x), timms(x))
        features = timms.forward_features(x)
        assert torch.equal(ours.forward_features(x), features)
        pooled = timms.forward_head(features, pre_logits=True)
        assert torch.equal(ours.forward_head(features, pre_logits=True), pooled)
        assert torch.equal(ours.get_classifier()(pooled), timms.get_classifier()(pooled))


def test_the_torch_back_end_imports_neither_timm_nor_torchvision(tiny_dense: Path) -> None:
    code = (
        "import sys\n"
        "from geocfl.models.backends import load_backend\n"
        "from geocfl.models.bundle import Bundle\n"
        "load_backend(Bundle.load(sys.argv[1]), 'torch', 'cpu')\n"
        "print(*{'timm', 'torchvision', 'torchgeo', 'sympy', 'torch._dynamo'}.intersection(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny_dense], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
