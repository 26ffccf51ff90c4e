# make demo   sets everything up and trains on real digits under each policy
# make test   sets everything up and runs the tests
# The rest: test-integrations (the trainers of other libraries, with a schedule and a search), test-studies (the
# published results against the runs that are kept), check (ruff, mypy, the order of imports), fuzz (odd arguments,
# damaged files and kills for ten minutes; SEED=7 tries others), bench, study (hours; can be stopped and resumed),
# figures, docs (the site, in build/site), clean.

PYTHON ?= python3
BIN := .venv/bin
SEED ?= 1
WORKERS := --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo test test-integrations test-studies check fuzz bench study figures docs clean

demo: .venv/installed-demo
	$(BIN)/clr demo

test: .venv/installed-dev
	$(BIN)/python -m pytest $(WORKERS) --ignore tests/benchmarks --ignore tests/integrations --ignore src/clr/integrations

test-integrations: .venv/installed-integrations
	$(BIN)/python -m pytest $(WORKERS) tests/integrations src/clr/integrations

test-studies: .venv/installed-dev
	$(BIN)/python -m pytest $(WORKERS) tests/benchmarks

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python .ci/census.py

fuzz: .venv/installed-dev
	$(BIN)/python -m tests.faults --seed $(SEED)

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks

study: .venv/installed-dev
	$(BIN)/python -m benchmarks.study run
	$(BIN)/python -m benchmarks.study report

figures: .venv/installed-dev
	$(BIN)/python docs/figures.py

docs: .venv/installed-docs
	rm -rf build/site
	$(BIN)/python -m sphinx -E -W --keep-going --nitpicky -b html -d build/doctrees docs build/site

clean:
	rm -rf .venv build dist clr-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv

# A stamp per set of extras: a second call installs nothing, a change of the requirements does.
.venv/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@
