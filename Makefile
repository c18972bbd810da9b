# Everything that is done with this repository, by name. `make help` lists it.
VENV ?= .venv
CONFIG ?= configs/digits_mlp.yaml
PY := $(VENV)/bin/python
export PYTHON VENV

# The test session's settings (the compilation cache among them) also hold for the doctests: conftest.py sets them.
PYTEST := $(PY) -m pytest
# Most of the time goes into tracing and compiling on one core; a file's tests share programs, so files are what is dealt.
SPREAD := -n auto --dist loadfile
RUN_DOCTESTS := $(PYTEST) --doctest-modules gdkit experiments tests/conftest.py

# What is tested with the oldest versions: the core, sweeps and the command line, as far as no other package is needed.
# Those versions make warnings of deprecated calls among themselves.
CORE_TESTS := bad_input boundary cli config contract datasets dispatch going_on gradients html hypergradients library \
	live monitors plan plots processes regimes reopen report resume schedules search sgd stability store sweep

# The extras whose exact versions are kept. PyTorch's own dependencies are left to it: they differ from place to place.
LOCKED := app cuda tpu dask test bench docs

.DEFAULT_GOAL := help
.PHONY: help run test test-full test-oldest parity bench browser lint format readme reproduce torture scale docs constraints clean env-app env-test env-parity env-bench env-docs

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "  PYTHON=/path/to/python chooses the interpreter, VENV=folder the environment, CONFIG=file what run runs, JAX=version the JAX."

run: env-app ## install if needed, run the main job, say where its report and figures are
	@$(PY) -m gdkit run $(CONFIG)

test: lint browser ## all of CI's checks but the comparison with PyTorch
	$(RUN_DOCTESTS)
	$(PYTEST) $(SPREAD) -m "not full and not parity"

test-full: lint browser ## the same, and the tests that take longer, compiled as for users
	$(RUN_DOCTESTS)
	XLA_FLAGS= $(PYTEST) $(SPREAD) -m "not parity"

test-oldest: ## test the core with the oldest versions that pyproject.toml allows, in an environment of its own
	@VENV=$(VENV)-oldest sh scripts/setup oldest
	$(VENV)-oldest/bin/python -m pytest $(SPREAD) -m "not full" -W ignore::DeprecationWarning $(CORE_TESTS:%=tests/test_%.py)

parity: env-parity ## install PyTorch and compare with it
	$(PYTEST) -m parity tests/parity

lint: env-test ## style, types and the import contract
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m ty check --python $(VENV)
	$(VENV)/bin/lint-imports

browser: ## find or install a Chromium for the tests of reports
	@sh scripts/browser

format: env-test ## mend what ruff can mend
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

bench: env-bench env-parity ## gdkit against its peers, PyTorch among them; PARTS="--only scalar" for some
	$(PY) -m benchmarks $(PARTS)

reproduce: env-app ## run every study at full settings and write docs/reproductions.md; STUDIES=names for some
	$(PY) docs/reproduce.py $(STUDIES)

torture: env-test ## kill runs, start them together, damage their files, and write docs/reliability.md; PARTS=names for some
	$(PY) scripts/torture.py $(PARTS)

scale: env-test ## measure what sweeps of many lanes take, and write docs/scale.md
	$(PY) -m benchmarks.scale

readme: env-test ## write the outputs and figures of README.md again
	$(PY) docs/readme.py

docs: env-docs ## build the documentation in site/html, from files and for reading from files
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

clean: ## remove what was built; runs/ stays
	rm -rf $(VENV) $(VENV).lock $(VENV)-oldest $(VENV)-oldest.lock dist site .jax_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

env-app env-test env-parity env-bench env-docs: env-%:
	@sh scripts/setup $*
