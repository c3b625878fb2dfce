# make reproduce | make test | make env     (see README.md)
PYTHON ?= python3
PROFILE ?= mini
SEEDS ?= 2
VENV := .venv
PYTEST_ARGS ?=
LAB_ARGS ?=

.PHONY: reproduce test lab docs env lint lock clean help verify-published
.DEFAULT_GOAL := help

help:
	@echo "make reproduce   the environment, then Tables 1-8 at PROFILE=$(PROFILE), SEEDS=$(SEEDS) trainings a row, then the tables"
	@echo "make test        the environment, then the tests (PYTEST_ARGS='-k name' for some of them)"
	@echo "make lab         the environment, then JupyterLab with the notebooks (LAB_ARGS=--no-browser on a server)"
	@echo "make verify-published   the numbers of results/published/ made again from the runs in it, and compared"
	@echo "make docs        the environment, then these pages as a site in build/site/"
	@echo "make env         the environment alone, in $(VENV)/ (PYTHON=$(PYTHON), 3.11 or newer)"
	@echo "make lint        ruff and mypy"
	@echo "make lock        write requirements.lock anew from pyproject.toml"
	@echo "make clean       remove caches; the environment and the results stay"

# Recipes are single plain commands: make runs those without a shell between, so Ctrl-C reaches them well.
reproduce: env
	@$(VENV)/bin/ablate launch --all --seeds $(SEEDS) --profile $(PROFILE)
	@$(VENV)/bin/ablate tables --profile $(PROFILE)

test: env
	@$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --no-loadscope-reorder $(PYTEST_ARGS)

verify-published: env
	@$(VENV)/bin/ablate verify results/published/$(PROFILE)

lab: env
	@$(VENV)/bin/jupyter lab $(LAB_ARGS) notebooks

# Not with --quiet, which hides warnings from --strict, too.
docs: env
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

env:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no '$(PYTHON)' found. Python 3.11 or newer is needed: make env PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 6))' || { \
	  echo "error: '$(PYTHON)' is too old or does not run. Python 3.11 or newer is needed: make env PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) tools/environment.py --venv $(VENV)

lint: env
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

# One file for Linux and macOS, Python 3.11 and newer; exact versions and hashes, no host.
lock: env
	@$(VENV)/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet --upgrade -o requirements.lock

clean:
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
