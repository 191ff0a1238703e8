from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geocfl import training
from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import EUROSAT_BANDS, RGB, Patches, read_patches
from geocfl.data.splits import make_split
from geocfl.errors import DataError, ModelError, OutputError, UsageError
from geocfl.legend import Legend
from geocfl.model import load_model
from geocfl.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.training import (
    RUN_FILES,
    Run,
    band_statistics,
    batches,
    load_patches,
    parse_bands,
    reflectance_range,
    resolve,
    train,
)

TINY = {"weights": "none", "epochs": 2, "batch_size": 8, "lr": 3e-4}
SMALLER = {**TINY, "input_size": 32}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_patches: Any) -> Path:
    return write_patches(tmp_path_factory.mktemp("data") / "patches")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two epochs, not to be changed."""
    return train(data, tmp_path_factory.mktemp("runs") / "tiny", **TINY)


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(data, tmp_path_factory.mktemp("runs") / "unbroken", **SMALLER)


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than a tiny training; those of `run`, which is made before this, are enough."""
    monkeypatch.setattr("geocfl.report.write_report", lambda *_: None)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def history(path: Path) -> list[dict[str, str]]:
    with (path / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Stops training like Ctrl-C, after the first batch of an epoch."""
    whole = training.batches

    def interrupted(patches: Patches, indices: Any, settings: Any, now: int) -> Iterator[Any]:
        for batch in whole(patches, indices, settings, now):
            yield batch
            if now == epoch:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "batches", interrupted)


def test_a_run_folder_holds_all_of_a_run(run):
    files = {name for name in content(run.path) if not name.startswith("figures/")}
    assert files == set(RUN_FILES) - {"checkpoint.pt", "checkpoint.partial"}
    assert len(list((run.path / "figures").glob("*.svg"))) == len(list((run.path / "figures").glob("*.png"))) == 4
    settings = resolve(json.loads((run.path / "config.json").read_text())["data"], **TINY)
    assert json.loads((run.path / "config.json").read_text()) == json.loads(json.dumps(asdict(settings)))
    rows = history(run.path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == {"epoch", "loss", "validation_loss", "validation_accuracy", "lr"}


def test_metrics_have_the_form_of_the_contract(run):
    result = json.loads((run.path / "metrics.json").read_text())
    assert result == run.metrics
    assert list(result) == ["validation", "test"]
    test = result["test"]
    assert {"n", "accuracy", "macro_f1", "ece", "nll", "per_class", "confusion"} <= test.keys()
    assert test["n"] == 18
    assert [row["count"] for row in test["per_class"]] == [6, 6, 6]
    assert sum(row["correct"] for row in test["per_class"]) == round(test["accuracy"] * 18)
    assert np.array(test["confusion"]).sum(1).tolist() == [6, 6, 6]


def test_what_is_judged_is_what_ships(run, data):
    model = load_model(run.path)
    assert (model.name, model.bands, model.window, model.input_size) == ("tiny", RGB, 64, 64)
    assert model.clip == (0.0, 0.275)
    assert model.origin["patches"] == {"train": 15, "validation": 3, "test": 18}
    assert model.origin["metrics"]["test"]["accuracy"] == run.metrics["test"]["accuracy"]
    patches = read_patches(data, RGB)
    names = (run.path / "test_patches.txt").read_text().split()
    test = np.array([patches.names.index(name) for name in names])
    probabilities = model.predict(patches.reflectance(test))
    assert (probabilities.argmax(1) == patches.labels[test]).mean() == run.metrics["test"]["accuracy"]
    nll = -np.log(probabilities[np.arange(18), patches.labels[test]]).mean()
    assert nll == pytest.approx(run.metrics["test"]["nll"], rel=1e-4)


def test_the_test_patches_are_predicted_once(data, tmp_path, monkeypatch):
    seen: list[np.ndarray] = []
    whole = training.predict

    def counted(module: Any, patches: Patches, indices: Any) -> torch.Tensor:
        seen.append(indices)
        return whole(module, patches, indices)

    monkeypatch.setattr(training, "predict", counted)
    train(data, tmp_path / "run", **SMALLER)
    test = make_split(read_patches(data, RGB), "paper", 0, data).test
    assert sum(np.intersect1d(indices, test).size for indices in seen) == len(test)
    assert np.array_equal(seen[-1], test), "and after everything else"


def test_the_same_command_gives_the_same_run(data, unbroken, tmp_path, capsys):
    again = train(data, tmp_path / "unbroken", **SMALLER)
    assert content(again.path)["model.safetensors"] == content(unbroken.path)["model.safetensors"]
    assert history(again.path) == history(unbroken.path)
    assert again.metrics == unbroken.metrics
    assert capsys.readouterr().out == "", "standard output is the caller's"


def test_a_killed_run_goes_on_as_if_it_had_not_been(data, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=2)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", **SMALLER)
    assert set(content(tmp_path / "run")) == {"config.json", "checkpoint.pt"}
    with pytest.raises(OutputError, match="pass --resume to go on with it"):
        train(data, tmp_path / "run", **SMALLER)
    with pytest.raises(OutputError, match="other settings"):
        train(data, tmp_path / "run", **{**SMALLER, "seed": 1}, resume=True)
    resumed = train(data, tmp_path / "run", **SMALLER, resume=True)
    assert content(resumed.path)["model.safetensors"] == content(unbroken.path)["model.safetensors"]
    assert history(resumed.path) == history(unbroken.path)
    assert resumed.metrics == unbroken.metrics
    assert "checkpoint.pt" not in content(resumed.path)


def test_a_run_killed_before_its_first_checkpoint_starts_again(data, unbroken, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_bytes(content(unbroken.path)["config.json"])
    resumed = train(data, tmp_path / "run", **SMALLER, resume=True)
    assert content(resumed.path)["model.safetensors"] == content(unbroken.path)["model.safetensors"]


def test_an_unreadable_checkpoint_is_named(data, unbroken, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_bytes(content(unbroken.path)["config.json"])
    (tmp_path / "run/checkpoint.pt").write_bytes(b"half a checkp")
    with pytest.raises(OutputError, match=r"checkpoint\.pt: not a readable checkpoint"):
        train(data, tmp_path / "run", **SMALLER, resume=True)


def test_a_run_that_fails_leaves_nothing(data, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no such weights file"):
        train(data, tmp_path / "run", weights=str(tmp_path / "w.pth"))
    with pytest.raises(DataError, match="no such folder"):
        train(tmp_path / "nowhere", tmp_path / "run", **TINY)
    interrupt(monkeypatch, epoch=1)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", **SMALLER)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_replaced_only_on_demand_and_only_by_training(data, run, unbroken, tmp_path):
    out = tmp_path / "run"
    train(data, out, **{**SMALLER, "epochs": 1})
    before = content(out)
    for options in ({}, {"resume": True}):
        with pytest.raises(OutputError, match="already holds a run; pass --overwrite"):
            train(data, out, **SMALLER, **options)
    with pytest.raises(ModelError):
        train(data, out, weights=str(tmp_path / "w.pth"), overwrite=True)
    assert content(out) == before
    train(data, out, **SMALLER, overwrite=True)
    assert content(out)["model.safetensors"] == content(unbroken.path)["model.safetensors"]


def test_other_folders_and_files_are_left_alone(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        train(data, tmp_path / "file", **SMALLER, overwrite=True)
    with pytest.raises(OutputError, match="something else than a run"):
        train(data, tmp_path / "full", **SMALLER, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        train(data, tmp_path / "file/run", **SMALLER)
    assert content(tmp_path) == {"file": b"mine", "full/thesis.tex": b"mine"}


def test_bfloat16_trains_too(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_fast_bfloat16", lambda device: True)
    run = train(data, tmp_path / "run", **{**SMALLER, "epochs": 1})
    assert math.isfinite(float(history(run.path)[0]["loss"]))


def test_the_paper_recipe_is_the_papers():
    settings = resolve("EuroSAT.zip", "paper")
    assert (settings.backbone, settings.weights, settings.input_size) == ("resnet18", "SENTINEL2_RGB_MOCO", 64)
    assert (settings.batch_size, settings.lr, settings.gamma) == (64, 6e-4, 0.5)
    assert (settings.dropout, settings.stage_dropout) == (0.25, 0.25)
    assert (settings.optimizer, settings.schedule, settings.epochs, settings.weight_decay) == (
        "adam",
        "constant",
        30,
        0,
    )
    assert (settings.split, settings.bands, settings.loss) == ("paper", RGB, "class-focal")
    assert settings.augmentation == Augmentation(rotation=180, zoom=0.2)


def test_what_the_user_chooses_goes_before_the_recipe():
    assert resolve("d", "paper", lr=1e-3, epochs=None).lr == 1e-3
    assert resolve("d", "paper", epochs=None).epochs == 30
    assert resolve("d", backbone="lite0").weights == "imagenet"
    assert resolve("d", backbone="lite0").input_size == 96


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"recipe": "secret"}, "unknown recipe 'secret'; choose one of: default, paper"),
        ({"backbone": "vit"}, "unknown backbone 'vit'"),
        ({"loss": "mse"}, "unknown loss 'mse'"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'; choose one of: adam, adamw"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'"),
        ({"split": "thirds"}, "unknown split 'thirds'"),
        ({"learning_rate": 1.0}, "unknown option learning_rate; choose among: data, split"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 1}, "batch size"),
        ({"lr": 0.0}, "learning rate"),
        ({"lr": math.nan}, "learning rate"),
        ({"gamma": -1.0}, "gamma"),
        ({"dropout": 1.0}, "dropout"),
        ({"stage_dropout": -0.1}, "dropout"),
        ({"weight_decay": -0.1}, "weight decay"),
        ({"input_size": 16}, "input size"),
        ({"seed": -1}, "seed"),
        ({"scale": 0.0}, "scale"),
        ({"offset": math.inf}, "offset"),
        ({"bands": ()}, "bands"),
    ],
)
def test_settings_that_do_not_exist_are_refused(options, problem, tmp_path):
    with pytest.raises(UsageError, match=problem):
        train(tmp_path, tmp_path / "run", **options)


def test_bands_by_words_and_names():
    assert parse_bands("rgb") == RGB
    assert parse_bands("ALL") == EUROSAT_BANDS
    assert parse_bands("B08, B04") == ("B08", "B04")


def test_batches_are_an_epoch_of_views(data):
    patches, settings = read_patches(data, RGB), resolve("d", **TINY)
    indices = np.arange(0, 34, 2)
    first, again, second = (list(batches(patches, indices, settings, epoch)) for epoch in (1, 1, 2))
    assert [tuple(x.shape) for x, _ in first] == [(8, 3, 64, 64)] * 2, "a last batch of one is left out"
    for (x, y), (x_again, y_again) in zip(first, again, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
    assert not torch.equal(first[0][0], second[0][0])
    plain = resolve("d", **TINY, augmentation=Augmentation())
    views = torch.cat([x for x, _ in batches(patches, np.arange(36), plain, 1)])
    expected = torch.from_numpy(patches.reflectance(np.arange(36)))
    torch.testing.assert_close(views.mean((1, 2, 3)).sort().values, expected.mean((1, 2, 3)).sort().values)


def pixels(values: np.ndarray, scaling: Scaling = SENTINEL2) -> Patches:
    n, bands = values.shape[:2]
    labels = np.arange(n) % 2
    legend = Legend.from_folders(["A", "B"])
    return Patches(values, labels, tuple(map(str, range(n))), EUROSAT_BANDS[:bands], scaling, legend, "made up")


def test_statistics_are_those_of_the_clipped_training_pixels():
    values = np.random.default_rng(0).integers(0, 20_000, (3000, 2, 4, 4)).astype(np.uint16)
    indices = np.arange(0, 3000, 2)
    mean, std = band_statistics(pixels(values), indices, (0.0, 1.0))
    clipped = (values[indices] / 10_000).clip(0, 1)
    np.testing.assert_allclose(mean, clipped.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(std, clipped.std((0, 2, 3)), atol=1e-5)
    with pytest.raises(DataError, match="no numbers"):
        band_statistics(pixels(np.full((2, 1, 2, 2), np.nan, np.float32)), np.arange(2), (0.0, 1.0))


def test_reflectance_is_clipped_where_the_numbers_end():
    bytes_ = np.zeros((2, 3, 1, 1), np.uint8)
    assert reflectance_range(pixels(bytes_, EUROSAT_RGB)) == (0.0, 0.275)
    assert reflectance_range(pixels(bytes_, Scaling(255))) == (0.0, 1.0)
    assert reflectance_range(pixels(bytes_.astype(np.uint16))) == (0.0, 1.0)
    assert reflectance_range(pixels(bytes_.astype(np.float32), Scaling(1))) == (0.0, 1.0)


def test_scale_and_offset_go_before_the_layouts_own(data):
    assert load_patches(resolve(str(data))).scaling == EUROSAT_RGB
    assert load_patches(resolve(str(data), scale=255.0)).scaling == Scaling(255)
    assert load_patches(resolve(str(data), offset=-1000.0)).scaling == Scaling(10_000, -1000)


@pytest.mark.shared
def test_real_patches_train(shared_data, tmp_path):
    zipped = shared_data / "eurosat/EuroSAT_MS_sample200.zip"
    run = train(zipped, tmp_path / "run", **{**SMALLER, "epochs": 1, "bands": EUROSAT_BANDS, "batch_size": 32})
    assert run.model.clip == (0.0, 1.0)
    assert run.metrics["test"]["n"] == 100


def test_refit_trains_on_validation_patches_too_with_the_first_runs_temperature(tmp_path, write_patches):
    data = write_patches(tmp_path / "data")
    options = {"backbone": "lite0", "weights": "none", "epochs": 1, "batch_size": 8, "input_size": 32}
    first = train(data, tmp_path / "first", **options)
    second = train(data, tmp_path / "second", refit=str(tmp_path / "first"), **options)
    parts = first.model.origin["patches"]
    assert second.model.origin["patches"] == {
        "train": parts["train"] + parts["validation"],
        "validation": 0,
        "test": parts["test"],
    }
    assert second.model.temperature == first.model.temperature
    assert second.model.origin["refit_of"]["metrics"] == first.model.origin["metrics"]
    assert list(second.metrics) == ["test"]
    assert "validation_accuracy" not in (tmp_path / "second" / "history.csv").read_text()
    with pytest.raises(UsageError, match="other settings"):
        train(data, tmp_path / "third", refit=str(tmp_path / "first"), **{**options, "seed": 1})
    assert not (tmp_path / "third").exists()
