from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geocfl.core.legend import EUROSAT, Legend
from geocfl.errors import GeocflError
from geocfl.models.bundle import Bundle
from geocfl.models.network import read_weights
from geocfl.models.stored import FEATURES, read_stored, write_stored
from geocfl.training.recipe import resolve
from geocfl.training.train import Run, train

COLORS = {"Snow": (250, 240, 245), "BareRock": (150, 140, 120), "Wetland": (40, 90, 80), "Forest": (20, 60, 30)}


@pytest.fixture(autouse=True)
def no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports take seconds."""
    if "with_report" not in request.fixturenames:
        monkeypatch.setattr("geocfl.evaluation.report.write_report", lambda *_, **__: None)


@pytest.fixture
def with_report() -> None:
    """For a test that needs the report."""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes georeferenced 16-bit patches of one color with noise, at four places 40 km apart."""

    def write(
        folder: str, counts: dict[str, int], size: int = 64, bands: tuple[str, ...] = ("B04", "B03", "B02")
    ) -> Path:
        rng = np.random.default_rng(len(counts))
        for name, count in counts.items():
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(count):
                dn = (
                    rng.normal(0, 60, (len(bands), size, size))
                    + np.resize(10 * np.array(COLORS[name]), len(bands))[:, None, None]
                )
                with rasterio.open(
                    tmp_path / folder / name / f"p{i}.tif", "w", driver="GTiff", height=size, width=size,
                    count=len(bands), dtype="uint16", crs="EPSG:32633",
                    transform=Affine(10, 0, 3e5 + 4e4 * (i % 4), 0, -10, 5e6),
                ) as dataset:  # fmt: skip
                    dataset.write(dn.clip(1).astype(np.uint16))
                    dataset.descriptions = bands
        return tmp_path / folder

    return write


@pytest.fixture
def stocked(tiny_dense: Path, tmp_path: Path) -> Path:
    """The tiny dense model with stored features, of which its classes can be told."""
    folder = Path(shutil.copytree(tiny_dense, tmp_path / "stocked"))
    rng = torch.Generator().manual_seed(0)
    features = 0.05 * torch.randn(200, 1280, generator=rng).abs()
    features[torch.arange(200), torch.arange(200) % 10] += 1.0
    write_stored(folder, features, torch.arange(200) % 10)
    return folder


def run_of(data: Path, out: Path, model: Path, **options: Any) -> Run:
    return train(data, out, **({"weights": model, "freeze": True} | options))


def test_only_the_last_layer_is_new(write, tmp_path, tiny_dense, caplog):
    caplog.set_level(logging.INFO)
    data = write("own", {"Snow": 12, "BareRock": 12})
    run = run_of(data, tmp_path / "run", tiny_dense)
    ours, theirs = (read_weights(folder / "model.safetensors") for folder in (run.path, tiny_dense))
    kept = [name for name in theirs if not name.startswith(("classifier.", "novelty."))]
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)
    assert ours["classifier.weight"].shape == (2, 1280)
    model, source = run.model, Bundle.load(tiny_dense)
    assert [c.folder for c in model.legend] == ["BareRock", "Snow"]
    for fact in ("bands", "clip", "mean", "std", "window", "input_size", "feature_stride", "gsd", "backbone"):
        assert getattr(model, fact) == getattr(source, fact), fact
    assert "features of 24 patches by tiny-dense" in caplog.text
    assert "leave-one-block-out over 4 blocks" in caplog.text


def test_its_accuracy_is_that_of_held_out_blocks(with_report, write, tmp_path, tiny_dense):
    run = run_of(write("own", {"Snow": 12, "BareRock": 12}), tmp_path / "run", tiny_dense)
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert set(metrics) == {"test", "test_mosaics"}
    assert metrics["test"]["n"] == 24
    assert run.model.origin["cross_validation"] == "leave-one-block-out over 4 blocks"
    assert run.model.origin["patches"] == {"train": 24, "validation": 24, "test": 24}
    assert "cross-validation" in (run.path / "report.html").read_text()
    assert len((run.path / "test_patches.txt").read_text().splitlines()) == 24


@pytest.mark.slow
def test_labels_by_chance_are_not_learned(write, tmp_path, tiny_dense):
    """A cross-validation that leaked would find them."""
    data = write("own", {"Snow": 40})
    (data / "BareRock").mkdir()
    for number, file in enumerate(sorted((data / "Snow").iterdir())):
        if number // 4 % 2:
            file.rename(data / "BareRock" / file.name)
    run = run_of(data, tmp_path / "run", tiny_dense)
    assert 0.2 < run.metrics["test"]["accuracy"] < 0.8
    assert run.model.temperature >= 0.3


