"""The export for Deepness, read and run by that plugin's own rules."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio

import geocfl
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.errors import UsageError

pytestmark = [pytest.mark.extra("onnx"), pytest.mark.integration]


@dataclass
class Deepness:
    """What Deepness makes of a model and a layer, after the ``model_base.py``, ``segmentor.py``,
    ``map_processor.py``, ``map_processor_segmentation.py`` and ``extent_utils.py``, on a raster in meters whose pixels
    have the model's resolution.
    """

    path: Path

    def __post_init__(self) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        (self.input,) = self.session.get_inputs()
        (self.output,) = self.session.get_outputs()
        self.meta = self.session.get_modelmeta().custom_metadata_map
        assert isinstance(self.input.shape[0], str)  # any number of tiles
        assert len(self.output.shape) == 4
        assert self.output.shape[2] == self.output.shape[3]
        self.tile = self.input.shape[-1]
        self.overlap = int(self.tile * self.number("tiles_overlap") / 100 * 2) // 2

    def number(self, name: str) -> float:
        return float(json.loads(self.meta[name]))

    def model_type(self) -> str:
        return str(json.loads(self.meta["model_type"])).capitalize()

    def class_names(self) -> list[str]:
        text = self.meta["class_names"]
        try:
            names = json.loads(text)
        except json.JSONDecodeError:
            names = ast.literal_eval(text)
        ordered = sorted(names.items(), key=lambda item: int(item[0]))
        assert [int(key) for key, _ in ordered] == list(range(len(ordered)))
        return [name for _, name in ordered]

    def process(self, tiles: np.ndarray) -> np.ndarray:
        """(N, T, T) classes, from 0, of (N, T, T, bands) pixel values."""
        x = tiles[..., : self.input.shape[-3]]
        x = np.float32(x * 1.0 / 255.0)
        mean, std = (np.array(json.loads(self.meta[f"standardization_{name}"]), np.float32) for name in ("mean", "std"))
        x = ((x - mean) / std).transpose(0, 3, 1, 2)
        probabilities = self.session.run(None, {self.input.name: x})[0]
        probabilities[probabilities < self.number("seg_thresh")] = 0
        assert self.number("seg_small_segment") == 0  # else a median filter follows
        return probabilities.argmax(axis=1)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) classes of the whole layer, from 0, of (bands, H, W) pixel values."""
        height, width = pixels.shape[1:]
        stride, half = self.tile - self.overlap, self.overlap // 2

        def extended(side: int) -> int:
            return self.tile if side <= self.tile else side + (self.tile - side) % stride

        tall, wide = extended(height), extended(width)
        image = np.zeros((tall, wide, len(pixels)), pixels.dtype)  # grows to the north and the east
        image[tall - height :, :width] = pixels.transpose(1, 2, 0)
        result = np.full((tall, wide), -1)
        rows, columns = ((side - self.tile) // stride + 1 for side in (tall, wide))
        for row in range(rows):
            for column in range(columns):
                top, left = row * stride, column * stride
                tile = self.process(image[None, top : top + self.tile, left : left + self.tile])[0]
                first = half * (row > 0), half * (column > 0)
                last = self.tile - half * (row < rows - 1), self.tile - half * (column < columns - 1)
                result[top + first[0] : top + last[0], left + first[1] : left + last[1]] = tile[
                    first[0] : last[0], first[1] : last[1]
                ]
        return result[tall - height :, :width]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    return write_synthetic_scene(folder / "scene.tif", folder / "truth.tif", size=512).path


@pytest.mark.parametrize(
    ("model", "stride", "tile", "overlap", "agreement"),
    [("eurosat-rgb-dense", 16, 512, 25, 0.99), ("eurosat-rgb-lite0", 64, 64, 0, 1.0)],
)
def test_deepness_maps_what_geocfl_maps(
    tmp_path: Path, scene: Path, model: str, stride: int, tile: int, overlap: int, agreement: float
) -> None:
    (file,) = geocfl.export(model, tmp_path / "m.onnx", format="deepness")
    plugin = Deepness(file)
    assert plugin.model_type() == "Segmentor"
    assert plugin.class_names() == geocfl.load_model(model).legend.names
    assert plugin.output.shape[1:] == [10, tile, tile]
    assert (plugin.number("tile_size"), plugin.number("tiles_overlap"), plugin.number("resolution")) == (
        tile,
        overlap,
        1000,
    )

    with rasterio.open(scene) as dataset:
        pixels = dataset.read()
    found = plugin.run(pixels) + 1
    finished = geocfl.map_scene(scene, tmp_path / "map", model=model, stride=stride)
    with rasterio.open(finished.paths["lulc"]) as dataset:
        mapped = dataset.read(1)
    cells = found[::stride, ::stride]
    assert (np.kron(cells, np.ones((stride, stride))) == found).all()
    # geocfl mirrors pixels where data end, Deepness reads zeros there: compare cells that lie elsewhere.
    empty = np.pad((pixels == 0).any(axis=0), ((0, 0), (64, 128)), constant_values=True)
    empty[:, :64] = False  # both mirror at the west
    windows = np.lib.stride_tricks.sliding_window_view(empty, stride + 128, axis=1)[:, ::stride][:, : cells.shape[1]]
    near = windows.any(axis=2).reshape(-1, stride, cells.shape[1]).any(axis=1)
    assert (~near).mean() > 0.6
    assert len(np.unique(cells[~near])) >= 5
    assert (cells == mapped)[~near].mean() >= agreement


def test_offset_and_scale_are_those_of_the_pixels(tmp_path: Path, tiny_model: Path) -> None:
    files = [
        geocfl.export(tiny_model, tmp_path / f"{scale}.onnx", format="deepness", scale=scale, offset=offset)[0]
        for scale, offset in ((10_000, -1000), (255, 0))
    ]
    raw, eight_bit = map(Deepness, files)
    reflectance = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)) / 255
    x = {"reflectance": np.float32(reflectance.transpose(0, 3, 1, 2))}
    wanted = raw.session.run(None, x)[0]
    assert wanted.shape == (3, 10, 64, 64)
    assert (wanted == wanted[:, :, :1, :1]).all()
    import torch

    model = geocfl.load_model(tiny_model)
    with torch.inference_mode():
        logits = model.network()(torch.from_numpy(x["reflectance"]))
    assert wanted[:, :, 0, 0] == pytest.approx(torch.softmax(logits / model.temperature, 1).numpy(), abs=2e-4)
    for plugin, tiles in ((raw, np.rint(reflectance * 10_000 + 1000)), (eight_bit, np.rint(reflectance * 255))):
        assert (plugin.process(tiles) == wanted.argmax(axis=1)).all()


def test_the_plain_export_has_class_names_that_deepness_reads(tmp_path: Path, tiny_model: Path) -> None:
    import onnxruntime

    (file,) = geocfl.export(tiny_model, tmp_path / "m.onnx")
    meta = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    assert list(json.loads(meta["class_names"]).items())[:2] == [("0", "Annual Crop"), ("1", "Forest")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onnx", "scale": 10_000}, "`scale` is only for `format=deepness`"),
        ({"format": "openvino", "offset": 0}, "`offset` is only for `format=deepness`"),
        ({"format": "deepness", "scale": 0}, "`scale` must be positive"),
        ({"format": "deepness", "offset": float("nan")}, "`offset` a number"),
    ],
)
def test_scales_that_cannot_be_are_refused(tmp_path: Path, tiny_model: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        geocfl.export(tiny_model, tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []
