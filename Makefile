# make train   sets everything up in .venv, trains on the embedded data set, says where the results lie; THREADS=1 leaves cores
#              to others
# make test    sets everything up and runs the tests, in a process more than there are cores (some only wait), four at most,
#              each computing with one thread
# make test-full   the tests of reliability with full counts, then `make mutants`; writes results/reliability.json
# make mutants     plants defects, one at a time, each of which a test must notice
# Both do nothing twice: with nothing changed, they repeat what they found. `make retest` runs the tests all the same.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find src -type f -not -name '*.pyc')
TESTED := $(SOURCES) README.md $(wildcard tests/*.py tests/*/*.py tests/*.toml results/*.json results/*/*.json docs/*.md scripts/*.py benchmarks/*.py)
WORKERS := $(shell $(PYTHON) -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
PASSED := $(VENV)/passed-$(if $(THUMBNET_DATA),with,without)-cifar
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test test-full mutants retest lint clean

train: runs/make-train.txt
	@cat $<

runs/make-train.txt: $(VENV)/installed $(SOURCES)
	@mkdir -p runs
	$(BIN)/thumbnet train fashion-mini $(if $(THREADS),--threads $(THREADS)) > $@.tmp
	@$(BIN)/thumbnet evaluate runs/latest >> $@.tmp
	@mv $@.tmp $@

test: $(PASSED)
	@cat $<

$(PASSED): $(VENV)/installed-dev $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup
	@echo "the tests have passed for these files; make retest runs them again" > $@

retest:
	@rm -f $(PASSED)
	@$(MAKE) --no-print-directory test

test-full: $(VENV)/installed-dev
	$(BIN)/python scripts/reliability.py

mutants: $(VENV)/installed-dev
	$(BIN)/python scripts/mutants.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: $(VENV)/made pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "thumbnet needs Python 3.11 or newer, found $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
