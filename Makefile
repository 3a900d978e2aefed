# Every target does its own set-up: Python 3.11-3.13, make and git are all that is needed.
# Nothing is installed outside this folder. `make PYTHON=/path/to/python ...` chooses the Python.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# An index with CPU builds of PyTorch saves 2 GB on Linux: https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# More arguments for pytest: make test ARGS="-k audio -x"
ARGS   ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ Use

.PHONY: help
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.speech ## talk to the demo avatar in a browser; Ctrl-C ends it
	@mkdir -p out
	@$(BIN)/lipwire avatar compile demo --for serve --for render
	@echo "When it is ready, open the page that it names, and type a sentence. Ctrl-C ends it."
	@echo "A video instead: make demo-video, or $(BIN)/lipwire render demo my.wav -o my.mp4"
	@echo $$$$ > out/demo.pid; exec $(BIN)/lipwire serve

.PHONY: demo-check
demo-check: $(VENV)/.speech ## see the page that make demo serves as a browser would, and end it
	@$(BIN)/python .ci/demo_check.py out/demo.pid

.PHONY: demo-video
demo-video: $(VENV)/.speech ## the demo avatar says the bundled sentence: out/demo.mp4
	@mkdir -p out
	@$(BIN)/lipwire render demo src/lipwire/assets/speech/sample.flac -o out/demo.mp4 --force --profile

.PHONY: install
install: $(VENV)/.run ## only install: .venv/bin/lipwire

##@ Work on it

# A file's tests share what they have made, so that one process has them all; files in the order of
# their names, which ends with quick ones.
# Where one dies the run ends there, and says in which test: it would wait for it without end.
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0

# Python keeps what it has compiled, also where the environment says otherwise: each process of a run
# would compile the tests again, and each command that a test starts all of Lipwire.
test test-fast coverage: export PYTHONDONTWRITEBYTECODE :=

.PHONY: test
test: $(VENV)/.dev ## the whole test suite; what fails beside others is tried once more, alone
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -p tests.support.secondtry $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.dev ## without the tests marked slow
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -p tests.support.owncore -m "not slow" --hypothesis-profile=fast --durations=5 --durations-min=0.5 $(ARGS)

# The tests of the packages that [tool.coverage.run] in pyproject.toml names.
CORE_TESTS := tests/compose tests/registry tests/scheduling tests/serving tests/session $(wildcard tests/rpc/test_backends_*.py)

.PHONY: coverage
coverage: $(VENV)/.dev ## lines and branches that the core's tests reach; fails where they are fewer
	@mkdir -p out
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -p tests.support.secondtry $(CORE_TESTS) --cov --cov-report=json:out/coverage.json --cov-report= $(ARGS)
	@$(BIN)/python .ci/coverage_gates.py out/coverage.json

.PHONY: check
check: $(VENV)/.dev ## format, lint, types, layers, pinned versions, documentation: what CI checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/test_project.py
	@$(MAKE) --no-print-directory docs

.PHONY: docs
docs: $(VENV)/.dev ## the documentation as a site: out/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python .ci/site_is_alone.py out/site

.PHONY: package
package: $(VENV)/.dev ## wheel and sdist in dist/; the wheel renders in an empty environment
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python .ci/wheel_renders.py dist/*.whl

.PHONY: audit
audit: .venv-audit/.ready ## known faults of what is needed to run; asks PyPI
	.venv-audit/bin/pip-audit --disable-pip --no-deps -r requirements/run.txt

.PHONY: sbom
sbom: .venv-audit/.ready ## what is needed to run, as CycloneDX: dist/lipwire.cdx.json
	@mkdir -p dist
	.venv-audit/bin/cyclonedx-py requirements requirements/run.txt --pyproject pyproject.toml --mc-type application --output-reproducible --of JSON -o dist/lipwire.cdx.json

.PHONY: format
format: $(VENV)/.dev ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: proto
proto: $(VENV)/.dev ## generate src/lipwire/rpc/generated from proto/*.proto
	rm -rf src/lipwire/rpc/generated
	$(BIN)/python proto/generate.py src

.PHONY: bench
bench: $(VENV)/.run ## every benchmark: Lipwire's way against the plain way
	$(BIN)/lipwire bench all

##@ Make the demo avatar again

# Every stage keeps what it has made and goes on where it stopped. Renders and the speech model do not
# wait for each other: `make -j2 demo-avatar STUDIO=/big/disk`.
STUDIO ?= out/studio
TRAIN  := OMP_NUM_THREADS=1 $(BIN)/python -m lipwire.training
MAKE_DEMO := OMP_NUM_THREADS=1 $(BIN)/python -m studio
# Debian's packages of the synthesisers and the voices that speak the corpus.
SPEAKERS := flite espeak-ng festival festvox-kdlpc16k festvox-us-slt-hts festvox-italp16k festvox-itapc16k \
	festvox-suopuhe-lj festvox-suopuhe-mv festvox-czech-dita festvox-czech-krb festvox-czech-machac \
	festvox-czech-ph festvox-ca-ona-hts
RENDER := PYTHONPATH=src .venv-studio/bin/python -m studio.render

.PHONY: studio-speech studio-held-out studio-mouths studio-room studio-loop studio-eval studio-audio studio-mouth

.PHONY: demo-avatar
demo-avatar: studio-eval studio-audio studio-mouth ## from nothing, in hours: speech, renders, training, package
	$(TRAIN).export $(STUDIO)/render $(STUDIO)/mouth/last.pt $(STUDIO)/audio $(STUDIO)/demo
	@echo "made $(STUDIO)/demo; look at it: $(BIN)/lipwire avatar evaluate $(STUDIO)/demo"

studio-speech: $(VENV)/.train
	@command -v flite >/dev/null && command -v espeak-ng >/dev/null && command -v festival >/dev/null || { echo "demo-avatar needs flite, espeak-ng, and festival with its voices (Debian: apt-get install $(SPEAKERS))"; exit 1; }
	$(MAKE_DEMO).speech $(STUDIO)/corpus

studio-held-out: studio-speech
	$(MAKE_DEMO).heldout --out $(STUDIO)/render/eval --sample $(STUDIO)/sample.flac

studio-mouths: studio-speech
	$(MAKE_DEMO).choose --corpus $(STUDIO)/corpus --count 700 --out $(STUDIO)/mouths.npy

studio-room: .venv-studio/.ready
	$(RENDER) room --out $(STUDIO)/render

studio-loop: studio-room studio-mouths
	$(RENDER) loop --out $(STUDIO)/render --controls $(STUDIO)/mouths.npy --per-frame 2

studio-eval: studio-loop studio-held-out
	for name in rms f4; do $(RENDER) eval --out $(STUDIO)/render --name $$name --controls $(STUDIO)/render/eval/$$name/controls.npy || exit 1; done

studio-audio: studio-speech
	$(MAKE_DEMO).train_audio $(STUDIO)/corpus $(STUDIO)/audio

studio-mouth: studio-loop
	$(TRAIN).train_unet $(STUDIO)/render $(STUDIO)/mouth

.PHONY: train-deps
train-deps: $(VENV)/.train ## PyTorch, into the same environment

##@ Housekeeping

.PHONY: lock
lock: $(VENV)/.run ## resolve the pinned versions again
	$(PIP) uv
	$(BIN)/uv pip compile --universal --python-version 3.11 pyproject.toml --group dev --no-annotate --no-emit-index-url --upgrade --custom-compile-command "make lock" -o requirements/dev.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 pyproject.toml --group build --no-annotate --no-emit-index-url -c requirements/dev.txt --custom-compile-command "make lock" -o requirements/run.txt

.PHONY: clean
clean: ## remove environments, caches and what was rendered
	rm -rf .venv .venv-audit .venv-studio out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src studio tests -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name .lipwire -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------- environments

$(VENV)/.run: requirements/run.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Lipwire needs Python 3.11, 3.12 or 3.13, and none was found. Name one: make PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/run.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# The voice: with its hash, as what it is made of cannot be looked through.
$(VENV)/.speech: requirements/speech.txt $(VENV)/.run
	$(PIP) --no-deps --require-hashes -r requirements/speech.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.speech
	$(PIP) -r requirements/dev.txt
	@touch $@

$(VENV)/.train: requirements/train.txt $(VENV)/.run
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements/train.txt
	@touch $@

# What looks at the dependencies is none itself.
.venv-audit/.ready: requirements/audit.txt
	@test -n "$(PYTHON)" || { echo "make PYTHON=/path/to/python audit"; exit 1; }
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/audit.txt
	@touch $@

# Blender as a module pins Python 3.11 and numpy 1.26, so it lives in an environment of its own.
.venv-studio/.ready: requirements/studio.txt
	python3.11 -m venv .venv-studio
	.venv-studio/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/studio.txt
	@touch $@
