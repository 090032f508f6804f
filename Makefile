# make train: set up and run the main job.   make test: set up and check everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train test lint bench setup slurm clean

train: $(VENV)/ready
	$(BIN)/python run.py $(ARGS)

test: $(VENV)/ready slurm lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/ready
	$(BIN)/python -m tests.benchmarks

setup: $(VENV)/ready

# Needs root and apt; without them the tests on a real Slurm are skipped by name.
slurm:
	@sh tests/slurm/install.sh

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist
