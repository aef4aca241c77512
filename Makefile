# Every target has a help text behind "##"; `make` alone prints them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# pip and pytest bring their own parallelism; targets run one after another.
.NOTPARALLEL:

BIN := .venv/bin
# What comes after the command: make demo DEMO_ARGS=--chaos, make fault PYTEST_ARGS='-k restart'
DEMO_ARGS ?=
PYTEST_ARGS ?=
# make bench BENCH_ARGS="--quick --work W1"; the page is not the one of the documentation unless asked for.
BENCH_ARGS ?=
BENCH_PAGE ?= build/bench/performance.md
# Test processes. Much of a test's time is waiting for a server or a process, so there are more than cores.
JOBS ?= 4
PYTEST_JOBS := -n $(JOBS) --dist loadgroup --share-servers
# What the evidence is made from.
RESULTS ?= $(wildcard build/fault/*/result.json build/soak/result.json)
# RabbitMQ versions for test-matrix, next to the one that is installed.
MATRIX ?= 4.0 4.3

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Make .venv with the pinned dependencies and the package, editable
	@scripts/setup-venv

.PHONY: servers
servers: ## Install RabbitMQ and PostgreSQL where they are missing (root on Debian or Ubuntu)
	@scripts/ensure-servers

.PHONY: demo
demo: setup ## Run the example workflow in this process, on SQLite
	$(BIN)/fuseline demo $(DEMO_ARGS)

.PHONY: demo-rabbitmq
demo-rabbitmq: setup servers ## Run it on a private RabbitMQ and PostgreSQL, with a coordinator and two workers
	$(BIN)/fuseline demo --rabbitmq $(DEMO_ARGS)

.PHONY: test
test: setup servers ## Run every test but the long ones; fails under a coverage of 90 %, of the engine 100 %
	@scripts/run-tests $(PYTEST_JOBS) -m 'not long' --cov --cov-report= $(PYTEST_ARGS)
	@$(BIN)/coverage report --skip-covered --show-missing --fail-under=90
	@$(BIN)/coverage report --skip-covered --show-missing --fail-under=100 --include='*/fuseline/engine/*'

.PHONY: test-quick
test-quick: setup ## Run the tests that need no server and little time
	$(BIN)/pytest -q -m 'not slow and not fault' tests/unit tests/tidy $(PYTEST_ARGS)

.PHONY: test-matrix
test-matrix: setup servers ## Run the RabbitMQ tests on 4.0 and 4.3 as well (root on Debian; downloads both)
	scripts/test-matrix $(MATRIX) -- $(PYTEST_ARGS)

.PHONY: fault
fault: setup servers ## Run the tests marked fault or long; with MINUTES=20 [SEED=..] [TOPOLOGY=single|cluster|both] [FUSION=8] faults at random for so long
ifdef MINUTES
	$(BIN)/python -m tests.fault --minutes $(MINUTES) --topology $(or $(TOPOLOGY),both) $(if $(SEED),--seed $(SEED)) $(if $(FUSION),--fusion-hops $(FUSION))
else
	$(BIN)/pytest -m 'fault or long' $(PYTEST_ARGS)
endif

.PHONY: soak
soak: setup servers ## Watch memory while connections flap, for MINUTES=60 [SEED=..]
	$(BIN)/python -m tests.fault.soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

.PHONY: evidence
evidence: setup ## Write docs/operations/evidence.md from the results of make fault MINUTES=.. and make soak
	@mkdir -p build
	test -s build/planted.json || $(BIN)/python -m tests.fault.planted > build/planted.json
	$(BIN)/python -m tests.fault.evidence $(RESULTS) --planted build/planted.json > build/evidence.md
	mv build/evidence.md docs/operations/evidence.md

.PHONY: bench
bench: setup servers ## Measure speed here (BENCH_ARGS="--quick"), and the query plans at a million runs
	$(BIN)/fuseline bench --page $(BENCH_PAGE) $(BENCH_ARGS)
	$(BIN)/pytest -q -s tests/bench $(PYTEST_ARGS)

.PHONY: scale
scale: setup servers ## Measure what a step costs as things grow, and a system at rest (SCALE_ARGS="--quick --page FILE")
	$(BIN)/python -m tests.bench.scale $(SCALE_ARGS)

.PHONY: check
check: setup ## Lint, check formats, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: fmt
fmt: setup ## Format the code and mend what ruff can
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: docs
docs: setup ## Build the documentation into site/
	@# The variable keeps the theme from advertising its successor on every build.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

.PHONY: coverage
coverage: setup ## Write the last test run's coverage as HTML into htmlcov/
	$(BIN)/coverage html --quiet
	@echo "open htmlcov/index.html"

.PHONY: pins
pins: ## Compile requirements/ anew from pyproject.toml (the newest versions allowed)
	scripts/compile-pins

.PHONY: clean
clean: ## Remove what builds and tests left behind (.venv stays)
	rm -rf build dist site htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
