from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from geocfl.data.augmentation import Augmentation
from geocfl.data.patches import RGB
from geocfl.errors import UsageError
from geocfl.losses import LOSSES
from geocfl.training.config import TrainOptions, TrainSettings
from geocfl.training.recipe import FROZEN_LR, resolve
from geocfl.training.train import train


def test_the_paper_recipe_is_the_papers():
    settings = resolve("EuroSAT.zip", recipe="paper")
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


def test_a_dense_model_has_its_own_recipe():
    dense, plain = resolve("d", backbone="lite0", dense=True), resolve("d", backbone="lite0")
    assert (dense.input_size, dense.batch_size, dense.lr, dense.label_smoothing) == (128, 64, 6e-4, 0.05)
    assert (plain.input_size, plain.batch_size, plain.lr, plain.label_smoothing) == (96, 64, 1e-3, 0.0)
    assert dense.augmentation == replace(plain.augmentation, veil=0.55, flatten=0.7, blur=1.7)
    assert resolve("d", dense=True, batch_size=128, augmentation=Augmentation()).augmentation == Augmentation()
    assert resolve("d", dense=True, recipe="paper").augmentation == resolve("d", recipe="paper").augmentation


def test_a_dense_run_is_repeated_from_its_config_and_a_windowed_one_becomes_dense(tmp_path):
    dense, plain = resolve("d", backbone="lite0", dense=True), resolve("d", backbone="lite0", seed=3)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dense.to_json()))
    assert resolve(config=config) == dense
    assert resolve(config=config, backbone="resnet18").input_size == 128
    assert resolve(config=config, dense=False) == replace(plain, seed=0)
    config.write_text(json.dumps(plain.to_json()))
    assert resolve(config=config, dense=True) == replace(dense, seed=3)
    assert resolve(config=config, dense=True, input_size=64, lr=1e-2).input_size == 64
    config.write_text(json.dumps(resolve("d", recipe="paper").to_json()))
    paper = resolve(config=config, dense=True)
    assert (paper.input_size, paper.batch_size, paper.augmentation.blur) == (128, 64, 0)


def test_a_config_from_before_dense_models_is_read(tmp_path):
    values = resolve("d").to_json()
    for name in ("dense", "label_smoothing"):
        del values[name]
    for name in ("veil", "flatten", "blur"):
        del values["augmentation"][name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert resolve(config=tmp_path / "config.json") == resolve("d")


def test_options_override_the_recipe():
    assert resolve("d", recipe="paper", lr=1e-3, epochs=None).lr == 1e-3
    assert resolve("d", recipe="paper", epochs=None).epochs == 30
    assert resolve("d", backbone="lite0").weights == "imagenet"
    assert resolve("d", backbone="lite0").input_size == 96


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"recipe": "secret"}, "unknown `recipe` 'secret'; choose from: default, paper"),
        ({"backbone": "vit"}, "unknown `backbone` 'vit'"),
        ({"loss": "mse"}, "unknown `loss` 'mse'"),
        ({"optimizer": "sgd"}, "unknown `optimizer` 'sgd'; choose from: adam, adamw"),
        ({"schedule": "cosine"}, "unknown `schedule` 'cosine'"),
        ({"split": "thirds"}, "unknown `split` 'thirds'"),
        ({"learning_rate": 1.0}, "unknown parameter 'learning_rate'"),
        ({"epochs": 0}, "`epochs` is 0 but must be a whole number of at least 1"),
        ({"epochs": "1"}, "`epochs` is '1' but must be a whole number"),
        ({"epochs": 1.5}, "`epochs` is 1.5 but must be a whole number"),
        ({"batch_size": 1}, "`batch_size` is 1 but must be"),
        ({"lr": 0.0}, "`lr` is 0.0 but must be a number above 0"),
        ({"lr": math.nan}, "`lr` is nan but must be a number above 0"),
        ({"gamma": -1.0}, "gamma"),
        ({"dropout": 1.0}, "dropout"),
        ({"stage_dropout": -0.1}, "dropout"),
        ({"weight_decay": -0.1}, "`weight_decay`"),
        ({"input_size": 16}, "`input_size`"),
        ({"seed": -1}, "seed"),
        ({"scale": 0.0}, "scale"),
        ({"offset": math.inf}, "offset"),
        ({"bands": ()}, "`bands`"),
        ({"bands": "rgb"}, "`bands` is 'rgb' but must be a sequence of names, such as"),
        ({"teacher": "runs/first"}, "`teacher` is 'runs/first' but must be a sequence of names"),
        ({"teacher": Path("first")}, "`teacher` is .*'first'.* but must be a sequence of names"),
        ({"bands": 3}, "`bands` is 3 but must be a sequence of names"),
        ({"loss": ("ce",)}, "`loss` is .* but must be text"),
        ({"freeze": 1}, "`freeze` is 1 but must be True or False"),
        ({"augmentation": {}}, "`augmentation` is {} but must be an Augmentation"),
        ({"imbalance": "tail"}, "unknown `imbalance` 'tail'"),
        ({"imbalance": "step:0.5"}, "`imbalance` is 'step:0.5' but its ratio"),
        ({"class_order": "largest"}, "unknown `class_order` 'largest'"),
        ({"class_order": (1, 1)}, "`class_order` is .* but must name every class code once"),
        ({"class_order": (1, "2")}, "`class_order` is .* but must name every class code once"),
        ({"class_order": 3}, "`class_order` is 3 but must name every class code once"),
        ({"dense": True, "freeze": True}, "`freeze` cannot be used for a dense model; leave out `freeze` or `dense`"),
        ({"dense": True, "mixup": 0.2}, "`mixup` cannot be used for a dense model"),
        ({"dense": True, "teacher": ("runs/a",)}, "`teacher` cannot be used for a dense model"),
        (
            {"dense": True, "batch_size": 24},
            "`batch_size` is 24 but must be a multiple of 64, the windows of four mosaics",
        ),
        ({"dense": True, "recipe": "paper", "batch_size": 40}, "`batch_size` is 40 but must be a multiple of 64"),
        ({"dense": 1}, "`dense` is 1 but must be True or False"),
        ({"label_smoothing": 1.0}, "`label_smoothing` is 1.0 but must be at least 0 and below 1"),
        ({"cfl_form": "power"}, "unknown `cfl_form` 'power'; choose from: exponent, factor"),
        ({"cfl_form": "factor", "loss": "ce"}, "`cfl_form` applies only to the loss class-focal, not to ce"),
        ({"loss": "ce", "gamma": 2.0}, "the loss ce has no gamma"),
        ({"distill": 1.5}, "`distill` is 1.5 but must be a number from 0 to 1"),
        ({"mixup": -1.0}, "mixup"),
        ({"freeze": True, "mixup": 0.5}, "`mixup` cannot be used with a frozen backbone"),
        ({"freeze": True, "teacher": ("a",)}, "`teacher` cannot be used with a frozen backbone"),
        ({"freeze": True, "weights": "none"}, "a frozen backbone needs initial weights"),
    ],
)
def test_settings_that_do_not_exist_are_refused(options, problem, tmp_path):
    with pytest.raises(UsageError, match=problem):
        train(tmp_path, tmp_path / "run", **options)


def test_options_are_the_fields_of_the_settings():
    assert {field.name for field in fields(TrainSettings)} - {"data"} == set(TrainOptions.__annotations__)


def test_sequences_and_paths_are_accepted(tmp_path):
    settings = resolve(tmp_path, bands=["B08", "B04"], teacher=[tmp_path / "a", "b"], class_order=[2, 1])
    assert (settings.data, settings.bands, settings.teacher, settings.class_order) == (
        str(tmp_path),
        ("B08", "B04"),
        (str(tmp_path / "a"), "b"),
        (2, 1),
    )


def test_gamma_is_the_losss_own_unless_chosen():
    for name, facts in LOSSES.items():
        assert resolve("d", loss=name).gamma == (facts.gamma or 0.0)
    assert resolve("d", loss="focal", gamma=5.0).gamma == 5.0
    assert resolve("d", gamma=0.0).gamma == 0.0


def test_a_frozen_network_has_settings_of_its_own():
    frozen = resolve("d", backbone="lite0", freeze=True)
    assert (frozen.lr, frozen.epochs) == (FROZEN_LR, 30)
    assert resolve("d", backbone="lite0", freeze=True, lr=0.5, epochs=3).lr == 0.5


def test_a_config_is_read_as_it_was_written(tmp_path):
    settings = resolve(
        "d", backbone="lite0", loss="focal", bands=("B08", "B04"), teacher=("a", "b"), class_order=(2, 1), seed=3
    )
    file = tmp_path / "config.json"
    file.write_text(json.dumps(settings.to_json()))
    assert resolve(config=file) == settings
    assert resolve("other", config=file, seed=4).to_json() == settings.to_json() | {"data": "other", "seed": 4}
    with pytest.raises(UsageError, match="already contains a recipe"):
        resolve(config=file, recipe="paper")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": "d", "bands": [], "augmentation": {"hue": 1}}'])
def test_what_is_no_config_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json: not the config\.json of a run"):
        resolve(config=tmp_path / "config.json")


def test_data_must_come_from_somewhere(tmp_path):
    with pytest.raises(UsageError, match="pass `data`, or the `config`"):
        resolve()
    with pytest.raises(UsageError, match="nowhere"):
        resolve(config=tmp_path / "nowhere.json")


def test_what_follows_from_another_loss_or_backbone_follows(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(resolve("d", gamma=2.0, cfl_form="factor").to_json()))
    changed = resolve(config=file, loss="ce", backbone="lite0")
    assert (changed.gamma, changed.cfl_form, changed.weights, changed.input_size) == (0.0, "exponent", "imagenet", 96)
    assert resolve(config=file, loss="focal", gamma=1.0).gamma == 1.0
    assert resolve(config=file, loss="class-focal").gamma == 2.0


def test_settings_of_the_wrong_type_are_refused(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(resolve("d").to_json() | {"epochs": "1"}))
    with pytest.raises(UsageError, match="`epochs` is '1' but must be a whole number"):
        resolve(config=file)


def test_a_config_of_version_0_1_is_read(tmp_path):
    written = resolve("d", loss="class-focal", cfl_form="factor", teacher=("a", "b")).to_json()
    assert (written["teacher"], written["class_order"]) == ("a,b", "legend")
    written["form"] = written.pop("cfl_form")
    (tmp_path / "config.json").write_text(json.dumps(written))
    settings = resolve(config=tmp_path / "config.json")
    assert (settings.cfl_form, settings.teacher) == ("factor", ("a", "b"))
