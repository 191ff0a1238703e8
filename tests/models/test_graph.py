"""Graphs of bundles: the numbers of torch, current and whole, and no other files or operators."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geocfl
from geocfl.errors import ModelError
from geocfl.models.backends import has_gpu, load_backend
from geocfl.models.bundle import Bundle, bundled_models
from geocfl.models.graph import bundle_graph, seal
from geocfl.models.graph_file import refer_to_weights, write_graph
from geocfl.models.onnx_fields import outline

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.extra("onnx", "openvino")


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 0.4, (3, 3, 64, 64)).astype(np.float32)


@pytest.fixture
def lite0(tmp_path: Path) -> Path:
    """A copy of a built-in model."""
    return Path(shutil.copytree(Bundle.load("eurosat-rgb-lite0").folder, tmp_path / "model"))


def loaded(file: Path) -> Any:
    return onnx.load(file, load_external_data=False)


def sealed(folder: Path, change: Callable[[Any], None]) -> Bundle:
    """A bundle whose graph was changed by someone who knows how to seal it."""
    bundle, proto = Bundle.load(folder), loaded(folder / "model.onnx")
    del proto.metadata_props[:]
    change(proto)
    body = proto.SerializeToString()
    (folder / "model.onnx").write_bytes(body + seal(bundle, body, (folder / "model.safetensors").read_bytes()))
    return bundle


@pytest.mark.parametrize("name", bundled_models())
def test_built_in_models_have_their_graph(name: str, windows: np.ndarray) -> None:
    import torch

    from geocfl.models.network import load_network

    bundle = Bundle.load(name)
    file = bundle_graph(bundle)
    assert file is not None, "weights or facts changed: run make graphs"
    onnx.checker.check_model(file)
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 10_000_000
    with torch.inference_mode():
        logits, residuals = load_network(bundle).scores(torch.from_numpy(windows))
    expected = torch.softmax(logits / bundle.temperature, dim=-1).numpy()
    for backend in ("openvino", "onnx"):
        (found,) = load_backend(bundle, backend, precision="float32").classify_windows(windows)
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
        if residuals is not None:
            assert found.novelty is not None
            wanted = np.interp(residuals.numpy(), bundle.novelty, np.linspace(0, 100, 101))
            np.testing.assert_allclose(found.novelty, wanted, atol=0.5)


@pytest.mark.parametrize("name", bundled_models())
def test_a_graph_gives_the_pooled_features_too(name: str, windows: np.ndarray) -> None:
    import onnxruntime
    import torch

    from geocfl.models.network import load_network

    bundle = Bundle.load(name)
    margin = bundle.context
    pixels = np.pad(windows, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode="reflect")
    session = onnxruntime.InferenceSession(bundle.folder / "model.onnx", providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"reflectance": pixels})
    if margin:
        features = features[:, margin // bundle.feature_stride, margin // bundle.feature_stride]
    with torch.inference_mode():
        expected = load_network(bundle).features(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-3)


@pytest.mark.integration
@pytest.mark.parametrize("model", ["tiny_model", "tiny_dense"])
def test_a_written_graph_is_the_exported_network_to_the_bit(
    model: str, request: pytest.FixtureRequest, tmp_path: Path, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(model), tmp_path / "model"))
    bundle = Bundle.load(folder)
    (exported,) = load_backend(bundle, "onnx").classify_windows(windows)  # through the cache
    file = write_graph(bundle)
    assert file == folder / "model.onnx"
    assert file.stat().st_size < 1_000_000
    assert file.read_bytes() == Path(str(write_graph(bundle))).read_bytes(), "the same again"
    monkeypatch.setattr("geocfl.models.onnx_file.cached_onnx", lambda *_: pytest.fail("exported again"))
    (found,) = load_backend(bundle, "onnx").classify_windows(windows)
    np.testing.assert_array_equal(found.probabilities, exported.probabilities)


@pytest.mark.integration
def test_a_trained_model_has_a_graph(write_patches: Callable[..., Path], tmp_path: Path) -> None:
    run = geocfl.train(write_patches(tmp_path / "patches"), tmp_path / "run", epochs=1, weights="none", device="cpu")
    assert bundle_graph(Bundle.load(run.path)) == run.path / "model.onnx"


def test_factors_and_transposition_follow_from_the_stored_weights() -> None:
    from safetensors.numpy import save

    rng = np.random.default_rng(0)
    stored = {name: rng.normal(size=(96, 96)).astype(np.float16) for name in ("a", "b", "c", "d")}
    stored["a"][5] = 0
    factors = rng.uniform(0.1, 3, (96, 1)).astype(np.float32)
    wanted = {
        "net.a": stored["a"] * factors,
        "net.b": np.ascontiguousarray(stored["b"].T, np.float32),
        "renamed": stored["c"].astype(np.float32),
        "net.d": stored["d"].astype(np.float32) + 1,
    }
    weights = save(stored)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in wanted.items()]
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    refer_to_weights(proto, weights)
    assert sorted(outline(proto.SerializeToString()).external) == ["a", "b", "c"]
    assert {tensor.name for tensor in proto.graph.initializer} == {"a", "b", "c", "a.factors", "net.d"}
    assert {operator.output[0] for operator in proto.graph.node} >= {"net.a", "net.b", "renamed"}


@pytest.mark.parametrize("change", [{"temperature": 9.0}, {"clip": [0.0, 0.9]}, {"tta": 8}])
def test_a_graph_of_other_facts_is_not_used(lite0: Path, change: dict[str, Any]) -> None:
    facts = json.loads((lite0 / "model.json").read_text())
    (lite0 / "model.json").write_text(json.dumps(facts | {"name": "renamed", "origin": {}}))
    assert bundle_graph(Bundle.load(lite0)), "the network does not depend on a name"
    (lite0 / "model.json").write_text(json.dumps(facts | change))
    assert bundle_graph(Bundle.load(lite0)) is None


def test_test_time_augmentation_needs_another_graph(lite0: Path) -> None:
    assert bundle_graph(replace(Bundle.load(lite0), tta=2)) is None


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
@pytest.mark.parametrize("place", [100, -1000, -1])
def test_a_damaged_bundle_loses_its_graph(lite0: Path, name: str, place: int) -> None:
    content = bytearray((lite0 / name).read_bytes())
    content[place] ^= 1
    (lite0 / name).write_bytes(content)
    assert bundle_graph(Bundle.load(lite0)) is None


@pytest.mark.parametrize("kept", [0, 50, 1000])
def test_a_graph_that_was_cut_off_is_not_used(lite0: Path, kept: int) -> None:
    (lite0 / "model.onnx").write_bytes((lite0 / "model.onnx").read_bytes()[:kept])
    assert bundle_graph(Bundle.load(lite0)) is None


def elsewhere(proto: Any) -> None:
    (proto.graph.initializer[-1].external_data[0]).value = "../../secret"


def shifted(proto: Any) -> None:
    offset = proto.graph.initializer[-1].external_data[1]
    offset.value = str(int(offset.value) + 2)


def reshaped(proto: Any) -> None:
    proto.graph.initializer[-1].dims[0] *= 1000


def twice(proto: Any) -> None:
    proto.graph.initializer[-1].external_data.add(key="location", value="model.safetensors")


def unknown(proto: Any) -> None:
    proto.graph.initializer[-1].name = "other"


def hidden(proto: Any) -> None:
    tensor = onnx.TensorProto(name="x", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    proto.graph.node.add(op_type="Constant", output=["x"]).attribute.add(name="value", type=4, t=tensor)


def loop(proto: Any) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    proto.graph.node.add(op_type="Loop", output=["x"]).attribute.append(onnx.helper.make_attribute("body", body))


def foreign(proto: Any) -> None:
    proto.graph.node[0].domain = "com.example"


def function(proto: Any) -> None:
    proto.functions.add(name="f", domain="d")


def other_input(proto: Any) -> None:
    proto.graph.input[0].name = "x"


def other_output(proto: Any) -> None:
    proto.graph.output[0].name = "x"


HOSTILE = [
    *(elsewhere, shifted, reshaped, twice, unknown, hidden),
    *(loop, foreign, function, other_input, other_output),
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_a_hostile_graph_is_refused(lite0: Path, change: Callable[[Any], None]) -> None:
    bundle = sealed(lite0, change)
    with pytest.raises(ModelError, match=r"model\.onnx: not a plain network \(.*\); delete it"):
        bundle_graph(bundle)


def test_an_unchanged_graph_is_sealed_again(lite0: Path) -> None:
    assert bundle_graph(sealed(lite0, lambda proto: None))


def test_another_number_of_classes_is_refused(lite0: Path, windows: np.ndarray) -> None:
    facts = json.loads((lite0 / "model.json").read_text())
    facts["legend"] = facts["legend"][:4]
    (lite0 / "model.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="does not give 4 classes"):
        list(load_backend(Bundle.load(lite0), "onnx").classify_windows(windows))


@pytest.mark.integration
@pytest.mark.skipif(has_gpu(), reason="torch maps on a GPU")
def test_a_map_of_a_built_in_model_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, geocfl\n"
        "geocfl.demo(sys.argv[1])\n"
        "unwanted = {'torch', 'torchvision', 'timm', 'onnx', 'onnxscript'} & set(sys.modules)\n"
        "sys.exit(f'imported {unwanted}' if unwanted else 0)\n"
    )
    environment = os.environ | {"GEOCFL_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "demo")], check=True, env=environment)
    assert not list(tmp_path.glob("cache/onnx/*")), "exported"
