# Two commands do everything: `make demo` and `make test`. Each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NAME ?=
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint types bench clean

demo: $(READY)
	$(BIN)/python examples/old_faithful.py

test: lint types
	$(BIN)/python -m pytest -q -n 2

test-all: lint types
	$(BIN)/python -m pytest -q -n 2 -m ""

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/basedpyright

bench: $(READY) $(VENV)/.ready-bench
	$(BIN)/python -m benchmarks $(NAME)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.ready-bench: $(READY)
	$(BIN)/python -m pip install -q --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) runs
