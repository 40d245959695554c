# The everyday commands. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check format constraints clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(VENV)/.serving  ## Install the node into .venv (no torch)

setup-dev: $(VENV)/.dev  ## Install the node with training and test tools into .venv (with torch)

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serving: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "Installing the node into $(VENV) …"
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "Installing the node, torch and the test tools into $(VENV) …"
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.serving

demo: $(VENV)/.serving  ## Run the whole path once, on a CT series of its own making
	$(BIN)/tfkt-node demo

test: $(VENV)/.dev  ## Run the tests (those that need a GPU, training, hours or a viewer are left out)
	$(BIN)/python -m pytest -m "not gpu and not train and not soak and not viewer" $(PYTEST_ARGS)

check: $(VENV)/.dev  ## Format, lint, types, import contracts, spelling, doctests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell tfkt_node tests config deploy models docs README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/python -m pytest --quiet --doctest-modules tfkt_node --ignore=tfkt_node/audit/migrations

format: $(VENV)/.dev  ## Rewrite the files in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: $(VENV)/.venv  ## Choose exact versions anew and write constraints.txt
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-annotate --no-header \
		--upgrade --constraint constraints-held.txt --output-file constraints.txt

clean:  ## Remove the environment and what the tools left
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
