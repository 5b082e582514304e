# Two commands need nothing but Python 3.11 and make: `make demo` and `make test`. Both set themselves up.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-slow lint types floors format benchmarks clean

demo: $(VENV)/ready
	$(BIN)/python examples/flights.py

test: lint types floors
	$(BIN)/python -m pytest

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/ready
	$(BIN)/mypy

floors: $(VENV)/ready
	$(BIN)/lint-imports

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: $(VENV)/ready
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/config.py
	$(BIN)/python benchmarks/cli.py
	$(BIN)/python benchmarks/sql.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/speedup.py
	$(BIN)/python benchmarks/fingerprint.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/pandas_pipeline.py

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
