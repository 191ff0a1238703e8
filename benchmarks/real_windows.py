"""Measures accuracy, confidence and novelty on windows of real scenes that a person labeled.

    python benchmarks/real_windows.py windows.csv [--model eurosat-rgb-dense]

The CSV file has the columns `scene` (a path below the folder above the CSV file), `row` and `column` (a cell of the
map at stride 64) and `classes`: the codes of all classes that a careful person would accept, such as `1|7`, or `none`
for land that belongs to no class of the model. A window is right if its class is among those accepted. Maps are
computed in float32. AUROC is the chance that a right window has more confidence than a wrong one, and that a window of
no class has more novelty than one that has a class.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

import geocfl
from geocfl.models.bundle import DEFAULT_MODEL

SUREST = (30, 50, 70, 100)
"""Percent of the windows that have a class, those with the most confidence."""
BINS = ((0.0, 0.5), (0.5, 0.8), (0.8, 1.01))
"""Intervals of confidence, the upper end excluded."""


@dataclass(frozen=True)
class Window:
    """A labeled window and the map's class and confidence there.

    Attributes:
        scene: Stem of the scene's file name.
        accepted: Codes that count as right; empty for land that belongs to no class.
        code: Class code in the map.
        confidence: Confidence in the map, 0..1.
        novelty: Novelty in the map, percent; NaN for a model without it.
    """

    scene: str
    accepted: frozenset[int]
    code: int
    confidence: float
    novelty: float

    @property
    def right(self) -> bool:
        """Whether the map's class is accepted."""
        return self.code in self.accepted


def windows(table: Path, model: str) -> Iterator[Window]:
    """Maps each scene once and looks up its labeled windows."""
    with table.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["scene"])
    products = ("default", "novelty") if geocfl.load_model(model).novelty else ("default",)
    for scene, labels in groupby(rows, key=lambda row: row["scene"]):
        with tempfile.TemporaryDirectory() as folder:
            path = table.parent.parent / scene
            scene_map = geocfl.map_scene(path, folder, model=model, stride=64, precision="float32", products=products)
            codes, confidence = scene_map.lulc, scene_map.confidence
            novelty = scene_map.novelty if "novelty" in products else np.full(codes.shape, np.nan)
        for row in labels:
            cell = int(row["row"]), int(row["column"])
            accepted = () if row["classes"] == "none" else map(int, row["classes"].split("|"))
            yield Window(
                Path(scene).stem, frozenset(accepted), int(codes[cell]), float(confidence[cell]), float(novelty[cell])
            )


def share(chosen: Sequence[Window]) -> str:
    """``"12 of 16 (75 %)"``."""
    right = sum(window.right for window in chosen)
    return f"{right} of {len(chosen)} ({right / len(chosen):.0%})" if chosen else "-"


def mean(chosen: Sequence[Window]) -> float:
    """Mean confidence."""
    return sum(window.confidence for window in chosen) / max(1, len(chosen))


def auroc(high: Sequence[float], low: Sequence[float]) -> float:
    """The chance that one of `high` is above one of `low`; ties count half."""
    if not high or not low:
        return math.nan
    return float(mannwhitneyu(high, low).statistic) / (len(high) * len(low))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    found = list(windows(options.table, options.model))
    known = [window for window in found if window.accepted]
    unknown = [window for window in found if not window.accepted]
    print("| windows | right |\n| --- | ---: |")
    for scene in sorted({window.scene for window in known}):
        print(f"| {scene} | {share([window for window in known if window.scene == scene])} |")
    print(f"| all | {share(known)} |\n")
    print("| the surest | right |\n| --- | ---: |")
    surest = sorted(known, key=lambda window: -window.confidence)
    for percent in SUREST:
        print(f"| {percent} % | {share(surest[: round(len(surest) * percent / 100)])} |")
    print()
    print("| confidence | right | windows of no class |\n| --- | ---: | ---: |")
    for low, high in BINS:
        inside = [[w for w in group if low <= w.confidence < high] for group in (known, unknown)]
        print(f"| {low:g} to {min(high, 1):g} | {share(inside[0])} | {len(inside[1])} of {len(unknown)} |")
    right, wrong = ([w for w in known if w.right is answer] for answer in (True, False))
    groups = (("right windows", right), ("wrong ones", wrong), ("those of no class", unknown))
    means = ", ".join(f"{mean(group):.2f} of {name}" for name, group in groups)
    print(f"\nMean confidence: {means}.")
    print(f"AUROC of confidence {auroc([w.confidence for w in right], [w.confidence for w in wrong]):.2f}", end="")
    if not any(math.isnan(w.novelty) for w in found):
        print(f", of novelty {auroc([w.novelty for w in unknown], [w.novelty for w in known]):.2f}", end="")
        beyond = sum(w.novelty > 95 for w in right) / max(1, len(right))
        print(f"; {beyond:.0%} of right windows are beyond the 95th percentile of novelty", end="")
    print(".")


if __name__ == "__main__":
    main()
