# Locks are requirement files with hashes and no addresses; plain pip can install them too.
UV ?= $(shell command -v uv || echo .venv/bin/uv)
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links

.PHONY: lock
lock:  ## resolve envs/*.in anew into envs/*.txt
	$(COMPILE) envs/workflow.in -o envs/workflow.txt
	$(COMPILE) envs/train.in -o envs/train.txt
	$(COMPILE) envs/lighteval.in -o envs/lighteval.txt
	$(COMPILE) envs/test.in -c envs/workflow.txt -o envs/test.txt
