from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geocfl.errors import DataError
from geocfl.experiments.results import Results, pack, unpack

BENCHMARKS = Path(__file__).parents[2] / "benchmarks/results.jsonl"
CONTENT = {"settings": {"loss": "ce"}, "metrics": {"accuracy": 0.5}, "correct": pack(np.array([True, False]))}
CONTENT["patches"] = {"test_sha256": "t"}


def test_added_runs_are_read_again(tmp_path: Path) -> None:
    results = Results(tmp_path / "runs.jsonl")
    assert results.runs == {}
    for name in ("b", "a"):
        results.add(name, CONTENT)
    again = Results(tmp_path / "runs.jsonl").runs
    assert list(again) == ["b", "a"]
    assert again["a"].metrics == {"accuracy": 0.5}
    assert again["a"].correct.tolist() == [True, False]


@pytest.mark.parametrize("left", ['{"name": "c", "format_vers', "x" * 200_000])
def test_a_line_that_was_not_finished_is_overwritten(left: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    Results(file).add("a", CONTENT)
    whole = file.read_text()
    file.write_text(whole + left)
    results = Results(file)
    assert list(results.runs) == ["a"]
    results.add("b", CONTENT)
    assert list(results.runs) == ["a", "b"]
    assert file.read_text().startswith(whole)
    assert "x" * 10 not in file.read_text()
    file.write_text(left)
    Results(file).add("b", CONTENT)
    assert list(Results(file).runs) == ["b"]


@pytest.mark.integration
def test_several_processes_add_to_one_file(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    code = (
        "import json, sys; from pathlib import Path; from geocfl.experiments.results import Results\n"
        "results = Results(Path(sys.argv[1]))\n"
        "for i in range(20): results.add(f'{sys.argv[2]}-{i}', json.loads(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(file)]
    processes = [subprocess.Popen([*command, name, json.dumps(CONTENT)]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(Results(file).runs) == 40


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    for line in ("nonsense", "{}", "[]", json.dumps({"name": "a", "format_version": 1, **CONTENT})):
        file.write_text(f"{line}\n")
        with pytest.raises(DataError, match=r"runs\.jsonl: line 1 is not a finished run"):
            Results(file)


def test_the_published_results_are_sorted_and_complete() -> None:
    runs = Results(BENCHMARKS).runs
    assert list(runs) == sorted(runs)
    assert len(runs) == 166
    assert {run.settings["cfl_form"] for run in runs.values()} <= {"exponent", "factor"}


def test_bits_are_packed_without_loss() -> None:
    correct = np.random.default_rng(0).random(1003) < 0.9
    assert np.array_equal(unpack(json.loads(json.dumps(pack(correct)))), correct)
