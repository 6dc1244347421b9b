# Everything here does its own set-up in a virtual environment, .venv, once.
# A bare machine needs make, Python 3.11 or newer and the network.

.DEFAULT_GOAL := help
.PHONY: help demo test check fuzz bench peers llama clean

VENV := .venv
PEERS := .venv-peers
LLAMA := .venv-llama
RUN := $(VENV)/bin/python

# The newest Python that starts and is new enough; PYTHON=... on the command line wins.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)

define CREATE
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "agentflow needs Python 3.11 or newer, and '$(or $(PYTHON),python3)' is not one." >&2; \
	  echo "Install it, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; }
	@"$(PYTHON)" -m venv "$(1)" || { \
	  echo "'$(PYTHON)' cannot create a virtual environment." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv" >&2; \
	  rm -rf "$(1)"; exit 1; }
endef
INSTALL = -m pip install --quiet --disable-pip-version-check

help: ## say what can be made (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.core ## answer a question about the files here: plan, live progress, answer
	@$(RUN) examples/demo.py $(ARGS)

test: $(VENV)/.dev ## run the tests (ARGS="-k name" passes arguments to pytest)
	@$(RUN) -m pytest $(ARGS)

check: $(VENV)/.dev ## lint, format, types, and the guards in tests/packaging
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(RUN) -m pytest --quiet tests/packaging

fuzz: $(VENV)/.dev ## read what nobody should write, a minute for each reader (ARGS="--seconds 5")
	@$(RUN) -m tests.fuzz $(ARGS)

bench: $(VENV)/.core ## measure overhead and planning latency, the short way
	@$(RUN) benchmarks/overhead.py --quick
	@$(RUN) benchmarks/planning.py --quick

peers: $(PEERS)/.ready ## install the engines that benchmarks compare with
	@echo "benchmarks/overhead.py and agent.py now measure the engines in $(PEERS) too"

llama: $(LLAMA)/.ready ## build llama.cpp's server and a tiny model for benchmarks/affinity_llama.py
	@echo "benchmarks/affinity_llama.py now runs with the server in $(LLAMA)"

clean: ## remove builds and caches (the virtual environments stay)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@echo "creating $(VENV) with $(PYTHON)"
	$(call CREATE,$(VENV))

$(VENV)/.core: pyproject.toml | $(VENV)/bin/python
	@echo "installing agentflow in $(VENV)"
	@$(RUN) $(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing the tools for tests and checks"
	@$(RUN) $(INSTALL) "pip>=25.1"
	@$(RUN) $(INSTALL) --group test --group lint
	@touch $@

$(PEERS)/bin/python:
	@echo "creating $(PEERS) with $(PYTHON)"
	$(call CREATE,$(PEERS))

$(PEERS)/.ready: pyproject.toml | $(PEERS)/bin/python
	@echo "installing the peers in $(PEERS) (about 300 MB)"
	@$(PEERS)/bin/python $(INSTALL) "pip>=25.1"
	@$(PEERS)/bin/python $(INSTALL) --group peers --editable .
	@touch $@

$(LLAMA)/bin/python:
	$(call CREATE,$(LLAMA))

$(LLAMA)/.ready: benchmarks/llama/build.sh benchmarks/llama/make_model.py | $(LLAMA)/bin/python
	@echo "building llama.cpp's server in $(LLAMA) (a download of 77 MB, 5 minutes or more)"
	@$(LLAMA)/bin/python $(INSTALL) "pip>=25.1" gguf numpy
	@benchmarks/llama/build.sh $(LLAMA)
	@touch $@
