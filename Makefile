# Every command makes its own virtual environment, once, in $(VENV).
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
CASES ?= 1000

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
WHEEL := build/wheel
# What is tested a second time as where numba is not installed: engines, plan and examples.
WITHOUT_LOOPS := tests/engines tests/test_plan.py jaxcnn docs/*.md README.md

# For `make gpu RUN=python3`, which uses that interpreter as it is, and installs nothing.
WITH_GPU := $(if $(filter file,$(origin RUN)),$(VENV)/with-gpu)

.PHONY: train compare curve race bench frameworks gpu tpu platforms \
        test test-all fuzz lint types lesson docs wheel check clean help

train: $(VENV)/with-experiments  ## the main job: train on the scanned digits
	$(RUN) -m experiments.train $(ARGS)

compare: $(VENV)/with-experiments  ## compare every gradient and tangent four ways
	$(RUN) -m experiments.compare_gradients $(ARGS)

curve: $(VENV)/with-experiments  ## train by rules, by autodiff and by lax: one curve
	$(RUN) -m experiments.same_curve $(ARGS)

race: $(VENV)/with-bench  ## to 99 % on MNIST, beside flax and PyTorch
	$(RUN) -m experiments.time_to_accuracy $(ARGS)

bench: $(VENV)/with-bench  ## time everything beside lax, flax and PyTorch
	$(RUN) -m experiments.benchmark $(ARGS)

frameworks: $(VENV)/with-frameworks  ## train a CNN of every framework, as it is and patched
	$(RUN) -m experiments.frameworks $(ARGS)

gpu: $(WITH_GPU)  ## test and time on the GPU at hand, beside lax and PyTorch
	$(RUN) -m experiments.gpu $(ARGS)

tpu: $(VENV)/with-tpu  ## compile for TPUs ahead of time, without one
	$(RUN) -m experiments.tpu $(ARGS)

platforms: $(VENV)/with-tpu  ## lower and compile every operation for all platforms, beside lax
	$(RUN) -m experiments.platforms $(ARGS)

test: $(VENV)/with-test  ## all tests, the examples of pages and docstrings included; compiled quickly
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(RUN) -m pytest -n auto --dist worksteal $(ARGS)
	$(if $(ARGS),,JAXCNN_LOOPS=0 JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(RUN) -m pytest \
	    -n auto --dist worksteal $(WITHOUT_LOOPS))

test-all: $(VENV)/with-all  ## those and hundreds of random cases an operator, optimized, PyTorch among the oracles
	$(RUN) -m pytest -n auto --dist worksteal -m "not fuzz" $(ARGS)

fuzz: $(VENV)/with-all  ## random cases, others every time: CASES for each operator and oracle, and kind of file
	CASES=$(CASES) $(RUN) -m pytest -n auto -m fuzz tests $(ARGS)

lesson:  ## build the page on which every number can be touched: docs/_build/lesson.html
	$(PYTHON) docs/lesson/build.py docs/_build/lesson.html

docs: $(VENV)/with-docs  ## build the site: docs/_build/html/index.html
	$(RUN) -m sphinx --quiet --fail-on-warning -b html docs docs/_build/html

lint: $(VENV)/with-check  ## formatting and lint
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	test ! -x $(VENV)/bin/biome || $(VENV)/bin/biome ci

types: $(VENV)/with-check  ## static types
	$(RUN) -m pyright

wheel: $(VENV)/with-test  ## a wheel, and five steps of training where nothing but it is installed
	rm -rf $(WHEEL)
	$(PIP) wheel --quiet --no-deps --wheel-dir $(WHEEL) .
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip --disable-pip-version-check install --quiet $(WHEEL)/*.whl
	cd $(WHEEL) && venv/bin/python -I -W error $(CURDIR)/tests/five_steps.py

check: test lint types docs wheel  ## all that continuous integration checks

clean:  ## remove the virtual environment and what was built
	rm -rf $(VENV) build docs/_build docs/repository

help:  ## print this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { \
	    printf "make %-11s %s", $$1, $$2; \
	    getline; \
	    if (match($$0, /experiments\.[a-z_]+/)) \
	        printf " (experiments/%s.py)", substr($$0, RSTART + 12, RLENGTH - 12); \
	    print "" \
	}' $(MAKEFILE_LIST)

$(VENV)/with-experiments: EXTRAS = experiments
$(VENV)/with-bench: EXTRAS = experiments,bench
$(VENV)/with-frameworks: EXTRAS = experiments,frameworks
$(VENV)/with-gpu: EXTRAS = gpu
$(VENV)/with-tpu: EXTRAS = experiments,tpu
$(VENV)/with-test: EXTRAS = experiments,test
$(VENV)/with-all: EXTRAS = experiments,test,bench,browser
$(VENV)/with-docs: EXTRAS = docs
$(VENV)/with-check: EXTRAS = experiments,test,check

$(VENV)/with-%: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable ".[$(EXTRAS)]"
	touch $@
