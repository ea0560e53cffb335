# Three commands do everything on a machine with Python 3.11 (or later) and make:
#   make demo   environment, install, the whole way on the bundled micrograph
#   make test   environment, install, all checks
#   make docs   environment, install, the documentation
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= demo-output

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs clean

help:
	@echo "make demo   install into $(VENV) and build a particle library from the bundled micrograph"
	@echo "make test   install into $(VENV) and run all checks"
	@echo "make docs   build the documentation into docs/_build/html (TUMBLE_QUICK=1: tutorials in a short version)"
	@echo "make lint   only the static checks: ruff, pyright, import layers"
	@echo "make format rewrite the sources in the project's format"
	@echo "make clean  remove $(VENV) and everything the commands above made"

# PyTorch is installed first and by version, so that no other requirement pulls in whichever build is newest. A build
# that is in the environment already (for the CPU alone, or for a GPU) is kept.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tumble needs Python 3.11 or later; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet torch==2.13.0
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# pyroVED, the reference of the paper's method, asks for torchvision (for plots alone), which would bring another torch.
$(VENV)/.test: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps pyroved==0.3.0
	$(BIN)/python -c 'import anndata' 2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps --upgrade \
		--target $(VENV)/anndata 'anndata>=0.12,<0.13' 'pandas>=2.3,<3' pytz legacy-api-wrap natsort array-api-compat scverse-misc
	@touch $@ $(VENV)/.installed

$(VENV)/.docs: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/tumble demo --out $(OUT)

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

# Two workers, one thread each; the tests of a file share what they need.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Warnings are errors; the outputs of the tutorials are kept in docs/_build and made again where a tutorial changes.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html
	@echo "The documentation: docs/_build/html/index.html"

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(OUT) docs/_build docs/_generated docs/api/generated build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
