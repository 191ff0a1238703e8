"""Where to label: accuracy after each round of labels that geocfl suggest chooses, and of others.

On synthetic scenes, whose truth is known, each round adds the true classes of some windows, fits the last layer that
``geocfl train --freeze`` fits to the features of all labeled windows, and maps the scene with it. All start without
labels. The accuracy is that of all other cells of the scene. The same seed gives the same scene and labels.

    python benchmarks/suggest.py --figure docs/images/suggest.svg
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import geocfl
from geocfl.analysis.suggest import LEAST, _inside, farthest_cells
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.training.head import Rows, fit_head

METHODS = {
    "random": "random windows",
    "uncertain": "the least certain windows",
    "spread": "spread in feature space",
    "suggest": "geocfl suggest",
}
PENALTY, STEPS = 1e-4, 200


class Scene:
    """A mapped synthetic scene and its truth.

    Args:
        folder: For its files.
        seed: Of the landscape.
        size: Height in pixels.
    """

    def __init__(self, folder: Path, seed: int, size: int) -> None:
        path = folder / f"scene{seed}.tif"
        self.truth = write_synthetic_scene(path, folder / f"truth{seed}.tif", size=size, seed=seed).truth
        products = ("lulc", "probabilities", "features")
        self.map = geocfl.map_scene(path, folder / f"map{seed}", products=products, device="cpu")
        grid = self.map.grid
        inside = np.outer(_inside(grid.rows, grid.height, 64, grid), _inside(grid.columns, grid.width, 64, grid))
        self.known = (self.truth > 0) & np.isfinite(self.map.features[..., 0])
        self.valid = self.known & inside
        self.features = self.map.features.astype(np.float32)

    def probabilities(self, labeled: np.ndarray) -> np.ndarray:
        """(rows, columns, classes) after the last layer is fitted to labeled cells."""
        x, y = (torch.from_numpy(values[tuple(labeled.T)]) for values in (self.features, self.truth.astype(np.int64)))
        rows = Rows(x, y - 1, np.zeros(len(x), np.int64))
        head = fit_head(rows, len(self.map.legend), F.cross_entropy, PENALTY, STEPS)
        return torch.softmax(head(torch.from_numpy(np.nan_to_num(self.features))), dim=-1).numpy()

    def accuracy(self, codes: np.ndarray, labeled: np.ndarray) -> tuple[float, float]:
        """Share of the correct among the cells that are not labeled, and its mean over the classes."""
        rest = self.known.copy()
        rest[tuple(labeled.T)] = False
        correct, truth = (codes == self.truth)[rest], self.truth[rest]
        return float(correct.mean()), float(np.mean([correct[truth == code].mean() for code in np.unique(truth)]))


def choose(method: str, scene: Scene, probability: np.ndarray, known: np.ndarray, n: int, seed: int) -> np.ndarray:
    """(n, 2) cells to label next."""
    ordered = np.sort(probability, axis=-1)
    unsure = 1 - (ordered[..., -1] - ordered[..., -2])
    if method in ("suggest", "spread"):
        weight = unsure + LEAST if len(known) and method == "suggest" else np.ones(scene.valid.shape)
        kinds = probability.argmax(axis=-1) if method == "suggest" else None
        return farthest_cells(scene.features, weight, scene.valid, known, n, 1, kinds)
    free = scene.valid.copy()
    free[tuple(known.T)] = False
    cells = np.argwhere(free)
    if method == "uncertain":
        return cells[np.argsort(-unsure[free], kind="stable")[:n]]
    return cells[np.random.default_rng(seed).permutation(len(cells))[:n]]


def run(method: str, scene: Scene, n: int, rounds: int, seed: int) -> list[tuple[float, float]]:
    """Accuracies after each round."""
    labeled, found = np.empty((0, 2), np.int64), []
    probability = np.nan_to_num(scene.map.probabilities)
    for number in range(rounds):
        labeled = np.concatenate([labeled, choose(method, scene, probability, labeled, n, 1000 * seed + number)])
        probability = scene.probabilities(labeled)
        found.append(scene.accuracy(probability.argmax(axis=-1) + 1, labeled))
    return found


def draw(path: Path, n: int, results: dict[str, np.ndarray], start: float) -> None:
    """Draws mean and range of the accuracies of each method."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"], mpl.rcParams["svg.fonttype"] = "geocfl", "none"
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    colors = {"random": "#777777", "uncertain": "#c8553d", "spread": "#4a7ebb", "suggest": "#14532d"}
    for method, runs in results.items():
        accuracy = 100 * runs[..., 0]
        labels = n * np.arange(1, accuracy.shape[1] + 1)
        axes.plot(labels, accuracy.mean(axis=0), "o-", color=colors[method], label=METHODS[method])
        axes.fill_between(labels, accuracy.min(axis=0), accuracy.max(axis=0), color=colors[method], alpha=0.12, lw=0)
    axes.axhline(100 * start, color="black", linestyle=":", linewidth=1)
    place: dict[str, Any] = {"xytext": (0, -12), "textcoords": "offset points", "ha": "right", "fontsize": 9}
    axes.annotate("built-in model, no label", (labels[-1], 100 * start), **place)
    axes.set(xlabel="labeled windows", ylabel="correct cells (%)", xticks=labels)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Prints the table, and draws the figure if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=25, help="windows in a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5, help="landscapes")
    parser.add_argument("--size", type=int, default=2048, help="height of a scene in pixels")
    parser.add_argument("--figure", type=Path, help="SVG file to draw")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[list[tuple[float, float]]]] = {method: [] for method in METHODS}
    starts = []
    none = np.empty((0, 2), np.int64)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            scene = Scene(Path(folder), seed, options.size)
            starts.append(scene.accuracy(scene.map.lulc, none))
            for method in METHODS:
                for repeat in range(3 if method == "random" else 1):
                    found[method].append(run(method, scene, options.n, options.rounds, 10 * seed + repeat))
    results = {method: np.array(runs) for method, runs in found.items()}
    start = np.array(starts).mean(axis=0)
    columns = [options.n * number for number in range(1, options.rounds + 1)]
    print(f"{options.seeds} scenes; before any label: {start[0]:.1%} of cells, {start[1]:.1%} mean over classes")
    form: Callable[[float], str] = lambda share: f"{100 * share:.1f}"  # noqa: E731
    print("\n| labels chosen by | " + " | ".join(f"{count} labels" for count in columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for method, runs in results.items():
        cells = [
            f"{form(runs[:, k, 0].mean())} ({form(runs[:, k, 0].min())}-{form(runs[:, k, 0].max())}); "
            f"{form(runs[:, k, 1].mean())}"
            for k in range(options.rounds)
        ]
        print(f"| {METHODS[method]} | " + " | ".join(cells) + " |")
    if options.figure:
        draw(options.figure, options.n, results, float(start[0]))


if __name__ == "__main__":
    main()
