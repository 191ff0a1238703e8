"""How accurate a model of one's own is from few patches, what added classes cost the old ones, and how long it takes.

The patches are those of EuroSAT's spatial test split, which the built-in model has not seen, under other names. New
classes are cut from two scenes: bare rock where the NDVI is below 0.2 and red reflectance between 0.08 and 0.45, and
snow where red reflectance is above 0.35. Every table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor

import geocfl
from geocfl.data.blocks import make_folds
from geocfl.data.load import load_patches
from geocfl.data.patches import Patches
from geocfl.evaluation.metrics import accuracy_interval, compute_metrics
from geocfl.losses import make_loss
from geocfl.models.bundle import DEFAULT_MODEL
from geocfl.models.network import load_network
from geocfl.models.reflectance import DenseReflectance
from geocfl.training.features import read_features, views_of
from geocfl.training.head import Rows, cross_validate, fit_head

WINDOW = 64


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="EuroSAT.zip, with the lists of the spatial split")
    parser.add_argument("--rock", type=Path, help="a scene of B04, B03, B02 and B08 with bare rock, DN + 1000")
    parser.add_argument("--snow", type=Path, help="a scene of B04, B03 and B02 with snow")
    parser.add_argument("--each", type=int, default=140, help="test patches of each class at most")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time a training on N patches")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        work = Path(aside)
        if options.time:
            _time(_test_patches(options.data, work / "timed", options.time // 10), work)
            return
        pool = load_patches(_test_patches(options.data, work / "pool", options.each), split="all")
        module = load_network(geocfl.load_model())
        assert isinstance(module, DenseReflectance)
        views = [read_features(module, pool, view=view) for view in views_of(module)]
        few_patches(module, pool, views, options.draws)
        if options.rock and options.snow:
            added_classes(module, pool, views, work, options)


def _test_patches(data: Path, folder: Path, each: int) -> Path:
    """Test patches of the spatial split, at most some of each class, in a folder under other names."""
    lines = (data.parent / "eurosat-spatial-test.txt").read_text().split()
    rng, by_class = np.random.default_rng(0), dict[str, list[str]]()
    for line in lines:
        by_class.setdefault(line.partition("_")[0], []).append(line)
    with zipfile.ZipFile(data) as archive:
        for name, files in by_class.items():
            (folder / name).mkdir(parents=True)
            for number, file in enumerate(rng.permutation(sorted(files))[:each]):
                content = archive.read(f"2750/{name}/{Path(file).stem}.jpg")
                (folder / name / f"p{number}.jpg").write_bytes(content)
    return folder


def few_patches(module: DenseReflectance, pool: Patches, views: list[Tensor], draws: int) -> None:
    """The accuracy of a last layer from few patches: cross-validated, and on the patches that were not drawn."""
    labels, classes = torch.from_numpy(pool.labels), len(pool.legend)
    with torch.inference_mode():
        own = [float((module.head(view).argmax(1) == labels).float().mean()) for view in views[:2]]
    print(f"built-in model on all {len(pool):,} patches: alone {own[0]:.1%}, in mosaics {own[1]:.1%}\n")
    print("| patches of each class | cross-validated | 95% interval | on the others | others, in mosaics |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for each in (5, 10, 20, 50):
        found = []
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(len(pool))
            used = np.concatenate([order[pool.labels[order] == c][:each] for c in range(classes)])
            rest = torch.from_numpy(np.setdiff1d(order, used))
            folds = make_folds(pool, used, None, draw).of
            chosen = torch.from_numpy(used)
            rows = Rows(
                torch.cat([view[chosen] for view in views]),
                labels[chosen].repeat(len(views)),
                np.tile(folds, len(views)),
            )
            loss = make_loss("class-focal", [each] * classes, 0.5, "exponent")
            penalty, logits = cross_validate(rows, classes, loss, 100)
            head = fit_head(rows, classes, loss, penalty, 100)
            correct = int((logits[: len(used)].argmax(1) == labels[chosen]).sum())
            truth = [float((head(view[rest]).argmax(1) == labels[rest]).float().mean()) for view in views[:2]]
            found.append((correct / len(used), accuracy_interval(correct, len(used)), *truth))
        mean, alone, inside = (np.mean([row[i] for row in found]) for i in (0, 2, 3))
        print(f"| {each} | {mean:.1%} | {found[0][1]} (first draw) | {alone:.1%} | {inside:.1%} |", flush=True)


def added_classes(
    module: DenseReflectance, pool: Patches, views: list[Tensor], work: Path, options: argparse.Namespace
) -> None:
    """What happens to the ten classes if two are added from few patches."""
    labels, source = torch.from_numpy(pool.labels), geocfl.load_model()
    scenes = {"BareRock": _squares(options.rock, 1000, rock=True), "Snow": _squares(options.snow, 0, rock=False)}
    with torch.inference_mode():
        new = {name: module.features(torch.from_numpy(squares[:, :3])) for name, squares in scenes.items()}
    print(
        "\n| patches of each new class | ten classes: alone | in mosaics | ECE | in sets | called new |",
        " | ".join(new),
        "|",
    )
    print("| ---: " * (6 + len(new)) + "|")

    def line(name: str, network: DenseReflectance, model: geocfl.Model, recalls: list[str]) -> None:
        with torch.inference_mode():
            logits = [network.scores_of(view)[0] for view in views[:2]]
        shown = [compute_metrics(x, labels, model.legend, model.temperature, model.conformal) for x in logits]
        called = float((logits[1].argmax(1) >= len(source.legend)).float().mean())
        parts = [f"{m['accuracy']:.1%}" for m in shown]
        parts += [f"{shown[1]['ece']:.3f}", f"{shown[1]['sets']['coverage']:.1%}", f"{called:.1%}", *recalls]
        print(f"| {name} | {' | '.join(parts)} |", flush=True)

    line("none", module, source, ["-"] * len(new))
    for each in (5, 10, 20):
        taken: dict[str, NDArray[np.int64]] = {}
        for name, squares in scenes.items():
            taken[name] = np.random.default_rng(each).permutation(len(squares))[:each]
            for number in taken[name]:
                _write(work / f"added{each}" / name / f"{number}.tif", squares[number])
        run = geocfl.train(work / f"added{each}", work / f"run{each}", add_classes=True)
        network = load_network(run.model)
        assert isinstance(network, DenseReflectance)
        recalls = []
        for code, (name, features) in enumerate(new.items(), start=len(source.legend)):
            rest = np.setdiff1d(np.arange(len(features)), taken[name])
            with torch.inference_mode():
                right = int((network.scores_of(features[rest])[0].argmax(1) == code).sum())
            recalls.append(f"{right / len(rest):.0%} ({accuracy_interval(right, len(rest))})")
        line(str(each), network, run.model, recalls)


def _squares(path: Path, offset: int, *, rock: bool) -> NDArray[np.float32]:
    """(n, B, 64, 64) reflectance of the squares of a scene that are mostly of the class."""
    with rasterio.open(path) as scene:
        dn = scene.read().astype(np.float32)
    rows, columns = (side // WINDOW for side in dn.shape[1:])
    cut = dn[:, : rows * WINDOW, : columns * WINDOW].reshape(len(dn), rows, WINDOW, columns, WINDOW)
    squares = cut.transpose(1, 3, 0, 2, 4).reshape(-1, len(dn), WINDOW, WINDOW)
    squares = (squares[(squares > 0).all((1, 2, 3))] - offset) / 10_000
    red = squares[:, 0]
    ndvi = (squares[:, 3] - red) / (squares[:, 3] + red + 1e-3)
    bare = ((ndvi < 0.2) & (red > 0.08) & (red < 0.45)).mean((1, 2)) > 0.5
    snowy = (red > 0.35).mean((1, 2)) > 0.8
    found: NDArray[np.float32] = squares[bare if rock else snowy]
    return found


def _write(path: Path, reflectance: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", height=WINDOW, width=WINDOW, count=3, dtype="uint16") as dataset:
        dataset.write((reflectance[:3] * 10_000).clip(0).round().astype(np.uint16))
        dataset.descriptions = ("B04", "B03", "B02")


def _time(folder: Path, work: Path) -> None:
    """Times a whole training, from the files to the report."""
    patches = sum(1 for _ in folder.glob("*/*.jpg"))
    started = time.perf_counter()
    steps: list[tuple[str, float]] = []

    def progress(what: str, done: int, total: int, unit: str) -> None:
        if done == total:
            steps.append((what, time.perf_counter() - started))

    geocfl.train(folder, work / "run", freeze=True, progress=progress)
    print(f"{patches:,} patches, {torch.get_num_threads()} threads, {DEFAULT_MODEL}")
    for what, seconds in [*steps, ("report", time.perf_counter() - started)]:
        print(f"{what}: {seconds:.0f} s after the start")


if __name__ == "__main__":
    main()
