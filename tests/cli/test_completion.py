"""What TAB offers in a shell."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from geocfl.cli import completion
from geocfl.cli.completion import a_model, one_of, some_of
from tests.cli.program import COMMAND


def test_the_names_are_those_that_the_commands_know() -> None:
    from geocfl import losses
    from geocfl.data.imbalance import check_order, parse_imbalance
    from geocfl.data.splits import STATED, train_share
    from geocfl.evaluation.evaluate import SUBSETS
    from geocfl.experiments.grid import LOSSES
    from geocfl.models import backbones
    from geocfl.models import export as exporting
    from geocfl.models.backends import BACKENDS, PRECISIONS
    from geocfl.planning import catalogs
    from geocfl.products.formats.vector_formats import VECTOR_FORMATS
    from geocfl.products.selection import PRODUCTS
    from geocfl.training.recipe import RECIPES, resolve

    assert tuple(backbones.BACKBONES) == completion.BACKBONES
    assert completion.BACKENDS == BACKENDS
    assert tuple(catalogs.KNOWN) == completion.CATALOGS
    assert completion.PRECISIONS == PRECISIONS
    assert tuple(exporting.FORMATS) == completion.EXPORT_FORMATS
    assert tuple(losses.LOSSES) == completion.LOSSES
    assert tuple(SUBSETS) == completion.SUBSETS
    assert sorted(completion.PRODUCT_NAMES) == sorted([*PRODUCTS, "default", "all"])
    assert tuple(RECIPES) == completion.RECIPES
    assert (*VECTOR_FORMATS, "none") == completion.VECTOR_FORMATS
    for form in completion.CFL_FORMS:
        resolve("patches", cfl_form=form)
    for name in completion.IMBALANCES:
        parse_imbalance(name)
    for order in completion.CLASS_ORDERS:
        assert check_order(order) == order
    for split in completion.SPLITS:
        assert split in STATED or train_share(split)
    assert set(LOSSES) <= set(completion.LOSSES)


def test_lists_complete_their_last_name_without_repeating_names() -> None:
    complete = some_of(("lulc", "confidence", "vector"))
    assert complete("") == ["lulc", "confidence", "vector"]
    assert complete("lulc,c") == ["lulc,confidence"]
    assert complete("lulc,") == ["lulc,confidence", "lulc,vector"]
    assert one_of(("paper", "spatial"))("s") == ["spatial"]


def test_built_in_models_are_completed() -> None:
    assert "eurosat-rgb-lite0" in a_model("euro")
    assert a_model("./") == [], "the shell completes a path"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("geocfl mo", ["mosaic"]),
        ("geocfl map scene.tif --strid", ["--stride"]),
        ("geocfl map scene.tif --products lulc,pre", ["lulc,preview"]),
        ("geocfl train --loss b", ["balanced-softmax"]),
        ("geocfl info eurosat", ["eurosat-rgb-dense", "eurosat-rgb-lite0"]),
    ],
)
def test_bash_completes_names(line: str, offered: list[str], tmp_path: Path) -> None:
    words = line.split()
    asked = {"_GEOCFL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([COMMAND], cwd=tmp_path, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == offered


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    script = f'eval "$(_GEOCFL_COMPLETE=source_bash {COMMAND})" && complete -p geocfl'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "geocfl" in done.stdout
