# `make demo` and `make test` need only python3 (3.11+), make and git: scripts/bootstrap.py installs the rest into .venv.
# The stamps are files in .venv, so set-up runs again only when pyproject.toml or the bootstrap changes.

# The system's own Python where it is new enough: Debian builds it with profile-guided optimisation, most others are not.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.1[1-9]) python3)
HOST   ?= 127.0.0.1
PORT   ?= 8000
ARGS   ?=
# Tests that run at the same time: most of their time they wait.
JOBS   ?= 3

BIN       := .venv/bin
BOOTSTRAP := $(PYTHON) scripts/bootstrap.py

RUNTIME := .venv/.stamp-runtime
TEST    := .venv/.stamp-test
SYSTEM  := .venv/.stamp-system
BENCH   := .venv/.stamp-bench
DOCS    := .venv/.stamp-docs

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check drill recovery bench conformance docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(RUNTIME) $(TEST) $(SYSTEM) ## install everything that demo and test need

demo: $(RUNTIME) ## serve the demo on http://127.0.0.1:8000 (HOST=, PORT=)
	@$(BIN)/sojourn serve examples.demo.app:app --app-dir . --host $(HOST) --port $(PORT)

test: $(TEST) $(SYSTEM) ## run every test (ARGS="-k name")
	@$(BIN)/python -m pytest tests -n $(JOBS) --dist loadfile $(ARGS)

check: $(TEST) ## lint, format, types, architecture; under a minute
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

drill: $(TEST) $(SYSTEM) ## stop, restart and break real servers under load (ARGS="-k name")
	@$(BIN)/python -m pytest drills -o faulthandler_timeout=600 $(ARGS)

recovery: $(TEST) $(SYSTEM) ## kill workers of Sojourn and of other task queues; writes docs/durability.md (ARGS=)
	@$(BIN)/python -m drills.recovery $(ARGS)

bench: $(BENCH) ## measure against other servers (ARGS=)
	@$(BIN)/python -m bench $(ARGS)

conformance: $(TEST) $(SYSTEM) ## run the WebSocket conformance suite
	@$(BIN)/python -m conformance.autobahn $(ARGS)

docs: $(DOCS) ## build the documentation into site/
	@$(BIN)/zensical build --clean --strict

clean: ## remove caches and build output (.venv stays; delete it to start over)
	@rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# All of these write to one .venv, so under `make -j` each waits for the runtime and pip never runs twice at once.
.NOTPARALLEL:

$(RUNTIME): pyproject.toml scripts/bootstrap.py
	@$(BOOTSTRAP) runtime
	@touch $@

$(TEST): $(RUNTIME)
	@$(BOOTSTRAP) test
	@touch $@

$(SYSTEM): $(RUNTIME)
	@$(BOOTSTRAP) system
	@touch $@

$(BENCH): $(RUNTIME)
	@$(BOOTSTRAP) bench
	@touch $@

$(DOCS): $(RUNTIME)
	@$(BOOTSTRAP) docs
	@touch $@
