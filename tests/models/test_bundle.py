from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import geocfl.models.bundle
from geocfl.core.legend import Legend
from geocfl.core.windows import fill
from geocfl.errors import ModelError, UsageError
from geocfl.models.backbones import build_network
from geocfl.models.bundle import bundled_models
from geocfl.models.predict import Model, load_model

EXACT: Any = {"backend": "torch", "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(
        name="tiny",
        backbone="resnet18",
        bands=("B04", "B03", "B02"),
        gsd=10.0,
        window=64,
        input_size=32,
        clip=(0.0, 0.275),
        mean=(0.1, 0.11, 0.12),
        std=(0.04, 0.05, 0.06),
        legend=Legend.from_folders(["Forest", "River"]),
        temperature=1.5,
        origin={"seed": 0},
    )


@pytest.fixture(scope="module")
def saved(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.manual_seed(0)
    return model.save(tmp_path_factory.mktemp("bundle"), build_network("resnet18", 3, 2).state_dict())


@pytest.fixture
def bundle(saved: Model, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(saved.path, tmp_path / "copy"))


def test_a_saved_model_loads_unchanged(model, saved):
    loaded = load_model(saved.path)
    assert loaded == saved == replace(model, path=saved.path)
    state = loaded.network().network.state_dict()
    torch.manual_seed(0)
    for name, value in build_network("resnet18", 3, 2).state_dict().items():
        stored = state[name]
        assert stored.dtype == value.dtype
        expected = value.half().float() if value.is_floating_point() else value
        torch.testing.assert_close(stored, expected, atol=0, rtol=0)
    assert (saved.path / "model.safetensors").stat().st_size < 23e6, "half precision"


def test_files_follow_the_umask(model, tmp_path):
    before = os.umask(0o027)
    try:
        model.save(tmp_path / "bundle", build_network("resnet18", 3, 2).state_dict())
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "bundle").iterdir()}
    assert modes == {"model.safetensors": 0o640, "model.json": 0o640}


def test_probabilities_are_calibrated_for_any_batch_size(saved):
    windows = np.random.default_rng(0).uniform(0, 0.3, (5, 3, 64, 64)).astype(np.float32)
    windows[0, :, :8] = np.nan
    rows = saved.predict(windows, **EXACT).probabilities
    assert (rows.shape, rows.dtype) == ((5, 2), np.float32)
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(saved.predict(windows, batch_size=2, **EXACT).probabilities, rows, atol=1e-5)
    with torch.inference_mode():
        logits = saved.network()(torch.from_numpy(fill(windows)))
    np.testing.assert_allclose(rows, (logits / 1.5).softmax(1), atol=1e-5)


def test_tta_counts_are_the_symmetries_of_a_square(saved, tmp_path):
    assert saved.with_tta(None) is saved
    turning = saved.with_tta(4)
    assert (turning.tta, turning.network().tta, saved.network().tta) == (4, 4, 1)
    kept = turning.save(tmp_path / "turning", turning.network().network.state_dict())
    assert load_model(tmp_path / "turning") == kept, "a bundle can store it"
    with pytest.raises(UsageError, match="`tta` is 3 but must be one of 1, 2, 4, 8"):
        saved.with_tta(3)


def test_the_field_views_of_older_bundles_is_read_as_tta(bundle):
    file = bundle / "model.json"
    facts = json.loads(file.read_text())
    assert facts.pop("tta") == 1
    file.write_text(json.dumps(facts | {"views": 4}))
    assert load_model(bundle).tta == 4


def test_older_bundles_have_neither_novelty_nor_prediction_sets(bundle):
    file = bundle / "model.json"
    facts = json.loads(file.read_text())
    assert (facts.pop("novelty"), facts.pop("conformal")) == ([], [])
    file.write_text(json.dumps(facts))
    assert (load_model(bundle).novelty, load_model(bundle).conformal) == ((), ())
    assert load_model(bundle).network().residual is None


def test_the_correlation_of_dates_does_not_change_the_digest(bundle):
    file = bundle / "model.json"
    facts = json.loads(file.read_text())
    del facts["correlation"]
    file.write_text(json.dumps(facts, indent=2) + "\n")
    assert load_model(bundle).correlation == 1
    digest = load_model(bundle).digest()
    assert digest[:64] == hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(json.dumps(facts | {"correlation": 0.5}, indent=2) + "\n")
    fitted = load_model(bundle)
    assert (fitted.correlation, fitted.digest()) == (0.5, digest)
    file.write_text(json.dumps(facts | {"temperature": 2}, indent=2) + "\n")
    assert fitted.digest() != digest, "it is that of the files as they are"
    file.write_bytes(b"\xff")
    assert fitted.digest()[:64] == hashlib.sha256(b"\xff").hexdigest()


def test_the_licence_of_older_bundles_is_read_as_license(bundle):
    file = bundle / "model.json"
    facts = json.loads(file.read_text()) | {"origin": {"seed": 0, "licence": "MIT", "metrics": {}}}
    file.write_text(json.dumps(facts))
    assert list(load_model(bundle).origin.items()) == [("seed", 0), ("license", "MIT"), ("metrics", {})]


