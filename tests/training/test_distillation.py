from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from geocfl.core.legend import EUROSAT, Legend
from geocfl.core.radiometry import EUROSAT_RGB
from geocfl.data.patches import RGB, Patches
from geocfl.errors import UsageError
from geocfl.losses import make_loss
from geocfl.models.predict import load_model
from geocfl.training.distillation import Imitator, Objective, load_teacher

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])
NETWORK = nn.Linear(5, 3)
CE = make_loss("ce", [1, 1, 1])


def test_without_a_teacher_it_is_the_criterion():
    assert torch.equal(Objective(CE)(NETWORK, X, Y), F.cross_entropy(NETWORK(X), Y))


def test_label_smoothing_gives_every_class_its_share():
    loss = Objective(CE, smoothing=0.2)(NETWORK, X, Y)
    torch.testing.assert_close(loss, F.cross_entropy(NETWORK(X), Y, label_smoothing=0.2))
    focal = make_loss("focal", [1, 1, 1], gamma=2.0)
    expected = 0.8 * focal(NETWORK(X), Y) - 0.2 * NETWORK(X).log_softmax(1).mean()
    torch.testing.assert_close(Objective(focal, smoothing=0.2)(NETWORK, X, Y), expected)
    q = torch.softmax(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), 1)
    taught = Objective(CE, teacher=lambda x: (q, x), weight=0.5, smoothing=0.2)(NETWORK, X, Y)
    torch.testing.assert_close(taught, 0.5 * loss + 0.5 * F.kl_div(NETWORK(X).log_softmax(1), q, reduction="batchmean"))


def test_a_teacher_takes_its_part():
    q = torch.softmax(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), 1)
    log_p = NETWORK(X).log_softmax(1)
    kl = (q * (q.log() - log_p)).sum(1).mean()
    loss = Objective(CE, teacher=lambda x: (q, x), weight=0.75)(NETWORK, X, Y)
    torch.testing.assert_close(loss, 0.25 * F.cross_entropy(NETWORK(X), Y) + 0.75 * kl)
    whole = Objective(CE, teacher=lambda x: (NETWORK(x).softmax(1), x), weight=1.0)(NETWORK, X, Y)
    assert whole.abs() < 1e-6, "who agrees with the teacher has nothing to learn"


def test_features_that_look_like_the_teachers_cost_nothing():
    g = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    standardized = (g - g.mean(0)) / g.std(0, correction=0)
    likeness = [standardized * 7, -standardized, torch.ones(6, 4)]
    expected = [0.0, 2.0, 1 - float(F.cosine_similarity(standardized, torch.ones(6, 4)).mean())]
    objective = Objective(CE, teacher=lambda x: (NETWORK(x).softmax(1), 5 + 3 * g), weight=1.0, hint=2.0)
    for projected, distance in zip(likeness, expected, strict=True):
        loss = objective(lambda x, projected=projected: (NETWORK(x), projected), X, Y)
        assert float(loss.detach()) == pytest.approx(2 * distance, abs=1e-4)


def test_an_imitator_is_its_student_and_a_view_of_it(tiny_model):
    student = load_model(tiny_model).network()
    imitator = Imitator(student, 7).eval()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) / 4
    logits, projected = imitator(x)
    torch.testing.assert_close(logits, student(x))
    torch.testing.assert_close(projected, imitator.projection(student.features(x)))
    assert projected.shape == (2, 7)


def test_mixed_patches_have_mixed_labels():
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return NETWORK(x)

    torch.manual_seed(3)
    loss = Objective(CE, mixup=1.0, teacher=lambda x: (seen.append(x), (NETWORK(x).softmax(1), x))[1])(network, X, Y)
    assert torch.equal(seen[0], seen[1]), "the teacher sees what the student sees"
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(1.0, 1.0).sample())
    order = torch.randperm(6)
    torch.testing.assert_close(seen[0], share * X + (1 - share) * X[order])
    one_hot = share * F.one_hot(Y, 3) + (1 - share) * F.one_hot(Y[order], 3)
    torch.testing.assert_close(loss, F.cross_entropy(NETWORK(seen[0]), one_hot))


@pytest.fixture
def patches() -> Patches:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 64, 64)).astype(np.uint8)
    return Patches(pixels, np.arange(4), tuple("abcd"), RGB, EUROSAT_RGB, EUROSAT, "made up")


def bundle(tiny_model: Path, folder: Path, **origin: object) -> str:
    """A copy of the tiny model that says another origin."""
    folder.mkdir()
    facts = json.loads((tiny_model / "model.json").read_text())
    facts["origin"] = {"data": "made up", "split": "spatial", "seed": 0, "patches": {"validation": 0, "test": 4}}
    facts["origin"] |= origin
    (folder / "model.json").write_text(json.dumps(facts))
    (folder / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    return str(folder)


def test_teachers_are_averaged_as_probabilities(tiny_model, tmp_path, patches):
    name = bundle(tiny_model, tmp_path / "one")
    student = load_model(name)
    assert load_teacher([], student, patches, torch.device("cpu")) is None
    x = patches.reflectance(np.arange(4))
    for names in ([name], [name, bundle(tiny_model, tmp_path / "two")]):
        teacher = load_teacher(names, student, patches, torch.device("cpu"))
        with torch.no_grad():
            probabilities, features = teacher(torch.from_numpy(x))
        np.testing.assert_allclose(
            probabilities.numpy(), student.predict(x, backend="torch", precision="float32").probabilities, atol=1e-5
        )
        assert features.shape == (4, 1280 * len(names))


def test_teachers_that_cannot_teach_are_refused(tiny_model, tmp_path, patches):
    student = load_model(bundle(tiny_model, tmp_path / "student"))
    validated = replace(student, origin={**student.origin, "patches": {"validation": 9, "test": 4}})
    device = torch.device("cpu")
    cases = {
        "classes": ([str(tmp_path / "student")], student, replace(patches, legend=Legend.from_folders(["A", "B"]))),
        "pass the same `bands`": ([str(tmp_path / "student")], replace(student, bands=("B08",)), patches),
        "split paper": ([bundle(tiny_model, tmp_path / "paper", split="paper")], student, patches),
        "tested on 5 patches, not on the 4": (
            [bundle(tiny_model, tmp_path / "other", patches={"validation": 0, "test": 5})],
            student,
            patches,
        ),
        "also trained on the validation patches": (
            [bundle(tiny_model, tmp_path / "refit", refit_of={})],
            validated,
            patches,
        ),
    }
    for problem, arguments in cases.items():
        with pytest.raises(UsageError, match=problem):
            load_teacher(*arguments, device)
