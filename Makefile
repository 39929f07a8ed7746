# Everything starts from a machine with Python >= 3.11 and make; the rest is set up in .venv.
#   PYTHON=...     the interpreter to build .venv with
#   PIP_FLAGS=...  passed to every `pip install`
#   TESTS=...      what `make test` runs (default: tests and the examples in src)
#   WORKERS=...    test processes side by side
#   BENCH=...      which benchmarks `make bench` runs (default: all)

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
PIP_FLAGS ?=
TESTS ?= tests src
WORKERS ?= 2
BENCH ?=

BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test slow exact bench bench-quick lint docs dist clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */make \1|/' | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

demo: .venv/.run  ## set up, then train and certify a mean-field ResNet on two spirals into runs/demo
	@$(BIN)/mfresnet train two-spirals --data.n 1024 --train.rule langevin --out runs/demo --overwrite

test: .venv/.test .venv/.browser  ## set up, then run the tests and the documentation's examples
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --doctest-modules $(TESTS)

slow: .venv/.slow .venv/.browser  ## the scientific checks that take minutes, with the compiler's own flags
	@XLA_FLAGS= $(BIN)/python -m pytest -m slow --timeout 3600 tests

exact: .venv/.test  ## what holds to the bit, with the compiler's own flags (the other tests leave its costly passes out)
	@XLA_FLAGS= $(BIN)/python -m pytest -m exact tests

bench: .venv/.bench  ## every benchmark, hours; `make bench BENCH="train gram"` runs some; into benchmarks/results
	@$(BIN)/python benchmarks/all.py $(BENCH)

bench-quick: .venv/.bench  ## every benchmark at its smallest, five minutes, nothing written
	@$(BIN)/python benchmarks/all.py --quick $(BENCH)

lint: .venv/.dev  ## style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/python tools/strict_types.py

docs: .venv/.docs  ## the documentation site, executed, into docs/_build/html
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

dist: .venv/.docs  ## source distribution and wheel, into dist
	@$(BIN)/python -m build --quiet

clean:  ## remove what make has made: the environment, caches, runs
	@rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis runs src/*.egg-info docs/_build
	@rm -rf docs/_api docs/_benchmarks docs/_gallery docs/_pictures docs/_settings docs/sg_execution_times.rst
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# --- set-up: a stamp says what .venv holds already ------------------------------------------------

.venv/.made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it with make PYTHON=..." >&2; exit 1; }
	@PYTHON="$(PYTHON)" sh tools/environment.sh
	@touch $@

.venv/.run: .venv/.made $(SOURCES)
	@echo "setting up .venv: mfresnet and what it needs (once, a minute or two)"
	@$(INSTALL) --editable .
	@touch $@

.venv/.test: .venv/.run
	@echo "setting up .venv: the test tools (once)"
	@$(INSTALL) --editable '.[test]'
	@touch $@

.venv/.slow: .venv/.test
	@echo "setting up .venv: Ray and the documentation tools (once)"
	@$(INSTALL) --editable '.[test,ray,docs]'
	@touch $@

.venv/.docs: .venv/.run
	@echo "setting up .venv: the documentation tools (once)"
	@$(INSTALL) --editable '.[docs]'
	@touch $@

.venv/.dev: .venv/.test
	@echo "setting up .venv: the development tools (once)"
	@$(INSTALL) --editable '.[test,dev]'
	@touch $@

.venv/.bench: .venv/.run
	@echo "setting up .venv: PyTorch and BlackJAX, to compare with, and Ray (once, large)"
	@$(INSTALL) --editable '.[bench,ray]'
	@touch $@

.venv/.browser: .venv/.made
	@sh tools/browser.sh
	@touch $@
