from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from geocfl.core.legend import EUROSAT, Legend
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.patches import Patches
from geocfl.evaluation.metrics import compute_metrics
from geocfl.evaluation.report import write_report
from geocfl.models.bundle import Bundle

pytestmark = pytest.mark.integration

FIGURES = ["confusion", "convergence", "gallery", "per_class", "reliability", "samples"]
LEGEND_OF_TWO = Legend.from_folders(["Class1", "Class2"])


def made_up(legend: Legend, epochs: int = 3, noise: float = 1.5) -> dict[str, Any]:
    """What `write_report` takes beside the folder."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(20 * len(legend)) % len(legend)
    logits = noise * torch.randn(len(labels), len(legend), generator=rng) + 4 * torch.eye(len(legend))[labels]
    patches = Patches(
        pixels=np.random.default_rng(0).integers(0, 256, (len(labels) + 5, 3, 8, 8), dtype=np.uint8),
        labels=np.concatenate([np.zeros(5, np.int64), labels.numpy()]),
        names=tuple(f"X/patch_{index}.jpg" for index in range(len(labels) + 5)),
        bands=("B04", "B03", "B02"),
        scaling=EUROSAT_RGB,
        legend=legend,
        source="made up",
    )
    model = Bundle(
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
        temperature=1.5,
        origin={
            "data": "made up",
            "split": "random:0.8",
            "seed": 0,
            "patches": {"train": 90, "validation": 10, "test": 5},
            "versions": {"torch": "2"},
        },
    )
    keys = ("loss", "validation_loss", "validation_accuracy", "lr", "seconds")
    return {
        "model": model,
        "result": {name: compute_metrics(logits, labels, legend, 1.5) for name in ("validation", "test")},
        "history": [{"epoch": epoch, **dict.fromkeys(keys, 0.5)} for epoch in range(1, epochs + 1)],
        "patches": patches,
        "indices": np.arange(5, len(patches)),
        "logits": logits,
    }


def page_of(out: Path, **parts: Any) -> str:
    write_report(out, **parts)
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    (out / "config.json").write_text(json.dumps({"batch_size": 64, "scale": None, "bands": ["B04"], "refit": ""}))
    write_report(out, **made_up(EUROSAT))
    return out


def test_every_figure_is_there_as_png_and_svg(report):
    assert sorted(file.stem for file in (report / "figures").glob("*.svg")) == FIGURES
    for name in FIGURES:
        with Image.open(report / f"figures/{name}.png") as image:
            assert min(image.size) > 400
        assert (report / f"figures/{name}.svg").stat().st_size < 500_000


def test_the_same_run_has_the_same_bytes(report, tmp_path):
    (tmp_path / "config.json").write_bytes((report / "config.json").read_bytes())
    write_report(tmp_path, **made_up(EUROSAT))
    for file in report.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / file.relative_to(report)).read_bytes(), file
    assert "dc:date" not in (report / "figures/confusion.svg").read_text()


def test_the_page_needs_nothing_else(report):
    page = (report / "report.html").read_text()
    sources = re.findall(r"(?:src|href)='([^']*)'", page)
    assert sorted(source.split(",")[0] for source in sources) == (
        ["data:image/png;base64"] * 2 + ["data:image/svg+xml;base64"] * 4
    )
    assert not re.search(r"https?://|url\(|@import|<script", page)


def test_the_page_has_the_table_of_the_paper(report):
    page = (report / "report.html").read_text()
    assert "True predictions" in page
    for row in made_up(EUROSAT)["result"]["test"]["per_class"]:
        low, high = proportion_confint(row["correct"], 20, method="wilson")
        cells = (
            row["name"],
            str(row["correct"]),
            "20",
            f"{row['accuracy']:.4f}",
            f"{100 * low:.1f}-{100 * high:.1f}",
            f"{row['f1']:.4f}",
        )
        assert "</td><td>".join(cells) in page
    assert "a &lt;b&gt; &amp; c" in page
    assert "<td>batch size</td><td>64</td>" in page
    assert "<td>scale</td><td>default</td>" in page
    assert "<td>refit</td><td>none</td>" in page


def test_the_page_sets_the_run_beside_the_paper_and_says_how_they_differ(report):
    page = (report / "report.html").read_text()
    assert "95.86% over all patches with class focal loss and 95.16% with cross-entropy" in page
    assert (
        "half of each class and tests on the other half, at random; this model&#x27;s split is &#x27;random:0.8" in page
    )


def test_calibration_before_and_after(report):
    part = made_up(EUROSAT)["result"]["test"]
    before = part["uncalibrated"]
    cells = "".join(f"<td>{side[key]:.4f}</td>" for key in ("ece", "nll", "brier") for side in (before, part))
    page = (report / "report.html").read_text()
    assert cells in page
    assert "a temperature of 1.5000, fitted on the validation patches of its training" in page


def test_an_evaluation_has_no_training_to_show_and_may_have_no_errors(tmp_path):
    parts = made_up(EUROSAT, noise=0)
    parts["model"] = replace(parts["model"], origin={})
    page = page_of(tmp_path, **{**parts, "history": (), "result": {"all": parts["result"]["test"]}})
    assert sorted(file.stem for file in (tmp_path / "figures").glob("*.svg")) == sorted(
        {*FIGURES} - {"convergence", "gallery"}
    )
    assert "No patch was misclassified." in page
    assert "evaluation report</title>" in page
    assert "accuracy on all 200 patches" in page
    for word in ("Epoch", "validation", "training", "this model's split"):
        assert word not in page


def test_the_temperature_of_a_refit_is_that_of_the_first_run(tmp_path):
    parts = made_up(LEGEND_OF_TWO)
    parts["model"].origin["refit_of"] = {"patches": {"validation": 10}}
    page = page_of(tmp_path, **parts)
    assert "fitted on the validation patches of the first run" in page
    assert "of its training" not in page
    assert "95.86" not in page, "other classes than the paper's"


def test_many_classes_and_a_single_epoch(tmp_path):
    page = page_of(tmp_path, **made_up(Legend.from_folders([f"Class{index:02}" for index in range(24)]), epochs=1))
    assert "No patch was misclassified" not in page
    for file in (tmp_path / "figures").glob("*.png"):
        with Image.open(file) as image:
            assert max(image.size) < 4000


def test_a_run_without_validation_makes_a_report_too(tmp_path):
    parts = made_up(LEGEND_OF_TWO)
    history = [{key: value for key, value in row.items() if "validation" not in key} for row in parts["history"]]
    page = page_of(tmp_path, **{**parts, "history": history, "result": {"test": parts["result"]["test"]}})
    assert (tmp_path / "figures/convergence.svg").is_file()
    assert "best validation accuracy" not in page
