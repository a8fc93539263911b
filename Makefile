# `make demo` and `make test` set up .venv by themselves; from elsewhere: make -C PATH demo

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test test-slow check clean

demo: .venv/installed ## see the whole line at work
	$(BIN)/jdfd-keras demo

test: .venv/installed-test ## run the tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed-test ## run the tests that take longer
	$(BIN)/python -m pytest -m slow

check: .venv/installed-test ## formatting, lint and build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m build --wheel --outdir build/wheel .

clean: ## remove what the targets made
	rm -rf .venv demo build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Expected Python 3.11, 3.12 or 3.13 (TensorFlow has no wheels for others);" \
	  "got $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/installed: $(BIN)/python setup.cfg constraints.txt
	@echo "Installing into .venv: some minutes and 3 GB of disk, the first time" >&2
	$(INSTALL) --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) --editable ".[test]"
	@touch $@
