# make help lists the targets. Everything is installed into $(VENV); nothing outside this directory is touched.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# Tested versions first: the newest interpreter of a machine may be one that not every dependency has wheels for yet.
# Each is tried by running it, because a version manager's shim exists even where its version does not.
CANDIDATES := python3.13 python3.12 python3.11 python3.14 python3 python
CAPABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach python,$(CANDIDATES),$(shell $(python) -c '$(CAPABLE)' >/dev/null 2>&1 && echo $(python))))

VENV ?= .venv
BIN := $(VENV)/bin
HTTP ?= 127.0.0.1:8080
JOURNAL ?= sqlite:///capacity.db
WORKERS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
SEEDS ?= 2000
SIMULATE_ARGS ?=
LINTED := actorkit examples tests bench pytest_actorkit.py

.PHONY: help run test simulate check bench format clean

help:
	@echo 'make run      start the capacity service on $(HTTP), its journal in $(JOURNAL)'
	@echo 'make test     run all tests (PYTEST_ARGS="-k gate" for some of them)'
	@echo 'make simulate SEEDS=100000   search so many seeds on all cores (SIMULATE_ARGS="--first 7" for certain ones)'
	@echo 'make check    ruff, mypy --strict, pyright and the layering test'
	@echo 'make bench    measure each figure against its floor (BENCH_ARGS="latency recovery" for some)'
	@echo 'make format   let ruff format and mend what it can'
	@echo 'make clean    remove the environment, caches and build results (journals stay)'
	@echo
	@echo 'PYTHON=$(if $(PYTHON),$(PYTHON),none found that is 3.11 or newer) VENV=$(VENV) HTTP=$(HTTP) JOURNAL=$(JOURNAL)'

run: $(VENV)/.ready-to-run
	@echo 'Starting the capacity service; its journal is $(JOURNAL). Stop it with Ctrl-C.'
	@echo
	@echo 'Look at        http://$(HTTP)/health/ready  /metrics  /cluster/shards  /openapi.json'
	@echo 'Then try, in another terminal:'
	@echo
	@echo "  curl -s http://$(HTTP)/rpc/pools -H 'content-type: application/json' -d '{\"pool_id\": \"gpu-a100\", \"capacity\": 8}'"
	@echo "  curl -s http://$(HTTP)/rpc/reserve -H 'content-type: application/json' -d '{\"pool_id\": \"gpu-a100\", \"quantity\": 3}'"
	@echo "  curl -s http://$(HTTP)/rpc/pools/gpu-a100"
	@echo
	@echo 'Or replay 119,390 real hotel bookings into it:'
	@echo
	@echo '  $(BIN)/python -m examples.capacity_service replay --url http://$(HTTP)'
	@echo
	@exec $(BIN)/python -m examples.capacity_service node --http $(HTTP) --journal $(JOURNAL)

test: $(VENV)/.ready-to-develop
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

# A failing run is made smaller and kept where the tests of seeds run it again.
simulate: $(VENV)/.ready-to-develop
	@$(BIN)/python -m actorkit.testing.simulation.command tests.simulation.trials:CAPACITY --seeds $(SEEDS) \
		--cases tests/simulation/regressions $(SIMULATE_ARGS)

check: $(VENV)/.ready-to-develop
	$(BIN)/python -m ruff check $(LINTED)
	$(BIN)/python -m ruff format --check $(LINTED)
	$(BIN)/python -m mypy
	$(BIN)/python -m pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_layering.py tests/test_public_names.py

bench: $(VENV)/.ready-to-develop
	$(BIN)/python -m bench $(BENCH_ARGS)

format: $(VENV)/.ready-to-develop
	$(BIN)/python -m ruff check --fix $(LINTED)
	$(BIN)/python -m ruff format $(LINTED)

clean:
	rm -rf $(VENV) build dist bench/results .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find actorkit examples tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo 'No Python 3.11 or newer was found that can make virtual environments.' >&2; \
		echo 'Install one (on Debian and Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3' >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-to-run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.ready-to-develop: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/.ready-to-run $@
