# Every command makes its own virtual environment, once, in $(VENV).
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check

.PHONY: train compare bench test check clean

train: $(VENV)/with-experiments  ## the main job: train on the scanned digits
	$(RUN) -m experiments.train $(ARGS)

compare: $(VENV)/with-experiments  ## compare every gradient four ways
	$(RUN) -m experiments.compare_gradients $(ARGS)

bench: $(VENV)/with-bench  ## time everything beside lax, flax and PyTorch
	$(RUN) -m experiments.benchmark $(ARGS)

test: $(VENV)/with-test  ## all tests, README and docstring examples included
	$(RUN) -m pytest -n auto $(ARGS)

check: $(VENV)/with-check test  ## format, lint, types, tests
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m pyright

clean:  ## remove the virtual environment
	rm -rf $(VENV)

$(VENV)/with-experiments: EXTRAS = experiments
$(VENV)/with-bench: EXTRAS = experiments,bench
$(VENV)/with-test: EXTRAS = experiments,test
$(VENV)/with-check: EXTRAS = experiments,test,check

$(VENV)/with-%: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable ".[$(EXTRAS)]"
	touch $@
