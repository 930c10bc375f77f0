# Everything starts here: `make run` and `make test` need python3, make and a network.

SHELL := /bin/sh
BIN := .venv/bin
READY := .venv/.ready
TYPED := runner plugins tests tools docs examples/plugin $(patsubst %/,%,$(dir $(firstword $(wildcard benchmarks/*.py))))

# The first Python from 3.8 on that really runs: a pyenv shim may be on PATH and fail.
FIND_PYTHON := for python in $(PYTHON) python3 /usr/bin/python3 /usr/local/bin/python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && break; python=; done; \
	[ -n "$$python" ] || { echo "make: no Python 3.8 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 3; }

.DEFAULT_GOAL := help
.PHONY: help run test check format constraints bench clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 22

$(READY): pyproject.toml constraints.txt tools/bootstrap.py
	@$(FIND_PYTHON); exec "$$python" tools/bootstrap.py

run: $(READY) ## Run the jobs of jobs.yaml (ARGS="--help" for more)
	@$(BIN)/runner run $(ARGS)

test: $(READY) ## Run the tests (ARGS="-k name" for some)
	ZIG_GLOBAL_CACHE_DIR=$(CURDIR)/.tools/zig $(BIN)/pytest --numprocesses 2 --dist worksteal $(ARGS)

check: $(READY) ## Check format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

format: $(READY) ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(READY) ## Pin the newest versions anew, for every Python from 3.10
	$$($(BIN)/python tools/bootstrap.py --uv) pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.10 \
		--all-extras --group dev --no-header --no-annotate --no-emit-index-url --output-file constraints.txt

bench: $(READY) ## Run the benchmarks
	for each in invocations startup run_store durable schedules batch pipelines takeover; do \
		$(BIN)/python benchmarks/$$each.py || exit; done
	$(BIN)/python benchmarks/chaos.py --rounds 16 --jobs 1000

clean: ## Remove what make made (not .runner/, where jobs keep their state)
	rm -rf .venv .tools build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
