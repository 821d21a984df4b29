# Two commands do everything: `make book` and `make test`. `make help` lists the rest.
# Both set up .venv first and repeat only what has changed.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: book serve test lint golden soak retrain setup browser clean distclean help

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv/bin/python

# Real photographs for the tests that need them: a copy of BCCD beside the repository, if there is one.
ifneq ($(wildcard ../shared/data/bccd/.),)
export CPM_BCCD ?= $(abspath ../shared/data/bccd)
endif

book: setup  ## make the data, train the quickstart model, execute every chapter, render to _build/html
	@$(VENV) book/build.py --profile quick

serve: setup  ## show the book in a browser (make it first with `make book`)
	@$(VENV) book/serve.py

test: browser  ## lint, types, unit and golden tests, notebooks, smoke book in a browser
	@$(VENV) tests/run_all.py

lint: setup  ## ruff and mypy only
	@$(VENV) tests/run_all.py lint

golden: setup  ## compare with the recorded numbers of the authors' code
	@$(VENV) -m tests.golden

soak: setup  ## long tests that `make test` leaves out
	@$(VENV) -m pytest tests -m soak

retrain: setup  ## make trunk, checkpoint and records again from nothing
	@$(VENV) -m cpm_lib.retrain

setup:  ## make or refresh the environment in .venv
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found: install one, or name it with 'make PYTHON=/path/to/python3'."; exit 2; }
	@$(PYTHON) book/setup_env.py

browser: setup  ## find or install a browser for the tests of the book
	@$(VENV) book/browser.py

clean:  ## remove _build and caches; .venv stays (see distclean)
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
	@echo "Removed _build and the caches. The environment .venv is kept; 'make distclean' removes it too."

distclean: clean  ## clean, and remove .venv
	@rm -rf .venv *.egg-info
	@echo "Removed .venv; the next make downloads about 3 GB again."

help:  ## this list
	@echo "cpm_lib: make TARGET"
	@awk -F ':.*##' '/^[a-z]+:.*##/ {printf "  %-10s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
