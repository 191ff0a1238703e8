"""Prints the tables of docs/results.md on losses under class imbalance, from the committed runs. It needs no patches.

python benchmarks/losses.py
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from geocfl.experiments.leaderboard import REFERENCE, rows_markdown, summarize
from geocfl.experiments.results import FinishedRun, Results
from geocfl.losses import LOSSES


def renamed(run: FinishedRun) -> FinishedRun:
    """The same run; its loss is named with gamma and form, its imbalance with the order of the classes."""
    facts = run.settings
    loss, imbalance = facts["loss"], facts["imbalance"]
    if loss == "class-focal":
        loss += f", gamma {facts['gamma']:g}" + (", factor" if facts["cfl_form"] == "factor" else "")
    if facts["class_order"] != "legend":
        imbalance += f", {facts['class_order']}"
    return replace(run, settings={**facts, "loss": loss, "imbalance": imbalance})


def place(run: FinishedRun) -> tuple[str, int, str, float, int]:
    """Where a run stands in the tables."""
    facts = run.settings
    loss = list(LOSSES).index(facts["loss"])
    return facts["imbalance"].replace("none", ""), loss, facts["cfl_form"], facts["gamma"], facts["seed"]


def table(title: str, runs: Iterable[FinishedRun]) -> str:
    """A table in Markdown with its title."""
    return f"{title}\n\n{rows_markdown(list(summarize(runs)))}\n"


def main() -> None:
    """Prints three tables in Markdown."""
    runs = sorted(Results(Path(__file__).with_name("results.jsonl")).runs.values(), key=place)
    legend = [run for run in runs if run.settings["class_order"] == "legend"]
    focal = [run for run in legend if run.settings["loss"] == "class-focal"]
    variants = [run for run in focal if (run.settings["gamma"], run.settings["cfl_form"]) != (0.5, "exponent")]
    imbalances = {run.settings["imbalance"] for run in variants}
    reference = [run for run in legend if run.settings["loss"] == REFERENCE and run.settings["imbalance"] in imbalances]
    print(table("All losses", (run for run in legend if run not in variants)))
    focal = [run for run in focal if run.settings["imbalance"] in imbalances]
    print(table("Class focal loss, by gamma and form", map(renamed, sorted([*reference, *focal], key=place))))
    others = (renamed(run) for run in runs if run.settings["class_order"] != "legend")
    print(table("Classes in another order, from the largest to the smallest", others))


if __name__ == "__main__":
    main()
