"""The page of figures is that of the records."""

from __future__ import annotations

import importlib.util
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def speed_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed_page", ROOT / "benchmarks/speed_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["speed_page"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_records(speed_page: ModuleType, tmp_path: Path) -> None:
    page = speed_page.write_page(ROOT / "benchmarks/records", tmp_path)
    assert page.read_text() == (ROOT / "docs/speed.md").read_text(), "run: python benchmarks/speed_page.py"
    made = {file.name for file in (tmp_path / "images").iterdir()}
    assert made == {file.name for file in (ROOT / "docs/images").glob("speed-*.svg")}


def test_a_machine_has_a_figure_and_a_table_of_each_record(speed_page: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "records/h1"
    folder.mkdir(parents=True)
    (folder / "card.txt").write_text("One H1\nTried twice.\n")
    alone = {"working_windows_per_s": 1000.0}
    whole = {"working_windows_per_s": 800.0, "start_s": 2.0, "seconds": 9.0, "peak_mb": 1500.0}
    throughput = {
        "classifiers": [{"backend": "torch", "precision": "float16", "default": True}],
        "medians": {
            "a torch float16, through library": alone,
            "b plain loop": whole | {"working_windows_per_s": 100.0},
            "d geocfl map, torch": whole,
            "d geocfl map, torch, quarter": whole,
            "d geocfl map, default model": whole,
        },
    }
    step = {"case": "resnet18", "batch": 64, "bare_s": 0.01, "loop_s": 0.0125, "share": 0.8}
    training = {"machine": {"precision": "bfloat16"}, "results": [step]}
    for name, record in (("throughput", throughput), ("training", training)):
        (folder / f"{name}.json").write_text(json.dumps(record))
    text = speed_page.write_page(tmp_path / "records", tmp_path / "docs").read_text()
    assert "## One H1\n\nTried twice.\n" in text
    assert "| geocfl map, torch | 800 | 0.80 | 2.0 s | 9.0 s | 1.50 GB |" in text
    assert "| resnet18 | 64 | 10.0 ms | 12.5 ms | 0.80 |" in text
    drawn = {}
    for name in ("throughput", "training"):
        root = ET.parse(tmp_path / f"docs/images/speed-h1-{name}.svg")
        drawn[name] = [node.text for node in root.iter(f"{SVG}text")]
    assert {"plain loop", "geocfl map, torch", "geocfl map, default model", "the network alone"} <= set(
        drawn["throughput"]
    )
    assert "geocfl map, torch, quarter" not in drawn["throughput"]
    assert {"resnet18", "80", "bare steps"} <= set(drawn["training"])
