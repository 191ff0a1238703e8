from __future__ import annotations

import logging
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from examples.build_notebooks import FOLDER, NAMES, read_script, run_notebook

SERVICES = {"openeo_udf", "pygeoapi_process"}
"""Examples that servers run; test_service_examples.py runs them."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the examples, one each: a notebook finds what its script has mapped."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("geocfl")
    before = logger.level
    yield
    logger.setLevel(before)


def test_every_example_is_listed_and_explained():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"build_notebooks"}
    assert scripts - SERVICES == set(NAMES) == {path.stem for path in FOLDER.glob("*.ipynb")}
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.py)" in readme for name in SERVICES)
    for name in NAMES:
        assert f"({name}.py)" in readme
        assert f"({name}.ipynb)" in readme


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_script(name):
    script, notebook = read_script(name), nbformat.read(FOLDER / f"{name}.ipynb", 4)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in script.cells], (
        f"build it again: python examples/build_notebooks.py {name}"
    )
    nbformat.validate(notebook)
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert shown
    assert not [o for o in shown if o.output_type == "error" or o.get("name") == "stderr"]
    content = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(content) < 700_000, "a notebook is small enough to be read online"
    assert str(Path.home()) not in content
    assert "/tmp" not in content


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_a_script_runs_in_an_empty_folder(name, work, monkeypatch):
    import matplotlib as mpl

    (work / name).mkdir()
    monkeypatch.chdir(work / name)
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        warnings.filterwarnings("default", module=r"(?!geocfl|__main__)")
        found = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    plt.close("all")
    if name == "onnx_without_geocfl":
        assert found["same"] > 0.98, "the example compares the same model"
    else:
        assert list(Path(name).glob("*.png"))
    assert {path.name for path in Path().iterdir()} == {name}, "two examples in one folder must not share files"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, work, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook has its own
    (work / name).mkdir(exist_ok=True)
    notebook = run_notebook(read_script(name), work / name)
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.get("name") == "stderr"], "nothing unasked"


def test_the_onnx_example_needs_no_geocfl_to_infer():
    cells = [cell.source for cell in read_script("onnx_without_geocfl").cells if cell.cell_type == "code"]
    assert "import geocfl" in cells[0]
    assert not any("geocfl." in cell or "import geocfl" in cell for cell in cells[1:])