def test_a_split_with_test_patches_keeps_them_apart(write, tmp_path, tiny_dense):
    run = run_of(write("own", {"Snow": 12, "BareRock": 12}), tmp_path / "run", tiny_dense, split="random:0.5")
    assert set(run.metrics) == {"validation", "validation_mosaics", "test", "test_mosaics"}
    assert (run.metrics["validation"]["n"], run.metrics["test"]["n"]) == (12, 12)


@pytest.mark.slow
def test_the_same_again_gives_the_same(write, tmp_path, tiny_dense):
    first = run_of(write("own", {"Snow": 6, "BareRock": 7}), tmp_path / "a/run", tiny_dense)
    again = train(None, tmp_path / "b/run", config=first.path / "config.json")
    for name in ("config.json", "metrics.json", "model.json", "model.safetensors", FEATURES, "history.csv"):
        assert (again.path / name).read_bytes() == (first.path / name).read_bytes(), name


def test_few_patches_are_warned_of(write, tmp_path, tiny_dense, caplog):
    run = run_of(write("own", {"Snow": 5, "BareRock": 25}), tmp_path / "run", tiny_dense)
    assert "few patches (Snow 5): their accuracy is hardly known" in caplog.text
    assert "fewer than 9 patches of Snow: such a class is in every prediction set" in caplog.text
    assert "56.6-100.0" in run.table(), "Wilson's interval of 5 of 5"
    assert run.model.conformal[1] == 1.0
    assert run.model.temperature == 1.0, "thirty patches do not show that another temperature is better"


@pytest.mark.slow
def test_a_class_in_one_block_is_warned_of(write, tmp_path, tiny_dense, caplog):
    data = write("own", {"Snow": 12, "BareRock": 12})
    for i in range(12):
        if i % 4:
            (data / f"Snow/p{i}.tif").unlink()
    run_of(data, tmp_path / "run", tiny_dense)
    assert "all patches of Snow lie in one block" in caplog.text


def test_classes_are_added_to_those_of_a_model(write, tmp_path, stocked, caplog):
    caplog.set_level(logging.INFO)
    data = write("own", {"Snow": 10, "Wetland": 10, "Forest": 4})
    run = run_of(data, tmp_path / "run", stocked, add_classes=True)
    legend = run.model.legend
    assert [c.folder for c in legend] == [*(c.folder for c in EUROSAT), "Snow", "Wetland"]
    assert legend.classes[:10] == Bundle.load(stocked).legend.classes
    assert len({c.color for c in legend}) == 12
    assert len(run.model.conformal) == 12
    assert run.metrics["test"]["n"] == 24, "the patches at hand, not those whose features are stored"
    assert "200 stored patches correct before" in caplog.text
    stored = read_stored(run.model)
    assert stored is not None
    assert torch.bincount(stored.labels).tolist() == [20, 24, *[20] * 8, 10, 10]
    source = read_stored(Bundle.load(stocked))
    assert source is not None
    head = Bundle.load(run.path)
    weights = read_weights(head.folder / "model.safetensors")
    logits = source.features @ weights["classifier.weight"].float().T + weights["classifier.bias"].float()
    assert (logits.argmax(1) == source.labels).float().mean() > 0.95, "the old classes are not forgotten"


@pytest.mark.slow
def test_one_new_class_is_enough_and_can_be_followed_by_another(write, tmp_path, stocked):
    first = run_of(write("snow", {"Snow": 6}), tmp_path / "first", stocked, add_classes=True)
    second = run_of(write("rock", {"BareRock": 6}), tmp_path / "second", first.path, add_classes=True)
    assert [c.folder for c in second.model.legend][-2:] == ["Snow", "BareRock"]
    assert second.model.origin["trunk"] == first.model.origin["trunk"]


@pytest.mark.slow
def test_novelty_is_extended_by_the_new_land(write, tmp_path, stocked):
    run = run_of(write("own", {"Snow": 10, "Wetland": 10}), tmp_path / "run", stocked, add_classes=True)
    before, after = (read_weights(folder / "model.safetensors")["novelty.components"] for folder in (stocked, run.path))
    assert torch.equal(after[: len(before)], before.half())
    assert len(after) == len(before) + 10
    gram = after.float() @ after.float().T
    torch.testing.assert_close(gram, torch.eye(len(after)), atol=5e-3, rtol=0)
    assert list(run.model.novelty) == sorted(run.model.novelty)


