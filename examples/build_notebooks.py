"""Builds the notebooks of the examples: runs their scripts and saves the output of each cell.

    python examples/build_notebooks.py             all of them
    python examples/build_notebooks.py map_and_plot

Edit the script, never the notebook. Needs the dependency group `test`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NAMES = (
    "map_and_plot",
    "classify_an_array",
    "zonal_statistics",
    "train_your_classes",
    "compare_losses",
    "onnx_without_geocfl",
)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SECONDS = 600
"""Time limit for a cell."""


def read_script(name: str) -> Any:
    """Reads the script of an example as a notebook without outputs."""
    script = jupytext.read(FOLDER / f"{name}.py")
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    for number, cell in enumerate(script.cells):
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        notebook.cells.append(make(cell.source, id=f"cell-{number}"))  # reproducible ids
    return notebook


def run_notebook(notebook: Any, folder: Path) -> Any:
    """Runs a notebook in a folder and stores the outputs in it."""
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})  # of tqdm without ipywidgets
    return notebook


def build(name: str) -> None:
    """Runs an example in a temporary folder and writes its notebook."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = run_notebook(read_script(name), Path(folder))
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        build(chosen)
        print(f"{chosen}.ipynb")
