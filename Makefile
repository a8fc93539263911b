# `make demo` and `make test` install into .venv; from elsewhere: make -C PATH demo

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test test-slow check docs lock clean

demo: .venv/installed ## judge two generated videos
	$(BIN)/jdfd-keras demo

test: .venv/installed-test ## run the tests in JOBS processes, of up to 5 GB each
	$(BIN)/python -m pytest -m "not slow and not signals" -n $(JOBS)
	$(BIN)/python -m pytest -m "not slow and signals"

test-slow: .venv/installed-test ## run the longer tests and the examples of docstrings, as `make test`
	$(BIN)/python -m pytest -m "slow and not signals" -n $(JOBS) --doctest-modules tests jdfd_keras
	$(BIN)/python -m pytest -m "slow and signals" --doctest-modules tests jdfd_keras

check: .venv/installed-test docs ## formatting, lint, types, documentation and build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m build --wheel --outdir build/wheel .

docs: .venv/installed-docs ## build the site of docs/ in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Exactly the versions of constraints.txt; `uv` must be installed.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --constraints constraints.txt \
  --generate-hashes --no-config --no-emit-index-url --no-annotate --custom-compile-command "make lock"

lock: ## write requirements.lock and requirements-build.lock, with the SHA-256 of each package
	$(LOCK) $(addprefix --extra ,$(EXTRAS)) setup.cfg --output-file requirements.lock
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(LOCK) - --output-file requirements-build.lock

clean: ## remove the files that the targets made
	rm -rf .venv demo demo-train build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Expected Python 3.11, 3.12 or 3.13 (TensorFlow has no wheels for others);" \
	  "got $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/installed: $(BIN)/python setup.cfg constraints.txt
	@echo "Installing into .venv: a few minutes and 3 GB of disk, the first time" >&2
	$(INSTALL) --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) --editable ".[test]"
	@touch $@

.venv/installed-docs: .venv/installed
	$(INSTALL) --editable ".[docs]"
	@touch $@
