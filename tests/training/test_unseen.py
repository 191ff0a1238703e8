"""Models that may have seen the validation or test patches of a training teach it nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geocfl.core.legend import Legend
from geocfl.errors import ModelError, UsageError
from geocfl.models.bundle import Bundle
from geocfl.training.recipe import resolve
from geocfl.training.start import start, training_patches, training_split
from geocfl.training.unseen import check_unseen

OURS = {"data": "EuroSAT.zip", "split": "spatial", "seed": 0, "patches": {"validation": 9, "test": 4}}


@pytest.fixture
def student(tiny_model: Path) -> Bundle:
    return replace(Bundle.load(tiny_model), origin=OURS)


@pytest.mark.parametrize("option", ["teacher", "weights"])
@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        ({}, None),
        ({"seed": 7}, None),  # the spatial split has no seed
        ({"data": "a copy"}, None),
        ({"split": "paper"}, "trained on split paper, not spatial, so it may have seen these test patches"),
        ({"split": None}, "trained on split None"),
        ({"patches": {"test": 5}}, "tested on 5 patches, not on the 4 of EuroSAT.zip"),
        ({"patches": {}}, "tested on None patches"),
        ({"refit_of": {}}, "also trained on the validation patches; pass the run that it refits as `{option}`"),
    ],
)
def test_a_model_may_not_have_seen_the_patches(
    student: Bundle, option: Any, theirs: dict[str, Any], problem: str | None
) -> None:
    model = replace(student, origin=OURS | theirs)
    if problem is None:
        check_unseen(option, "runs/first", model, student)
        return
    with pytest.raises(UsageError, match=problem.format(option=option)) as caught:
        check_unseen(option, "runs/first", model, student)
    assert str(caught.value).startswith("runs/first: ")


def test_random_splits_need_the_same_seed(student: Bundle) -> None:
    ours = replace(student, origin=OURS | {"split": "random:0.8"})
    check_unseen("weights", "m", replace(ours), ours)
    with pytest.raises(UsageError, match="trained on seed 1, not 0"):
        check_unseen("weights", "m", replace(ours, origin={**ours.origin, "seed": 1}), ours)


def test_a_refit_may_start_from_a_refit(student: Bundle) -> None:
    ours = replace(student, origin=OURS | {"patches": {"validation": 0, "test": 4}})
    check_unseen("weights", "m", replace(ours, origin={**ours.origin, "refit_of": {}}), ours)


def test_a_model_of_other_classes_has_seen_other_patches(student: Bundle) -> None:
    theirs = replace(student, origin={"split": "paper"})
    check_unseen("weights", "m", theirs, replace(student, legend=Legend.from_folders(["Bog", "Dune"])))
    with pytest.raises(UsageError, match="split paper"):
        check_unseen("weights", "m", theirs, replace(student, legend=Legend.from_folders(["Bog", "Forest"])))


def test_initial_weights_are_checked_by_the_model_beside_them(tmp_path: Path, tiny_model: Path, write_patches) -> None:
    data = write_patches(tmp_path / "data")

    def begin(weights: Path, **options: Any) -> torch.nn.Module:
        settings = resolve(data, backbone="lite0", weights=weights, input_size=32, **options)
        patches = training_patches(settings)
        return start(settings, patches, training_split(patches, settings), "m", torch.device("cpu"))[1].network

    settings = resolve(data)
    patches = training_patches(settings)
    split = training_split(patches, settings)
    facts = json.loads((tiny_model / "model.json").read_text())
    facts["legend"] = patches.legend.to_json()
    facts["origin"] = {"split": "paper", "seed": 0, "patches": {"test": len(split.test)}}
    folder = tmp_path / "first"
    shutil.copytree(tiny_model, folder)
    (folder / "model.json").write_text(json.dumps(facts))
    theirs = {
        name: value[: len(patches.legend)] if name.startswith("classifier") else value
        for name, value in load_file(tiny_model / "model.safetensors").items()
    }
    save_file(theirs, folder / "model.safetensors")
    for weights in (folder, folder / "model.safetensors"):
        ours = begin(weights).state_dict()
        assert torch.equal(ours["conv_stem.weight"], theirs["conv_stem.weight"].float())
        assert torch.equal(ours["classifier.weight"], theirs["classifier.weight"].float()), "of the same classes"
        with pytest.raises(UsageError, match=rf"{weights}: the model of these weights was trained on seed 0, not 1"):
            begin(weights, seed=1)
    bare = shutil.copy(folder / "model.safetensors", tmp_path / "bare.safetensors")
    assert not begin(bare, seed=1).state_dict()["classifier.weight"].any()
    (folder / "model.json").write_text("{}")
    with pytest.raises(ModelError, match="not a readable model description"):
        begin(folder)


@pytest.mark.shared
def test_the_first_spatial_run_may_start_another(shared_data: Path, tiny_model: Path) -> None:
    first = shared_data.parent / "models" / "spatial-lite0-first"
    origin = {"data": "EuroSAT.zip", "split": "spatial", "seed": 0, "patches": {"validation": 5400, "test": 5400}}
    check_unseen("weights", str(first), Bundle.load(first), replace(Bundle.load(tiny_model), origin=origin))
