"""Models for other programs: the same probabilities, and what the bundle says about itself."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from pystac.validation import validate
from pystac.validation.stac_validator import JsonSchemaSTACValidator

import geocfl
from geocfl.errors import ModelError, OutputError, UsageError
from geocfl.models.graph import bundle_graph
from geocfl.models.onnx_file import cached_onnx


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


@pytest.mark.parametrize("kind", ["tiny_model", pytest.param("tiny_dense", marks=pytest.mark.integration)])
@pytest.mark.parametrize("format", READERS)
def test_other_programs_get_the_same_probabilities(
    tmp_path: Path, windows: np.ndarray, format: str, kind: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    suffix = {"onnx": "onnx", "torchscript": "pt", "openvino": "xml"}[format]
    files = geocfl.export(path, tmp_path / "sub" / f"m.{suffix}", format=format)
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == sorted(f.name for f in files)
    import torch

    model = geocfl.load_model(path)
    for count in (1, 3):
        got, facts = READERS[format](files[0], windows[:count])
        with torch.inference_mode():
            logits = model.network()(torch.from_numpy(windows[:count]))
        np.testing.assert_allclose(got, torch.softmax(logits / model.temperature, 1), atol=2e-4)
    assert json.loads(facts) == json.loads(json.dumps(model.to_json()))


@pytest.mark.extra("onnx")
def test_nothing_is_overwritten_by_default(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("mine")
    with pytest.raises(OutputError, match="`overwrite=True`"):
        geocfl.export(tiny_model, path)
    assert path.read_text() == "mine"
    geocfl.export(tiny_model, path, overwrite=True)
    assert path.stat().st_size > 1_000_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.extra("openvino")
def test_bad_names_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="onnx, torchscript, openvino, deepness, stac-mlm"):
        geocfl.export(tiny_model, tmp_path / "m", format="tflite")
    with pytest.raises(UsageError, match=r"m\.xml"):
        geocfl.export(tiny_model, tmp_path / "m.onnx", format="openvino")
    with pytest.raises(UsageError, match=r"m\.stac\.json"):
        geocfl.export(tiny_model, tmp_path / "m.json", format="stac-mlm")


def test_missing_packages_are_named(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geocfl.models.onnx_file.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnx and onnxscript not installed; run: pip install onnx onnxscript"):
        geocfl.export(tiny_model, tmp_path / "m.onnx")


def export_nothing(_: Any, *, windows: bool) -> bytes:
    """In place of the export, where it is not what is tested: the fields of a model, each empty."""
    return bytes([7 << 3 | 2, 0, 8 << 3 | 2, 0, 14 << 3 | 2, 0])


@pytest.mark.extra("onnx")
def test_the_cache_knows_a_model_by_its_content(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("geocfl.models.onnx_file._content", export_nothing)
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


@pytest.mark.extra("onnx")
def test_export_works_without_a_writable_cache(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("geocfl.models.onnx_file._content", export_nothing)
    assert cached_onnx(geocfl.load_model(tiny_model)).is_file()


@pytest.mark.extra("onnx")
@pytest.mark.parametrize("kept", [0, 1, 5])
def test_a_file_in_the_cache_that_was_cut_off_is_made_anew(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path))
    monkeypatch.setattr("geocfl.models.onnx_file._content", export_nothing)
    file = cached_onnx(geocfl.load_model(tiny_model))
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    assert cached_onnx(geocfl.load_model(tiny_model)).read_bytes() == whole


@pytest.mark.extra("onnx")
def test_a_full_cache_is_named(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("geocfl.models.onnx_file._content", export_nothing)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cache/onnx/.*No space left on device.*GEOCFL_CACHE"):
        cached_onnx(geocfl.load_model(tiny_model))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
@pytest.mark.parametrize("limit", [1000])
def test_a_limit_of_file_sizes_is_named_and_leaves_nothing(tmp_path: Path, tiny_model: Path, limit: int) -> None:
    code = (
        "import resource, sys, geocfl\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))\n"
        "try: geocfl.export(sys.argv[1], sys.argv[2], format='torchscript')\n"
        "except geocfl.OutputError as error: print(error)"
    )
    out = tmp_path / "model.pt"
    command = [sys.executable, "-c", code, str(tiny_model), str(out), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert f"{out}: cannot be written (File too large)" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture
def bundle(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Copies the tiny model, with other facts, into a folder of its own."""

    def copy(name: str = "bundle", **facts: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_model, folder)
        stated = json.loads((folder / "model.json").read_text()) | facts
        (folder / "model.json").write_text(json.dumps(stated))
        return folder

    return copy


@pytest.fixture(scope="module")
def validator() -> JsonSchemaSTACValidator:
    """pystac's own, with the schemas of extensions at hand; another one would need a network, and fail."""
    validator = JsonSchemaSTACValidator()
    for file in (Path(__file__).parents[1] / "schemas").glob("*-v*.json"):
        schema = json.loads(file.read_text(encoding="utf-8"))
        validator.schema_cache[schema["$id"].rstrip("#")] = schema
    uri = "https://stac-extensions.github.io/classification/v{}/schema.json"
    validator.schema_cache[uri.format("1.1.0")] = validator.schema_cache[uri.format("2.0.0")]  # see the README there
    return validator


EUROSAT_ORIGIN = {
    "data": "EuroSAT.zip",
    "seed": 0,
    "loss": "class-focal",
    "weights": "imagenet",
    "versions": {"torch": "2.15.0"},
    "license": "MIT",
}


