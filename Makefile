# Two commands do everything: `make demo` and `make test`. Each sets up what it needs. `make test-peers` takes longer: it
# runs the common tests of transformers, and the libraries that train and serve models, on MM1. `make test-browser` opens
# the page of `mm1 serve` in Chromium. `make docs` makes the documentation site, and `make test-docs` runs what its pages show.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install -qq --disable-pip-version-check

.PHONY: demo test test-peers test-browser test-docs docs lint format clean

demo: $(VENV)/.demo
	$(VENV)/bin/mm1 demo

test: $(VENV)/.dev
	$(MAKE) lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-peers: $(VENV)/.peers
	$(VENV)/bin/python -m tests.peers.fetch
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest tests/peers -n auto --maxprocesses 4 --dist loadfile

test-browser: $(VENV)/.browser
	$(VENV)/bin/python -m pytest tests/browser

test-docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest tests/docs/run_pages.py -n auto --maxprocesses 2

docs: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs
	@echo "build/docs/index.html"

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact version: a bare `torch` may bring gigabytes of GPU libraries to a CPU machine.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	@echo "installing PyTorch (a few minutes the first time)"
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "installing mm1"
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing mm1 with what its tests need"
	$(PIP) -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/.peers: $(VENV)/.torch pyproject.toml
	@echo "installing mm1 with the libraries that train and serve models"
	$(PIP) -c constraints.txt -e ".[peers]"
	touch $@

$(VENV)/.browser: $(VENV)/.torch pyproject.toml
	@echo "installing mm1 with playwright"
	$(PIP) -c constraints.txt -e ".[browser]"
	touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	@echo "installing mm1 with what makes its documentation"
	$(PIP) -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis
