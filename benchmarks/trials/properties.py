"""Maps must not depend on how they are computed: strip height, batch size, memory, threads, other scenes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trials import material
from trials.inputs import Case, result
from trials.processes import Outcome, geocfl
from trials.work import TORCH


def _strips(rows: int) -> Callable[[], None]:
    def before() -> None:
        from geocfl.mapping import memory

        memory.STRIP_ROWS = rows

    return before


def _threads(count: int) -> Callable[[], None]:
    def before() -> None:
        import torch

        torch.set_num_threads(count)

    return before


WAYS: dict[str, tuple[list[str], Callable[[], None] | None]] = {
    "strips of 64 rows": ([], _strips(64)),
    "strips of 160 rows": ([], _strips(160)),
    "batches of 1": (["--batch-size", "1"], None),
    "batches of 7": (["--batch-size", "7"], None),
    "batches of 500": (["--batch-size", "500"], None),
    "2 threads": ([], _threads(2)),
    "8 GB of memory": (["--memory", "8GB"], None),
    "little memory": (["--memory", "1.1GB"], None),
    "beside another scene": (["SECOND"], None),
}


def compare_all(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Maps random scenes in the ways of `WAYS` and compares the maps bit by bit.

    Args:
        folder: An empty folder to work in.
        count: Comparisons, about.
        seed: Of the scenes.
    """
    model = material.write_model(folder / "tiny")
    second = material.write_scene(folder / "second.tif", material.land(130, 140, seed=99))
    rng = np.random.default_rng(seed)
    for number in range(max(1, round(count / len(WAYS)))):
        height, width = map(int, rng.integers(64, 600, 2))
        pixels = material.land(height, width, seed=number)
        pixels[:, : int(rng.integers(0, height // 2)), : int(rng.integers(0, width // 2))] = 0
        layout = {"blockxsize": int(rng.choice([64, 256]))} if number % 2 else {"tiled": False}
        scene = material.write_scene(folder / "scene.tif", pixels, **layout)
        stride = str(rng.choice([16, 24, 32, 64]))
        base = ["map", str(scene), "--model", str(model), "--stride", stride, "--products", "lulc,confidence", *TORCH]
        base += ["--vector", "none"]
        _, right = _map(folder, base, None)
        for way, (options, before) in WAYS.items():
            more = [option.replace("SECOND", str(second)) for option in options]
            outcome, found = _map(folder, [*base, *more], before)
            said = f"{height} x {width}, stride {stride}"
            if outcome.defect or outcome.code:
                yield Case(way, number, said, outcome.defect or "refused", outcome.err[-1000:])
            elif found == right:
                yield Case(way, number, said, "the same")
            else:
                yield Case(way, number, said, *_compared(found, right))


def _map(folder: Path, arguments: list[str], before: Any) -> tuple[Outcome, Any]:
    out = Path(tempfile.mkdtemp(dir=folder))
    outcome = geocfl(
        [*arguments, "--out", str(out)], before=before, environment={"GEOCFL_CACHE": str(folder / "cache")}
    )
    for file in out.glob("second_*"):
        os.remove(file)
    found = result(out) if outcome.code == 0 else None
    shutil.rmtree(out)
    return outcome, found


def _compared(found: Any, right: Any) -> tuple[str, str]:
    """Whether only confidences differ, by the last percent, or classes, too."""
    codes, others = (np.frombuffer(made["scene_lulc.tif"][0], np.uint8) for made in (found, right))
    surely, before = (np.frombuffer(made["scene_confidence.tif"][0], np.uint8).astype(int) for made in (found, right))
    classes, most = int((codes != others).sum()), int(abs(surely - before).max())
    said = f"{classes} of {codes.size} classes differ, confidences by up to {most} percent points"
    return ("other classes" if classes else "other rounding" if most <= 1 else "other confidences"), said
