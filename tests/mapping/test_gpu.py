"""A GPU that is lost while it classifies; the back end of a CPU stands for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

import geocfl
from geocfl.errors import SceneError
from geocfl.mapping.gpu import on_gpu, surviving
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.settings import MapSettings
from geocfl.scenes import find_source

EXACT = MapSettings(backend="torch", precision="float32", products=("lulc",), vector=())


def test_the_cpu_finishes_the_map_of_a_gpu_that_is_lost(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geocfl.mapping.memory.STRIP_ROWS", 64)
    scene = tmp_path / "s.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", height=256, width=128, count=3, dtype="uint16", crs="EPSG:32633",
        transform=Affine(10, 0, 3e5, 0, -10, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(np.random.default_rng(0).integers(200, 2000, (3, 256, 128), dtype=np.uint16))
        dataset.descriptions = ("B04", "B03", "B02")
    source, model = find_source(scene), geocfl.load_model(tiny_model)
    Mapper(model, EXACT, device="cpu").map(source, tmp_path / "whole")

    lost = Mapper(model, EXACT, device="cpu")
    classify, strips = lost.classifier.backend.classify, []

    def failing(*arguments):
        strips.append(arguments)
        if len(strips) == 3:
            raise RuntimeError("CUDA error: GPU is lost\nCompile with TORCH_USE_CUDA_DSA")
        return classify(*arguments)

    monkeypatch.setattr(lost.classifier.backend, "classify", failing)
    monkeypatch.setattr("geocfl.mapping.classifier.on_gpu", lambda backend: backend is lost.classifier.backend)
    with pytest.raises(SceneError, match=r"the GPU failed \(CUDA error: GPU is lost\); run the same command") as caught:
        lost.map(source, tmp_path / "out")
    assert caught.value.transient

    classified = []
    rest = Mapper(model, EXACT, device="cpu")
    on_cpu = rest.classifier.backend.classify
    monkeypatch.setattr(rest.classifier.backend, "classify", lambda *given: classified.append(given) or on_cpu(*given))
    rest.map(source, tmp_path / "out")
    assert len(classified) == 2, "of four strips, two had been finished"
    summary = json.loads((tmp_path / "out/s_summary.json").read_text())
    assert summary["settings"]["classifier"].count("tiny on") == 2
    raster = Path("s_lulc.tif")
    assert (tmp_path / "out" / raster).read_bytes() == (tmp_path / "whole" / raster).read_bytes()


@pytest.mark.parametrize("message", ["CUDA out of memory", "shapes differ"])
def test_other_errors_pass(message: str) -> None:
    with pytest.raises(RuntimeError, match=message), surviving("s.tif"):
        raise RuntimeError(message)


def test_back_ends_without_a_device_compute_on_the_cpu() -> None:
    assert not on_gpu(object())  # type: ignore[arg-type]
