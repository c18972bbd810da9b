# Every task of this repository. `make help` lists them.
VENV ?= .venv
CONFIG ?= configs/digits_mlp.yaml
PY := $(VENV)/bin/python
export PYTHON VENV

# conftest.py sets the options of the session, such as the compilation cache, for the doctests as well.
PYTEST := $(PY) -m pytest
# Most of the time goes into tracing and compiling on one core. The tests of a file share programs, so a worker gets files.
# In their own order: by default those with the fewest tests are last, and some of these take longest.
# One worker more than cores: some tests wait for a browser or a process.
PARALLEL := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist loadfile --no-loadscope-reorder
# Doctests and tests run in one call, and the short doctests last, so that all cores work until the end.
ALL_TESTS := --doctest-modules tests gdkit experiments

# Tests for the oldest versions: the core, sweeps and the command line, without tests that need other packages. Those
# versions raise deprecation warnings among themselves.
CORE_TESTS := bad_input boundary cli config contract data_files datasets dispatch going_on gradients html hypergradients library \
	live monitors plan plots processes regimes reopen report resume schedules search sgd stability store sweep

# The extras with locked versions. PyTorch locks its own dependencies, which differ between platforms.
LOCKED := app parquet cuda tpu dask test bench docs

.DEFAULT_GOAL := help
.PHONY: help run test test-full test-oldest parity bench browser lint format readme reproduce torture scale accelerators docs constraints clean env-app env-test env-parity env-bench env-docs

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "  Options: PYTHON=/path/to/python (interpreter), VENV=folder (environment), CONFIG=file (for run), JAX=version."

run: env-app ## install if needed, run CONFIG, and print the paths of its report and figures
	@$(PY) -m gdkit run $(CONFIG)

test: lint browser ## run all checks of CI except the comparison with PyTorch
	$(PYTEST) $(PARALLEL) $(ALL_TESTS) -m "not full and not parity"

test-full: lint browser ## run all tests, long ones included, with the compiler options of users
	XLA_FLAGS= $(PYTEST) $(PARALLEL) $(ALL_TESTS) -m "not parity"

test-oldest: ## test the core with the oldest versions that pyproject.toml allows, in an environment of its own
	@VENV=$(VENV)-oldest sh scripts/setup oldest
	$(VENV)-oldest/bin/python -m pytest $(PARALLEL) -m "not full" -W ignore::DeprecationWarning $(CORE_TESTS:%=tests/test_%.py)

parity: env-parity ## install PyTorch and compare with it
	$(PYTEST) -m parity tests/parity

lint: env-test ## check style, types and the import contract
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m ty check --python $(VENV)
	$(VENV)/bin/lint-imports

browser: ## find or install a Chromium for the tests of reports
	@sh scripts/browser

format: env-test ## format the code and apply the fixes of ruff
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

bench: env-bench env-parity ## compare the speed with peers, PyTorch included; select with PARTS="--only scalar"
	$(PY) -m benchmarks $(PARTS)

reproduce: env-app ## run the studies at full settings and write docs/reproductions.md; select with STUDIES=names, KEY=number
	$(PY) docs/reproduce.py $(STUDIES) $(KEY:%=key=%)

torture: env-test ## kill runs, race them, damage their files, and write docs/reliability.md; select with PARTS=names
	$(PY) scripts/torture.py $(PARTS)

scale: env-test ## measure time and memory of sweeps with many lanes, and write docs/scale.md
	$(PY) -m benchmarks.scale

accelerators: ## count programs compiled for accelerators that are not there, in an environment of its own; select with MODELS=names
	@VENV=$(VENV)-accelerators sh scripts/setup accelerators
	$(VENV)-accelerators/bin/python -m benchmarks.accelerators $(MODELS)

readme: env-test ## update the outputs and figures of README.md and the tutorials; select with PAGES=names
	$(PY) docs/readme.py $(PAGES)

docs: env-docs ## build the documentation in site/html; it can be read without a server
	@$(PY) docs/build_site.py

COMPILE = $(PY) -m uv pip compile pyproject.toml --universal --fork-strategy fewest --upgrade --python-version 3.11 \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet

constraints: env-app ## write constraints.txt with the newest versions that fit, and constraints-oldest.txt with the oldest
	$(PY) -m pip install --quiet uv
	$(COMPILE) $(addprefix --extra ,$(LOCKED)) > constraints.new
	sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml >> constraints.new
	LC_ALL=C sort -o constraints.txt constraints.new && rm constraints.new
	$(COMPILE) --extra app --extra core-test --resolution lowest-direct > constraints.new
	LC_ALL=C sort -o constraints-oldest.txt constraints.new && rm constraints.new

clean: ## remove build products; keep runs/
	rm -rf $(VENV) $(VENV).lock $(VENV)-oldest $(VENV)-oldest.lock $(VENV)-accelerators $(VENV)-accelerators.lock dist site .jax_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

env-app env-test env-parity env-bench env-docs: env-%:
	@sh scripts/setup $*
