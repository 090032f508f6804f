# make train: set up and run the main job.   make test: set up and check everything that this machine can.
# make test-faults: every fault that can be injected here, and what takes too long for every day; a table at the end.
# make soak: a small sweep under everything at once, for MINUTES=30, and where its time went.
# make matrix: a quick part of the tests under several versions of torch and Hydra, in .venv-matrix/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Two processes share the tests, because many of them wait; each process starts a Slurm of its own.
WORKERS ?= --numprocesses=2 --dist=worksteal
MINUTES ?= 30
SEED ?= 0

.PHONY: train test test-faults matrix lint docs bench soak setup slurm browser clean

train: $(VENV)/ready
	$(BIN)/python run.py $(ARGS)

test: $(VENV)/ready slurm browser lint
	$(BIN)/python -m pytest $(WORKERS) -m "not faults" $(ARGS)

test-faults: $(VENV)/ready slurm browser
	$(BIN)/python -m pytest $(WORKERS) -v -m "faults or injected" $(ARGS)

matrix:
	$(PYTHON) -m tests.matrix

lint: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

bench: $(VENV)/ready
	$(BIN)/python -m tests.benchmarks

soak: $(VENV)/ready slurm
	$(BIN)/python -m tests.benchmarks.soak $(MINUTES) $(SEED)

setup: $(VENV)/ready

# Installs Slurm where it can, with root and apt; without it pytest skips the tests on a real Slurm and names them.
slurm:
	@sh hpc/testing/install.sh

# Installs Chromium likewise.
browser:
	@sh tests/report/install.sh

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-matrix dist site
