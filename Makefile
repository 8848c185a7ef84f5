# edge-broker: `make run` starts the demo, `make test` runs the suite. Both set up .venv on their own.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: run test setup audit lint format types check bench conformance fuzz torture clean help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edge-broker needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (once; a minute or two)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(READY) ## make .venv with everything that the project needs

run: $(READY) ## the demo: sensors, broker, bridge and upstream on this machine
	@$(BIN)/edge-broker demo $(ARGS)

test: $(READY) ## the whole test suite, two files at a time: most of it waits for something
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## ruff, format and lint
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

format: $(READY) ## write the format and the safe fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

audit: $(READY) ## known vulnerabilities of the dependencies, where the advisories can be reached
	@$(BIN)/python .ci/audit.py

types: $(READY) ## mypy --strict
	@$(BIN)/mypy --strict

check: lint types test ## all of the above

bench: $(READY) ## side by side with Debian's mosquitto; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks --write docs/benchmarks.md $(ARGS)

conformance: $(READY) ## a test per normative statement, and foreign clients; writes docs/conformance.md
	@$(BIN)/python -m pytest -p tests.conformance.plugin --conformance-page docs/conformance.md tests/conformance tests/foreign $(ARGS)

SECONDS ?= 60
fuzz: $(READY) ## libFuzzer for SECONDS=60 over all targets in all; TARGETS="decoder ..." for some of them
	@$(BIN)/python -m tests.fuzz $(SECONDS) $(TARGETS)

ROUNDS ?= 200
torture: $(READY) ## power cuts under load, ROUNDS=200, with an account of every message (root); ARGS="--fault kill" without
	@$(BIN)/python -m tests.torture $(ROUNDS) $(ARGS)

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
