from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geocfl.errors import DataError, OutputError, UsageError
from geocfl.experiments import compare as comparison
from geocfl.experiments.compare import compare
from geocfl.experiments.estimate import estimate
from geocfl.experiments.grid import make_grid
from geocfl.experiments.results import Results, run_name, unpack
from geocfl.training.recipe import resolve

pytestmark = pytest.mark.integration

TINY: dict[str, Any] = {
    "losses": ["ce", "logit-adjusted", "focal"],
    "imbalances": ["none", "long-tail:6"],
    "seeds": (0, 1),
    "backbone": "lite0",
    "freeze": True,
    "input_size": 32,
    "epochs": 2,
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_patches: Any) -> Path:
    return write_patches(tmp_path_factory.mktemp("data") / "patches", each=32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOCFL_CACHE", str(cache))


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines(keepends=True)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The losses of the trainings that were really made, as they are made."""
    made: list[str] = []
    whole = comparison.fit

    def counted(learner: Any, patches: Any, split: Any, settings: Any, checkpoint: Path, progress: Any) -> Any:
        made.append(f"{settings.imbalance} {settings.loss} {settings.seed}")
        return whole(learner, patches, split, settings, checkpoint, progress)

    monkeypatch.setattr(comparison, "fit", counted)
    return made


def test_the_grid_is_trained_once_and_then_read(data, tmp_path, trainings):
    expected = estimate(data, tmp_path / "out", **TINY)
    assert (expected.runs, expected.finished, expected.trainings) == (12, 0, 8)
    assert expected.step_seconds > 0
    assert expected.seconds > 0
    assert not (tmp_path / "out").exists(), "an estimate writes nothing"

    first = compare(data, tmp_path / "out", **TINY)
    assert len(trainings) == 8, "logit adjustment shares the training of cross-entropy"
    assert [(row.imbalance, row.loss, row.seeds) for row in first.rows] == [
        (imbalance, loss, 2) for imbalance in TINY["imbalances"] for loss in TINY["losses"]
    ]
    written = lines(tmp_path / "out/runs.jsonl")
    assert len(written) == 12
    assert all(len(line) < 4000 for line in written)
    assert not list((tmp_path / "out/checkpoints").iterdir())

    again = compare(data, tmp_path / "again", **TINY, results=tmp_path / "out/runs.jsonl")
    assert len(trainings) == 8
    assert again.rows == first.rows
    assert lines(tmp_path / "out/runs.jsonl") == written
    assert (tmp_path / "again/table.md").read_bytes() == (tmp_path / "out/table.md").read_bytes()
    assert estimate(data, tmp_path / "out", **TINY).trainings == 0

    (tmp_path / "out/runs.jsonl").write_text("".join(written[1:]))
    assert compare(data, tmp_path / "out", **TINY).rows == first.rows, "a seed gives the same metrics"
    assert len(trainings) == 9


def test_a_finished_run_has_its_settings_data_and_metrics(data, tmp_path):
    compare(data, tmp_path / "out", **TINY | {"losses": ["ce", "logit-adjusted"], "seeds": (0,)})
    runs = map(json.loads, lines(tmp_path / "out/runs.jsonl"))
    by = {(run["settings"]["imbalance"], run["settings"]["loss"]): run for run in runs}
    plain, adjusted = by["long-tail:6", "ce"], by["long-tail:6", "logit-adjusted"]
    assert "data" not in plain["settings"]
    assert plain["patches"]["train"] == [14, 6, 2]
    assert (plain["patches"]["validation"], plain["patches"]["test"]) == (6, 48)
    assert plain["tau"] is None
    assert adjusted["tau"] is not None
    assert plain["validation_accuracy"] == adjusted["validation_accuracy"]
    assert by["none", "ce"]["metrics"]["minority_recall"] is None
    correct = unpack(plain["correct"])
    assert correct.mean() == pytest.approx(plain["metrics"]["accuracy"])


def test_a_killed_grid_goes_on(data, tmp_path, monkeypatch, trainings):
    small = TINY | {"losses": ["ce", "focal"], "imbalances": ["none"]}
    whole = compare(data, tmp_path / "whole", **small)
    trainings.clear()
    with monkeypatch.context() as patch:
        add = Results.add

        def stop(results: Results, name: str, content: Any) -> None:
            add(results, name, content)
            if len(trainings) == 3:
                raise KeyboardInterrupt

        patch.setattr(Results, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            compare(data, tmp_path / "out", **small)
    assert compare(data, tmp_path / "out", **small).rows == whole.rows
    assert len(trainings) == 4, "three before, one after"


def test_other_data_are_other_runs(data, tmp_path, trainings, write_patches):
    small = TINY | {"losses": ["ce"], "imbalances": ["none"], "seeds": (0,)}
    results = tmp_path / "runs.jsonl"
    compare(data, tmp_path / "one", **small, results=results)
    compare(write_patches(tmp_path / "data", each=30), tmp_path / "two", **small, results=results)
    assert len(trainings) == 2
    assert len(lines(results)) == 2


def test_gamma_and_form_reach_the_losses_that_have_them(data, tmp_path):
    grid = make_grid(data, ["ce", "focal", "class-focal"], ["none"], [0], {"gamma": 3.0, "cfl_form": "factor"})
    assert [(s.gamma, s.cfl_form) for s in grid] == [(0.0, "exponent"), (3.0, "exponent"), (3.0, "factor")]


def test_bad_grids_are_refused(data, tmp_path):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"losses": ["ce", "mse"]}, "unknown `loss` 'mse'"),
        ({"losses": []}, "`losses` must name one or more"),
        ({"losses": "ce"}, "`losses` is 'ce' but must be a sequence"),
        ({"losses": ["ce", "ce"]}, "`losses` must name one or more, each once"),
        ({"imbalances": ["tail:5"]}, "imbalance"),
        ({"imbalance": ["none"]}, "unknown parameter 'imbalance'; did you mean 'imbalances'"),
        ({"seeds": 3}, "`seeds` is 3 but must be a sequence"),
        ({"seeds": 1.5}, r"`seeds` is 1.5 but must be a sequence, such as \(0, 1, 2\)"),
        ({"losses": None}, "`losses` is None but must be a sequence"),
        ({"seeds": ()}, "`seeds` must name one or more"),
    ]
    for options, problem in cases:
        with pytest.raises(UsageError, match=problem):
            compare(data, tmp_path / "out", **TINY | options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no patch"):
        compare(data, tmp_path / "other", **TINY | {"imbalances": ["step:5000"], "seeds": (0,), "losses": ["ce"]})


def test_existing_files_are_kept(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        compare(data, tmp_path / "file", **TINY)
    with pytest.raises(OutputError, match="other files"):
        compare(data, tmp_path / "full", **TINY)
    small = TINY | {"losses": ["ce"], "imbalances": ["none"], "seeds": (0,)}
    compare(data, tmp_path / "out", **small)
    with pytest.raises(OutputError, match="another comparison; pass `overwrite=True`"):
        compare(data, tmp_path / "out", **small | {"losses": ["focal"]})
    compare(data, tmp_path / "out", **small | {"losses": ["focal"]}, overwrite=True)
    (tmp_path / "out/runs.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"line 1 is not a finished run .*; delete it to train that run again"):
        compare(data, tmp_path / "out", **small | {"losses": ["focal"]})


def test_a_folder_of_other_files_is_kept(data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/table.csv").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="other files than those of a comparison"):
            compare(data, tmp_path / "mine", **TINY, overwrite=overwrite)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["table.csv"]


def test_what_cannot_be_trained_is_found_out_before_anything_is(data, tmp_path, trainings):
    with pytest.raises(DataError, match="no patch"):
        compare(data, tmp_path / "out", **TINY | {"imbalances": ["none", "step:5000"]})
    with pytest.raises(UsageError, match="unknown `weights` 'sentinel'"):
        compare(data, tmp_path / "out", **TINY, weights="sentinel")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file: cannot be written"):
        compare(data, tmp_path / "out", **TINY, results=tmp_path / "file/runs.jsonl")
    with pytest.raises(DataError, match="is a folder; pass a file of finished runs"):
        compare(data, tmp_path / "out", **TINY, results=tmp_path)
    assert not trainings
    assert not (tmp_path / "out/grid.json").exists()


def test_a_run_with_other_defaults_or_lists_is_refused(data, tmp_path):
    small = TINY | {"losses": ["ce"], "imbalances": ["none"], "seeds": (0,)}
    compare(data, tmp_path / "out", **small)
    file = tmp_path / "out/runs.jsonl"
    run = json.loads(file.read_text())
    for part, name, value in (("settings", "weight_decay", 0.5), ("patches", "test_sha256", "0")):
        changed = run | {part: run[part] | {name: value}}
        file.write_text(json.dumps(changed) + "\n")
        with pytest.raises(DataError, match="other settings or another split; delete its line"):
            compare(data, tmp_path / "out", **small)
    older = run | {"settings": {name: value for name, value in run["settings"].items() if name != "mixup"}}
    file.write_text(json.dumps(older) + "\n")
    compare(data, tmp_path / "out", **small)


def test_local_weights_are_known_by_their_content(tmp_path):
    weights = tmp_path / "w.pth"
    names = set()
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        settings = resolve("d", backbone="lite0", weights=str(weights))
        names.add(run_name(settings, "data"))
    assert len(names) == 2


def test_a_model_and_its_weights_file_are_the_same_initial_weights(tiny_model):
    both = (tiny_model, tiny_model / "model.safetensors")
    assert len({run_name(resolve("d", backbone="lite0", weights=path), "data") for path in both}) == 1


def test_a_comparison_that_was_killed_at_its_first_file_is_not_in_the_way(tmp_path: Path) -> None:
    left = tmp_path / "out/.grid.json.abcd1234"
    left.mkdir(parents=True)
    with pytest.raises(DataError, match=r"none\.zip"):
        compare(tmp_path / "none.zip", tmp_path / "out")
    (tmp_path / "out/letter").write_text("dear")
    with pytest.raises(OutputError, match="contains other files"):
        compare(tmp_path / "none.zip", tmp_path / "out")
