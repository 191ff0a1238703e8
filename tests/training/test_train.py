from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geocfl.core.legend import Legend
from geocfl.core.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import EUROSAT_BANDS, RGB, Patches, read_patches
from geocfl.data.placed import PlacedPatches, place
from geocfl.data.splits import listed, make_split
from geocfl.errors import DataError, ModelError, OutputError, UsageError
from geocfl.models.network import read_weights
from geocfl.models.predict import load_model
from geocfl.models.stored import FEATURES
from geocfl.training import loop
from geocfl.training import train as training
from geocfl.training.loop import augmented_batches
from geocfl.training.recipe import resolve
from geocfl.training.run_folder import RUN_FILES
from geocfl.training.start import (
    band_statistics,
    describe_model,
    reflectance_range,
    start,
    training_patches,
    training_split,
)
from geocfl.training.train import Run, train

pytestmark = pytest.mark.integration

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
    monkeypatch.setattr("geocfl.evaluation.report.write_report", lambda *_, **__: None)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def history(path: Path) -> list[dict[str, str]]:
    with (path / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Stops training like Ctrl-C, after the first batch of an epoch."""
    whole = loop.augmented_batches

    def interrupted(patches: PlacedPatches, indices: Any, settings: Any, now: int) -> Iterator[Any]:
        for batch in whole(patches, indices, settings, now):
            yield batch
            if now == epoch:
                raise KeyboardInterrupt

    monkeypatch.setattr(loop, "augmented_batches", interrupted)


def test_a_run_folder_holds_all_of_a_run(run):
    files = {name for name in content(run.path) if not name.startswith("figures/")}
    others = {"checkpoint.pt", "checkpoint.partial", "skipped_patches.txt", FEATURES}  # features: of frozen runs
    assert files == set(RUN_FILES) - others
    assert len(list((run.path / "figures").glob("*.svg"))) == len(list((run.path / "figures").glob("*.png"))) >= 4
    settings = resolve(json.loads((run.path / "config.json").read_text())["data"], **TINY)
    assert json.loads((run.path / "config.json").read_text()) == settings.to_json()
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


def test_the_saved_model_is_evaluated(run, data):
    model = load_model(run.path)
    assert (model.name, model.bands, model.window, model.input_size) == ("tiny", RGB, 64, 64)
    assert model.clip == (0.0, 0.275)
    assert model.origin["patches"] == {"train": 15, "validation": 3, "test": 18}
    assert model.origin["metrics"]["test"]["accuracy"] == run.metrics["test"]["accuracy"]
    patches = read_patches(data, RGB)
    test = listed(patches, run.path / "test_patches.txt")
    probabilities = model.predict(patches.reflectance(test), backend="torch", precision="float32").probabilities
    assert (probabilities.argmax(1) == patches.labels[test]).mean() == run.metrics["test"]["accuracy"]
    nll = -np.log(probabilities[np.arange(18), patches.labels[test]]).mean()
    assert nll == pytest.approx(run.metrics["test"]["nll"], rel=1e-4)


def test_the_test_patches_are_predicted_once(data, tmp_path, monkeypatch):
    seen: list[np.ndarray] = []
    whole = training.patch_logits

    def counted(module: Any, patches: Patches, indices: Any) -> torch.Tensor:
        seen.append(indices)
        return whole(module, patches, indices)

    monkeypatch.setattr(training, "patch_logits", counted)
    monkeypatch.setattr(loop, "patch_logits", counted)
    train(data, tmp_path / "run", **SMALLER)
    test = make_split(read_patches(data, RGB), "paper", 0, data).test
    assert sum(np.intersect1d(indices, test).size for indices in seen) == len(test)
    assert np.array_equal(seen[-1], test), "and after everything else"


def test_the_same_command_gives_the_same_run(data, unbroken, tmp_path, capsys):
    again = train(data, tmp_path / "unbroken", **SMALLER)
    assert content(again.path)["model.safetensors"] == content(unbroken.path)["model.safetensors"]
    assert history(again.path) == history(unbroken.path)
    assert content(again.path)["metrics.json"] == content(unbroken.path)["metrics.json"], "bit for bit"
    assert capsys.readouterr().out == "", "standard output is the caller's"


def test_a_killed_run_goes_on_as_if_it_had_not_been(data, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=2)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", **SMALLER)
    assert set(content(tmp_path / "run")) == {"config.json", "checkpoint.pt"}
    with pytest.raises(OutputError, match="pass `resume=True` to resume it"):
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
        with pytest.raises(OutputError, match="already contains a run; pass `overwrite=True`"):
            train(data, out, **SMALLER, **options)
    with pytest.raises(ModelError):
        train(data, out, weights=str(tmp_path / "w.pth"), overwrite=True)
    assert content(out) == before
    train(data, out, **SMALLER, overwrite=True)
    assert content(out)["model.safetensors"] == content(unbroken.path)["model.safetensors"]


def test_missing_lists_are_reported_before_patches_are_read(data, tmp_path, monkeypatch):
    monkeypatch.delattr("geocfl.data.load.read_patches")
    with pytest.raises(DataError, match=r"eurosat-spatial-train\.txt: the list of the spatial split is missing"):
        train(data, tmp_path / "out", split="spatial", weights="none")
    assert not (tmp_path / "out").exists()


def test_other_folders_and_files_are_kept(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        train(data, tmp_path / "file", **SMALLER, overwrite=True)
    with pytest.raises(OutputError, match="other files than those of a run"):
        train(data, tmp_path / "full", **SMALLER, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        train(data, tmp_path / "file/run", **SMALLER)
    assert content(tmp_path) == {"file": b"mine", "full/thesis.tex": b"mine"}


def test_bfloat16_trains_too(data, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOCFL_BFLOAT16", "on")
    run = train(data, tmp_path / "run", **{**SMALLER, "epochs": 1})
    assert math.isfinite(float(history(run.path)[0]["loss"]))


def test_batches_are_an_epoch_of_augmented_patches(data):
    patches, settings = read_patches(data, RGB), resolve("d", **TINY)
    placed, indices = place(patches, torch.device("cpu")), np.arange(0, 34, 2)
    first, again, second = (list(augmented_batches(placed, indices, settings, epoch)) for epoch in (1, 1, 2))
    assert [tuple(x.shape) for x, _ in first] == [(8, 3, 64, 64)] * 2, "a last batch of one is left out"
    for (x, y), (x_again, y_again) in zip(first, again, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
    assert not torch.equal(first[0][0], second[0][0])
    plain = resolve("d", **TINY, augmentation=Augmentation())
    views = torch.cat([x for x, _ in augmented_batches(placed, np.arange(36), plain, 1)])
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
    with pytest.raises(DataError, match="not finite numbers"):
        band_statistics(pixels(np.full((2, 1, 2, 2), np.nan, np.float32)), np.arange(2), (0.0, 1.0))


def test_reflectance_is_clipped_where_the_numbers_end():
    bytes_ = np.zeros((2, 3, 1, 1), np.uint8)
    assert reflectance_range(pixels(bytes_, EUROSAT_RGB)) == (0.0, 0.275)
    assert reflectance_range(pixels(bytes_, Scaling(255))) == (0.0, 1.0)
    assert reflectance_range(pixels(bytes_.astype(np.uint16))) == (0.0, 1.0)
    assert reflectance_range(pixels(bytes_.astype(np.float32), Scaling(1))) == (0.0, 1.0)


def test_scale_and_offset_go_before_the_layouts_own(data):
    assert training_patches(resolve(str(data))).scaling == EUROSAT_RGB
    assert training_patches(resolve(str(data), scale=255.0)).scaling == Scaling(255)
    assert training_patches(resolve(str(data), offset=-1000.0)).scaling == Scaling(10_000, -1000)


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


def test_a_refit_may_start_from_weights_that_know_the_validation_patches(data, run, tmp_path):
    refit = train(data, tmp_path / "refit", **TINY, refit=run.path)
    started = {**TINY, "epochs": 1, "weights": str(refit.path)}
    with pytest.raises(UsageError, match="also trained on the validation patches"):
        train(data, tmp_path / "run", **started)
    first = train(data, tmp_path / "first", **{**started, "weights": str(run.path)})
    assert train(data, tmp_path / "second", **started, refit=first.path).model.temperature == first.model.temperature


@pytest.mark.parametrize("known", [True, False])
def test_weights_of_a_model_of_the_same_classes_start_the_last_layer_too(data, run, tmp_path, known):
    weights = run.path if known else shutil.copy(run.path / "model.safetensors", tmp_path)
    settings = resolve(data, **{**SMALLER, "weights": str(weights)})
    patches = training_patches(settings)
    _, module = start(settings, patches, training_split(patches, settings), "run", torch.device("cpu"))
    theirs = read_weights(run.path / "model.safetensors")["fc.weight"].float()
    torch.testing.assert_close(module.head.weight.detach(), theirs if known else torch.zeros_like(theirs))


def test_a_run_is_repeated_from_its_config(data, unbroken, tmp_path):
    again = train(None, tmp_path / "unbroken", config=unbroken.path / "config.json")
    for file in ("config.json", "metrics.json", "model.json", "model.safetensors", "test_patches.txt"):
        assert content(again.path)[file] == content(unbroken.path)[file], file
    other = train(None, tmp_path / "other", config=unbroken.path / "config.json", epochs=1)
    assert len(history(other.path)) == 1


FROZEN = {"backbone": "lite0", "freeze": True, "epochs": 20, "batch_size": 8, "input_size": 32}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOCFL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_frozen_backbone_stays_as_it_was_and_its_head_learns(data, tmp_path, cache):
    run = train(data, tmp_path / "run", **FROZEN)
    ours = run.model.network().network.state_dict()
    settings = resolve(str(data), **FROZEN)
    patches = training_patches(settings)
    _, fresh = start(settings, patches, training_split(patches, settings), "m", torch.device("cpu"))
    for name, value in fresh.network.state_dict().items():
        same = torch.equal(ours[name], value.half().float() if value.is_floating_point() else value)
        assert same == (not name.startswith("classifier.")), name
    assert run.metrics["test"]["accuracy"] > 0.8
    assert len(list(cache.rglob("*.safetensors"))) == 1


def test_features_are_read_from_the_cache_the_second_time(data, tmp_path, cache, monkeypatch):
    first = train(data, tmp_path / "first/run", **FROZEN)

    def fail(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("geocfl.models.reflectance.Reflectance.features", fail)
    second = train(data, tmp_path / "second/run", **FROZEN, loss="ce")
    assert second.metrics["test"]["n"] == first.metrics["test"]["n"]


def test_adjusted_logits_ship(tmp_path, write_patches, cache):
    data = write_patches(tmp_path / "data", each=40)
    options = {**FROZEN, "imbalance": "long-tail:8", "epochs": 3}
    plain = train(data, tmp_path / "ce", **options, loss="ce")
    adjusted = train(data, tmp_path / "adjusted", **options, loss="logit-adjusted")
    tau = adjusted.model.origin["tau"]
    counts = torch.tensor(plain_counts(data, options))
    before, after = (run.model.network().head for run in (plain, adjusted))
    assert torch.equal(before.weight, after.weight)
    expected = before.bias - tau * (counts / counts.sum()).log()
    torch.testing.assert_close(after.bias, expected.float(), atol=2e-3, rtol=2e-3)


def plain_counts(data: Path, options: dict[str, Any]) -> list[int]:
    settings = resolve(str(data), **options)
    patches = training_patches(settings)
    return patches.counts(training_split(patches, settings).train)


def test_the_training_patches_are_thinned_and_no_others(tmp_path, write_patches):
    data = write_patches(tmp_path / "data", each=40)
    run = train(data, tmp_path / "run", **{**SMALLER, "epochs": 1}, imbalance="step:4")
    whole = resolve(str(data), **SMALLER)
    patches = training_patches(whole)
    split = training_split(patches, whole)
    assert run.model.origin["patches"] == {
        "train": 18 + 18 + 4,
        "validation": len(split.validation),
        "test": len(split.test),
    }
    assert np.array_equal(listed(patches, run.path / "test_patches.txt"), split.test)


def test_a_cosine_head_ships(data, tmp_path):
    run = train(data, tmp_path / "run", **{**SMALLER, "epochs": 1}, loss="ldam")
    assert run.model.head == "cosine"
    logits = run.model.network()(torch.rand(4, 3, 64, 64) * 0.2)
    assert logits.abs().max() <= 30


def test_compiled_training_is_training(data, tmp_path, monkeypatch):
    # The compiler itself takes minutes: that its module takes the steps is what is ours.
    calls: list[int] = []

    def compiled(module: torch.nn.Module, **options: Any) -> Any:
        assert options == {"dynamic": False}

        def step(x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return module(x)

        return step

    monkeypatch.setattr(torch, "compile", compiled)
    train(data, tmp_path / "run", **{**SMALLER, "epochs": 1}, compile=True)
    assert calls == [8], "the last, smaller batch is not compiled for"


def test_bad_patches_are_listed(tmp_path, write_patches):
    data = write_patches(tmp_path / "data")
    (data / "Forest/Forest_3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"Forest/Forest_3\.png.*`skip_bad=True`"):
        train(data, tmp_path / "run", **SMALLER)
    run = train(data, tmp_path / "run", **{**SMALLER, "epochs": 1}, skip_bad=True)
    assert (run.path / "skipped_patches.txt").read_text() == "Forest/Forest_3.png\n"


def test_a_handful_of_steps_has_a_schedule(tmp_path, write_patches):
    data = write_patches(tmp_path / "data", each=4)
    for epochs in (1, 2, 5):
        run = train(data, tmp_path / f"run{epochs}", **{**SMALLER, "epochs": epochs, "batch_size": 64})
        assert len(history(run.path)) == epochs


def test_imbalances_share_their_normalization(tmp_path, write_patches):
    data = write_patches(tmp_path / "data", each=40)
    whole, thinned = (resolve(str(data), **SMALLER, imbalance=how) for how in ("none", "step:8"))
    patches = training_patches(whole)
    models = [
        describe_model(settings, patches, training_split(patches, settings), "m") for settings in (whole, thinned)
    ]
    assert models[0].mean == models[1].mean
    assert models[0].std == models[1].std


def test_a_refit_needs_a_finished_run(data, run, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    for name in ("config.json", "model.json", "model.safetensors"):
        (half / name).write_bytes((run.path / name).read_bytes())
    with pytest.raises(UsageError, match="nowhere: not a finished run"):
        train(data, tmp_path / "second", **TINY, refit="nowhere")
    with pytest.raises(UsageError, match="not a finished run"):
        train(data, tmp_path / "second", **TINY, refit=str(half))


def test_a_foreign_config_is_not_a_run(data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text('{"mine": true}')
    with pytest.raises(OutputError, match="other files than those of a run"):
        train(data, tmp_path / "mine", **SMALLER, overwrite=True)
    assert content(tmp_path) == {"mine/config.json": b'{"mine": true}'}


def test_a_bad_teacher_costs_no_older_run(data, tmp_path):
    train(data, tmp_path / "run", **{**SMALLER, "epochs": 1})
    before = content(tmp_path)
    with pytest.raises(ModelError, match="no such model"):
        train(data, tmp_path / "run", **SMALLER, teacher=("nowhere",), overwrite=True)
    assert content(tmp_path) == before


def test_bad_patches_of_torchgeo_are_not_skipped(tmp_path):
    (tmp_path / "ds").mkdir()
    with pytest.raises(UsageError, match="`skip_bad=True`"):
        train(tmp_path, tmp_path / "run", **SMALLER, skip_bad=True)
