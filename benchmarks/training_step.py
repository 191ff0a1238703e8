"""Measures the steps of the training loop against bare steps on the same device.

A bare step computes the loss of one batch that lies on the device, its gradients and the optimizer's step. The loop's
steps are those of `geocfl.training.loop.train_epoch`: patches are drawn, converted to reflectance and augmented, and
the learning rate follows its schedule. Rounds of both alternate, so that changes in load affect both alike.

    python benchmarks/training_step.py --device cpu
    python benchmarks/training_step.py --device cuda --steps 100 --rounds 9
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geocfl.core.legend import EUROSAT
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.patches import RGB, Patches
from geocfl.data.splits import Split
from geocfl.models.devices import choose_device, has_fast_bfloat16
from geocfl.training.loop import make_learner, make_optimizer, train_epoch
from geocfl.training.recipe import resolve
from geocfl.training.start import start
from geocfl.training.step import Stepper

LEAST = 40
"""Patches that a split into training, validation and test needs."""
CASES = ("resnet18", "lite0", "dense")


def made_up_patches(count: int) -> Patches:
    """Noise in EuroSAT's format."""
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


def measure(case: str, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a step of either kind, and the median over the rounds of their ratio."""
    chosen = {"backbone": "lite0", "dense": True} if case == "dense" else {"backbone": case}
    if not chosen.get("dense"):
        chosen["batch_size"] = options.batch_size
    settings = resolve("noise", split="random:0.5", weights="none", epochs=1000, compile=options.compile, **chosen)
    steps: int = options.steps
    # A group of 64 windows has 25 patches; see geocfl.data.mosaics.
    used = steps * (25 if case == "dense" else settings.batch_size)
    patches = made_up_patches(max(used, LEAST))
    every = np.arange(used)
    split = Split(every, every[:0], every[:0])
    model, module = start(settings, patches, split, case, device)
    learner = make_learner(module, model, patches, split, settings)
    assert learner.steps == steps
    optimizer, scheduler = make_optimizer(learner.module, settings, steps)
    stepper = Stepper(learner.module, learner.objective, optimizer, settings.batch_size if settings.compile else 0)
    learner.module.train()
    x, y = next(learner.batches(1))
    x, y = x.to(device, memory_format=torch.channels_last), y.to(device)
    epochs = iter(range(1, 1000))

    def bare() -> None:
        for _ in range(steps):
            loss = stepper(x, y)
        loss.item()  # waits for the device

    def loop() -> None:
        train_epoch(learner.batches(next(epochs)), stepper, scheduler)

    def seconds(work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) / steps

    stepper(x, y).item()  # kernels are chosen; the first batch has been made above
    rounds = []
    for turn in range(options.rounds):
        if turn % 2:
            looped, plain = seconds(loop), seconds(bare)
        else:
            plain, looped = seconds(bare), seconds(loop)
        rounds.append((plain, looped))
    bare_s, loop_s = map(statistics.median, zip(*rounds, strict=True))
    share = statistics.median(plain / looped for plain, looped in rounds)
    return {"case": case, "batch": len(y), "bare_s": bare_s, "loop_s": loop_s, "share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", default=",".join(CASES), help="some of: " + ", ".join(CASES))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps of each kind in a round")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args()
    device = choose_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    print(f"{device} ({name}), {torch.get_num_threads()} threads, {precision}, torch {torch.__version__}")
    print(f"{'network':>10}  {'batch':>5}  {'bare step':>11}  {'loop':>11}  {'bare / loop':>11}")
    rows = []
    for case in options.cases.split(","):
        row = measure(case, device, options)
        rows.append(row)
        print(
            f"{case:>10}  {row['batch']:>5}  {1000 * row['bare_s']:8.1f} ms  {1000 * row['loop_s']:8.1f} ms"
            f"  {row['share']:11.3f}",
            flush=True,
        )
    if options.json:
        machine = {"name": name, "threads": torch.get_num_threads(), "device": str(device), "precision": precision}
        report = {"machine": machine, "torch": torch.__version__, "compile": options.compile, "results": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
