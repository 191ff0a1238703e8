"""Measures the cost of the data pipeline on top of the bare training step.

Bare steps train on one batch in memory. Full steps take batches from `geocfl.training.loop.augmented_batches`:
decoded patches, converted to reflectance and augmented. Rounds of both alternate, so changes in load affect both.

    python benchmarks/data_pipeline.py --json benchmarks/data_pipeline.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.patches import RGB, Patches
from geocfl.losses import make_loss
from geocfl.models.backbones import build_network
from geocfl.models.devices import choose_device
from geocfl.models.reflectance import Reflectance
from geocfl.training.config import TrainSettings, resolve
from geocfl.training.loop import augmented_batches

LIMIT = 0.15
CASES = (("resnet18", 64), ("lite0", 96))


def made_up_patches(count: int) -> Patches:
    rng = np.random.default_rng(0)
    return Patches(
        pixels=rng.integers(0, 256, (count, 3, 64, 64), dtype=np.uint8),
        labels=np.arange(count) % len(EUROSAT),
        names=tuple(map(str, range(count))),
        bands=RGB,
        scaling=EUROSAT_RGB,
        legend=EUROSAT,
        source="noise",
    )


def endless(patches: Patches, settings: TrainSettings) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in itertools.count(1):
        yield from augmented_batches(patches, np.arange(len(patches)), settings, epoch)


def measure(backbone: str, size: int, rounds: int, steps: int, device: torch.device) -> dict[str, object]:
    """Median seconds of a step, bare and with the data pipeline."""
    settings = resolve("noise", backbone=backbone, input_size=size, weights="none")
    patches = made_up_patches(64 * settings.batch_size)
    torch.manual_seed(0)
    network = build_network(backbone, 3, len(EUROSAT), settings.dropout)
    module = Reflectance(network, (0, 0.275), (0.13,) * 3, (0.08,) * 3, size).to(device)
    module.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    criterion: nn.Module = make_loss(settings.loss, [1] * len(EUROSAT), settings.gamma)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    pipeline = endless(patches, settings)
    x, y = next(pipeline)
    sources = {"bare": itertools.repeat((x, y)), "full": pipeline}

    def step(source: Iterator[tuple[Tensor, Tensor]]) -> float:
        started = time.perf_counter()
        views, target = next(source)
        views = views.to(device, memory_format=torch.channels_last)
        loss = criterion(module(views), target.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
        return time.perf_counter() - started

    for source in sources.values():
        step(source)
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(rounds):
        for name, source in sources.items():
            seconds[name] += [step(source) for _ in range(steps)]
    bare, full = (statistics.median(seconds[name]) for name in ("bare", "full"))
    return {"backbone": backbone, "size": size, "bare_s": bare, "full_s": full, "overhead": full / bare - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5, help="steps of each kind in a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args()
    device = choose_device(options.device)
    rows = []
    print(f"{'network':>14}  {'bare step':>10}  {'with data':>10}  {'overhead':>8}")
    for backbone, size in CASES:
        row = measure(backbone, size, options.rounds, options.steps, device)
        rows.append(row)
        name = f"{backbone}@{size}"
        print(f"{name:>14}  {row['bare_s']:8.4f} s  {row['full_s']:8.4f} s  {row['overhead']:8.1%}", flush=True)
    if options.json:
        machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": str(device)}
        report = {"machine": machine, "torch": torch.__version__, "limit": LIMIT, "batch_size": 64, "results": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