def test_a_catalog_entry_is_valid_and_says_what_the_bundle_says(
    bundle: Callable[..., Path], validator: JsonSchemaSTACValidator
) -> None:
    folder = bundle(origin=EUROSAT_ORIGIN)
    files = geocfl.export(folder, folder / "tiny.stac.json", format="stac-mlm")
    assert files == [folder / "tiny.stac.json"]
    item = pystac.Item.from_file(files[0])
    assert len(validate(item, validator=validator)) == 4  # core, mlm, classification, file

    model, network = geocfl.load_model(folder), geocfl.load_model(folder).network()
    facts = item.properties
    (taken,), (given,) = facts["mlm:input"], facts["mlm:output"]
    assert [band["name"] for band in facts["bands"]] == [band["name"] for band in taken["bands"]] == list(model.bands)
    assert [(s["mean"], s["stddev"]) for s in taken["value_scaling"]] == list(zip(model.mean, model.std, strict=True))
    assert taken["input"]["shape"] == [-1, 3, 32, 32]
    assert taken["resize_type"] == "interpolation-linear"
    assert {band["expression"] for band in taken["bands"]} == {"clip(A, 0.0, 0.275)"}
    assert given["result"]["shape"] == [-1, 10]
    assert [c["description"] for c in given["classification:classes"]] == model.legend.names
    assert [c["value"] for c in given["classification:classes"]] == list(range(10))
    assert facts["mlm:total_parameters"] == sum(p.numel() for p in network.parameters())
    assert (facts["mlm:framework_version"], facts["mlm:pretrained_source"]) == ("2.15.0", "ImageNet")
    assert facts["mlm:hyperparameters"]["loss"] == "class-focal"
    assert item.bbox is not None
    for asset in item.assets.values():
        content = Path(asset.get_absolute_href() or "").read_bytes()
        checksum = "1220" + hashlib.sha256(content).hexdigest()
        assert (asset.extra_fields["file:size"], asset.extra_fields["file:checksum"]) == (len(content), checksum)


@pytest.mark.parametrize(
    "facts",
    [
        {"origin": {}},
        {"origin": {"versions": "old", "license": "ask me nicely", "weights": "none", "data": "Ø"}},
        {"origin": {"versions": {"torch": "2.9.0a0+git1"}, "weights": "/home/me/w.pth"}},
        {"name": "Ünïcode <model>", "input_size": 64},
        {"name": "7", "backbone": "resnet18"},
        {"clip": [0, 1], "legend": [{"code": k, "name": "森林", "folder": "a", "color": "#00ff00"} for k in (1, 2)]},
    ],
)
def test_catalog_entries_of_other_models(
    tmp_path: Path, bundle: Callable[..., Path], validator: JsonSchemaSTACValidator, facts: dict[str, Any]
) -> None:
    (file,) = geocfl.export(bundle(**facts), tmp_path / "m.stac.json", format="stac-mlm")
    item = pystac.Item.from_file(file)
    validate(item, validator=validator)
    assert item.geometry is None  # of unknown training data
    assert item.bbox is None
    assert "/home" not in file.read_text()
    assert (item.properties["mlm:pretrained_source"] is None) == (not item.properties["mlm:pretrained"])


def test_a_catalog_entry_can_be_moved_with_its_bundle(tmp_path: Path, tiny_model: Path) -> None:
    out = tmp_path / "out" / "m.stac.json"
    files = geocfl.export(tiny_model, out, format="stac-mlm")
    assert files == [out, tmp_path / "out/m/model.json", tmp_path / "out/m/model.safetensors"]
    before = out.read_text()
    (tmp_path / "out").rename(tmp_path / "moved")
    item = pystac.Item.from_file(tmp_path / "moved/m.stac.json")
    assert all(Path(asset.get_absolute_href() or "").is_file() for asset in item.assets.values())
    assert str(tmp_path) not in before
    copied = tmp_path / "moved/m"
    assert geocfl.load_model(copied).to_json() == geocfl.load_model(tiny_model).to_json()

    again = geocfl.export(copied, tmp_path / "moved/m.stac.json", format="stac-mlm", overwrite=True)
    assert again == [tmp_path / "moved/m.stac.json"]
    assert again[0].read_text() == before


def test_a_catalog_entry_carries_the_graph(tmp_path: Path, validator: JsonSchemaSTACValidator) -> None:
    model = geocfl.load_model("eurosat-rgb-lite0")
    files = geocfl.export(model.folder, tmp_path / "m.stac.json", format="stac-mlm")
    assert [file.name for file in files] == ["m.stac.json", "model.json", "model.safetensors", "model.onnx"]
    assert bundle_graph(geocfl.load_model(tmp_path / "m")) == tmp_path / "m/model.onnx"
    item = pystac.Item.from_file(files[0])
    validate(item, validator=validator)
    assert item.assets["graph"].href == "./m/model.onnx"
    assert item.assets["graph"].extra_fields["file:size"] == files[3].stat().st_size


def test_a_catalog_entry_overwrites_nothing_by_default(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.json").write_text("mine")
    with pytest.raises(OutputError, match=r"m/model\.json.*`overwrite=True`"):
        geocfl.export(tiny_model, tmp_path / "m.stac.json", format="stac-mlm")
    assert [p.name for p in tmp_path.rglob("*")] == ["m", "model.json"]
    assert (tmp_path / "m/model.json").read_text() == "mine"


def test_a_catalog_entry_needs_readable_weights(tmp_path: Path, bundle: Callable[..., Path]) -> None:
    folder = bundle()
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"model\.safetensors: not readable weights"):
        geocfl.export(folder, tmp_path / "m.stac.json", format="stac-mlm")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.integration
def test_a_catalog_entry_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, geocfl\n"
        f"geocfl.export('eurosat-rgb-lite0', {str(tmp_path / 'm.stac.json')!r}, format='stac-mlm')\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
