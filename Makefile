# `make help` lists what there is. PYTHON names the interpreter that the environment is made from.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check format lint schemas bench fuzz soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "splitc needs Python 3.11 to 3.14: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## build the sample model, compile it for a phone, verify the bundle
	$(BIN)/splitc sample regnet_y_400mf -o artifacts/regnet.onnx
	$(BIN)/splitc compile artifacts/regnet.onnx --device pixel7 -o artifacts/regnet-pixel7
	$(BIN)/splitc verify artifacts/regnet-pixel7 --model artifacts/regnet.onnx

test: $(READY) ## run the tests; with FAST=1, skip those marked slow
	$(BIN)/python -m pytest $(if $(filter 1,$(FAST)),-m "not slow")

check: $(READY) lint test ## everything a commit must pass

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code and mend what the linter can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

schemas: $(READY) ## write the JSON Schemas anew, after a record has changed
	$(BIN)/python -m splitc.cli.schemas

bench: $(READY) ## measure profiles, stage times, memory with a large model, run time over emulated links, a fleet against its simulation
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/runtime.py
	$(BIN)/python benchmarks/fleet.py

fuzz: $(READY) ## throw thousands of damaged messages, files and options at what reads them
	SPLITC_FUZZ=1 $(BIN)/python -m pytest tests/protocol/test_messages_fuzz.py tests/runtime/http/test_reply_fuzz.py tests/cli/test_files_fuzz.py

soak: $(READY) ## lose nothing over tens of thousands of requests, with servers killed and links cut
	SPLITC_SOAK=1 $(BIN)/python -m pytest -n 0 tests/system

clean: ## remove the environment and what was built
	rm -rf .venv dist artifacts/*.onnx artifacts/*/
