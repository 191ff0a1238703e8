"""The table of a comparison: means over seeds, and tests of the losses against cross-entropy."""

from __future__ import annotations

import csv
import html
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geocfl.core.display import html_table
from geocfl.core.table import align
from geocfl.errors import DataError
from geocfl.evaluation.significance import holm, mcnemar, t_interval
from geocfl.experiments.results import FinishedRun

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "ce"
"""The loss against which the others are tested."""
LEVEL = 0.05
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "worst_class_recall": "worst-class recall",
    "minority_recall": "minority-class recall",
    "ece": "ECE",
}
"""Columns of the table, in percent."""
CHARTED = ("balanced_accuracy", "ece")
TITLES = ["imbalance", "loss", "seeds", *METRICS.values(), "McNemar against cross-entropy, by seed"]


@dataclass(frozen=True)
class Row:
    """One loss under one imbalance.

    Attributes:
        imbalance: Of the training patches.
        loss: Name of the loss.
        seeds: Number of runs.
        intervals: Mean and half width of the 95 % t interval over seeds for each of `METRICS`; None if undefined.
        tests: For each seed the test patches that only this loss classifies correctly, those that only cross-entropy
            does, and the p-value of McNemar's test, Holm-corrected over all losses and seeds of the imbalance. Empty
            for cross-entropy, and if the grid lacks cross-entropy.
    """

    imbalance: str
    loss: str
    seeds: int
    intervals: dict[str, tuple[float, float] | None]
    tests: tuple[tuple[int, int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """The row as plain numbers; undefined ones are None."""
        metrics = {
            name: None if value is None else [None if np.isnan(part) else part for part in value]
            for name, value in self.intervals.items()
        }
        tests = [dict(zip(("better", "worse", "p_holm"), test, strict=True)) for test in self.tests]
        return {"imbalance": self.imbalance, "loss": self.loss, "seeds": self.seeds, **metrics, "mcnemar": tests}

    def verdict(self) -> str:
        """McNemar's tests in words."""
        if not self.tests:
            return "-"
        better = sum(p < LEVEL and ours > theirs for ours, theirs, p in self.tests)
        worse = sum(p < LEVEL and ours < theirs for ours, theirs, p in self.tests)
        counts = ", ".join(f"+{ours} -{theirs}" for ours, theirs, _ in self.tests)
        return f"better in {better}, worse in {worse} of {len(self.tests)} ({counts})"


def summarize(runs: Iterable[FinishedRun]) -> Iterator[Row]:
    """The rows of a table from finished runs: means over seeds, losses tested against cross-entropy.

    Raises:
        DataError: Runs with the same seed and imbalance have different test patches.
    """
    grid: dict[str, dict[str, dict[int, FinishedRun]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        grid[run.settings["imbalance"]][run.settings["loss"]][run.settings["seed"]] = run
    for imbalance, by_loss in grid.items():
        reference = by_loss.get(REFERENCE, {})
        tests = {
            (loss, seed): _test(run, reference[seed])
            for loss, by_seed in by_loss.items()
            for seed, run in by_seed.items()
            if loss != REFERENCE and seed in reference
        }
        corrected = dict(zip(tests, holm([p for _, _, p in tests.values()]), strict=True))
        for loss, by_seed in by_loss.items():
            values = {name: [run.metrics[name] for run in by_seed.values()] for name in METRICS}
            yield Row(
                imbalance,
                loss,
                len(by_seed),
                {
                    name: None if None in row else t_interval([v for v in row if v is not None])
                    for name, row in values.items()
                },
                tuple((*tests[loss, s][:2], corrected[loss, s]) for s in by_seed if (loss, s) in tests),
            )


def _test(run: FinishedRun, reference: FinishedRun) -> tuple[int, int, float]:
    if run.patches["test_sha256"] != reference.patches["test_sha256"]:
        raise DataError(
            f"runs with the losses {run.settings['loss']} and {REFERENCE} have different test patches; train them again"
        )
    return mcnemar(run.correct, reference.correct)


def minority_recall(recall: Sequence[float], counts: Sequence[int]) -> float | None:
    """Mean recall of the classes with fewer than half the mean number of training patches; None if there are none."""
    minority = np.asarray(counts) < np.mean(counts) / 2
    return float(np.asarray(recall)[minority].mean()) if minority.any() else None


def format_rows(rows: Sequence[Row]) -> str:
    """The rows as aligned plain text with titles."""
    return align([TITLES, *map(_texts, rows)], text_columns=[0, 1, len(TITLES) - 1])


def rows_html(rows: Sequence[Row]) -> str:
    """The rows as a table for a notebook."""
    return html_table(TITLES, [(None, _texts(row)) for row in rows], text_columns=2)


def rows_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """The rows as numbers, indexed by imbalance and loss; ``_half_width`` is that of a metric's 95 % interval."""
    import pandas as pd

    records = []
    for row in rows:
        intervals = {name: row.intervals[name] or (np.nan, np.nan) for name in METRICS}
        numbers = {
            key: v
            for name, pair in intervals.items()
            for key, v in zip((name, f"{name}_half_width"), pair, strict=True)
        }
        records.append({"imbalance": row.imbalance, "loss": row.loss, "seeds": row.seeds, **numbers})
    return pd.DataFrame(records).set_index(["imbalance", "loss"])


def _texts(row: Row) -> list[str]:
    return [row.imbalance, row.loss, str(row.seeds), *(_interval(row.intervals[n]) for n in METRICS), row.verdict()]


def _interval(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "-"
    mean, half = interval
    return f"{100 * mean:.2f}" if np.isnan(half) else f"{100 * mean:.2f} ± {100 * half:.2f}"


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Writes ``table.csv`` (numbers), ``table.md`` and ``table.html`` (for reading), and the chart of the page.

    Args:
        out: An existing folder.
        rows: From `summarize`.
    """
    import matplotlib as mpl

    from geocfl.evaluation.plots import STYLE, intervals_figure, save_figure

    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = [part for name in METRICS for part in (name, f"{name}_half_width")]
        writer.writerow(["imbalance", "loss", "seeds", *columns, "mcnemar_better", "mcnemar_worse", "mcnemar_p_holm"])
        for row in rows:
            numbers = [value for name in METRICS for value in (row.intervals[name] or ("", ""))]
            tests = [" ".join(format(test[i], ".4g") for test in row.tests) for i in range(3)]
            writer.writerow([row.imbalance, row.loss, row.seeds, *numbers, *tests])
    texts = [_texts(row) for row in rows]
    note = (
        "In percent: mean ± half width of the 95 % t interval over seeds. Minority classes have fewer than half the "
        "mean number of training patches. McNemar's test is Holm-corrected over the losses and seeds of an imbalance, "
        f"at level {LEVEL}; + counts the test patches that only this loss classifies correctly, - those that only "
        "cross-entropy does."
    )
    lines = ["| " + " | ".join(TITLES) + " |", "|" + " --- |" * len(TITLES)]
    lines += ["| " + " | ".join(row) + " |" for row in texts]
    (out / "table.md").write_text("\n".join([*lines, "", note, ""]), encoding="utf-8")
    imbalances = list(dict.fromkeys(row.imbalance for row in rows))
    panels = [
        (how, [(row.loss, *(row.intervals[name] or (np.nan, np.nan))) for row in rows if row.imbalance == how])
        for name in CHARTED
        for how in imbalances
    ]
    with mpl.rc_context(STYLE):
        save_figure(intervals_figure(panels, [METRICS[n] for n in CHARTED], len(imbalances), REFERENCE), out, "chart")
    chart = b64encode((out / "chart.svg").read_bytes()).decode()
    (out / "table.html").write_text(_page(texts, note, chart), encoding="utf-8")


def _page(rows: Sequence[Sequence[str]], note: str, chart: str) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Comparison of losses</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 80rem; padding: 0 1rem }}
.scroll {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .35rem .7rem; border-bottom: 1px solid #e5e7eb; text-align: right; white-space: nowrap }}
th {{ white-space: normal; vertical-align: bottom; border-bottom: 2px solid #6b7280 }}
td:nth-child(-n+2), th:nth-child(-n+2), td:last-child, th:last-child {{ text-align: left }}
p {{ max-width: 48rem; color: #555 }}
img {{ max-width: 100%; height: auto }}
@media print {{ body {{ margin: 0; font-size: 10px }} }}
</style>
<h1>Comparison of losses</h1>
<div class="scroll"><table>
<thead>{line(TITLES, "th")}</thead>
<tbody>
{body}
</tbody>
</table></div>
<p>{html.escape(note)}</p>
<img alt="Balanced accuracy and calibration error by loss" src="data:image/svg+xml;base64,{chart}">
</html>
"""
