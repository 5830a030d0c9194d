# Each target sets up what it needs on a fresh machine.
PYTHON ?= python3
TEST_DATA := $(or $(ISSUN_TEST_DATA),../shared)
PACKAGES := cli export runtime benchmarks training

.PHONY: demo test parity check format clean

demo: .venv/ready-demo            ## export a checkpoint and ask it six questions
	.venv/bin/python -m issun.benchmarks.demo --test-data "$(TEST_DATA)"

test: .venv/ready-test            ## light tests: no torch
	.venv/bin/python -m pytest -m "not parity"

parity: .venv-parity/ready        ## live comparison with torch and transformers
	.venv-parity/bin/python -m pytest -m parity tests/parity

check: .venv/ready-test           ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	mkdir -p build/types && ln -sfn ../.. build/types/issun
	MYPYPATH=build/types .venv/bin/mypy $(PACKAGES:%=-p issun.%)

format: .venv/ready-test          ## mend format and imports
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:
	rm -rf .venv .venv-parity build dist *.egg-info demo .mypy_cache .ruff_cache .pytest_cache

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/ready-demo: .venv/bin/pip pyproject.toml
	.venv/bin/pip install -q -e '.[export]'
	touch $@

.venv/ready-test: .venv/bin/pip pyproject.toml
	.venv/bin/pip install -q -e '.[test]'
	touch $@

.venv-parity/ready: pyproject.toml
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install -q torch==2.13.0
	.venv-parity/bin/pip install -q -e '.[dev]'
	touch $@
