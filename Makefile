# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: venv demo test lint docs clean

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV), once: some minutes"
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test,dev,docs]"
	touch $@

demo: venv
	$(PYTHON) scripts/demo.py

test: venv
	$(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: venv
	$(VENV)/bin/zensical build --strict --clean

clean:
	rm -rf $(VENV) runs demo site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
