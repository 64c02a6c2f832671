# What people type. `make` alone lists it; `make test` and `make demo` set up whatever they need first.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PY     := .venv/bin/python
READY  := .venv/.ready
PYTEST  = $(PY) -m pytest
# Tests run side by side; 0 runs them in one process, where a debugger works: make test JOBS=0
JOBS   ?= 2
# More words for pytest: make unit ARGS="-k halt -x"
ARGS   ?=

export PYTHON

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: system-demo $(READY)  ## get the program ready (done by the others, too, and only once)

$(READY): requirements.lock pyproject.toml tools/setup.sh
	@tools/setup.sh python

# Quick looks, no work, when the programs are there.
system-demo:
	@tools/setup.sh system ostree

system-test:
	@tools/setup.sh system ostree postgresql gnupg curl xdelta3 rdiff zstd cpio openssl squashfs-tools \
	    swupdate mender-client mender-artifact chromium prometheus systemd zsh fish nginx-light

demo: system-demo $(READY)  ## show a rollout from beginning to end, on this machine alone
	@$(PY) -m examples.demo $(ARGS)

test: system-test $(READY)  ## style, types and every test, with branch coverage
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PYTEST) -n $(JOBS) --cov --cov-branch --cov-report=term $(ARGS)

lint: $(READY)  ## style, and whatever ruff can put right it does
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(READY)  ## mypy --strict
	$(PY) -m mypy

unit: $(READY)  ## the fast tests only
	$(PYTEST) -q -m "not slow and not e2e and not postgres" $(ARGS)

bench: system-demo $(READY)  ## measure, and compare
	$(PY) -m tests.benchmarks $(ARGS)

bench-gateway: system-demo $(READY)  ## the gateway beside goosebit (fetched by pip) and a bare callable
	$(PY) -m tests.benchmarks gateway_peers $(ARGS)

bench-console: $(READY)  ## the console on a million devices and a hundred rollouts (ARGS=--write for README)
	$(PY) -m tests.benchmarks console $(ARGS)

soak: system-demo $(READY)  ## ten minutes of a fleet of a million (ARGS="--minutes 3")
	$(PY) -m tests.load.soak $(ARGS)

kills: system-demo $(READY)  ## fifty kills with SIGKILL under load, each recounted
	$(PY) -m tests.load.kills $(ARGS)

fuzz: $(READY)  ## requests that nobody should send: a hundred thousand of devices, forty thousand of operators
	$(PY) -m tests.load.fuzz $(ARGS)
	$(PY) -m tests.load.fuzz_operators $(ARGS)

evidence: $(READY)  ## play the cases of docs/evidence.md and write its tables (a long time; ARGS="--jobs 2")
	@$(PY) -m tests.evidence --write $(ARGS)

screenshots: setup  ## every page of the console in build/console, and those that the docs show in docs/console
	$(PYTEST) -q -n $(JOBS) tests/web/e2e/test_looks.py tests/web/e2e/test_console.py $(ARGS)
	$(PY) -m tests.web.e2e.chosen

bench-browser: setup  ## what the console costs a browser: writes the table in docs/console.md
	$(PY) -m tests.web.e2e.figures --write $(ARGS)

lock: $(READY)  ## write requirements.lock anew, with today's newest versions
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile pyproject.toml --extra dev --extra traces --upgrade --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock
	$(PY) -m uv pip compile pyproject.toml --extra traces --constraint requirements.lock --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o packaging/requirements.lock

docs: $(READY)  ## build the site of README and docs in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --clean
	@echo "open build/site/index.html"

wheel: $(READY)  ## build dist/wave_orchestrator-*.whl, with everything inside
	rm -rf dist && $(PY) -m hatchling build --target wheel --directory dist

clean:  ## remove what was made here, .venv too
	rm -rf .venv .demo .setup build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks htmlcov
	rm -f .coverage .coverage.*
	find orchestrator tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup system-demo system-test demo test lint types unit bench bench-gateway bench-console bench-browser screenshots soak kills fuzz evidence lock docs wheel clean
