"""Measures ways to smooth a map on quilts: scenes made of test patches, in which the class of every pixel is known.

    python benchmarks/quilts.py EuroSAT.zip [--model eurosat-rgb-dense] [--quilts 4] [--side 24] [--scene scene.tif]

A quilt has regions of one class each, the cells of a Voronoi diagram of random points. They are cut from test patches
of the spatial split that lie edge to edge. Each quilt is mapped at stride 16 in float32, and its probabilities are
smoothed in several ways. The table says

- accuracy: share of the cells that have the class of most of their pixels,
- boundary F1: harmonic mean of the share of the map's borders that are within one cell of a true one, and of the share
  of the true borders that are within one cell of one in the map,
- isolated cells: share of the cells whose eight neighbors all have another class,
- interpolated: agreement with the plain map if three quarters of its cells are interpolated (`--interpolate`),

and, for a real scene, how much of it is *Highway* and *River*, which are thin.

`sits` is the Bayesian smoothing of the R package sits (Camara et al. 2024, "Bayesian inference for post-processing of
remote sensing image classification", Remote Sensing 16(23), 4572).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

import geocfl
from geocfl.data.load import load_patches, load_split
from geocfl.data.patches import Patches
from geocfl.mapping.interpolate import cells_to_classify, interpolate
from geocfl.mapping.smooth import SHARPNESS, SIGMA_PIXELS, smooth
from geocfl.models.bundle import DEFAULT_MODEL

SIDE, STRIDE = 64, 16
Smoother = Callable[[NDArray[np.float32]], NDArray[np.floating]]


def draw(
    patches: Patches, indices: NDArray[np.int64], classes: int, side: int, area: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A quilt of `side` x `side` patches with regions of `area` patches on average.

    Returns:
        (B, h, w) reflectance, and (h, w) the index of the class of each pixel.
    """
    size = side * SIDE
    points = rng.uniform(0, size, (round(side**2 / area), 2))
    pixels = np.moveaxis(np.indices((size, size)), 0, -1)
    truth = rng.integers(classes, size=len(points))[cKDTree(points).query(pixels)[1]]
    scene = np.empty((len(patches.bands), size, size), np.float32)
    members = [indices[patches.labels[indices] == each] for each in range(classes)]
    for top in range(0, size, SIDE):
        for left in range(0, size, SIDE):
            place = slice(top, top + SIDE), slice(left, left + SIDE)
            for each in np.unique(truth[place]):
                patch = patches.reflectance(rng.choice(members[each], 1))[0]
                np.copyto(scene[:, *place], patch, where=truth[place] == each)
    return scene, truth


def most_frequent(truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The class of most pixels of each cell."""
    rows, columns = (length // STRIDE for length in truth.shape)
    blocks = truth.reshape(rows, STRIDE, columns, STRIDE)
    counts: NDArray[np.int64] = np.stack([(blocks == each).sum(axis=(1, 3)) for each in range(classes)]).argmax(axis=0)
    return counts


def sits(
    p: NDArray[np.float32], window: int = 9, fraction: float = 0.5, smoothness: float = 20
) -> NDArray[np.floating]:
    """Bayesian smoothing of logits, per class.

    A cell's logit x becomes s0 / (s0 + s) x + s / (s0 + s) m0 with the smoothness s and the mean m0 and variance s0 of
    the highest logits among its neighbors, of which `fraction` counts. The defaults are those of ``sits_smooth``.
    """
    p = p.clip(1e-6, 1 - 1e-6)
    x = np.log(p / (1 - p))
    reach = window // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    around = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(0, 1))
    highest = np.sort(around.reshape(*x.shape, -1), axis=-1)[..., -int(np.ceil(fraction * window**2)) :]
    m0, s0 = highest.mean(axis=-1), highest.var(axis=-1, ddof=1)
    smoothed: NDArray[np.floating] = (s0 * x + smoothness * m0) / (s0 + smoothness)
    return smoothed


def confidence_weighted(p: NDArray[np.float32], sigma: float, sharpness: float) -> NDArray[np.floating]:
    """The smoothing of `geocfl map --smooth`."""
    return smooth(p, np.ones(p.shape[:2], bool), STRIDE, SIDE, sigma=sigma, sharpness=sharpness)


def smoothers() -> dict[str, Smoother]:
    """Names and functions of the rows of the table."""
    rows: dict[str, Smoother] = {"plain": lambda p: p}
    for sigma in (8.0, SIGMA_PIXELS, 16.0, 24.0):
        for sharpness in (0.0, 4.0, float(SHARPNESS), 16.0):
            name = f"`--smooth`, sigma {sigma:g} px, q = {sharpness:g}"
            rows[name] = partial(confidence_weighted, sigma=sigma, sharpness=sharpness)
    for window in (3, 5, 7, 9):
        rows[f"sits, window {window}, smoothness 20"] = partial(sits, window=window)
    return rows


def borders(classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Cells whose right or lower neighbor has another class."""
    found = np.zeros(classes.shape, bool)
    found[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    found[:-1] |= classes[:-1] != classes[1:]
    return found


def boundary_f1(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Agreement of borders within one cell, 0..1."""
    mine, true = borders(found), borders(truth)
    near = np.ones((3, 3), bool)
    precision = float(binary_dilation(true, near)[mine].mean())
    recall = float(binary_dilation(mine, near)[true].mean())
    return 2 * precision * recall / (precision + recall)


def isolated(classes: NDArray[np.int64]) -> float:
    """Share of the inner cells whose neighbors all have another class."""
    around = np.lib.stride_tricks.sliding_window_view(classes, (3, 3)).reshape(-1, 9)
    return float(((around == around[:, 4:5]).sum(axis=1) == 1).mean())


def interpolated(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits as `geocfl map --interpolate` has them."""
    chosen = cells_to_classify(np.ones(p.shape[:2], bool), len(p))
    logits = np.log(p.clip(1e-7)).astype(np.float32)
    logits[~chosen] = np.nan
    return interpolate(logits)


def thin(scene: str, model: str) -> None:
    """Prints the share of thin classes in a real scene for each way to smooth."""
    with tempfile.TemporaryDirectory() as folder:
        products = ["lulc", "probabilities"]
        found = geocfl.map_scene(scene, folder, products=products, model=model, stride=STRIDE, precision="float32")
        with rasterio.open(found.paths["probabilities"]) as dataset:
            p = np.moveaxis(dataset.read(), 0, -1).astype(np.float32)
        valid = found.lulc > 0
    p[~valid] = 1  # says nothing
    p /= p.sum(axis=-1, keepdims=True)
    names = ("Highway", "River")
    codes = [c.code for name in names for c in geocfl.load_model(model).legend if c.name == name]
    print(f"\n{Path(scene).name}, {valid.sum():,} cells\n")
    print(f"| | {' | '.join(names)} | isolated cells |\n| --- | ---: | ---: | ---: |")
    for name, smoother in smoothers().items():
        classes = np.where(valid, smoother(p).argmax(axis=-1) + 1, 0)
        shares = [f"{(classes[valid] == code).mean():.2%}" for code in codes]
        print(f"| {name} | {' | '.join(shares)} | {isolated(classes):.2%} |")


def maps(options: argparse.Namespace) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The probabilities and the true classes of the cells of each quilt."""
    model = geocfl.load_model(options.model)
    patches = load_patches(options.data, model.bands, split="spatial")
    test = load_split(patches, options.data, "spatial", seed=0).test
    rng = np.random.default_rng(0)
    for _ in range(options.quilts):
        scene, truth = draw(patches, test, len(model.legend), options.side, options.area, rng)
        found = model.predict(scene, stride=STRIDE, precision="float32")
        yield found.probabilities, most_frequent(truth, len(model.legend))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--quilts", type=int, default=4)
    parser.add_argument("--side", type=int, default=24, help="patches along each side of a quilt")
    parser.add_argument("--area", type=float, default=4, help="mean area of a region, in patches")
    parser.add_argument("--scene", help="a real scene, to see what remains of thin classes")
    options = parser.parse_args()
    quilts = list(maps(options))
    cells = sum(truth.size for _, truth in quilts)
    print(f"{options.model}: {len(quilts)} quilts of {options.side} x {options.side} patches, {cells:,} cells\n")
    print("| | accuracy | boundary F1 | isolated cells |\n| --- | ---: | ---: | ---: |")
    for name, smoother in smoothers().items():
        scores = []
        for p, truth in quilts:
            found = smoother(p).argmax(axis=-1)
            scores.append(((found == truth).mean(), boundary_f1(found, truth), isolated(found)))
        accuracy, f1, lone = np.mean(scores, axis=0)
        print(f"| {name} | {accuracy:.1%} | {f1:.2f} | {lone:.2%} |")
    same = np.mean([(interpolated(p).argmax(axis=-1) == p.argmax(axis=-1)).mean() for p, _ in quilts])
    print(f"\ninterpolated: {same:.1%} of the cells have the class of the plain map", flush=True)
    if options.scene:
        thin(options.scene, options.model)


if __name__ == "__main__":
    main()
