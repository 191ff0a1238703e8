"""Measures how well maps of an L2A scene agree with maps of the L1C scene that it could have come from.

    python benchmarks/atmosphere.py scene.tif [--offset -1000] [--model eurosat-rgb-dense] [--stride 32]

A pair of real products of one place gave L2A = gain x L1C + offset for each band (B04 1.15, -0.028; B03 1.27, -0.053;
B02 1.26, -0.090). The script converts the scene to L1C with the inverse, at several strengths of that atmosphere, and
compares the two maps in the cells where both have a confidence of at least 0.5.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import geocfl
from geocfl.core.radiometry import Scaling
from geocfl.data.augmentation import SURFACE_FIT
from geocfl.mapping.checkpoint import Checkpoint
from geocfl.mapping.encode import Decision
from geocfl.mapping.mapper import cells_of
from geocfl.mapping.pipeline import classify_scene
from geocfl.models.backends import load_backend
from geocfl.models.bundle import DEFAULT_MODEL
from geocfl.products.scratch import open_cells
from geocfl.scenes import Reading, open_scene

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
SURE = 50


def through(scaling: Scaling, gain: float, offset: float) -> Scaling:
    """Scaling from the same digital numbers to top-of-atmosphere reflectance: (surface - offset) / gain."""
    return Scaling(scaling.scale * gain, scaling.offset - offset * scaling.scale)


def classify(path: Path, offset: float | None, model: geocfl.Model, stride: int, strength: float) -> NDArray[np.uint8]:
    with tempfile.TemporaryDirectory() as folder:
        with open_scene(path, Reading(offset=offset), needed=model.bands, gsd=model.gsd) as scene:
            for band in model.bands:
                gain, haze = SURFACE_FIT[band]
                scene.scaling[band] = through(scene.scaling[band], 1 + strength * (gain - 1), strength * haze)
            grid = cells_of(scene, model, stride)
            checkpoint = Checkpoint(Path(folder), grid, [0], {})
            classify_scene(scene, model.bands, grid, load_backend(model), Decision(len(model.legend)), 16, checkpoint)
        with open_cells(checkpoint.cells) as dataset:
            return np.asarray(dataset.read(), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--offset", type=float)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--stride", type=int, default=32)
    options = parser.parse_args()
    model = geocfl.load_model(options.model)
    surface, *tops = (
        classify(options.scene, options.offset, model, options.stride, strength) for strength in STRENGTHS
    )
    print("strength   cells sure in both   of all   agree")
    for strength, top in zip(STRENGTHS[1:], tops, strict=True):
        data = (surface[0] > 0) & (top[0] > 0)
        sure = data & (surface[1] >= SURE) & (top[1] >= SURE)
        agree = (surface[0] == top[0])[sure].mean()
        print(f"{strength:8g}   {sure.sum():18,}   {sure.sum() / data.sum():6.1%}   {agree:6.1%}")
    top = tops[STRENGTHS.index(1.0) - 1]
    sure = (surface[0] > 0) & (surface[1] >= SURE) & (top[1] >= SURE) & (surface[0] != top[0])
    pairs, counts = np.unique(np.stack([surface[0][sure], top[0][sure]]), axis=1, return_counts=True)
    for index in np.argsort(-counts)[:5]:
        names = [model.legend[int(code)].name for code in pairs[:, index]]
        print(f"  {counts[index]:5,} cells: {names[0]} as L2A, {names[1]} as L1C")


if __name__ == "__main__":
    main()
