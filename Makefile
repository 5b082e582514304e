# Two commands need nothing but Python 3.11 and make: `make demo` and `make test`. Both set themselves up.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo demo-spark service test test-slow test-newest test-floors lint types floors lock format benchmarks clean

demo: $(VENV)/ready
	$(BIN)/python examples/flights.py

# The same questions on Spark, and whether the answers are those of pandas.
demo-spark: $(VENV)/ready
	$(BIN)/python examples/flights_spark.py

# The flights as a service, with a live page at http://127.0.0.1:8000/
service: $(VENV)/ready
	$(BIN)/python examples/service.py

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
	$(BIN)/python benchmarks/journal.py
	$(BIN)/python benchmarks/speedup.py
	$(BIN)/python benchmarks/fingerprint.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/pandas_pipeline.py
	$(BIN)/python benchmarks/spark_pipeline.py
	$(BIN)/python benchmarks/story.py
	$(BIN)/python benchmarks/executors.py
	$(BIN)/python benchmarks/schedule.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/incremental.py
	$(BIN)/python benchmarks/estimates.py --plan 100000
	$(BIN)/python benchmarks/serving.py

# The versions of requirements-dev.txt, byte for byte.
$(VENV)/ready: pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Renews them.
lock: $(VENV)/ready
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-emit-index-url --no-header --quiet --output-file requirements-dev.txt

# The newest release of everything.
test-newest:
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable ".[dev]"
	.venv-newest/bin/python -m pytest

# The lowest release of everything that pyproject.toml names.
test-floors: $(VENV)/ready
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-floors
	$(BIN)/uv pip install --quiet --python .venv-floors/bin/python --resolution lowest-direct --editable ".[dev]"
	.venv-floors/bin/python -m pytest

clean:
	rm -rf $(VENV) .venv-newest .venv-floors dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
