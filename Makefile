# make map              - map a demonstration scene with the built-in model
# make test             - the fast tests
# make test-integration - the tests that start processes, clusters, servers or browsers, train, or build the site
# make lint             - ruff, mypy, import-linter, codespell
# make docs             - the site in site/, to be read from the disk
# make plugin           - the QGIS plugin as dist/geocfl_qgis.zip
# make graphs           - model.onnx of the built-in models, after their weights or facts have changed
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Options for pytest, such as PYTEST_FLAGS=--cov or PYTEST_FLAGS='-k zonal'.
PYTEST_FLAGS ?=
PARALLEL := -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.PHONY: map test test-integration test-slow lint docs plugin graphs clean

map: $(VENV)/.installed
	$(BIN)/geocfl demo --out demo --overwrite
	@echo
	@echo "Next steps:"
	@echo "  look at the map             open demo/demo_scene_preview.png"
	@echo "  activate the environment    source $(VENV)/bin/activate"
	@echo "  map a scene of your own     geocfl map scene.tif --out maps"
	@echo "  get finer cells (160 m)     geocfl map scene.tif --out maps --stride 16"

test: $(VENV)/.installed-dev
	$(BIN)/pytest -m 'not integration and not slow' $(PARALLEL) $(PYTEST_FLAGS)

test-integration: $(VENV)/.installed-dev
	$(BIN)/pytest -m 'integration and not slow' $(PARALLEL) $(PYTEST_FLAGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow $(PYTEST_FLAGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files -z | xargs -0 $(BIN)/codespell  # not what maps and builds have left here

docs: $(VENV)/.installed-dev
	OFFLINE=true $(BIN)/mkdocs build --strict

plugin: $(VENV)/.installed
	$(BIN)/python geocfl-qgis/build_plugin.py

graphs: $(VENV)/.installed
	$(BIN)/python -m geocfl.models.graph_file

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geocfl needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# Installed editable, so that only a change of pyproject.toml asks for another installation.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing geocfl and its dependencies in $(VENV). With the CUDA build of PyTorch, which pip selects on Linux,"
	@echo "this downloads about 6 GB, otherwise less than 1 GB. It takes several minutes; pip prints nothing until it is done."
	$(BIN)/pip install --quiet --editable .
	touch $@

# A new venv has the pip that Python came with, which may not know --group.
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[all]' --group dev
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) demo site dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
