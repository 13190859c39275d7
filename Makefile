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
NODES ?= 3
BASE_HTTP ?= 8080
JOURNAL ?= sqlite:///capacity.db
WORKERS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
SEEDS ?= 2000
SIMULATE_ARGS ?=
MINUTES ?= 10
NEMESIS_ARGS ?=
FIRST := $(BASE_HTTP)
LAST := $(shell expr $(BASE_HTTP) + $(NODES) - 1)
EMPTY :=
COMMA := ,
URLS := $(subst $(EMPTY) $(EMPTY),$(COMMA),$(foreach port,$(shell seq $(FIRST) $(LAST)),http://127.0.0.1:$(port)))
LINTED := actorkit examples tests bench pytest_actorkit.py

.PHONY: help run test simulate nemesis check bench format clean

help:
	@echo 'make run      start the capacity service: $(NODES) nodes, HTTP from port $(BASE_HTTP) on, on the journal $(JOURNAL)'
	@echo 'make test     run all tests (PYTEST_ARGS="-k gate" for some of them)'
	@echo 'make simulate SEEDS=100000   search so many seeds on all cores (SIMULATE_ARGS="--first 7" for certain ones)'
	@echo 'make nemesis MINUTES=60      real bookings into real processes that are killed, paused, cut off, restarted; then the verdict'
	@echo 'make check    ruff, mypy --strict, pyright and the layering test'
	@echo 'make bench    measure each figure against its floor (BENCH_ARGS="latency recovery" for some)'
	@echo 'make format   let ruff format and mend what it can'
	@echo 'make clean    remove the environment, caches and build results (journals stay)'
	@echo
	@echo 'PYTHON=$(if $(PYTHON),$(PYTHON),none found that is 3.11 or newer) VENV=$(VENV) NODES=$(NODES) BASE_HTTP=$(BASE_HTTP) JOURNAL=$(JOURNAL)'

run: $(VENV)/.ready-to-run
	@echo 'Starting $(NODES) nodes of the capacity service; their journal is $(JOURNAL). Stop them with Ctrl-C.'
	@echo
	@echo 'Look at        http://127.0.0.1:$(BASE_HTTP)/health/ready  /cluster/members  /cluster/shards  /metrics  /openapi.json'
	@echo 'Then try, in another terminal; whichever node you ask answers:'
	@echo
	@echo "  curl -s http://127.0.0.1:$(FIRST)/rpc/pools -H 'content-type: application/json' -d '{\"pool_id\": \"gpu-a100\", \"capacity\": 8}'"
	@echo "  curl -s http://127.0.0.1:$(LAST)/rpc/reserve -H 'content-type: application/json' -d '{\"pool_id\": \"gpu-a100\", \"quantity\": 3}'"
	@echo "  curl -s http://127.0.0.1:$(FIRST)/rpc/pools/gpu-a100"
	@echo
	@echo 'Or replay 119,390 real hotel bookings through all of them, and kill one with kill -9 meanwhile:'
	@echo
	@echo '  $(BIN)/python -m examples.capacity_service replay --url $(URLS)'
	@echo '  $(BIN)/actorkit members http://127.0.0.1:$(FIRST)'
	@echo
	@exec $(BIN)/python -m examples.capacity_service cluster --nodes $(NODES) --base-http $(BASE_HTTP) --journal $(JOURNAL)

test: $(VENV)/.ready-to-develop
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

# A failing run is made smaller and kept where the tests of seeds run it again.
simulate: $(VENV)/.ready-to-develop
	@$(BIN)/python -m actorkit.testing.simulation.command tests.simulation.trials:CAPACITY --seeds $(SEEDS) \
		--cases tests/simulation/regressions $(SIMULATE_ARGS)

# Prints its seed first: NEMESIS_ARGS="--seed 7" does the same again, as far as real processes can. With "--links namespaces"
# nodes are cut off by a router between network namespaces, else by proxies.
nemesis: $(VENV)/.ready-to-develop
	@$(BIN)/python -m tests.processes.nemesis --minutes $(MINUTES) $(NEMESIS_ARGS)

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
