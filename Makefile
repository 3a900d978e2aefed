# Every target does its own set-up: Python 3.11-3.13, make and git are all that is needed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.run: requirements/run.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Lipwire needs Python 3.11, 3.12 or 3.13, and none was found. Name one: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/run.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(PIP) -r requirements/dev.txt
	@touch $@

$(VENV)/.train: requirements/train.txt $(VENV)/.run
	$(PIP) -r requirements/train.txt
	@touch $@

# Blender as a module pins Python 3.11 and numpy 1.26, so it lives in an environment of its own.
.venv-studio/.ready: requirements/studio.txt
	python3.11 -m venv .venv-studio
	.venv-studio/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/studio.txt
	@touch $@

.PHONY: lock
lock: $(VENV)/.run ## resolve the pinned versions again
	$(PIP) uv
	$(BIN)/uv pip compile --universal --python-version 3.11 pyproject.toml --group dev --no-annotate --no-emit-index-url --upgrade --custom-compile-command "make lock" -o requirements/dev.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 pyproject.toml --group build --no-annotate --no-emit-index-url -c requirements/dev.txt --custom-compile-command "make lock" -o requirements/run.txt
