# Every target sets itself up in .venv; `make` alone lists them.
#   make demo PYTHON=python3.12             another interpreter
#   make test ARGS="tests/core -k karras"   part of the suite

PYTHON ?= python3
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Wheels only and every version pinned: no build of a dependency, nothing that constraints.txt does not name.
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --only-binary :all: \
	--constraint constraints.txt
# Two makes in one checkout take turns at the set-up where flock exists; the second finds it done.
TURN := $(if $(shell command -v flock 2>/dev/null),flock constraints.txt)
SETUP = +@$(TURN) $(MAKE) --no-print-directory --silent
# Each writes a page under docs/.
DOCS_WRITERS := $(sort $(wildcard docs/generate*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench distill-table clean runtime dev

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-14s%s\n", $$1, $$2}'

demo: runtime  ## draw a grid of images with the student of the shipped text-to-image model
	$(BIN)/fewstep generate scenes-turbo "a red circle left of a blue square" "two small yellow stars on a black background" \
	  "a large green triangle above a purple circle" "three orange squares on pink" --count 8 --batch 16 --timings

test: dev  ## run the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

check: dev  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

docs: dev  ## build the pages into site/, those written by code first
	$(if $(DOCS_WRITERS),set -e; for script in $(DOCS_WRITERS); do $(BIN)/python $$script; done)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: dev  ## time the solvers, and prompts to pixels, against their peers
	$(BIN)/python benchmarks/solver_overhead.py
	$(BIN)/python benchmarks/image_time.py

distill-table: dev  ## train every method of distillation on the digits (hours; goes on where it was), table into the docs
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/distill_table.py --json benchmarks/distill_table.json \
	  --page docs/distill.md $(ARGS)

clean:  ## remove .venv, caches and built files; out/ and runs/ stay
	rm -rf $(VENV) build dist site .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

runtime:
	$(SETUP) $(VENV)/.runtime

dev:
	$(SETUP) $(VENV)/.dev

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "fewstep needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one, for example: make PYTHON=python3.12 demo" >&2; exit 1; }; \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot create a virtual environment: its venv module is not installed." >&2; \
	    echo "On Debian or Ubuntu: sudo apt install python3-venv. Then run make again." >&2; exit 1; }; \
	  echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing fewstep and what it runs on"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable '.[diffusers]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the tools of the developer"
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@$(PIP_INSTALL) --no-deps k-diffusion  # its dependencies (torchvision, wandb, ...) are never imported
	@touch $@
