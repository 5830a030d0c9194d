# Each target sets up what it needs on a fresh machine.
PYTHON ?= python3
SEEDS ?= 10
SECONDS ?= 1800
KILLS ?= 200
BABEL := .venv/bin/python -m babel.messages.frontend -q
PACKAGES := cli export kit runtime benchmarks training server

# Of tests/clients, those that CI runs; all of them: make clients CLIENTS=
CLIENTS ?= openai langchain instructor pydantic-ai litellm llm openai-node

.PHONY: demo test commands slow parity clients fuzz soak embedded figures check translations format docs clean

demo: .venv/ready-demo            ## ask the embedded model six questions
	.venv/bin/python -m issun.benchmarks.demo

test: .venv/ready-test            ## light tests: no torch
	.venv/bin/python -m pytest -n 2 -m "not parity and not alone and not slow"
	.venv/bin/python -m pytest -m alone tests/cli

commands: .venv/ready-test        ## every command of README and docs, in fresh environments
	.venv/bin/python -m tests.documentation --fresh

slow: .venv/ready-test            ## tests that take long and rarely break; ISSUN_TEST_SLOW=4: one in 4
	.venv/bin/python -m pytest -n 2 -m "slow and not parity"

parity: .venv-parity/ready        ## live comparison with torch and transformers
	.venv-parity/bin/python -m pytest -m parity tests/parity

clients: .venv/ready-test         ## clients of the OpenAI dialect, each in an environment of its own
	.venv/bin/python -m tests.clients.run $(CLIENTS)

fuzz: .venv/ready-test            ## damaged and hostile files; SEEDS=10 takes about half an hour
	ISSUN_TEST_MUTATIONS=500 ISSUN_TEST_SEEDS=$(SEEDS) .venv/bin/python -m pytest -n 2 tests/fuzz

soak: .venv-parity/ready          ## half an hour of mixed load on a server, and 200 kill -9
	.venv-parity/bin/python -m tests.soak --seconds $(SECONDS) --kills $(KILLS)

embedded: .venv-parity/ready      ## make the embedded model again, or go on with it: 1.5 hours on 2 cores
	.venv-parity/bin/python -m issun.training.embedded.build build/embedded --install

figures: .venv/ready-test         ## plots and tables of README and docs, from benchmarks/results
	.venv/bin/python -m issun.benchmarks.publish
	.venv/bin/issun bench report benchmarks/results/1b.json.gz -o build/report
	cp build/report/report.html benchmarks/results/

check: .venv/ready-test           ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	mkdir -p build/types && ln -sfn ../.. build/types/issun
	MYPYPATH=build/types .venv/bin/mypy -m issun -m issun.__main__ $(PACKAGES:%=-p issun.%)

translations: .venv/ready-test    ## take new messages into cli/locale, and compile the catalogues
	mkdir -p build
	$(BABEL) extract -F pyproject.toml --add-location=file --sort-by-file --width=100 \
		--msgid-bugs-address='the issue tracker' -o build/issun.pot . 2>build/translations.log || (cat build/translations.log; exit 1)
	$(BABEL) update -D issun -i build/issun.pot -d cli/locale --width=100 \
		--ignore-obsolete --ignore-pot-creation-date
	$(BABEL) compile -D issun -d cli/locale --statistics

format: .venv/ready-test          ## mend format and imports
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

docs: .venv-docs/ready            ## the documentation, in build/site; no link or page may be broken
	mkdir -p build/types && ln -sfn ../.. build/types/issun
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	.venv-docs/bin/python -m tests.documentation.outside build/site

clean:
	rm -rf .venv .venv-parity .venv-docs build dist *.egg-info demo .mypy_cache .ruff_cache .pytest_cache

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/ready-demo: .venv/bin/pip pyproject.toml
	.venv/bin/pip install -q -e .
	touch $@

.venv/ready-test: .venv/bin/pip pyproject.toml
	.venv/bin/pip install -q -e '.[test]'
	touch $@

.venv-parity/ready: pyproject.toml
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install -q torch==2.13.0
	.venv-parity/bin/pip install -q -e '.[dev]'
	touch $@

.venv-docs/ready: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install -q -e '.[docs]'
	touch $@
