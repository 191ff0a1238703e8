from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest

from geocfl.errors import DataError
from geocfl.experiments.leaderboard import METRICS, format_rows, minority_recall, rows_frame, summarize, write_tables
from geocfl.experiments.results import FinishedRun


def finished(
    loss: str, seed: int, accuracy: float, imbalance: str = "none", test: str = "t", **metrics: Any
) -> FinishedRun:
    values: dict[str, float | None] = dict.fromkeys(METRICS, accuracy) | {"minority_recall": None} | metrics
    correct = np.arange(1000) < 1000 * accuracy
    return FinishedRun({"loss": loss, "seed": seed, "imbalance": imbalance}, values, correct, {"test_sha256": test})


GRID = [
    *(finished("ce", seed, 0.90 + 0.01 * seed) for seed in range(3)),
    *(finished("focal", seed, 0.95 + 0.01 * seed) for seed in range(3)),
    *(finished("ldam", seed, 0.90 + 0.01 * seed) for seed in range(3)),
]


def test_seeds_are_averaged():
    ce, focal, _ = summarize(GRID)
    assert (ce.imbalance, ce.loss, ce.seeds) == ("none", "ce", 3)
    mean, half = ce.intervals["accuracy"]
    assert mean == pytest.approx(0.91)
    assert half == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert focal.intervals["accuracy"][0] == pytest.approx(0.96)
    assert ce.intervals["minority_recall"] is None


def test_losses_are_tested_against_cross_entropy_seed_by_seed_and_corrected():
    ce, focal, ldam = summarize(GRID)
    assert ce.tests == ()
    assert [test[:2] for test in focal.tests] == [(50, 0)] * 3
    # Six tests, of which these three are the smallest: 6 * 2 * 0.5^50 at the most.
    assert all(2 * 0.5**50 < p <= 12 * 0.5**50 for _, _, p in focal.tests)
    assert ldam.tests == ((0, 0, 1.0),) * 3
    assert focal.verdict() == "better in 3, worse in 0 of 3 (+50 -0, +50 -0, +50 -0)"
    assert ldam.verdict().startswith("better in 0, worse in 0 of 3")


def test_differences_to_cross_entropy_are_paired_by_seed():
    gains = (0.01, 0.02, 0.03)
    grid = [
        *(finished("ce", seed, value) for seed, value in enumerate((0.5, 0.9, 0.7))),
        *(finished("focal", 2 - seed, value + gains[seed]) for seed, value in enumerate((0.7, 0.9, 0.5))),
        finished("focal", 7, 0.1),
        finished("ldam", 0, 0.4, ece=None),
    ]
    ce, focal, ldam = summarize(grid)
    assert ce.differences == {}
    mean, half = focal.differences["accuracy"]
    assert mean == pytest.approx(0.02)
    assert half == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4), "a seed without cross-entropy has no difference"
    assert focal.intervals["accuracy"][1] > 10 * half
    assert ldam.differences["accuracy"][0] == pytest.approx(-0.1)
    assert ldam.differences["ece"] is None
    texts = format_rows([ce, focal, ldam]).splitlines()
    assert "+2.00 ± 2.48" in texts[-2]
    assert "-10.00" in texts[-1]
    facts = json.loads(json.dumps(ldam.to_json(), allow_nan=False))["differences"]
    assert facts["accuracy"] == [pytest.approx(-0.1), None]
    frame = rows_frame([ce, focal, ldam])
    assert frame.loc[("none", "focal"), "accuracy_difference_half_width"] == pytest.approx(half)
    assert np.isnan(frame.loc[("none", "ce"), "accuracy_difference"])


def test_a_difference_that_chance_explains_is_no_verdict():
    better = finished("focal", 0, 0.9)
    better.correct[[0, 1, 995, 996, 997]] = [False, False, True, True, True]
    (_, row) = summarize([finished("ce", 0, 0.9), better])
    assert row.verdict() == "better in 0, worse in 0 of 1 (+3 -2)"


def test_each_imbalance_has_its_rows():
    rows = list(summarize([*GRID, finished("focal", 0, 0.5, "step:4")]))
    assert [(row.imbalance, row.loss) for row in rows] == [
        ("none", "ce"),
        ("none", "focal"),
        ("none", "ldam"),
        ("step:4", "focal"),
    ]
    assert rows[-1].tests == (), "no cross-entropy to test against"


def test_other_test_patches_are_not_compared():
    with pytest.raises(DataError, match="different test patches"):
        list(summarize([finished("ce", 0, 0.9), finished("focal", 0, 0.9, test="u")]))


def test_minorities_have_fewer_than_half_the_mean():
    assert minority_recall([0.9, 0.8, 0.3, 0.1], [100, 100, 20, 10]) == pytest.approx(0.2)
    assert minority_recall([0.9, 0.8], [100, 90]) is None


def test_the_table_is_written_for_programs_and_for_people(tmp_path):
    rows = list(summarize([*GRID, finished("a<b", 0, 0.5, "step:4", minority_recall=0.25)]))
    write_tables(tmp_path, rows)
    with (tmp_path / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["loss"] for line in lines] == ["ce", "focal", "ldam", "a<b"]
    assert float(lines[1]["accuracy"]) == pytest.approx(0.96)
    assert float(lines[1]["accuracy_half_width"]) == pytest.approx(rows[1].intervals["accuracy"][1])
    assert float(lines[1]["accuracy_difference"]) == pytest.approx(0.05)
    assert lines[0]["accuracy_difference"] == lines[0]["minority_recall"] == ""
    assert float(lines[3]["minority_recall"]) == 0.25
    assert lines[1]["mcnemar_better"] == "50 50 50"
    markdown = (tmp_path / "table.md").read_text()
    assert "| none | focal | 3 | 96.00 ± 2.48 |" in markdown
    page = (tmp_path / "table.html").read_text()
    assert "96.00 ± 2.48" in page
    assert "a&lt;b" in page
    assert "http" not in page
    assert "96.00 ± 2.48" in format_rows(rows)


def test_rows_as_json_hold_no_nan():
    (row,) = summarize([finished("ce", 0, 0.9)])
    facts = json.loads(json.dumps(row.to_json(), allow_nan=False))
    assert facts["accuracy"] == [0.9, None]
    assert facts["minority_recall"] is None
    _, focal, _ = summarize(GRID)
    assert [test["better"] for test in focal.to_json()["mcnemar"]] == [50, 50, 50]
