# Every target sets up what it needs: Python 3.11 and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test slow check tiny clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	@echo "installing torch, diffusers, transformers and TRL: a few minutes, 2.4 GB"
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch --editable '.[local,dev]'
	touch $@

demo: setup  ## the whole method on the tiny world, about ten minutes
	$(BIN)/promptreel demo

test: setup  ## the default tests, about two minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

slow: setup  ## the long story: figures of the tiny models, whole runs
	$(BIN)/pytest -m slow --durations=10

check: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tiny: setup  ## train the tiny models from scratch; hours on two cores
	cd tools && ../$(BIN)/python -m build_tiny

clean:
	rm -rf $(VENV) build dist
