"""Measures how well scores of novelty tell land of no class, and of a class held out, from test patches.

    python benchmarks/open_set.py EuroSAT.zip SCENES [--model eurosat-rgb-dense] [--runs DIR] [--limit N]

SCENES is a folder with the scenes of `LAND` below it; those that are missing are left out. Windows of 64 x 64 px are
chosen from them by rules (B08 is needed for rock):

- Rock: in more than 70% of the pixels, NDVI < 0.3 and B04 > 0.06, and the window is not cloud. In the high Dolomites in
  June, that is rock and scree; fields and the towns have more green.
- Cloud: in more than 30% of the pixels, all bands are above 0.2 and B02 > 0.9 x B04; bare rock is redder.
- Snow: in more than half of the pixels, all bands are above 0.3.

The known windows are the test patches of the spatial split. A dense model sees scenes in one piece and test patches in
random mosaics; other models see each window by itself.

Hold-one-class-out: the test patches of a class against those of the other nine, by a model that was trained without the
class. With --runs, DIR/<class folder> is such a model for each class, made by `geocfl train` on a copy of the patches
without the class's folder; classes without a run are left out. Without --runs, only the last layer is trained without
the class: the features have seen the class, so that the figures are optimistic.

Scores, all fitted on training patches: 1 - largest probability; energy (Liu et al., NeurIPS 2020); distance of the
normalized features to their 10th nearest training patch (Sun et al., ICML 2022); Mahalanobis distance to the nearest
class mean, with one covariance for all classes (Lee et al., NeurIPS 2018); and geocfl's residual. AUROC is the
probability that a novel window has a higher score than a test patch. FPR is the share of novel windows that pass as
known at the score that 95% of the test patches stay below.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.data.load import load_patches, load_split
from geocfl.data.patches import Patches
from geocfl.data.splits import Split
from geocfl.evaluation.held_out import patch_features
from geocfl.evaluation.logits import mosaic_features
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.models.network import load_network
from geocfl.models.reflectance import DenseReflectance, Reflectance
from geocfl.scenes import Reading, open_scene
from geocfl.scenes.find import find_source
from geocfl.training.novelty import fit_residual

RGB = ("B04", "B03", "B02")
NEIGHBORS = 10
PATCHES = 8192
ROWS = 4
"""Rows of windows of a scene that a dense model sees at a time."""


@dataclass(frozen=True)
class Land:
    """Windows of a scene that belong to no class.

    Attributes:
        name: What they show.
        scene: Pattern of the scene's file name.
        offset: As for geocfl map.
    """

    name: str
    scene: str
    offset: float | None = None


LAND = (
    Land("rock", "*dolomites*.tif", -1000),
    Land("cloud", "*dolomites*.tif", -1000),
    Land("snow", "*khumbu*.tif"),
    Land("cloud", "*midwest*.tif"),
)


@dataclass(frozen=True)
class Sample:
    """Windows as a model sees them.

    Attributes:
        features: (n, D) float32.
        labels: (n,) int64 classes; all 0 for land of no class.
    """

    features: Tensor
    labels: Tensor


def blocks(pixels: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
    """(rows, columns) share of true pixels in each window."""
    rows, columns = (size // side for size in pixels.shape)
    tiles = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side)
    shares: NDArray[np.float64] = tiles.mean((1, 3))
    return shares


def chosen_windows(name: str, pixels: dict[str, NDArray[np.float32]], side: int) -> NDArray[np.bool_]:
    """(rows, columns) which windows show land of one kind, by the rules above."""
    red, blue = pixels["B04"], pixels["B02"]
    darkest = np.minimum.reduce([pixels[band] for band in RGB])
    full = blocks(np.isfinite(red), side) == 1
    cloudy = blocks((darkest > 0.2) & (blue > 0.9 * red), side) > 0.3
    chosen: NDArray[np.bool_]
    if name == "cloud":
        chosen = full & cloudy
    elif name == "snow":
        chosen = full & (blocks(darkest > 0.3, side) > 0.5)
    else:
        nir = pixels["B08"]
        bare = (nir - red < 0.3 * (nir + red)) & (red > 0.06)
        chosen = full & ~cloudy & (blocks(bare, side) > 0.7)
    return chosen


def scene_sample(module: Reflectance, model: Bundle, land: Land, folder: Path) -> Sample | None:
    """Features of the windows of some land; None if its scene is missing."""
    path = next(iter(sorted(folder.rglob(land.scene))), None)
    if path is None:
        return None
    source = find_source(path)
    bands = tuple(dict.fromkeys([*RGB, *model.bands, *(["B08"] if land.name == "rock" else [])]))
    with open_scene(source, Reading(offset=land.offset), needed=bands, gsd=model.gsd) as scene:
        pixels = dict(zip(bands, scene.read(bands, 0, scene.height), strict=True))
    chosen = chosen_windows(land.name, pixels, model.window)
    image = np.stack([pixels[band] for band in model.bands])
    features = scene_features(module, image, model.window)[torch.from_numpy(chosen)]
    return Sample(features, torch.zeros(len(features), dtype=torch.int64))


@torch.inference_mode()
def scene_features(module: Reflectance, image: NDArray[np.float32], side: int) -> Tensor:
    """(rows, columns, D) features of the whole windows of a scene, a few rows at a time."""
    rows, columns = (size // side for size in image.shape[1:])
    image = image[:, : rows * side, : columns * side]
    found = []
    if not isinstance(module, DenseReflectance):
        for row in range(rows):
            strip = torch.from_numpy(image[:, row * side : (row + 1) * side])
            found.append(module.features(strip.unfold(2, side, side).permute(2, 0, 1, 3).contiguous()))
        return torch.stack(found)
    padded = torch.from_numpy(np.pad(image, ((0, 0), (side, side), (side, side)), mode="reflect"))[None]
    for row in range(0, rows, ROWS):
        strip = padded[:, :, row * side : (min(row + ROWS, rows) + 2) * side]
        found.append(module.window_features(strip, module.cells)[0, 1:-1, 1:-1])
    return torch.cat(found)


def patch_sample(module: Reflectance, patches: Patches, indices: NDArray[np.int64], limit: int) -> Sample:
    """Features of at most `limit` patches: of a dense model in random mosaics."""
    chosen = np.random.default_rng(0).permutation(indices)[:limit]
    if isinstance(module, DenseReflectance):
        features = mosaic_features(module, patches, chosen)
    else:
        features = patch_features(module, patches, chosen)
    return Sample(features, torch.from_numpy(patches.labels[chosen]))


def retrained_head(train: Sample, classes: int) -> nn.Linear:
    """A last layer trained on features, by logistic regression with a little weight decay."""
    head = nn.Linear(train.features.shape[1], classes)
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(train.features), train.labels) + 1e-4 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head


class Scores:
    """The scores of novelty, fitted on training patches.

    Args:
        train: The training patches.
        head: From features to logits.
    """

    def __init__(self, train: Sample, head: nn.Module) -> None:
        self.head = head
        self.residual = fit_residual(train.features)
        self.directions = F.normalize(train.features)
        x, labels = train.features.double(), train.labels
        self.means = torch.stack([x[labels == c].mean(0) for c in labels.unique()])
        centered = x - self.means[torch.searchsorted(labels.unique(), labels)]
        covariance = centered.T @ centered / len(x)
        ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        self.whiten = torch.linalg.inv(torch.linalg.cholesky(covariance + ridge))

    @torch.inference_mode()
    def __call__(self, features: Tensor) -> dict[str, NDArray[np.float64]]:
        """(n,) scores by name of (n, D) features; higher is more novel."""
        logits = self.head(features).double()
        nearest = torch.cdist(F.normalize(features), self.directions).topk(NEIGHBORS, largest=False).values[:, -1]
        distances = torch.cdist(features.double() @ self.whiten.T, self.means @ self.whiten.T)
        found = {
            "1 - max probability": 1 - logits.softmax(1).max(1).values,
            "energy": -logits.logsumexp(1),
            "kNN": nearest,
            "Mahalanobis": distances.min(1).values,
            "residual": self.residual(features),
        }
        return {name: value.double().numpy() for name, value in found.items()}


def auroc(known: NDArray[np.float64], novel: NDArray[np.float64]) -> float:
    """Probability that a novel score is above a known one; ties count half."""
    ranks = rankdata(np.concatenate([known, novel]))[len(known) :]
    return float((ranks.mean() - (len(novel) + 1) / 2) / len(known))


def fpr95(known: NDArray[np.float64], novel: NDArray[np.float64]) -> float:
    """Share of novel scores that are not above the 95th percentile of the known ones."""
    return float((novel <= np.quantile(known, 0.95)).mean())


def held_out(
    module: Reflectance, train: Sample, test: Sample, patches: Patches, split: Split, runs: Path | None, limit: int
) -> Iterator[tuple[str, Scores, Tensor, Tensor]]:
    """For each class its name, the scores of a model without it, and features of known and of novel test patches."""
    for c, lulc in enumerate(patches.legend):
        if runs is None:
            kept = Sample(train.features[train.labels != c], train.labels[train.labels != c])
            codes = Sample(kept.features, kept.labels - (kept.labels > c).long())  # 0..8, without a gap
            scores, known, novel = Scores(kept, retrained_head(codes, len(patches.legend) - 1)), test, test
        elif (runs / lulc.folder).is_dir():
            module = load_network(Bundle.load(runs / lulc.folder))
            without = split.train[patches.labels[split.train] != c]
            scores = Scores(patch_sample(module, patches, without, limit), module.head)
            known = novel = patch_sample(module, patches, split.test, limit)
        else:
            continue
        yield lulc.name, scores, known.features[known.labels != c], novel.features[novel.labels == c]


def row(name: str, scores: Scores, known: Tensor, novel: Tensor) -> list[tuple[float, float]]:
    """Prints a row of the table: AUROC and FPR of each score."""
    of_known, of_novel = scores(known), scores(novel)
    found = [(auroc(of_known[key], of_novel[key]), fpr95(of_known[key], of_novel[key])) for key in of_known]
    print_row(name, str(len(novel)), found)
    return found


def print_row(name: str, count: str, found: Iterable[tuple[float, float]]) -> None:
    cells = [name, count, *(f"{area:.3f} / {rate:.0%}" for area, rate in found)]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--runs", type=Path, help="folder of models that were trained without a class")
    parser.add_argument("--limit", type=int, default=PATCHES, help="use at most this many training and test patches")
    options = parser.parse_args()
    model = Bundle.load(options.model)
    module = load_network(model)
    patches = load_patches(options.data, model.bands, split="spatial")
    split = load_split(patches, options.data, "spatial", 0)
    train = patch_sample(module, patches, split.train, options.limit)
    test = patch_sample(module, patches, split.test, options.limit)
    scores = Scores(train, module.head)
    names = list(scores(test.features[:1]))
    print(f"AUROC / FPR at 95% of {model.name}, against {len(test.labels):,} test patches\n")
    print("| land | windows | " + " | ".join(names) + " |\n| --- |" + " ---: |" * (1 + len(names)))
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for land in LAND:
        sample = scene_sample(module, model, land, options.scenes)
        if sample is not None and len(sample.labels):
            name = f"{land.name} ({land.scene.removeprefix('*').removesuffix('*.tif')})"
            found.setdefault("mean of the scenes", []).append(row(name, scores, test.features, sample.features))
    for name, without, known, novel in held_out(module, train, test, patches, split, options.runs, options.limit):
        found.setdefault("mean of the classes", []).append(row(f"{name}, held out", without, known, novel))
    for title, rows in found.items():
        print_row(title, "", map(tuple, np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
