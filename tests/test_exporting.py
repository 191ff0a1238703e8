"""Models for other programs: the same probabilities, and what the bundle says about itself."""

import json
from pathlib import Path

import numpy as np
import pytest

import geocfl
from geocfl.errors import OutputError, UsageError
from geocfl.exporting import cached_onnx


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    reflectance = np.random.default_rng(0).uniform(0, 0.4, (3, 3, 64, 64)).astype(np.float32)
    reflectance[1, :, :20] = np.nan
    return reflectance


def onnx_predict(path: Path, x: np.ndarray) -> tuple[np.ndarray, str]:
    import onnx
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return session.run(["probabilities"], {"reflectance": x})[0], session.get_modelmeta().custom_metadata_map["geocfl"]


def torchscript_predict(path: Path, x: np.ndarray) -> tuple[np.ndarray, str]:
    import torch

    extra = {"geocfl": ""}
    module = torch.jit.load(path, _extra_files=extra)
    return module(torch.from_numpy(x)).numpy(), extra["geocfl"]


def openvino_predict(path: Path, x: np.ndarray) -> tuple[np.ndarray, str]:
    import openvino

    network = openvino.Core().read_model(path)
    compiled = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(x)[0], str(network.get_rt_info("geocfl").astype(str))


READERS = {"onnx": onnx_predict, "torchscript": torchscript_predict, "openvino": openvino_predict}


@pytest.mark.parametrize("format", READERS)
def test_other_programs_get_the_same_probabilities(
    tmp_path: Path, tiny_model: Path, windows: np.ndarray, format: str
) -> None:
    suffix = {"onnx": "onnx", "torchscript": "pt", "openvino": "xml"}[format]
    files = geocfl.export(tiny_model, tmp_path / "sub" / f"m.{suffix}", format=format)
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == sorted(f.name for f in files)
    model = geocfl.load_model(tiny_model)
    for count in (1, 3):
        got, facts = READERS[format](files[0], windows[:count])
        np.testing.assert_allclose(got, model.predict(windows[:count]), atol=2e-4)
    assert json.loads(facts) == json.loads(json.dumps(model.to_json()))


def test_nothing_is_overwritten_unasked(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        geocfl.export(tiny_model, path)
    assert path.read_text() == "mine"
    geocfl.export(tiny_model, path, overwrite=True)
    assert path.stat().st_size > 1_000_000
    assert list(tmp_path.iterdir()) == [path]


def test_bad_names_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="onnx, torchscript, openvino"):
        geocfl.export(tiny_model, tmp_path / "m", format="tflite")
    with pytest.raises(UsageError, match=r"m\.xml"):
        geocfl.export(tiny_model, tmp_path / "m.onnx", format="openvino")


def test_missing_packages_are_named(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geocfl.exporting.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnx, onnxscript not installed; pip install 'geocfl\[onnx\]'"):
        geocfl.export(tiny_model, tmp_path / "m.onnx")


def test_the_cache_knows_a_model_by_its_content(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_onnx(geocfl.load_model(tiny_model))
    before = first.stat().st_mtime_ns
    assert cached_onnx(geocfl.load_model(tiny_model)) == first
    assert first.stat().st_mtime_ns == before
    other = tmp_path / "other"
    other.mkdir()
    facts = json.loads((tiny_model / "model.json").read_text()) | {"temperature": 3.0}
    (other / "model.json").write_text(json.dumps(facts))
    (other / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    assert cached_onnx(geocfl.load_model(other)) != first


def test_a_cache_that_cannot_be_written_is_no_hindrance(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "file"))
    assert cached_onnx(geocfl.load_model(tiny_model)).is_file()
