from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import geocfl
from geocfl.cli.entry import app
from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import RGB, read_patches
from geocfl.errors import UsageError
from geocfl.evaluation.evaluate import evaluate
from geocfl.evaluation.logits import mosaic_features, mosaic_logits, patch_logits
from geocfl.models import backbones
from geocfl.models.bundle import Bundle
from geocfl.models.network import load_network
from geocfl.training import loop
from geocfl.training.calibrate import calibrate_dense
from geocfl.training.correlation import log_probabilities
from geocfl.training.recipe import resolve
from geocfl.training.start import check_dense, describe_model, start, training_patches, training_split
from geocfl.training.train import Run, train

pytestmark = pytest.mark.integration

TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "none",
    "dense": True,
    "epochs": 2,
    "batch_size": 64,
    "input_size": 64,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_patches: Any) -> Path:
    return write_patches(tmp_path_factory.mktemp("data") / "patches", each=16)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run through the command line, with its report."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "dense"]
    done = CliRunner().invoke(app, ["train", "--data", str(data), "--out", str(out), "--dense", *options])
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "metrics.json").read_text())
    inside = metrics["test_mosaics"]["accuracy"]
    assert f"Inside random mosaics: accuracy {inside:.1%}" in done.output
    assert json.loads((out / "config.json").read_text()) == resolve(data, **TINY).to_json()
    return Run(out, geocfl.load_model(out), metrics)


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than a tiny training; those of `run`, which is made before this, are enough."""
    monkeypatch.setattr("geocfl.evaluation.report.write_report", lambda *_, **__: None)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def test_metrics_are_of_patches_alone_and_inside_mosaics(run, data):
    assert list(run.metrics) == ["validation", "validation_mosaics", "test", "test_mosaics"]
    model = Bundle.load(run.path)
    assert (model.feature_stride, model.input_size, model.origin["dense"]) == (32, 64, True)
    assert list(model.origin["metrics"]) == list(run.metrics)
    patches = read_patches(data, RGB)
    names = (run.path / "test_patches.txt").read_text().split()
    test = np.array([patches.names.index(name) for name in names])
    assert run.metrics["test"]["n"] == run.metrics["test_mosaics"]["n"] == len(test)
    logits = mosaic_logits(load_network(model), patches, test)
    accuracy = float((logits.argmax(1).numpy() == patches.labels[test]).mean())
    assert run.metrics["test_mosaics"]["accuracy"] == pytest.approx(accuracy)
    assert run.metrics["test"]["nll"] != run.metrics["test_mosaics"]["nll"]


def test_the_report_shows_both(run):
    page = (run.path / "report.html").read_text()
    for title in ("validation", "validation in mosaics", "test", "test in mosaics"):
        assert f"<td>{title}</td>" in page
    cards = re.findall(r"<li><b>([^<]*)</b>([^<]*)</li>", page)
    n = run.metrics["test"]["n"]
    assert cards[0] == (f"{run.metrics['test']['accuracy']:.2%}", f"accuracy on {n} test patches")
    assert cards[1] == (f"{run.metrics['test_mosaics']['accuracy']:.2%}", f"accuracy on {n} test patches in mosaics")
    assert f"Classes ({n} test patches)" in page


def test_evaluation_inside_mosaics_finds_what_training_found(run, data, tmp_path):
    found = evaluate(run.path, data=data, out=tmp_path / "inside", mosaics=True)
    assert found.metrics == {"test_mosaics": run.metrics["test_mosaics"]}
    assert evaluate(run.path, data=data, out=tmp_path / "alone").metrics == {"test": run.metrics["test"]}
    every = evaluate(run.path, data=data, out=tmp_path / "all", split="all", mosaics=True)
    assert list(every.metrics) == ["all_mosaics"]
    assert every.metrics["all_mosaics"]["n"] == 48


def test_evaluation_inside_mosaics_needs_a_dense_model(run, data, tiny_model, tmp_path):
    for model, options, problem in (
        (tiny_model, {}, "tiny is not a dense model.*leave out `mosaics`"),
        (run.path, {"tta": 2}, "without test-time augmentation; pass `tta=1`, or leave out `mosaics`"),
        (run.path, {"batch_size": 8}, "one at a time; leave out `batch_size` or `mosaics`"),
    ):
        with pytest.raises(UsageError, match=problem):
            evaluate(model, data=data, out=tmp_path / "out", mosaics=True, **options)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_ends_with_the_same_weights(run, data, tmp_path, monkeypatch):
    whole = loop.mosaic_batches
    epochs: list[int] = []

    def interrupted(*arguments: Any) -> Iterator[Any]:
        epochs.append(len(epochs) + 1)
        for batch in whole(*arguments):
            yield batch
            if epochs[-1] == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "mosaic_batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", **TINY)
    resumed = train(data, tmp_path / "run", **TINY, resume=True)
    ours, theirs = weights(resumed.path), weights(run.path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.metrics == run.metrics


def test_a_refit_trains_on_the_validation_patches_too(run, data, tmp_path):
    second = train(data, tmp_path / "second", **TINY, refit=str(run.path))
    assert list(second.metrics) == ["test", "test_mosaics"]
    parts = run.model.origin["patches"]
    assert second.model.origin["patches"]["train"] == parts["train"] + parts["validation"]
    assert second.model.temperature == run.model.temperature
    assert second.model.feature_stride == 32


def test_a_run_has_novelty_prediction_sets_and_a_calibration(run, data):
    model, module = run.model, run.model.network()
    assert len(model.novelty) == 101
    assert len(model.conformal) == 3
    assert model.damping >= 0
    assert 0 <= model.correlation <= 1
    settings = resolve(data, **TINY)
    patches = training_patches(settings)
    validation = training_split(patches, settings).validation
    module.residual.damping = 0.0
    residuals = module.residual(mosaic_features(module, patches, validation, seed=settings.seed))
    assert float(residuals.median()) == pytest.approx(model.novelty[50], rel=0.05)
    again = calibrate_dense(model, module, patches, validation, settings.augmentation, settings.seed)
    assert again.temperature == pytest.approx(model.temperature, rel=0.02), "of the stored weights, in half precision"
    assert again.damping == pytest.approx(model.damping, abs=0.02)
    assert again.conformal == pytest.approx(model.conformal, abs=0.02)


def test_dates_differ_in_their_radiometry_only(run, data, tiny_model):
    settings = resolve(data, **TINY)
    patches = training_patches(settings)
    rows = training_split(patches, settings).validation
    clear = Augmentation(rotation=90, zoom=0.5, shift=0.2, dihedral=True, flatten=0.9, blur=2)
    for model, alone in ((run.model, partial(mosaic_logits, seed=3)), (geocfl.load_model(tiny_model), patch_logits)):
        module = model.network()
        dates = log_probabilities(model, module, patches, rows, settings.augmentation, 3)
        assert dates.shape == (2, len(rows), len(model.legend))
        torch.testing.assert_close(dates.exp().sum(2), torch.ones(2, len(rows), dtype=torch.float64))
        assert not torch.allclose(dates[0], dates[1])
        same = log_probabilities(model, module, patches, rows, clear, 3)
        assert torch.equal(same[0], same[1])
        expected = (alone(module, patches, rows).double() / model.temperature).log_softmax(1)
        torch.testing.assert_close(same[0], expected, rtol=0.1, atol=0.1)  # a fast processor takes half precision


def test_a_refit_keeps_the_calibration_and_scales_the_novelty(run, data, tmp_path):
    second = train(data, tmp_path / "second", **TINY, refit=run.path).model
    first = run.model
    assert (second.temperature, second.damping, second.conformal) == (first.temperature, first.damping, first.conformal)
    assert second.correlation == first.correlation
    ratio = np.array(second.novelty) / np.array(first.novelty)
    np.testing.assert_allclose(ratio, ratio[50], rtol=1e-3)
    assert second.network().residual.median == second.novelty[50]


def test_batches_depend_on_seed_and_epoch_alone(data):
    def batches(seed: int, epoch: int) -> list[torch.Tensor]:
        settings = resolve(data, **{**TINY, "seed": seed})
        patches = training_patches(settings)
        split = training_split(patches, settings)
        model, module = start(settings, patches, split, "m", torch.device("cpu"))
        learner = loop.make_learner(module, model, patches, split, settings)
        return [part for batch in learner.batches(epoch) for part in batch]

    first = batches(0, 1)
    torch.manual_seed(7)
    assert all(map(torch.equal, first, batches(0, 1)))
    assert not torch.equal(first[0], batches(0, 2)[0])
    assert not torch.equal(first[0], batches(1, 1)[0])


@pytest.mark.parametrize("size", [48, 96, 100])
def test_the_input_must_hold_whole_features(data, size):
    settings = resolve(data, **{**TINY, "input_size": size})
    patches = training_patches(settings)
    with pytest.raises(UsageError, match=f"`input_size` is {size}.*patches of 64 px needs a size of 32, 64, 128, 256,"):
        describe_model(settings, patches, training_split(patches, settings), "m")


def test_a_network_with_other_features_cannot_be_dense(data, monkeypatch):
    """ConvNeXt normalizes the mean of its features before its last layer."""
    assert timm.is_model("convnext_atto")
    monkeypatch.setitem(backbones.BACKBONES, "other", backbones.Backbone("convnext_atto", 64, "none"))
    settings = resolve(data, **{**TINY, "backbone": "other"})
    patches = training_patches(settings)
    with pytest.raises(UsageError, match=r"the backbone other cannot be dense.*leave out `dense`"):
        start(settings, patches, training_split(patches, settings), "m", torch.device("cpu"))


def test_the_check_of_a_network_draws_no_random_numbers(data):
    settings = resolve(data, **TINY)
    patches = training_patches(settings)
    model, module = start(settings, patches, training_split(patches, settings), "m", torch.device("cpu"))
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in module.state_dict().items()}
    check_dense(module, model, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_augmentation_can_be_chosen(data, tmp_path):
    plain = train(data, tmp_path / "run", **{**TINY, "epochs": 1}, augmentation=Augmentation(), label_smoothing=0.0)
    config = json.loads((plain.path / "config.json").read_text())
    assert config["augmentation"]["blur"] == config["label_smoothing"] == 0
