from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from geocfl.evaluation import metrics
from geocfl.legend import EUROSAT, Legend
from geocfl.model import Model
from geocfl.report import write_report

FIGURES = ["confusion", "convergence", "per_class", "reliability"]


def made_up(legend: Legend, epochs: int = 3) -> tuple[Model, list[dict[str, float]], dict[str, Any]]:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(40 * len(legend)) % len(legend)
    logits = torch.randn(len(labels), len(legend), generator=rng) + 4 * torch.eye(len(legend))[labels]
    result = {name: metrics(logits, labels, legend) for name in ("validation", "test")}
    keys = ("loss", "validation_loss", "validation_accuracy", "lr", "seconds")
    history = [{"epoch": epoch, **dict.fromkeys(keys, 0.5)} for epoch in range(1, epochs + 1)]
    model = Model(
        name="a <b> & c",
        backbone="resnet18",
        bands=("B04", "B03", "B02"),
        gsd=10.0,
        window=64,
        input_size=64,
        clip=(0.0, 0.275),
        mean=(0.1, 0.1, 0.1),
        std=(0.05, 0.05, 0.05),
        legend=legend,
        origin={"data": "made up", "split": "paper", "seed": 0, "versions": {"torch": "2"}},
    )
    return model, history, result


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    (out / "config.json").write_text(json.dumps({"batch_size": 64, "scale": None, "bands": ["B04"]}))
    write_report(out, *made_up(EUROSAT))
    return out


def test_every_figure_is_there_as_png_and_svg(report):
    assert sorted(file.stem for file in (report / "figures").glob("*.svg")) == FIGURES
    for name in FIGURES:
        with Image.open(report / f"figures/{name}.png") as image:
            assert min(image.size) > 400
        assert (report / f"figures/{name}.svg").stat().st_size < 500_000


def test_the_same_run_has_the_same_bytes(report, tmp_path):
    (tmp_path / "config.json").write_bytes((report / "config.json").read_bytes())
    write_report(tmp_path, *made_up(EUROSAT))
    for file in report.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / file.relative_to(report)).read_bytes(), file
    assert "dc:date" not in (report / "figures/confusion.svg").read_text()


def test_the_page_needs_nothing_else(report):
    page = (report / "report.html").read_text()
    sources = re.findall(r"(?:src|href)='([^']*)'", page)
    assert len(sources) == len(FIGURES)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not re.search(r"https?://|url\(|@import|<script", page)


def test_the_page_has_the_table_of_the_paper(report):
    page = (report / "report.html").read_text()
    assert "True predictions" in page
    result = made_up(EUROSAT)[2]["test"]
    for row in result["per_class"]:
        cells = (
            f"{row['name']}</td><td>{row['correct']}</td><td>40</td><td>{row['accuracy']:.4f}</td><td>{row['f1']:.4f}"
        )
        assert cells in page
    assert "a &lt;b&gt; &amp; c" in page
    assert "<td>batch size</td><td>64</td>" in page
    assert "<td>scale</td><td>by default</td>" in page


def test_metrics_without_reliability_make_a_report_too(tmp_path):
    model, history, result = made_up(EUROSAT)
    for part in result.values():
        del part["reliability"]
    write_report(tmp_path, model, history, result)
    assert "reliability.svg" not in {file.name for file in (tmp_path / "figures").iterdir()}
    assert "Expected calibration" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("classes", [2, 40])
def test_few_and_many_classes_and_a_single_epoch(tmp_path, classes):
    legend = Legend.from_folders([f"Class{index:02}" for index in range(classes)])
    write_report(tmp_path, *made_up(legend, epochs=1))
    with Image.open(tmp_path / "figures/confusion.png") as image:
        assert max(image.size) < 4000


def test_a_run_without_validation_makes_a_report_too(tmp_path):
    model, history, result = made_up(EUROSAT)
    plain = [{key: value for key, value in row.items() if not key.startswith("validation")} for row in history]
    write_report(tmp_path, model, plain, {"test": result["test"]})
    assert sorted(file.stem for file in (tmp_path / "figures").glob("*.svg")) == FIGURES