@pytest.mark.slow
def test_a_windowed_model_lends_its_features_too(write, tmp_path, tiny_model):
    run = run_of(write("own", {"Snow": 8, "BareRock": 8}), tmp_path / "run", tiny_model)
    assert set(run.metrics) == {"test"}
    assert run.model.feature_stride == 0
    assert len(run.model.novelty) == 101


@pytest.mark.slow
def test_all_classes_at_hand_need_no_stored_features(write, tmp_path, tiny_model):
    model = Bundle.load(tiny_model)
    folder = tmp_path / "two"
    weights = read_weights(tiny_model / "model.safetensors")
    weights |= {name: weights[name][:2] for name in ("classifier.weight", "classifier.bias")}
    replace(model, legend=Legend.from_folders(["Snow", "Forest"])).save(folder, weights)
    run = run_of(write("own", {"Snow": 6, "BareRock": 6, "Forest": 6}), tmp_path / "run", folder, add_classes=True)
    assert [c.folder for c in run.model.legend] == ["Forest", "Snow", "BareRock"]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"Snow": 5}, {}, "only one class folder, 'Snow'; training needs two or more"),
        ({"Snow": 5, "BareRock": 1}, {}, "class 'BareRock' has 1 training patch, too few to train and to test"),
        ({"Snow": 1}, {"add_classes": True}, "class 'Snow' has 1 training patch, too few"),
        ({"Forest": 5}, {"add_classes": True}, "all of its classes are classes of tiny-dense"),
        (
            {"Snow": 5, "BareRock": 5},
            {"size": 32},
            "patches have 32 x 32 px, but tiny-dense classifies windows of 64 x",
        ),
        ({"Snow": 5, "BareRock": 5}, {"of": ("B04", "B03", "B08")}, "bands B02 not found among its 3 bands"),
        ({"Snow": 5, "BareRock": 5}, {"bands": ("B08",)}, "`bands` is B08, but that of tiny-dense is B04, B03, B02"),
        ({"Snow": 5, "BareRock": 5}, {"lr": 0.1}, "`lr` does not apply to a last layer on the features of tiny-dense"),
        ({"Snow": 5, "BareRock": 5}, {"loss": "ldam"}, "the loss ldam cannot be used on the features of a model"),
    ],
)
def test_what_cannot_be_is_one_sentence(write, tmp_path, stocked, counts, options, message):
    data = write("own", counts, options.pop("size", 64), options.pop("of", ("B04", "B03", "B02")))
    with pytest.raises(GeocflError) as error:
        run_of(data, tmp_path / "run", stocked, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_model_without_stored_features_cannot_keep_its_classes(write, tmp_path, tiny_dense):
    with pytest.raises(GeocflError, match=r"no stored features .*no patches of 'AnnualCrop' and 9 more of its classes"):
        run_of(write("own", {"Snow": 5, "BareRock": 5}), tmp_path / "run", tiny_dense, add_classes=True)


@pytest.mark.parametrize(("old", "new"), [("Snow", "snow"), ("Snow", "SeaLake"), ("Wetland", "wet_land")])
def test_two_folders_of_one_class_are_refused(write, tmp_path, stocked, old, new):
    data = write("own", {"Snow": 2, "Wetland": 2})
    shutil.copytree(data / old, data / {"SeaLake": "Sea Lake", "wet_land": "wet-land"}.get(new, new))
    if new == "wet_land":
        (data / "Wetland").rename(data / "Wet Land")
    with pytest.raises(GeocflError, match="name the same class"):
        run_of(data, tmp_path / "run", stocked, add_classes=True)


def test_the_built_in_model_is_the_default():
    settings = resolve("d", freeze=True)
    assert settings.weights == "eurosat-rgb-dense"
    assert (settings.backbone, settings.dense, settings.input_size, settings.split) == ("lite0", True, 128, "all")
    assert resolve("d", add_classes=True).freeze
    assert resolve("d", freeze=True, backbone="lite0").weights == "imagenet", "as ever"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "`split` is all, which leaves no test patches"),
        ({"add_classes": True, "weights": "imagenet"}, "`add_classes` needs the model whose classes are kept"),
        ({"add_classes": True, "backbone": "lite0"}, "`add_classes` needs the model whose classes are kept"),
        ({"add_classes": True, "freeze": False}, "`add_classes` trains only the last layer"),
        ({"add_classes": 1}, "`add_classes` is 1 but must be True or False"),
        ({"freeze": True, "refit": "x"}, "`refit` does not apply"),
        ({"freeze": True, "epochs": 0}, "`epochs` is 0"),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(GeocflError) as error:
        resolve("d", **options)
    assert message in str(error.value)
