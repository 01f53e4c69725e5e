# `make demo` and `make test` work on a fresh machine: Python >= 3.10, git and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests run in as many processes, with one thread each and about 2 GB of memory.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() or 1))')
# Most modules of the packages are never imported: each is compiled when it is imported first, and kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint docs format clean

demo: $(READY)
	$(BIN)/invsr demo --out demo

test: $(READY)
	$(MAKE) --jobs 2 --output-sync=target lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md docs invsr tests benchmarks

docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "invsr needs Python 3.10 or newer; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[deepinv,examples,fast,train,cohort,docs,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo docs/_build docs/tutorials
