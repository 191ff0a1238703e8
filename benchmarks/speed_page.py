"""Draws the figures of docs/speed.md and writes the page: bars of what geocfl reaches, and lines of what limits it.

    python benchmarks/speed_page.py

Each folder of benchmarks/records is a machine. It holds any of `throughput.json`, `startup.json` and `training.json`,
as `map_throughput.py`, `startup.py` and `training_step.py` write them with --json, and `card.txt`: a line that names
the machine, and lines about the records. `OUT=benchmarks/records/NAME benchmarks/gpu.sh` fills such a folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
OURS, OTHERS, LIMIT, TEXT = "#1d9a8a", "#8d99a6", "#e0701a", "#7d838c"
"""Colors that can be read on a light and on a dark page."""
DEFAULT = "default model"
GOALS = {"openvino": 2.0, "onnx": 2.0, "torch": 4.0}
"""Seconds until the first window that were aimed at."""
SHARE = 0.95
"""Share of the bare step that was aimed at."""
INTRODUCTION = """# Speed in figures

Everything on this page is made by `python benchmarks/speed_page.py` from the records in `benchmarks/records`, which
the benchmarks write. [Performance](performance.md) explains the measurements.
"""


@dataclass(frozen=True)
class Bar:
    """A bar.

    Attributes:
        label: Its name.
        value: Its length.
        text: What stands at its end.
        limit: Where the line stands that it cannot or should not pass; None for no line.
        ours: Whether it is geocfl's.
    """

    label: str
    value: float
    text: str
    limit: float | None = None
    ours: bool = True


@dataclass(frozen=True)
class Section:
    """A figure and its table.

    Attributes:
        name: Ending of the figure's file.
        title: Heading.
        axis: What the bars measure.
        line: What the lines mean.
        words: What the figure shows, for those who cannot see it, and below it.
        bars: From top to bottom.
        header: Of the table.
        rows: Of the table.
    """

    name: str
    title: str
    axis: str
    line: str
    words: str
    bars: Sequence[Bar]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def throughput(record: dict[str, Any]) -> Section:
    """Windows per second of whole maps, beside the network alone and other programs."""
    medians = record["medians"]
    used = {c["backend"]: f"a {c['backend']} {c['precision']}" for c in record["classifiers"] if c["default"]}
    alone = {backend: medians[f"{name}, through library"] for backend, name in used.items()}
    alone[DEFAULT] = medians.get(f"a {DEFAULT}")
    bars, rows = [], []
    for name, row in medians.items():
        kind, label = name[0], name[2:]
        ceiling = alone.get(label.removeprefix("geocfl map, ")) if kind == "d" else None
        rate, limit = row["working_windows_per_s"], ceiling and ceiling["working_windows_per_s"]
        if kind != "a" and "quarter" not in name and "stride" not in name:
            bars.append(Bar(label, rate, f"{rate:,.0f}", limit, kind == "d"))
        share = f"{rate / limit:.2f}" if limit else ""
        whole = ["", "", ""] if kind == "a" else [seconds(row, "start_s"), seconds(row, "seconds"), memory(row)]
        rows.append([f"the network alone, {label}" if kind == "a" else label, f"{rate:,.0f}", share, *whole])
    return Section(
        "throughput",
        "A whole tile",
        "windows per second, from the first window to the last product",
        "the network alone",
        "Windows per second of `geocfl map` and of other programs; the lines are the network alone, without "
        "reading and writing.",
        bars,
        ("", "windows/s without start-up", "share of the network alone", "start-up", "whole command", "peak memory"),
        rows,
    )


def seconds(row: dict[str, float], name: str) -> str:
    """Seconds; empty if they were not measured."""
    return f"{row[name]:.1f} s" if name in row else ""


def memory(row: dict[str, float]) -> str:
    """Peak memory; empty if it was not measured."""
    return f"{row['peak_mb'] / 1000:.2f} GB" if row.get("peak_mb") else ""


def startup(record: dict[str, list[float]]) -> Section:
    """Seconds until the first window."""
    bars = []
    for name, (seconds, _) in record.items():
        if not name.startswith("geocfl "):
            goal = next((goal for backend, goal in GOALS.items() if name.endswith(backend)), None)
            bars.append(Bar(name, seconds, f"{seconds:.1f} s", goal))
    return Section(
        "startup",
        "Start",
        "seconds from the command to the first windows",
        "the goal",
        "Seconds until the first windows are classified; the lines are the goals.",
        bars,
        ("", "seconds", "processor time"),
        [
            [f"`{name}`" if name.startswith("geocfl ") else name, *(f"{s:.1f} s" for s in row)]
            for name, row in record.items()
        ],
    )


def training(record: dict[str, Any]) -> Section:
    """Steps of training beside bare steps."""
    found = record["results"]
    precision = record["machine"]["precision"]
    return Section(
        "training",
        "Training",
        f"steps per second in {precision}",
        "bare steps",
        f"Steps per second of the training loop; the lines are bare steps with one batch. The goal is {SHARE} of them.",
        [Bar(row["case"], 1 / row["loop_s"], f"{1 / row['loop_s']:.3g}", 1 / row["bare_s"]) for row in found],
        ("", "batch", "bare step", "step of the loop", "share of the bare step"),
        [
            [
                row["case"],
                f"{row['batch']}",
                *(f"{1000 * row[of]:.1f} ms" for of in ("bare_s", "loop_s")),
                f"{row['share']:.2f}",
            ]
            for row in found
        ],
    )


KINDS = {"throughput": throughput, "startup": startup, "training": training}


def draw(section: Section, file: Path) -> None:
    """Draws the bars of a section, the first one at the top."""
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "geocfl", "font.family": "sans-serif", "font.size": 10}
    colors = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), TEXT)
    with plt.rc_context(style | colors):
        figure, axes = plt.subplots(figsize=(8, 0.9 + 0.38 * len(section.bars)), layout="constrained")
        for y, bar in enumerate(section.bars):
            axes.barh(y, bar.value, 0.68, color=OURS if bar.ours else OTHERS)
            if bar.limit:
                axes.plot([bar.limit] * 2, [y - 0.46, y + 0.46], color=LIMIT, linewidth=2.5, solid_capstyle="butt")
        end = max(max(bar.value, bar.limit or 0) for bar in section.bars)
        for y, bar in enumerate(section.bars):
            axes.text(max(bar.value, bar.limit or 0) + 0.012 * end, y, bar.text, va="center")
        if any(bar.limit for bar in section.bars):
            axes.plot([], [], color=LIMIT, linewidth=2.5, label=section.line)
            axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
        axes.set_yticks(range(len(section.bars)), [bar.label for bar in section.bars])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.12 * end), xlabel=section.axis)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        figure.savefig(file, transparent=True, metadata={"Date": None})
        plt.close(figure)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table in Markdown."""
    yield "| " + " | ".join(header) + " |"
    yield "| --- |" + " ---: |" * (len(header) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def write_page(records: Path, docs: Path) -> Path:
    """Writes the page and its figures, the machines in the order of their folders' names."""
    (docs / "images").mkdir(parents=True, exist_ok=True)
    lines = [INTRODUCTION]
    for folder in sorted(path for path in records.iterdir() if path.is_dir()):
        card = folder / "card.txt"
        title, *about = card.read_text().splitlines() if card.exists() else [folder.name]
        lines += [f"## {title}", "", *([*about, ""] if about else [])]
        for name, make in KINDS.items():
            if not (file := folder / f"{name}.json").exists():
                continue
            section = make(json.loads(file.read_text()))
            figure = f"speed-{folder.name}-{section.name}.svg"
            draw(section, docs / "images" / figure)
            heading = f"### {section.title} {{ #{folder.name}-{section.name} }}"
            lines += [heading, "", f"![{section.words.replace('`', '')}](images/{figure})", "", section.words, ""]
            lines += [*table(section.header, section.rows), ""]
    page = docs / "speed.md"
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--records", type=Path, default=HERE / "records")
    arguments.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    chosen = arguments.parse_args()
    print(write_page(chosen.records, chosen.docs))


if __name__ == "__main__":
    main()
