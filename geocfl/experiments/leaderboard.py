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
from geocfl.core.table import align, spreadsheet_text
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
TITLES = [
    "imbalance",
    "loss",
    "seeds",
    *METRICS.values(),
    "accuracy minus cross-entropy's",
    "McNemar against cross-entropy, by seed",
]


@dataclass(frozen=True)
class Row:
    """One loss under one imbalance.

    Attributes:
        imbalance: Of the training patches.
        loss: Name of the loss.
        seeds: Number of runs.
        intervals: Mean and half width of the 95 % t interval over seeds for each of `METRICS`; None if undefined.
        differences: The same for the difference to cross-entropy with the same seed, which has the same training
            patches. Its interval is narrower than those of the two losses, since what a seed adds to both cancels.
            Empty for cross-entropy, and if the grid lacks cross-entropy.
        tests: For each seed the test patches that only this loss classifies correctly, those that only cross-entropy
            does, and the p-value of McNemar's test, Holm-corrected over all losses and seeds of the imbalance. Empty
            for cross-entropy, and if the grid lacks cross-entropy.
    """

    imbalance: str
    loss: str
    seeds: int
    intervals: dict[str, tuple[float, float] | None]
    differences: dict[str, tuple[float, float] | None]
    tests: tuple[tuple[int, int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """The row as plain numbers; undefined ones are None."""
        metrics, differences = (
            {
                name: None if value is None else [None if np.isnan(part) else part for part in value]
                for name, value in intervals.items()
            }
            for intervals in (self.intervals, self.differences)
        )
        tests = [dict(zip(("better", "worse", "p_holm"), test, strict=True)) for test in self.tests]
        row = {"imbalance": self.imbalance, "loss": self.loss, "seeds": self.seeds}
        return {**row, **metrics, "differences": differences, "mcnemar": tests}

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
            paired = [(by_seed[seed], reference[seed]) for seed in by_seed if loss != REFERENCE and seed in reference]
            yield Row(
                imbalance,
                loss,
                len(by_seed),
                {name: _t_interval([run.metrics[name] for run in by_seed.values()]) for name in METRICS},
                {name: _difference(paired, name) for name in METRICS if paired},
                tuple((*tests[loss, s][:2], corrected[loss, s]) for s in by_seed if (loss, s) in tests),
            )


def _t_interval(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return t_interval(known) if len(known) == len(values) else None


def _difference(paired: Sequence[tuple[FinishedRun, FinishedRun]], name: str) -> tuple[float, float] | None:
    values = [(run.metrics[name], reference.metrics[name]) for run, reference in paired]
    return _t_interval([None if ours is None or theirs is None else ours - theirs for ours, theirs in values])


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
    """The rows as numbers, indexed by imbalance and loss.

    ``_half_width`` is that of the 95 % interval of a metric or of its paired ``_difference`` to cross-entropy.
    """
    import pandas as pd

    records = []
    for row in rows:
        numbers = {name: np.nan if value is None else value for name, value in _numbers(row).items()}
        records.append({"imbalance": row.imbalance, "loss": row.loss, "seeds": row.seeds, **numbers})
    return pd.DataFrame(records).set_index(["imbalance", "loss"])


def _numbers(row: Row) -> dict[str, float | None]:
    """All means and half widths of a row by name; undefined ones are None."""
    named = {**row.intervals, **{f"{name}_difference": row.differences.get(name) for name in METRICS}}
    return {
        key: value
        for name, pair in named.items()
        for key, value in zip((name, f"{name}_half_width"), pair or (None, None), strict=True)
    }


def _texts(row: Row) -> list[str]:
    metrics = (_interval(row.intervals[name]) for name in METRICS)
    difference = _interval(row.differences.get("accuracy"), sign="+")
    return [row.imbalance, row.loss, str(row.seeds), *metrics, difference, row.verdict()]


def _interval(interval: tuple[float, float] | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    mean, half = interval
    return f"{100 * mean:{sign}.2f}" if np.isnan(half) else f"{100 * mean:{sign}.2f} ± {100 * half:.2f}"


def rows_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| " + " | ".join(TITLES) + " |", "|" + " --- |" * len(TITLES)]
    return "\n".join(lines + ["| " + " | ".join(_texts(row)) + " |" for row in rows])


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
        columns = [
            f"{name}{kind}{part}" for kind in ("", "_difference") for name in METRICS for part in ("", "_half_width")
        ]
        writer.writerow(["imbalance", "loss", "seeds", *columns, "mcnemar_better", "mcnemar_worse", "mcnemar_p_holm"])
        for row in rows:
            numbers = ["" if value is None else value for value in _numbers(row).values()]
            tests = [" ".join(format(test[i], ".4g") for test in row.tests) for i in range(3)]
            writer.writerow([row.imbalance, spreadsheet_text(row.loss), row.seeds, *numbers, *tests])
    texts = [_texts(row) for row in rows]
    note = (
        "In percent: mean ± half width of the 95 % t interval over seeds. The difference to cross-entropy is paired: "
        "runs with the same seed have the same training patches. Minority classes have fewer than half the "
        "mean number of training patches. McNemar's test is Holm-corrected over the losses and seeds of an imbalance, "
        f"at level {LEVEL}; + counts the test patches that only this loss classifies correctly, - those that only "
        "cross-entropy does."
    )
    (out / "table.md").write_text(f"{rows_markdown(rows)}\n\n{note}\n", encoding="utf-8")
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
