# `make demo` and `make test` do all the set-up themselves.

VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
CONFIG ?= configs/demo.yaml
DATA   ?=
SET    ?=
PANEL  ?= relabel.png
# the configuration if somebody gave one: a dataset need not be the demo's
GIVEN_CONFIG := $(filter command environment,$(firstword $(origin CONFIG)))
READY  := $(VENV)/.ready

.PHONY: help setup demo pipeline train relabel test lint bench clean

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## environment, photographs and weights; after it no network is needed

$(READY): pyproject.toml constraints.txt
	@mkdir -p $(VENV) && date +%s > $(VENV)/setup-started
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	# compiled once, here: hundreds of worker processes may not be allowed to, and each would again
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	$(BIN)/fourmill prefetch configs/demo.yaml --everything
	@echo $$(( $$(date +%s) - $$(cat $(VENV)/setup-started) )) > $(VENV)/setup-seconds
	@echo "set up in $$(cat $(VENV)/setup-seconds) s"
	@touch $(READY)

demo: setup ## the whole way on built-in photographs, or DATA=~/Pictures; SET='train.steps=200': less
	$(BIN)/fourmill demo $(if $(DATA),--data "$(DATA)") $(if $(SET),--set $(foreach each,$(SET),'$(each)'))

pipeline: setup ## corpus → labels → tokens, of CONFIG=
	$(BIN)/fourmill run $(CONFIG)

train: setup ## tokens → 4M, of CONFIG=
	$(BIN)/fourmill train $(CONFIG)

relabel: setup ## another expert for a modality, compared, its tokens again: ROOT= LABELER= [CONFIG=]
	$(BIN)/fourmill relabel $(ROOT) $(LABELER) --png $(PANEL) $(if $(GIVEN_CONFIG),--config $(CONFIG))

test: setup ## what a user relies on
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## the claims, measured side by side
	$(BIN)/fourmill bench

clean: ## remove what the demo made
	rm -rf demo
