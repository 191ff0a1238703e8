from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import geocfl
from geocfl.data.patches import RGB, read_patches
from geocfl.errors import DataError, GeocflError, OutputError, UsageError
from geocfl.evaluation.evaluate import evaluate
from geocfl.training.train import Run, train

pytestmark = pytest.mark.integration

SETTINGS = {"backbone": "lite0", "weights": "none", "epochs": 3, "batch_size": 8, "input_size": 32, "lr": 3e-3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_patches: Any) -> Path:
    return write_patches(tmp_path_factory.mktemp("data") / "patches", each=20)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(data, tmp_path_factory.mktemp("runs") / "run", **SETTINGS)


def test_it_finds_what_training_found(data, run, tmp_path):
    found = evaluate(run.path, data=data, out=tmp_path / "out")
    assert found.metrics == {"test": run.metrics["test"]}
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == found.metrics
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "figures",
        "metrics.json",
        "predictions.csv",
        "report.html",
    }
    assert "Balanced accuracy" in found.table() or "balanced accuracy" in found.table()


def test_evaluate_with_tta(data, run, tmp_path):
    found = evaluate(run.path, data=data, out=tmp_path / "out", tta=8)
    patches = read_patches(data, RGB)
    indices = [patches.names.index(name) for name in (run.path / "test_patches.txt").read_text().split()]
    with torch.inference_mode():
        logits = run.model.with_tta(8).network()(torch.from_numpy(patches.reflectance(indices)))
    labels = torch.from_numpy(patches.labels[indices])
    assert found.metrics["test"]["nll"] == pytest.approx(F.cross_entropy(logits / run.model.temperature, labels).item())
    assert found.metrics["test"]["nll"] != run.metrics["test"]["nll"]


def test_the_precision_is_the_users(data, run, tmp_path):
    found = {
        name: evaluate(run.path, data=data, out=tmp_path / name, precision=name).metrics["test"]["nll"]
        for name in ("float32", "bfloat16")
    }
    assert found["float32"] == run.metrics["test"]["nll"]
    assert found["bfloat16"] != found["float32"]
    for name, sentence in (("int3", "unknown `precision` 'int3'"), ("float16", "no float16 convolutions on a CPU")):
        with pytest.raises(UsageError, match=sentence):
            evaluate(run.path, data=data, out=tmp_path / name, precision=name, device="cpu")
        assert not (tmp_path / name).exists()


def test_every_prediction_is_listed(data, run, tmp_path):
    found = evaluate(run.path, data=data, out=tmp_path / "out")
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    listed = (run.path / "test_patches.txt").read_text().split()
    assert [row["patch"] for row in rows] == listed
    assert all(row["patch"].split("/")[0] == row["true_class"] for row in rows)
    right = np.mean([row["true_class"] == row["predicted_class"] for row in rows])
    assert right == pytest.approx(found.metrics["test"]["accuracy"])
    patches = read_patches(data, RGB)
    index = patches.names.index(rows[0]["patch"])
    confidence = run.model.predict(patches.reflectance([index]), backend="torch", precision="float32").confidence.item()
    assert float(rows[0]["confidence"]) == pytest.approx(confidence, abs=2e-4)


def test_parts_lists_and_everything(data, run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "geocfl"):
        validation = evaluate(run.path, data=data, out=tmp_path / "validation", subset="validation")
        assert not caplog.records
        assert validation.metrics["validation"] == run.metrics["validation"]
        named = evaluate(run.path, data=data, out=tmp_path / "named", split=run.path / "test_patches.txt")
        assert named.metrics["test_patches"] == run.metrics["test"]
        whole = evaluate(run.path, data=data, out=tmp_path / "all", split="all")
        assert whole.metrics["all"]["n"] == 60
    assert len(caplog.records) == 2


@pytest.mark.parametrize("options", [{"subset": "train"}, {"split": "random:0.5"}, {"seed": 1}])
def test_it_warns_where_the_labels_may_be_known(options, data, run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "geocfl"):
        evaluate(run.path, data=data, out=tmp_path / "out", **options)
    assert "may have been trained on some of these patches" in caplog.text


def test_bad_input_is_refused_and_nothing_is_written(data, run, tmp_path, write_patches):
    other = write_patches(tmp_path / "other", classes=["Forest", "River"], each=4)
    small = write_patches(tmp_path / "small", each=4, size=32)
    listing = tmp_path / "list.txt"
    listing.write_text("Forest/Forest_999.png\n")
    cases: list[tuple[dict[str, Any], type[GeocflError], str]] = [
        ({"split": "thirds"}, UsageError, "unknown `split` 'thirds'"),
        ({"split": "nowhere.txt"}, UsageError, "nowhere.txt: no such list"),
        (
            {"subset": "rest"},
            UsageError,
            "unknown `subset` 'rest'; did you mean 'test'. choose from: test, validation, train",
        ),
        ({"data": other}, DataError, "classes are not those of run, for example 'SeaLake'"),
        ({"data": tmp_path / "none"}, DataError, "no such folder"),
        ({"split": str(listing)}, DataError, "Forest_999"),
        ({"batch_size": 0}, UsageError, "`batch_size` is 0 but must be at least 1"),
        ({"seed": -1}, UsageError, "`seed` is -1 but must be a whole number from 0"),
        ({"scale": 0}, UsageError, "`scale` must be a number above 0 and `offset` a number, but they are 0 and None"),
        ({"offset": "-1000"}, UsageError, "`offset` is '-1000' but must be a number or None"),
        ({"device": "gpu"}, UsageError, "did you mean 'cuda'"),
        ({"data": small}, DataError, "patches have 32 x 32 px, but run classifies windows of 64 x 64 px"),
    ]
    for options, kind, problem in cases:
        with pytest.raises(kind, match=problem):
            evaluate(run.path, **{"data": data, "out": tmp_path / "out"} | options)
    assert not (tmp_path / "out").exists()


def test_swapped_arguments_are_recognized(data, run, tmp_path):
    with pytest.raises(UsageError, match=r"is a model and .* is not: swap them, the model first"):
        evaluate(data, data=run.path, out=tmp_path / "out")
    with pytest.raises(UsageError, match="eurosat-rgb-lite0 is a model and"):
        evaluate(data, data="eurosat-rgb-lite0", out=tmp_path / "out")
    with pytest.raises(UsageError, match=r"EuroSAT\.zip is not a model; pass patches as `data`"):
        evaluate("EuroSAT.zip", data=data, out=tmp_path / "out")
    with pytest.raises(UsageError, match="`model` is of type Model but must be a path"):
        evaluate(geocfl.load_model(run.path), data=data, out=tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"evaluate\(\): unknown parameter 'part'"):
        evaluate(run.path, data=data, out=tmp_path / "out", part="test")


def test_existing_files_are_kept(data, run, tmp_path):
    with pytest.raises(OutputError, match="contains a training run"):
        evaluate(run.path, data=data, out=run.path, overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        evaluate(run.path, data=data, out=tmp_path / "file")
    evaluate(run.path, data=data, out=tmp_path / "out")
    before = (tmp_path / "out/metrics.json").read_bytes()
    with pytest.raises(OutputError, match="pass `overwrite=True`"):
        evaluate(run.path, data=data, out=tmp_path / "out")
    evaluate(run.path, data=data, out=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/metrics.json").read_bytes() == before
