# CONTRIBUTING.md explains the targets. Each one first sets up what it needs, once.
PYTHON ?= python3
SEEDS ?= 10
MUTATIONS ?= 500
SECONDS ?= 1800
KILLS ?= 200
BABEL := .venv/bin/python -m babel.messages.frontend -q
PACKAGES := cli cluster export kit runtime benchmarks training server web
# Tests start many processes, which would all compile the modules that they import.
unexport PYTHONDONTWRITEBYTECODE
# The package under its own name, for tools that read its source. A link to the checkout itself
# would lead back into it, and into every environment below.
LINK_PACKAGE = mkdir -p build/package/issun && \
  ln -sf $(abspath $(PACKAGES) __init__.py __main__.py) build/package/issun/
# Byte code is written when a module is first imported, which few of those installed ever are.
PIP_INSTALL := pip install --disable-pip-version-check --no-input --no-compile

# Of tests/clients, those that CI runs; all of them: make clients CLIENTS=
CLIENTS ?= openai langchain instructor pydantic-ai litellm llm openai-node

# Options of pytest: ARM='-m "not slow"' leaves out what takes long.
ARM ?=

.PHONY: help demo test commands slow parity arm clients cluster fuzz soak embedded figures check translations
.PHONY: format docs package clean

help:                             ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

demo: .venv/ready-demo            ## ask the demonstration model six questions
	.venv/bin/python -m issun.benchmarks.demo

test: .venv/ready-test            ## run the tests that need no torch
	.venv/bin/python -m pytest -n 2 --dist worksteal --ignore tests/fuzz \
		-m "not parity and not alone and not slow and not arm"
	.venv/bin/python -m pytest -m alone tests/cli

commands: .venv/ready-test        ## run every command of README and docs in fresh environments
	.venv/bin/python -m tests.documentation --fresh

slow: .venv/ready-test            ## run the slow tests; ISSUN_TEST_SLOW=4 runs one in four
	.venv/bin/python -m pytest -n 2 -m "slow and not parity and not arm"

parity: .venv-parity/ready        ## compare with torch and transformers, which this installs
	.venv-parity/bin/python -m pytest -n 2 --dist worksteal -m parity tests/parity

arm: .venv/ready-test             ## compare with emulated 64-bit ARM CPUs (Debian's packages and qemu-user)
	$(LINK_PACKAGE)
	.venv/bin/python -m tests.arm
	.venv/bin/python -m pytest -n 2 --dist worksteal $(ARM) tests/arm

clients: .venv/ready-test         ## try other projects' clients of the OpenAI API on the server
	.venv/bin/python -m tests.clients.run $(CLIENTS)

cluster: KILLS = 20
cluster: .venv-cluster/ready      ## try `issun batch` and the recipes for serving on a Ray cluster here
	.venv-cluster/bin/python -m pytest tests/cluster/test_ray.py tests/cluster/test_recipes.py \
		tests/cluster/test_network.py
	.venv-cluster/bin/python -m tests.cluster.kills --kills $(KILLS)

fuzz: .venv/ready-test            ## read damaged and hostile files; SEEDS=10 takes about half an hour
	ISSUN_TEST_MUTATIONS=$(MUTATIONS) ISSUN_TEST_SEEDS=$(SEEDS) .venv/bin/python -m pytest -n 2 tests/fuzz

soak: .venv-parity/ready          ## load a server for half an hour, and kill processes 200 times
	.venv-parity/bin/python -m tests.soak --seconds $(SECONDS) --kills $(KILLS)

embedded: .venv-parity/ready      ## train the demonstration model, or resume: 1.5 hours on 2 cores
	.venv-parity/bin/python -m issun.training.embedded.build build/embedded --install

figures: .venv/ready-test         ## write the plots and tables of README and docs from benchmarks/results
	.venv/bin/python -m issun.benchmarks.publish
	.venv/bin/issun bench report benchmarks/results/1b.json.gz -o build/report \
		--fidelity benchmarks/results/fidelity.json
	cp build/report/report.html benchmarks/results/

check: .venv/ready-test           ## check format, lint and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	$(LINK_PACKAGE)
	.venv/bin/mypy -m issun -m issun.__main__ $(PACKAGES:%=-p issun.%)

translations: .venv/ready-test    ## bring the catalogues in cli/locale up to date, and compile them
	mkdir -p build
	$(BABEL) extract -F pyproject.toml --add-location=file --sort-by-file --width=100 \
		--msgid-bugs-address='the issue tracker' -o build/issun.pot . 2>build/translations.log || (cat build/translations.log; exit 1)
	$(BABEL) update -D issun -i build/issun.pot -d cli/locale --width=100 \
		--ignore-obsolete --ignore-pot-creation-date
	$(BABEL) compile -D issun -d cli/locale --statistics

format: .venv/ready-test          ## fix format and imports
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

docs: .venv-docs/ready            ## build the documentation in build/site; a broken link is an error
	$(LINK_PACKAGE)
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	.venv-docs/bin/python -m tests.documentation.outside build/site

package: .venv/ready-package      ## build wheel and sdist in dist/, check them, try the wheel
	rm -rf dist
	.venv/bin/python -m build
	.venv/bin/twine check --strict dist/*
	.venv/bin/check-wheel-contents dist/*.whl
	.venv/bin/python -m tests.installed dist/*.whl

clean:                            ## remove environments and everything that was built
	rm -rf .venv .venv-parity .venv-cluster .venv-docs build dist *.egg-info demo .mypy_cache .ruff_cache .pytest_cache

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "issun needs Python 3.11 or later; choose one with: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Making the environment .venv with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv .venv

.venv/ready-demo: .venv/bin/pip pyproject.toml
	@echo "Installing issun and the packages that it needs into .venv. This happens once."
	@.venv/bin/$(PIP_INSTALL) -e .
	@touch $@

.venv/ready-test: .venv/bin/pip pyproject.toml
	@echo "Installing issun and everything for its tests into .venv. This happens once."
	@.venv/bin/$(PIP_INSTALL) -e '.[test]'
	@touch $@

.venv/ready-package: .venv/bin/pip pyproject.toml
	@echo "Installing the tools that build and check packages into .venv. This happens once."
	@.venv/bin/$(PIP_INSTALL) -e '.[package]'
	@touch $@

.venv-parity/ready: pyproject.toml
	@echo "Installing torch, transformers and issun into .venv-parity. This happens once."
	@$(PYTHON) -m venv .venv-parity
	@.venv-parity/bin/$(PIP_INSTALL) torch==2.13.0
	@.venv-parity/bin/$(PIP_INSTALL) -e '.[dev]'
	@touch $@

.venv-cluster/ready: pyproject.toml
	@echo "Installing Ray and issun into .venv-cluster. This happens once."
	@$(PYTHON) -m venv .venv-cluster
	@.venv-cluster/bin/$(PIP_INSTALL) -e '.[test,cluster]' 'ray[data,serve]'
	@touch $@

.venv-docs/ready: pyproject.toml
	@echo "Installing what builds the documentation into .venv-docs. This happens once."
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/$(PIP_INSTALL) -e '.[docs]'
	@touch $@