def test_repr_and_html_of_a_model(model):
    judged = {"metrics": {"test": {"n": 5400, "accuracy": 0.953, "macro_f1": 0.933}}}
    known = replace(model, name="<b>", origin=judged)
    line = "resnet18, 2 classes of 64 x 64 px at 10 m in B04, B03, B02"
    assert repr(known) == f"<Model <b>: {line}; accuracy 95.3%, macro F1 0.933 on 5,400 test patches>"
    page = known._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert all(c.color in page and c.name in page for c in model.legend)
    for origin in ({}, {"metrics": None}, {"metrics": {"test": {"accuracy": "good"}}}):
        assert repr(replace(model, origin=origin)).endswith(f"{line}>")


def test_an_unsaved_model_has_no_weights(model):
    with pytest.raises(ModelError, match="save it first"):
        model.network()


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors"])
def test_missing_parts_are_named(bundle, missing):
    (bundle / missing).unlink()
    with pytest.raises(ModelError, match=f"{missing}: missing"):
        load_model(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.1]},
        {"mean": [-1, 0.1, 0.1]},
        {"std": [1e308, 0.1, 0.1]},
        {"bands": []},
        {"std": [0.1, 0.0, 0.1]},
        {"temperature": 0},
        {"temperature": None},
        {"clip": [0.1]},
        {"tta": 3},
        {"feature_stride": 24},
        {"feature_stride": 16, "input_size": 96},
        {"legend": [{"code": 1, "name": "A", "folder": "A", "color": "red"}]},
        {"legend": [{"code": 7, "name": "A", "folder": "A", "color": "#123456"}]},
        {"novelty": [0.0, 1.0]},
        {"novelty": [1.0, 0.5, *[2.0] * 99]},
        {"novelty": [float("nan")] * 101},
        {"novelty": 1},
        {"damping": 0.5},
        {"damping": -1.0, "novelty": list(range(101))},
        {"damping": 0.5, "novelty": [0.0] * 101},
        {"damping": "a", "novelty": list(range(101))},
        {"conformal": [0.5]},
        {"conformal": [0.5, 1.5]},
        {"conformal": [0.5, float("nan")]},
        {"conformal": ["a", "b"]},
        {"correlation": 1.5},
        {"correlation": -0.1},
        {"correlation": "a"},
        {"correlation": None},
        {"unheard_of": 1},
        {"name": ""},
        {"name": "../../x"},
        {"name": ".."},
        {"name": "a\\b"},
        {"name": "C:x"},
        {"name": "two\nlines"},
        {"name": "n" * 201},
        {"name": 1},
        {"backbone": None},
        {"head": "round"},
        {"bands": ["B04", "B03", "B03"]},
        {"bands": ["B04", "B03", 2]},
        {"bands": ["B04", "B03", "B\x1b02"]},
        {"gsd": float("inf")},
        {"gsd": "10"},
        {"window": 64.0},
        {"window": True},
        {"window": 10**9},
        {"input_size": -32},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"mean": [0.1, 0.1, float("nan")]},
        {"std": [0.1, 0.1, float("inf")]},
        {"clip": [0.2, 0.1]},
        {"clip": [0.0, float("nan")]},
        {"origin": "here"},
        {"legend": []},
        {"legend": [{"code": 1, "name": "A", "folder": "A", "color": "#123456"}]},
        {"gsd": 10**400},
        {"legend": [{"code": k, "name": str(k) * 201, "folder": "A", "color": "#123456"} for k in (1, 2)]},
        {"legend": [{"code": k, "name": f"{k}\n", "folder": "A", "color": "#123456"} for k in (1, 2)]},
    ],
)
def test_invalid_descriptions_are_refused(bundle, change):
    file = bundle / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=r"model\.json: not a readable model description"):
        load_model(bundle)


def test_a_description_without_temperature_is_refused(bundle):
    file = bundle / "model.json"
    facts = json.loads(file.read_text())
    del facts["temperature"]
    file.write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=r"not a readable model description \('temperature'\)"):
        load_model(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\udcff", "[" * 100_000])
def test_unreadable_descriptions_are_refused(bundle, text):
    (bundle / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=r"model\.json: not a readable model description"):
        load_model(bundle)


def test_a_newer_format_is_refused(bundle):
    file = bundle / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 2}))
    with pytest.raises(ModelError, match="bundle format 2 is not 1"):
        load_model(bundle)


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_corrupt_or_foreign_weights_are_named(bundle, content):
    file = bundle / "model.safetensors"
    if content is None:
        load_model(bundle).save(bundle, build_network("resnet18", 3, 5).state_dict())
    else:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: not "):
        load_model(bundle).network()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tensor", ["fc.weight", "fc.bias", "bn1.running_var", "layer4.1.conv2.weight"])
def test_weights_that_are_not_finite_are_refused(bundle, tensor, value):
    state = load_file(bundle / "model.safetensors")
    state[tensor].view(-1)[-1] = value
    save_file(state, bundle / "model.safetensors")
    with pytest.raises(ModelError, match=rf"model\.safetensors: damaged weights \({tensor} has numbers that are not"):
        load_model(bundle).network()


def test_bundled_models_are_found_by_name(saved, tmp_path, monkeypatch):
    shutil.copytree(saved.path, tmp_path / "bundled/eurosat-tiny")
    monkeypatch.setattr(geocfl.models.bundle, "BUNDLED", tmp_path / "bundled")
    assert bundled_models() == ["eurosat-tiny"]
    assert load_model("eurosat-tiny").path == tmp_path / "bundled/eurosat-tiny"
    with pytest.raises(ModelError, match="or the built-in eurosat-tiny"):
        load_model("eurosat-huge")
