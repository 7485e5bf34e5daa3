# Two commands matter: `make reproduce` and `make test`. Everything else is theirs, or upkeep.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# stages and Snakemake itself are found here, as after `source .venv/bin/activate`
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := $(CURDIR)/workflow
ENVS := uv workflow train-gpu train lighteval packages test lint deepspeed

.DEFAULT_GOAL := help
.PHONY: help reproduce test test-all test-gpu bench lint lock lock-assets clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: envs/workflow.txt envs/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $<
	@touch $@

reproduce: $(VENV)/.ready  ## the whole experiment of config/config.yaml; run again to continue or to change something
	@snakemake --cores all
	@python -m openr1_repro.report --show results/report

# Test tools lie beside each environment, not in it: what is tested is the lock.
.envs/test/.ready: envs/test.txt $(VENV)/.ready
	uv pip install --quiet --python $(BIN)/python --target .envs/test --require-hashes -r $<
	@touch $@

.envs/deepspeed/.ready: envs/deepspeed.txt $(VENV)/.ready
	uv pip install --quiet --no-deps --python $(BIN)/python --target .envs/deepspeed --require-hashes -r $<
	@touch $@

.envs/lint/.ready: envs/lint.txt $(VENV)/.ready
	uv venv --quiet --clear --python $(BIN)/python .envs/lint
	uv pip install --quiet --python .envs/lint/bin/python --require-hashes -r $<
	@touch $@

PYTEST = python -m openr1_repro.job --log logs/test-$(1).log --env $(1) -- tests
FILES = $$(grep -rl --include='test_*.py' $(1) tests)

test: $(VENV)/.ready .envs/test/.ready .envs/deepspeed/.ready  ## the suite, in minutes, without a GPU and without a hub
	$(call PYTEST,workflow) -m 'not slow and not train_env and not lighteval_env' $(ARGS)
	$(call PYTEST,train) -m 'not slow and not gpu and train_env' $(call FILES,train_env) $(ARGS)
	$(call PYTEST,lighteval) -m 'not slow and lighteval_env' $(call FILES,lighteval_env) $(ARGS)

test-all: $(VENV)/.ready .envs/test/.ready .envs/deepspeed/.ready  ## the suite with its slow parts
	$(call PYTEST,workflow) -m 'not train_env and not lighteval_env' $(ARGS)
	$(call PYTEST,train) -m 'train_env and not gpu' $(call FILES,train_env) $(ARGS)
	$(call PYTEST,lighteval) -m lighteval_env $(call FILES,lighteval_env) $(ARGS)

test-gpu: $(VENV)/.ready .envs/test/.ready  ## what only a machine with GPUs can show
	$(call PYTEST,train-gpu) -m gpu $(call FILES,mark.gpu) $(ARGS)

lint: $(VENV)/.ready .envs/lint/.ready  ## ruff, snakefmt, mypy, snakemake --lint
	.envs/lint/bin/ruff check .
	.envs/lint/bin/ruff format --check .
	.envs/lint/bin/snakefmt --check Snakefile workflow/rules
	.envs/lint/bin/mypy --python-executable $(BIN)/python
	python workflow/scripts/lint_workflow.py

bench: $(VENV)/.ready  ## benchmarks against peers; rows go to benchmarks/results (see the head of each file for what it needs)
	cd benchmarks && for file in download prepare rewards; do python $$file.py || exit 1; done

lock:  ## resolve envs/*.in anew into envs/*.txt: hashes, no addresses
	for name in $(ENVS); do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links $$([ $$name = deepspeed ] && echo --no-deps) envs/$$name.in -o envs/$$name.txt || exit 1; done

lock-assets: $(VENV)/.ready  ## pin every file of the chosen variants' models and data sets in config/assets.lock.json
	@snakemake --cores all lock

clean:  ## remove what runs wrote, keep downloads and environments
	rm -rf results/runs results/base results/prompts results/pass-rates results/warm-starts results/report results/.cache logs
