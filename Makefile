# Everything runs in a virtual environment of its own, one per Python version
# (.venv/py311, ...), so that no other one needs to be active, and none that
# is active matters.

PYTHON ?= python3
# Arguments for pytest, the demo and the benchmark.
ARGS ?=
# The functional tests wait about as much as they compute.
CORES := $(shell nproc)
WORKERS := $(shell echo $$((2 * $(CORES))))
# A work tree of Lago's git repository.
LAGO_GIT ?=

# "py311 /path": the interpreter itself, not an active virtual environment's.
# A pyenv shim refuses to run a version that is installed but not selected;
# then pyenv is asked for the version that has this command.
ASK := import sys; print("py%d%d %s" % (sys.version_info[:2] + \
	(getattr(sys, "_base_executable", sys.executable),)))
FOUND := $(shell $(PYTHON) -c '$(ASK)' 2>/dev/null || \
	PYENV_VERSION="$$(pyenv whence $(PYTHON) 2>/dev/null | tail -n 1)" \
	$(PYTHON) -c '$(ASK)' 2>/dev/null)
INTERPRETER := $(wordlist 2,99,$(FOUND))
VENV := .venv/$(firstword $(FOUND))
BIN := $(VENV)/bin
RUN := $(BIN)/python

# The tests' tools: lago of the virtual environment; nginx and mkfs.fat are
# not in the path of every user.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin
unexport PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# One target after the other, whatever -j says; the tests are parallel.
.NOTPARALLEL:
.PHONY: help setup lago demo check check-quick lint unit functional upstream \
	bench man dist clean FORCE

help: ## Print this help
	@echo 'Layered templates for Lago. Targets:'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s%s\n", $$1, $$2}' \
		$(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'Variables:'
	@echo
	@echo '  PYTHON      interpreter, 3.9 or newer: make check PYTHON=python3.13'
	@echo '  ARGS        more arguments: make unit ARGS="-k index --cov"'
	@echo '  LAGO_GIT    a copy of Lago: make upstream LAGO_GIT=../lago'

setup: $(VENV)/setup.stamp ## Install all that is needed, into .venv

lago: $(VENV)/lago.stamp ## Get a Lago that runs on Python 3, say where it is
	@cat $<

demo: setup ## See it work: layered templates, served, used by lago init
	@$(RUN) -m docs.demo $(ARGS)

check: lint unit functional ## Run all tests

check-quick: lint unit ## Run those, and a functional test of each kind
	$(RUN) -m pytest tests/functional -n $(WORKERS) -m quick

lint: setup ## Check style and types
	$(RUN) -m flake8 .ci benchmarks docs lago_layered_provider tests setup.py
	$(RUN) -m mypy
	$(RUN) -m mypy .ci/lago_for_python3.py

unit: setup ## Run the unit tests: seconds, no network, no lago command
	$(RUN) -m pytest tests/unit -n $(CORES) --dist worksteal --timeout 60 \
		$(ARGS)

# Neighbours share what is built for them.
functional: setup ## Run the functional tests: real lago, qemu-img, servers
	@$(RUN) -m compileall -q lago_layered_provider
	$(RUN) -m pytest tests/functional -n $(WORKERS) --dist worksteal $(ARGS)

upstream: $(VENV)/upstream.stamp ## Run Lago's own tests with the plugin
	@$(RUN) -m tests.upstream $(LAGO_GIT)

bench: $(VENV)/bench.stamp ## Measure against Lago's own, curl, aria2; an hour
	$(RUN) benchmarks/run.py $(ARGS)

man: setup ## Build the man page, build/man/lago-template-repo.1
	@$(RUN) -m docs.man_page build/man/lago-template-repo.1

dist: setup ## Build the source distribution and the wheel into dist/
	$(RUN) -m build --outdir dist .

clean: ## Remove all that was made here, virtual environments too
	rm -rf .venv .cache build dist htmlcov *.egg-info
	rm -rf .coverage* .hypothesis .mypy_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The ways to a stamp. Each is quick when nothing has changed.

.venv/packages.stamp: .ci/install_packages
	@mkdir -p $(@D)
	@.ci/install_packages
	@touch $@

# Made anew also when it cannot run: its interpreter may have been removed.
$(VENV)/pyvenv.cfg: .venv/packages.stamp \
		$(if $(shell $(RUN) -c 'print(1)' 2>/dev/null),,FORCE)
	@test -n '$(INTERPRETER)' || \
		{ echo 'No such interpreter: $(PYTHON)' >&2; exit 1; }
	@'$(INTERPRETER)' -c 'import sys; sys.exit(sys.version_info < (3, 9))' || \
		{ echo '$(PYTHON) is older than Python 3.9' >&2; exit 1; }
	@echo 'Creating $(VENV) for $(INTERPRETER)'
	@rm -rf $(VENV)
	@'$(INTERPRETER)' -m venv $(VENV)

$(VENV)/lago.stamp: .ci/lago_for_python3.py $(VENV)/pyvenv.cfg
	@echo 'Getting Lago for Python 3, which takes about half a minute'
	@$(RUN) $< > $@.new
	@mv $@.new $@

$(VENV)/bench.stamp: $(VENV)/setup.stamp
	@echo 'Installing what draws the plot'
	@$(RUN) -m pip install --quiet --disable-pip-version-check \
		--use-pep517 --editable '.[bench]'
	@touch $@

$(VENV)/upstream.stamp: $(VENV)/setup.stamp
	@echo "Installing what Lago's own tests need"
	@$(RUN) -m pip install --quiet --disable-pip-version-check \
		--use-pep517 --editable '.[upstream]'
	@touch $@

$(VENV)/setup.stamp: setup.cfg setup.py $(VENV)/lago.stamp
	@echo 'Installing lago-layered-provider and its test tools'
	@$(RUN) -m pip install --quiet --disable-pip-version-check \
		--use-pep517 --editable '.[test]'
	@touch $@
