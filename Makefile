# Every target does its own set-up; what is there already costs nothing. The work is done by the scripts in tools/.
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check simulate bench engine image setup clean

PYTHON_BIN := .venv/bin/python

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: setup ## workers elect a leader and take turns under a lock, while we kill and cut them off (60 s)
	@tools/install-zookeeper
	@$(PYTHON_BIN) -m examples.demo

test: setup ## the whole test suite; the last line says what did not run, and why (ARGS=... go to pytest)
	@tools/install-zookeeper --tests
	@$(PYTHON_BIN) tools/test.py $(ARGS)

test-fast: setup ## the tests that need no server (under 60 s)
	@$(PYTHON_BIN) tools/test.py --fast $(ARGS)

check: setup ## ruff, mypy and the layers
	@tools/check

simulate: setup ## 200,000 simulated schedules of each recipe on all cores; resumable (ARGS=... go to the runner)
	@$(PYTHON_BIN) -m zkrecipes.testing.simulation $(ARGS)

bench: setup ## ours, kazoo's and Curator's recipes side by side (ARGS=... go to the runner)
	@tools/install-zookeeper --tests
	@$(PYTHON_BIN) -m benchmarks $(ARGS)

engine: ## a Docker engine, for the container tests; started in the background if none answers
	@tools/engine start

image: ## the ZooKeeper image of the container tests, from Debian packages
	@tools/make-image

setup: ## the virtual environment .venv
	@tools/setup

clean: ## removes what the other targets made here
	@tools/engine stop
	rm -rf .venv .work .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
