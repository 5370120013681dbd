# The one task runner. `make check` and `make test` need nothing but Python 3.11 or newer.
#
#   make check ARGS="--case 'tie/*'"      make test ARGS="-k tie -x"      make PYTHON=python3.12 test

PYTHON ?= python3
ARGS ?=
TORCH := torch==2.13.0

# Older releases that CI judges beside the installed one.
RELEASES := 4.47.1 4.57.6 5.0.0 5.23.0

# The 5.x nearest to the installed one that is not it: every family is saved and loaded by it too.
FAMILY_RELEASE := 5.22.2

# Idle OpenMP threads sleep instead of spinning: with other processes on the cores, minutes less.
export OMP_WAIT_POLICY ?= passive

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
PIP_INSTALL = -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := check
.DELETE_ON_ERROR:
.PHONY: check check-plain test test-slow test-nightly test-stable selftest test-upstream test-releases wheel-check releases \
  gpu gpu-test gpu-check gpu-bench gpu-ring gpu-against lint format docs docs-check constraints clean

check: $(STAMP)  ## judge the installed transformers against the reference
	@$(BIN)/conformance check $(ARGS)

check-plain: $(STAMP)  ## the same with the fast paths of the reference turned off
	@FROM_PRETRAINED_PLAIN=1 $(BIN)/conformance check $(ARGS)

selftest: $(STAMP)  ## every planted fault is caught by its clause, an honest copy by none
	@$(BIN)/conformance selftest

test: lint docs-check  ## lint, types, freshness of the docs, then all tests but the slow ones
	$(BIN)/python -m pytest -o strict=true -n auto --dist worksteal -m "not slow" $(ARGS)

test-slow: $(STAMP)  ## the tests that `make test` leaves out to stay within five minutes
	$(BIN)/python -m pytest -o strict=true -n auto --dist worksteal -m "slow and not gpu" $(ARGS)

test-nightly: $(STAMP)  ## 1,000 random checkpoints instead of 50, every model type; half an hour
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -o strict=true \
	  tests/reference_loader/test_differential.py tests/reference_loader/test_every_architecture.py $(ARGS)
	@$(BIN)/conformance check --arch '*'

test-stable: $(STAMP)  ## an honest copy judged twenty times: order, threads, workers, cache
	STABILITY_ROUNDS=20 $(BIN)/python -m pytest -o strict=true tests/conformance/test_stability.py $(ARGS)

# Prints the interpreter of a release: an environment that shares torch, made the first time.
PYTHON_OF = $(BIN)/python -m conformance.releases.targets

test-upstream: $(STAMP)  ## transformers' own tests of loading, with the reference in its place
	$(BIN)/python -m tests.upstream.run $(ARGS)

test-releases: $(STAMP)  ## judge the older releases: exit 1 on news
	@mkdir -p runs/releases; for release in $(RELEASES); do log=runs/releases/$$release.txt; \
	  python=$$($(PYTHON_OF) $$release) || exit; \
	  $$python -m conformance check --out runs/releases/$$release $(ARGS) \
	  > $$log 2>&1 && tail -n 2 $$log || { code=$$?; cat $$log; exit $$code; }; done
	@python=$$($(PYTHON_OF) $(FAMILY_RELEASE)) && \
	  $$python -m pytest -q tests/reference_loader/test_families.py

wheel-check: $(STAMP)  ## every command, from the wheel, outside of the checkout; some minutes
	$(BIN)/python -m tests.packaging.wheel_check $(ARGS)

releases: $(STAMP)  ## every minor release against the specification; an hour, and 10 GB the first time
	@$(BIN)/conformance releases $(ARGS)

# Where a night on a GPU is kept, and the figures of the one before.
NIGHT := runs/gpu
BEFORE := runs/gpu-before/bench.json

gpu: gpu-test gpu-check gpu-bench gpu-against  ## all that needs a GPU; fails where there is none (-k goes on)

gpu-test: $(STAMP)  ## the tests on a GPU, Llama-2-7B among them: LLAMA2_7B=PATH for the real weights
	@mkdir -p $(NIGHT)
	$(BIN)/python -m pytest -o strict=true -m gpu --require-gpu \
	  -o junit_family=xunit1 --junitxml=$(NIGHT)/junit.xml $(ARGS)

gpu-check: $(STAMP)
	@$(BIN)/conformance check --device cuda --out $(NIGHT)/cases

gpu-bench: $(STAMP)
	@$(BIN)/conformance bench --case 'cuda-*' --out $(NIGHT)/bench

gpu-ring: $(STAMP)  ## once on a new machine: the settings of the pinned ring, swept
	@$(BIN)/python -m conformance.bench.ring --out $(NIGHT)/ring $(ARGS)

gpu-against: gpu-bench
	@$(BIN)/python -m conformance.bench.against $(BEFORE) $(NIGHT)/bench/bench.json

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: $(STAMP)  ## docs/spec.md and docs/bugs.md are rendered; never edit them by hand
	$(BIN)/conformance spec --format markdown --out docs/spec.md
	$(BIN)/conformance spec --format bugs --out docs/bugs.md

docs-check: $(STAMP)
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(BIN)/conformance spec --format markdown --out "$$fresh/spec.md" >/dev/null && \
	$(BIN)/conformance spec --format bugs --out "$$fresh/bugs.md" >/dev/null && \
	for page in spec.md bugs.md; do diff -u docs/$$page "$$fresh/$$page" || \
	  { echo "docs/$$page is stale: run 'make docs' and commit it" >&2; exit 1; }; done

# The stamp is written last, so an install that was cut short is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -c pass 2>/dev/null || { \
	  $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" \
	    if sys.version_info < (3, 11) else 0)' && \
	  echo "making $(VENV) with the tested versions (a few minutes, once)" >&2 && \
	  $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt setuptools wheel $(TORCH)
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e ".[test,dev]"
	@touch $@

constraints:  ## the newest of everything that installs today; run the tests before committing it
	@rm -rf $(VENV)-fresh && $(PYTHON) -m venv $(VENV)-fresh
	@$(VENV)-fresh/bin/python $(PIP_INSTALL) setuptools wheel $(TORCH)
	@$(VENV)-fresh/bin/python $(PIP_INSTALL) --no-build-isolation -e ".[test,dev]"
	@{ sed -n '/^#/p' constraints.txt; \
	   $(VENV)-fresh/bin/python -m pip freeze --all --exclude-editable --exclude pip \
	   | grep -v '^#' | sed 's/+.*//'; } > constraints.tmp
	@mv constraints.tmp constraints.txt && rm -rf $(VENV)-fresh

clean:  ## everything that can be made again
	rm -rf $(VENV) $(VENV)-fresh build dist *.egg-info constraints.tmp \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis runs
	find reference_loader conformance fixtures tests -name __pycache__ -type d -prune \
	  -exec rm -rf {} +
