# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
VENV = .venv
PYTHON = $(VENV)/bin/python
# files in their order: the longest would otherwise come last, one alone
PYTEST = $(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: venv demo test test-floors test-latest gpu lint docs clean

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV), once: some minutes"
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test,dev,docs]"
	touch $@

# neither tests nor tools
$(VENV)/.demo: pyproject.toml constraints.txt
	@echo "installing into $(VENV), once: some minutes"
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

demo: $(VENV)/.demo
	$(VENV)/bin/pos-hf demo

test: venv
	$(PYTEST)

# the oldest versions that pyproject.toml allows, and the newest there are, each in an environment of its own
test-floors: RESOLUTION := lowest-direct
test-latest: RESOLUTION := highest
test-floors test-latest: VENV = .venv-$(@:test-%=%)
test-floors test-latest:
	@echo "installing into $(VENV): some minutes"
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --upgrade --compile-bytecode --resolution $(RESOLUTION) --editable ".[test]"
	$(PYTEST)

# what only a GPU can prove; on a CPU a small size of what a CPU can
gpu: venv
	$(PYTHON) scripts/benchmarks/gpu.py

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: venv
	$(VENV)/bin/zensical build --strict --clean

clean:
	rm -rf .venv .venv-floors .venv-latest runs demo site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
