# eventclip: `make` tells what there is. Every target makes what it needs first, beginning with .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FAST := tests/events tests/io tests/views tests/adapters tests/models tests/reports

.DEFAULT_GOAL := help
.PHONY: help install demo check test-fast test test-slow lint format type docs bench micro wheel-check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'

install: $(READY)  ## make .venv and install the package with everything the tests need

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY)  ## see the method at work, without any download: zero-shot, then 5 shots with two adapters, on CLIP as it is and aligned
	$(BIN)/eventclip train experiment=demo

check: lint type  ## style and types

test-fast: $(READY)  ## what most changes touch, in less than a minute on two cores
	$(BIN)/pytest -q -m 'not slow and not long and not shared' -n 2 --dist loadfile $(FAST)

test: check  ## what must pass before anything lands: style, types and all quick tests: a quarter of an hour on two cores
	$(BIN)/pytest -m 'not slow' -n 2 --dist loadfile

test-slow: $(READY)  ## full-size towers, several processes, long training
	$(BIN)/pytest -m slow

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY)  ## mypy, strict
	$(BIN)/mypy

docs: $(READY)  ## the documentation as a site, site/index.html; fails on a dead link
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/pytest -q tests/docs/test_pages.py
	$(BIN)/zensical build --clean --strict

bench: $(READY)  ## every speed claim as a ratio, measured here and now: within an hour on two cores
	$(BIN)/python -m benchmarks

micro: $(READY)  ## a dozen kernels in a minute, compared with the time before: make micro FAIL=20%
	$(BIN)/pytest -q benchmarks/micro --benchmark-storage=.benchmarks --benchmark-autosave --benchmark-columns=median,iqr,rounds \
	  $(if $(wildcard .benchmarks/*/*.json),--benchmark-compare $(if $(FAIL),--benchmark-compare-fail=median:$(FAIL)))

wheel-check: $(READY)  ## build the wheel, install it elsewhere, compose a configuration outside the checkout
	$(BIN)/python tools/wheel_check.py

clean:  ## remove what was built (not .venv)
	rm -rf build dist site .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis
