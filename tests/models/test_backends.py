"""Every back end gives what float32 torch gives, on windows cut from any place of a strip."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

import geocfl
from geocfl.core.grid import CellGrid
from geocfl.core.windows import cut, fill
from geocfl.errors import ModelError, UsageError
from geocfl.mapping.strips import scene_strips
from geocfl.models import backends
from geocfl.models.backends import load_backend
from geocfl.models.backends.base import measure_rate
from geocfl.scenes import open_scene

INSTALLED = ["openvino", "onnx", "torch"]


def predict(backend, pixels, rows, columns) -> np.ndarray:
    """Probabilities of the windows that start at these pixels."""
    found = list(backend.classify(backend.place(pixels), np.array(rows), np.array(columns), 1))
    result = np.full((len(rows), found[0].probabilities.shape[1]), np.nan, np.float32)
    for part in found:
        result[part.windows] = part.probabilities
    return result


@pytest.fixture(scope="module")
def strip() -> np.ndarray:
    pixels = np.random.default_rng(0).gamma(4, 0.03, (3, 90, 200)).astype(np.float32)
    pixels[:, 20:60, 30:50] = np.nan
    return pixels


@pytest.mark.parametrize("name", INSTALLED)
def test_batches_of_a_strip_are_the_models_own_predictions(tiny_model: Path, strip: np.ndarray, name: str) -> None:
    model = geocfl.load_model(tiny_model)
    backend = load_backend(model, name, device="cpu", precision="float32", batch_size=4)
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, 27, 19), rng.integers(0, 137, 19)
    expected = model.predict(
        cut(strip, 64, rows, columns), backend="torch", device="cpu", precision="float32"
    ).probabilities
    np.testing.assert_allclose(predict(backend, strip, rows, columns), expected, atol=2e-5)
    assert predict(backend, strip, rows[:1], columns[:1]).shape == (1, 10), "fewer than a batch"
    assert list(backend.classify(backend.place(strip), rows[:0], columns[:0], 1)) == []
    sizes = [len(batch.probabilities) for batch in backend.classify(backend.place(strip), rows, columns, 1)]
    assert sizes == [4, 4, 4, 4, 3]
    assert "float32" in repr(backend)
    assert "tiny on cpu" in repr(backend)


def test_a_last_batch_that_is_filled_up_gives_the_same(tiny_model: Path, strip: np.ndarray) -> None:
    backend = load_backend(geocfl.load_model(tiny_model), "torch", device="cpu", precision="float32", batch_size=4)
    rows, columns, sizes = np.arange(6), np.arange(6), []
    expected = predict(backend, strip, rows, columns)
    backend._pads = True  # as on CUDA
    read = backend._network.read
    backend._network.read = lambda pixels, **how: sizes.append(len(pixels)) or read(pixels, **how)
    np.testing.assert_allclose(predict(backend, strip, rows, columns), expected, atol=1e-6)
    (found,) = backend.classify_windows(cut(strip, 64, rows[:1], columns[:1]))
    np.testing.assert_allclose(found.probabilities, expected[:1], atol=1e-6)
    assert sizes == [4, 4, 4]


def test_weights_converted_once_give_what_autocast_gives(tiny_model: Path, strip: np.ndarray) -> None:
    import torch

    from geocfl.models.network import BackendNetwork

    model = geocfl.load_model(tiny_model)
    backend = load_backend(model, "torch", "cpu", "bfloat16", batch_size=6)
    assert {str(p.dtype) for p in backend._network.parameters()} == {"torch.bfloat16", "torch.float32"}
    rows, columns = np.arange(6), np.arange(100, 106)
    got = predict(backend, strip, rows, columns)
    backend._network = BackendNetwork(model).to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(got, predict(backend, strip, rows, columns))


@pytest.mark.parametrize("name", [*INSTALLED, "torch on a device"])
def test_missing_pixels_are_filled(tiny_model: Path, strip: np.ndarray, name: str) -> None:
    import torch

    model = geocfl.load_model(tiny_model)
    backend = load_backend(model, name.partition(" ")[0], device="cpu", precision="float32")
    if name == "torch on a device":
        backend._on_host = False  # as a GPU cuts its windows
    rows, columns = np.array([0, 20, 10, 26]), np.array([100, 25, 20, 50])
    windows = cut(strip, 64, rows, columns)
    assert np.isnan(windows).any(axis=(1, 2, 3)).tolist() == [False, True, True, False]
    with torch.inference_mode():
        logits = model.network()(torch.from_numpy(fill(windows)))
    expected = torch.softmax(logits / model.temperature, dim=1)
    np.testing.assert_allclose(predict(backend, strip, rows, columns), expected, atol=2e-5)


@pytest.mark.integration
@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("kind", ["tiny_model", "tiny_dense"])
def test_results_that_are_not_finite_are_refused(
    tmp_path: Path, request: pytest.FixtureRequest, strip: np.ndarray, name: str, kind: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(request.getfixturevalue(kind), tmp_path / "huge")
    state = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
    head = next(key for key in ("fc.weight", "classifier.weight") if key in state)
    save_file(state | {head: state[head] + 1e38}, folder / "model.safetensors")
    backend = load_backend(geocfl.load_model(folder), name, device="cpu", precision="float32")
    with pytest.raises(
        ModelError, match=r"huge: this model gives numbers that are not finite; use `precision=float32`"
    ):
        list(backend.classify_windows(np.nan_to_num(strip[None, :, :64, :64])))


@pytest.mark.integration
@pytest.mark.parametrize("name", INSTALLED)
def test_tta_shrinks_the_batches(tiny_model: Path, strip: np.ndarray, name: str) -> None:
    model = geocfl.load_model(tiny_model)
    backend = load_backend(model.with_tta(8), name, device="cpu", precision="float32")
    assert backend.batch_size == 4, "a batch has as many images as it has windows without augmentation"
    rows, columns = np.array([0, 3, 25, 26, 7]), np.array([0, 60, 90, 136, 20])
    windows = fill(cut(strip, 64, rows, columns))
    sides = [np.rot90(side, turns, (2, 3)) for side in (windows, windows[..., ::-1]) for turns in range(4)]
    one = [
        np.log(model.predict(side, backend="torch", device="cpu", precision="float32").probabilities) for side in sides
    ]
    mean = np.exp(np.mean(one, axis=0))
    expected = mean / mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predict(backend, strip, rows, columns), expected, atol=2e-5)


@pytest.mark.parametrize("name", INSTALLED)
def test_measured_rates_are_windows_per_second(tiny_model: Path, name: str) -> None:
    model = geocfl.load_model(tiny_model)
    assert 0 < measure_rate(load_backend(model, name, device="cpu", batch_size=2), model, seconds=0.01) < 1e6


@pytest.mark.extra("onnx", "openvino")
def test_auto_takes_the_fastest_that_is_installed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "geocfl")
    backends._recommend_openvino.cache_clear()
    model = geocfl.load_model(tiny_model)
    monkeypatch.setattr(backends, "has_gpu", lambda: False)
    assert "openvino" in repr(load_backend(model))
    here = {"openvino": False, "onnxruntime": True, "torch": True}
    monkeypatch.setattr(backends, "find_spec", lambda name: here[name])
    assert "onnxruntime" in repr(load_backend(model))
    here["onnxruntime"] = False
    load_backend(model, "torch")
    assert "OpenVINO" not in caplog.text, "torch was asked for"
    for _ in range(2):
        assert "torch" in repr(load_backend(model))
    assert caplog.text.count("run: pip install openvino onnx onnxscript") == 1
    with pytest.raises(UsageError, match="pip install openvino onnx onnxscript"):
        load_backend(model, "openvino")


@pytest.mark.extra("onnx", "openvino")
def test_torch_is_chosen_for_a_gpu(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = geocfl.load_model(tiny_model)
    monkeypatch.setattr(backends, "has_gpu", lambda: True)
    monkeypatch.setattr(backends, "cuda_of_torch", lambda: "13.0")
    backends._torch_uses_gpus.cache_clear()
    assert "through torch" in repr(load_backend(model))
    assert "openvino" in repr(load_backend(model, device="cpu"))
    with pytest.raises(UsageError, match="leave out `device=cuda`"):
        load_backend(model, "onnx", device="cuda")


@pytest.mark.extra("openvino")
def test_a_torch_without_cuda_leaves_a_gpu_to_others(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "version.py").write_text("from typing import Optional\ncuda: Optional[str] = None\nhip = None\n")
    torch_here = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(backends, "find_spec", lambda name: torch_here)
    monkeypatch.setattr(backends, "has_gpu", lambda: True)
    backends._torch_uses_gpus.cache_clear()
    for _ in range(2):
        assert "openvino" in repr(load_backend(geocfl.load_model(tiny_model)))
    assert caplog.text.count("the installed torch is built without CUDA") == 1
    for stated, found in (("cuda: Optional[str] = '13.0'", "13.0"), ("hip = '6.2'", "6.2"), ("debug = False", None)):
        (tmp_path / "version.py").write_text(stated + "\n")
        assert backends.cuda_of_torch() == found
    backends._torch_uses_gpus.cache_clear()


def test_batches_that_lack_memory_are_halved(
    tiny_model: Path, strip: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    backend = load_backend(geocfl.load_model(tiny_model), "torch", device="cpu", precision="float32", batch_size=8)
    rows, columns = np.arange(11), np.arange(11)
    windows = cut(strip, 64, rows, columns)
    expected = predict(backend, strip, rows, columns)
    read, sizes = backend._network.read, []

    def small(pixels, **how):
        if len(pixels) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(len(pixels))
        return read(pixels, **how)

    backend._network.read = small
    np.testing.assert_allclose(predict(backend, strip, rows, columns), expected, atol=1e-6)
    assert sizes == [2] * 5 + [1]
    assert caplog.text.count("cpu lacks memory for batches of 8 windows, so they are halved") == 1
    backend.batch_size = 8
    found = list(backend.classify_windows(windows))
    np.testing.assert_allclose(np.concatenate([part.probabilities for part in found]), expected, atol=1e-6)
    assert [len(part.probabilities) for part in found] == [8, 3]
    assert caplog.text.count("lacks memory") == 1

    def none(pixels, **how):
        raise RuntimeError("CUDA out of memory")

    backend._network.read = none
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(backend, strip, rows, columns)
    assert backend.batch_size == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"backend": "tensorrt"}, "openvino, onnx, torch"),
        ({"precision": "int3"}, "float32, bfloat16, float16"),
        pytest.param(
            {"backend": "onnx", "precision": "bfloat16"},
            "leave out `precision=bfloat16`",
            marks=pytest.mark.extra("onnx"),
        ),
        ({"backend": "torch", "device": "cpu", "precision": "float16"}, "float16"),
        ({"device": "tpu9"}, "unknown `device` 'tpu9'"),
        ({"device": "gpu"}, "did you mean 'cuda'"),
    ],
)
def test_invalid_combinations_are_refused(tiny_model: Path, options: dict[str, str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        load_backend(geocfl.load_model(tiny_model), **options)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_mapping_without_torch_imports_none(tmp_path: Path, tiny_model: Path, name: str) -> None:
    dn = np.random.default_rng(0).integers(200, 2000, (3, 128, 128), dtype=np.uint16)
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", height=128, width=128, count=3, dtype="uint16", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    load_backend(geocfl.load_model(tiny_model), name, device="cpu")  # exports with torch, in this process
    code = (
        "import sys, geocfl\n"
        f"geocfl.map_scene({str(tmp_path / 's.tif')!r}, {str(tmp_path / 'out')!r}, model={str(tiny_model)!r},"
        f" backend={name!r}, device='cpu')\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'timm', 'torchgeo', 'onnx'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_gpu_gives_the_same_probabilities(tiny_model: Path, strip: np.ndarray) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    model = geocfl.load_model(tiny_model)
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, 27, 19), rng.integers(0, 137, 19)
    expected = model.predict(
        cut(strip, 64, rows, columns), backend="torch", device="cpu", precision="float32"
    ).probabilities
    for precision, tolerance in (("float32", 1e-3), ("float16", 2e-2)):
        backend = load_backend(model, "auto", "cuda", precision, batch_size=4)
        np.testing.assert_allclose(predict(backend, strip, rows, columns), expected, atol=tolerance)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.extra("onnx", "openvino")
@pytest.mark.parametrize("scene", ["aquileia", "dolomites", "demo"])
def test_back_ends_agree_with_float32_torch(tmp_path: Path, shared_data: Path, scene: str) -> None:
    """At stride 16: on >= 99.5 % of the cells, and on all whose two best classes are more than 0.1 apart in float32."""
    if scene == "demo":
        path = geocfl.demo(tmp_path / "demo").scene
    else:
        path = next((shared_data / "scenes").glob(f"*{scene}*.tif"))
    model = geocfl.load_model()
    with open_scene(path) as opened:
        grid = CellGrid(opened.height, opened.width, 16, model.window, opened.transform, opened.crs)
        (strip,) = scene_strips(opened, model.bands, grid, grid.rows)
    rows, columns = (16 * index for index in np.nonzero(strip.valid))
    expected = predict(load_backend(model, "torch", "cpu", "float32"), strip.pixels, rows, columns)
    second, first = np.sort(expected, axis=1)[:, -2:].T
    for name in INSTALLED:
        got = predict(load_backend(model, name, "cpu"), strip.pixels, rows, columns)  # in the precision of auto
        same = got.argmax(1) == expected.argmax(1)
        assert same.mean() >= 0.995, name
        assert same[first - second > 0.1].all(), name
