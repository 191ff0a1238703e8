"""Tries to make geocfl fail: kills, lacking resources, broken inputs, and other ways to compute the same map.

    python benchmarks/reliability.py                       # all of it; about an hour on two idle cores
    python benchmarks/reliability.py --short               # some of it, as in .ci/run; about a minute
    python benchmarks/reliability.py inputs --cases 2000 --seed 1
    python benchmarks/reliability.py inputs --only "JPEG 2000 in SAFE:17"    # one case again

Everything is generated. Cases are numbered, and seed and number decide what happens, so that a case can be run again.
It prints a table for each part and every bad outcome, and exits with 1 if there is one. Linux only: commands run in
forked processes, and disks are small file systems in memory, for which it must run as root. See docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: forked processes have no threads
sys.path.insert(0, str(Path(__file__).parents[1]))  # generators of the tests

from trials.faults import disturb_all
from trials.hostile import attack_all
from trials.inputs import KINDS, OUTCOMES, Bench, Case
from trials.kills import kill_all
from trials.processes import preload
from trials.properties import compare_all

PARTS = {"kills": 200, "faults": 88, "inputs": 2000, "hostile": 27, "properties": 180}
"""Parts and their cases in a full run."""
SHORT = {"kills": 6, "faults": 8, "inputs": 36, "hostile": 7, "properties": 9}
SHORT_KILLS = "map,mosaic,areas"
"""Commands that a short run kills; a training takes seconds each time."""
GOOD = {
    "kills": ("the same",),
    "faults": ("right", "error"),
    "inputs": OUTCOMES,
    "hostile": ("error",),
    "properties": ("the same", "other rounding"),
}
"""Good outcomes of each part."""


def cases_of(part: str, folder: Path, count: int, seed: int, only: str) -> Iterator[Case]:
    """Runs the cases of a part."""
    if part == "kills":
        yield from kill_all(folder, count, seed, only)
    elif part == "faults":
        yield from disturb_all(folder, every=max(1, round(PARTS["faults"] / count)))
    elif part == "hostile":
        yield from attack_all(folder, count)
    elif part == "properties":
        yield from compare_all(folder, count, seed)
    else:
        bench = Bench(folder)
        shares = sum(kind.share for kind in KINDS)
        for kind in KINDS:
            name, _, number = only.partition(":")
            numbers = range(max(2, round(count * kind.share / shares)))
            for each in [int(number)] if number else numbers:
                if name in ("", kind.name):
                    yield bench.trial(kind, each, seed)


def report(part: str, cases: Iterable[Case], log: Path | None) -> int:
    """Prints the table of a part and its bad cases; returns their number."""
    rows: dict[str, Counter[str]] = {}
    bad, peak = 0, 0.0
    for case in cases:
        rows.setdefault(case.kind, Counter())[case.verdict] += 1
        peak = max(peak, case.peak_mb)
        if log:
            with log.open("a") as file:
                file.write(json.dumps({"part": part, **asdict(case)}) + "\n")
        if case.verdict not in GOOD[part]:
            bad += 1
            print(f"BAD {part}, {case.kind}:{case.number}, {case.said}: {case.verdict}: {case.detail}\n", flush=True)
    good = GOOD[part]
    print(f"\n| {part} | cases | {' | '.join(good)} | bad |\n| --- |{' ---: |' * (len(good) + 2)}")
    for name, counts in [*rows.items(), ("all", sum(rows.values(), Counter()))]:
        shown = [counts.total(), *(counts[verdict] for verdict in good)]
        print(f"| {name} | {' | '.join(map(str, shown))} | {counts.total() - sum(shown[1:])} |")
    if peak:
        print(f"\npeak memory of a process: {peak / 1000:.1f} GB")
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--cases", type=int, help="cases of each part, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only",
        default="",
        help="such as VRT, VRT:12, or commands for kills, such as map,train",
    )
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--log", type=Path, help="JSON Lines file to add every case to")
    options = parser.parse_args()
    preload()
    bad = 0
    for part in options.parts:
        folder, started = Path(tempfile.mkdtemp(prefix="geocfl-reliability-")), time.monotonic()
        count = options.cases or (SHORT if options.short else PARTS)[part]
        only = options.only or (SHORT_KILLS if options.short and part == "kills" else "")
        try:
            bad += report(part, cases_of(part, folder, count, options.seed, only), options.log)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"\n{part}: {time.monotonic() - started:.0f} s\n", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
