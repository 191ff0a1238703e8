"""Measures what resampling, blur and pixels of 20 m cost a model, on labeled patches with 10 m pixels.

    python benchmarks/resolution.py EuroSAT.zip [--model eurosat-rgb-dense] [--subset validation] [--limit N]

Every patch is classified as it is, shifted by half a pixel, blurred, and resampled from pixels of 20 m (means of 2 x 2
pixels). Shifts and resampling are GDAL's, as for scenes on another grid. A dense model also classifies the patches
inside mosaics, in which each patch lies among others: any others, or often of its own class, as on real land. Patches
and mosaics are mirrored at their edges before they are resampled. All is computed in float32. Prints a Markdown table.

Use the validation patches to choose a model, and the test patches once, for the model that is chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject
from scipy.ndimage import gaussian_filter
from torch import Tensor

from geocfl.data.load import load_patches, load_split
from geocfl.data.patches import Patches
from geocfl.evaluation.logits import mosaic_logits
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.models.network import load_network
from geocfl.models.reflectance import DenseReflectance, Reflectance

Change = Callable[[Tensor], Tensor]
"""From (N, B, H, W) reflectance to the same shape."""
MARGIN = 8
"""Pixels mirrored at each edge before resampling; more than any kernel reaches."""
BATCH = 64


def resample(x: Tensor, source: Affine, how: Resampling) -> Tensor:
    """(N, B, H, W) from (N, B, h, w), whose pixels lie at `source` in units of the result's pixels."""
    n, bands, height, width = x.shape
    if source.a > 1:
        height, width = round(height * source.a), round(width * source.a)
    result = np.empty((n * bands, height, width), np.float32)
    reproject(
        x.numpy().reshape(n * bands, *x.shape[2:]),
        result,
        src_transform=source,
        dst_transform=Affine.identity(),
        src_crs="EPSG:32633",
        dst_crs="EPSG:32633",
        resampling=how,
        init_dest_nodata=False,
    )
    return torch.from_numpy(result).view(n, bands, height, width)


def with_margin(change: Change, x: Tensor) -> Tensor:
    """Applies `change` to images that are mirrored at their edges, and cuts the margin off again."""
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), mode="symmetric")
    return change(torch.from_numpy(padded))[..., MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous()


def shifted(how: Resampling, x: Tensor) -> Tensor:
    """Half a pixel to the right and down."""
    return resample(x, Affine.translation(0.5, 0.5), how)


def from_20_m(how: Resampling, x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, resampled to pixels of the original size."""
    return resample(torch.nn.functional.avg_pool2d(x, 2), Affine.scale(2), how)


def blurred(sigma: float, x: Tensor) -> Tensor:
    """Gaussian blur; sigma in pixels."""
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, sigma, sigma)))


CHANGES: dict[str, Change] = {
    "as they are": lambda x: x,
    **{
        f"shifted by half a pixel, {how.name}": partial(with_margin, partial(shifted, how))
        for how in (Resampling.cubic, Resampling.bilinear)
    },
    **{f"blurred, sigma {sigma} px": partial(with_margin, partial(blurred, sigma)) for sigma in (1.0, 1.5)},
    **{
        f"from pixels of 20 m, {how.name}": partial(with_margin, partial(from_20_m, how))
        for how in (Resampling.cubic, Resampling.bilinear)
    },
}


@torch.inference_mode()
def alone(module: Reflectance, patches: Patches, indices: NDArray[np.int64], change: Change) -> Tensor:
    """(n, C) logits of changed patches, each by itself."""
    batches = (indices[start : start + BATCH] for start in range(0, len(indices), BATCH))
    return torch.cat([module(change(torch.from_numpy(patches.reflectance(batch)))) for batch in batches])


def measured(
    module: Reflectance, patches: Patches, indices: NDArray[np.int64], change: Change
) -> Iterator[tuple[str, Tensor]]:
    """How the patches lay, and their logits."""
    yield "alone", alone(module, patches, indices, change)
    if isinstance(module, DenseReflectance):
        yield "in mosaics", mosaic_logits(module, patches, indices, change=change)
        yield "among like neighbors", mosaic_logits(module, patches, indices, change=change, alike=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--split", default="spatial")
    parser.add_argument("--subset", choices=("train", "validation", "test"), default="validation")
    parser.add_argument("--limit", type=int, help="use this many patches, drawn at random, instead of all")
    options = parser.parse_args()
    model = Bundle.load(options.model)
    module = load_network(model)
    patches = load_patches(options.data, model.bands, split=options.split)
    split = load_split(patches, options.data, options.split, int(model.origin.get("seed", 0)))
    indices = np.random.default_rng(0).permutation(getattr(split, options.subset))[: options.limit]
    labels = torch.from_numpy(patches.labels[indices])
    print(f"{model.name}: {len(indices):,} {options.subset} patches of the split {options.split}\n")
    present = [lulc for lulc in model.legend if lulc.code - 1 in labels]
    for number, (name, change) in enumerate(CHANGES.items()):
        found = dict(measured(module, patches, indices, change))
        right = {how: logits.argmax(1) == labels for how, logits in found.items()}
        if number == 0:
            print(f"| patches | {' | '.join(f'right {how}' for how in right)} | lowest class alone |")
            print(f"| --- |{' ---: |' * len(right)} --- |")
        recalls = {lulc.name: float(right["alone"][labels == lulc.code - 1].float().mean()) for lulc in present}
        worst = min(recalls, key=lambda name: recalls[name])
        shares = " | ".join(f"{share.float().mean():.1%}" for share in right.values())
        print(f"| {name} | {shares} | {worst} {recalls[worst]:.0%} |", flush=True)


if __name__ == "__main__":
    main()
