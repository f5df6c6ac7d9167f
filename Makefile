# `make demo` and `make test` work from a fresh clone, with Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test lint types tests proofs mini bench clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## make the virtual environment and install everything

# torch goes first and alone: with the pinned version there, nothing pulls another build of it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## three questions to the embedded model: one wide, one nested, one sequential
	$(BIN)/python -m recipes.demo

test: lint types tests  ## lint, types and tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

tests: setup
	$(BIN)/pytest

proofs: setup  ## the long proofs (many more random trees)
	$(BIN)/pytest -m slow

mini: setup  ## train multiverse-mini from nothing, about an hour on two cores
	$(BIN)/python -m recipes.mini.train

bench: setup  ## fork and join against sequential decoding and transformers generate
	$(BIN)/python -m benchmarks.fork_join

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
