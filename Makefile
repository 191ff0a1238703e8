# make map  - map a demonstration scene with the bundled model
# make test - the test suite
# make docs - the site in site/, to be read from the disk
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: map test test-slow lint docs clean

map: $(VENV)/.installed
	$(BIN)/geocfl demo --out demo --overwrite

test: $(VENV)/.installed-test
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

test-slow: $(VENV)/.installed-test
	$(BIN)/pytest -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geocfl needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# Installed editable, so that only a change of pyproject.toml asks for another installation.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

docs: $(VENV)/.installed-test
	OFFLINE=true $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo site
