"""Every function of the package that takes long tells its progress, and none prints."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geocfl
from geocfl.core.progress import counted, silent
from geocfl.demonstration.landscape import write_synthetic_scene
from geocfl.experiments.estimate import estimate

pytestmark = pytest.mark.integration

EXACT: Any = {"backend": "torch", "device": "cpu", "precision": "float32"}
TRAINING: Any = {
    "backbone": "lite0",
    "freeze": True,
    "input_size": 32,
    "epochs": 2,
    "batch_size": 5,
    "split": "random:0.5",
}
LONG = ("compare", "evaluate", "find_clouds", "map_scene", "map_scenes", "mosaic", "stats", "train")

Step = tuple[str, int, int, str]


class Told:
    """A progress that is checked: what is done grows, to the end."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, what: str, done: int, total: int, unit: str) -> None:
        self.steps.append((what, done, total, unit))

    def ends(self) -> dict[str, tuple[int, int]]:
        """The last that was told of each piece of work."""
        assert self.steps
        last: dict[str, tuple[int, int]] = {}
        for what, done, total, _ in self.steps:
            if what in last and last[what][0] < last[what][1]:
                assert (done >= last[what][0], total) == (True, last[what][1]), what
            last[what] = (done, total)
        for what, (done, total) in last.items():
            assert done == total, what
        return last


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def scene(folder: Path) -> Path:
    return write_synthetic_scene(folder / "scene.tif", folder / "truth.tif", size=256).path


@pytest.fixture(scope="module")
def training(tiny_model: Path, folder: Path) -> Any:
    """Options of a quick training. Beside a model.json that names no split, the weights would be refused."""
    weights = shutil.copy(tiny_model / "model.safetensors", folder / "weights.safetensors")
    return TRAINING | {"weights": str(weights)}


@pytest.fixture(scope="module")
def patches(folder: Path, write_patches: Callable[..., Path]) -> Path:
    return write_patches(folder / "patches", each=8)


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Any:
    capfd.readouterr()  # of the fixtures
    yield
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_what_takes_long_can_be_followed():
    for name in LONG:
        parameter = inspect.signature(getattr(geocfl, name)).parameters["progress"]
        assert parameter.default is silent
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


def test_items_are_counted_when_they_are_dealt_with(told):
    seen = [(item, list(told.steps)) for item in counted("ab", told, "letters", 2, "letter")]
    assert [item for item, _ in seen] == ["a", "b"]
    assert [len(steps) for _, steps in seen] == [1, 2], "none is done before the caller comes back"
    assert told.steps == [("letters", done, 2, "letter") for done in range(3)]


def test_train_and_evaluate(patches, folder, told, training):
    run = geocfl.train(patches, folder / "run", progress=told, **training)
    ends = told.ends()
    assert set(ends) == {"reading patches", "features", "epoch 1/2", "epoch 2/2"}
    assert ends["reading patches"] == ends["features"] == (24, 24)
    classified = Told()
    evaluation = geocfl.evaluate(run.path, data=patches, out=folder / "evaluation", progress=classified)
    assert classified.ends() == {"reading patches": (24, 24), "classifying": (12, 12)}
    for shown in (run, evaluation):
        assert "\n" not in repr(shown)
        assert "on 12 patches" in repr(shown)
        assert all(c.color in shown._repr_html_() and c.name in shown._repr_html_() for c in run.model.legend)
    assert repr(run).startswith("<Run run: accuracy ")
    assert repr(evaluation).startswith("<Evaluation of run: accuracy ")


@pytest.mark.parametrize("batch_size", [2, 8])
def test_an_epoch_ends_where_its_last_patch_is_left_out(patches, tmp_path, told, training, batch_size):
    """Batch normalization cannot bear a batch of one."""
    run = geocfl.train(patches, tmp_path / "run", progress=told, **training | {"batch_size": batch_size})
    assert run.model.origin["patches"]["train"] % batch_size == 1
    assert told.ends()["epoch 1/2"][1] % batch_size == 0


def test_compare(patches, folder, told, training):
    options: Any = training | {"losses": ("ce", "class-focal"), "imbalances": ("none",), "seeds": (0, 1)}
    comparison = geocfl.compare(patches, folder / "comparison", progress=told, **options)
    assert told.ends()["trainings"] == (4, 4)
    assert repr(comparison) == (f"<Comparison of ce, class-focal under none, 2 seeds; in {folder / 'comparison'}>")
    frame = comparison.frame()
    assert frame.index.tolist() == [("none", "ce"), ("none", "class-focal")]
    row = comparison.rows[1].intervals["accuracy"]
    assert (frame.accuracy.iloc[1], frame.accuracy_half_width.iloc[1]) == row
    assert np.isnan(frame.minority_recall).all()
    assert "class-focal" in comparison._repr_html_()
    assert estimate(patches, folder / "comparison", **options).trainings == 0


def test_map_count_and_merge(scene, folder, tiny_model, told):
    result = geocfl.map_scene(scene, folder / "maps", model=tiny_model, progress=told, **EXACT)
    assert told.ends() == {"scene.tif": (20, 20)}
    outcomes = list(geocfl.map_scenes([scene], folder / "many", model=tiny_model, progress=told, **EXACT))
    assert len(outcomes) == 1
    counts = Told()
    areas = geocfl.stats(result.paths["lulc"], result.paths["gpkg"], progress=counts)
    zones = len(areas.zones)
    assert counts.ends() == {"zones": (zones, zones)}
    assert repr(areas).startswith(f"<ZonalStatistics: {zones} zone")
    assert "<table" in areas._repr_html_()
    merged = Told()
    geocfl.mosaic([result.paths["lulc"]], folder / "all_lulc.tif", progress=merged)
    assert merged.ends()
    assert geocfl.info(scene)["kind"] == "scene"


def test_predict_and_export(tiny_model, folder, told):
    model = geocfl.load_model(tiny_model)
    model.predict(np.full((3, 128, 128), 0.1), stride=32, progress=told, **EXACT)
    assert told.ends() == {"classifying": (16, 16)}
    for format in ("onnx", "torchscript"):
        geocfl.export(tiny_model, folder / format, format=format)


def test_demo(folder, tiny_model, told):
    found = geocfl.demo(folder / "demo", model=tiny_model, progress=told, products=["lulc"], device="cpu")
    assert told.ends() == {"demo_scene.tif": (320, 320)}
    assert repr(found).startswith(f"<Demo: map and truth agree in {found.agreement:.1%} of {found.cells} cells, ")
    assert "<table>" in found._repr_html_()


def test_find_clouds(scene, folder, told):
    pytest.importorskip("ukis_csmask")
    geocfl.find_clouds(scene, folder / "clouds.tif", progress=told)
    assert told.ends() == {"scene.tif": (1, 1)}
