"""A model for Deepness, a plugin of QGIS: pixels in, probabilities of the classes of each pixel out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from geocfl.core.radiometry import SENTINEL2
from geocfl.models.bundle import Bundle
from geocfl.models.graph import OUTPUT
from geocfl.models.network import load_network
from geocfl.models.onnx_file import class_names, to_onnx
from geocfl.models.reflectance import DenseReflectance

DENSE_TILE = 512
"""Side of the tiles that a dense model takes, pixels."""
DENSE_OVERLAP = 25
"""Their overlap, percent: Deepness drops half of it at each side, 64 pixels, which is all that lacks context."""
IR_VERSION = 9
"""Version of the file's format: the newest that onnxruntime 1.17 reads, which Deepness may be installed with."""
LARGEST = 255.0
"""What Deepness divides pixel values by, whatever their type."""


class Segmentation(nn.Module):
    """(N, C, T, T) calibrated probabilities of the pixels of tiles (N, B, T, T) of reflectance.

    The pixels of a tile get the probabilities of their window, which is the tile, or of the window around their cell if
    the model is dense.

    Args:
        bundle: The model.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network = load_network(bundle)
        self.temperature = bundle.temperature
        self.dense = isinstance(self.network, DenseReflectance)
        self.step = bundle.feature_stride or bundle.window
        self.cells = DENSE_TILE // self.step if self.dense else 1
        self.around = (bundle.window - self.step) // 2 + bundle.context
        self.first = bundle.context // self.step
        self.eval()

    def forward(self, reflectance: Tensor) -> Tensor:
        """Runs the network."""
        if self.dense:
            tiles = nn.functional.pad(reflectance, [self.around] * 4, mode="reflect")
            logits = self.network.window_scores(tiles)[0]  # type: ignore[operator]
            last = self.first + self.cells
            cells = logits[:, self.first : last, self.first : last].movedim(-1, 1)
        else:
            cells = self.network(reflectance)[:, :, None, None]
        probabilities = torch.softmax(cells / self.temperature, dim=1)
        return nn.functional.interpolate(probabilities, scale_factor=self.step, mode="nearest")


def tile_size(bundle: Bundle) -> int:
    """Side of the tiles that the model takes in Deepness, pixels."""
    return DENSE_TILE if bundle.feature_stride else bundle.window


def deepness_metadata(bundle: Bundle, scale: float, offset: float) -> dict[str, str]:
    """The metadata that Deepness reads, each value as JSON.

    Deepness divides pixel values by 255, subtracts a mean and divides by a standard deviation. Those given here make
    reflectance = (pixel value + offset) / scale of it. Its threshold and its median filter are off, because both turn
    unsure pixels into the first class.

    Source: https://qgis-plugin-deepness.readthedocs.io/en/latest/creators/creators_add_metadata_to_model.html and
    ``model_base.py`` of Deepness after version 0.6.3.

    Args:
        bundle: The model.
        scale: Pixel value per reflectance.
        offset: What is added to pixel values.
    """
    facts = {
        "model_type": "Segmentor",
        "resolution": 100 * bundle.gsd,
        "tile_size": tile_size(bundle),
        "tiles_overlap": DENSE_OVERLAP if bundle.feature_stride else 0,
        "standardization_mean": [0.0 - offset / LARGEST] * len(bundle.bands),
        "standardization_std": [scale / LARGEST] * len(bundle.bands),
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    return {"class_names": class_names(bundle), **{name: json.dumps(value) for name, value in facts.items()}}


def write_deepness(bundle: Bundle, path: Path, *, scale: float = SENTINEL2.scale, offset: float = 0.0) -> None:
    """Writes an ONNX file that Deepness opens with all its settings.

    Args:
        bundle: The model.
        path: File to write.
        scale: Pixel value per reflectance.
        offset: What is added to pixel values.

    Raises:
        ModelError: The weights cannot be read, or torch cannot export the network.
        UsageError: The packages that export it are not installed.
    """
    side = tile_size(bundle)
    proto = to_onnx(bundle, Segmentation(bundle), torch.full((2, len(bundle.bands), side, side), 0.1), [OUTPUT])
    import onnx

    proto.ir_version = IR_VERSION
    facts = {"geocfl": json.dumps(bundle.to_json()), "bands": ",".join(bundle.bands)}
    onnx.helper.set_model_props(proto, facts | deepness_metadata(bundle, scale, offset))
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
