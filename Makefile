# make eval: measure the default policy.  make test: lint, types, tests.  Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUN := HF_HUB_OFFLINE=1 $(BIN)/python
# a process a core with one thread each: twice as fast as one process of two threads
TEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONWARNDEFAULTENCODING=1 $(RUN) \
	-m pytest -rs --numprocesses auto --dist worksteal

.PHONY: eval test test-slow test-adapters bench

eval: .venv/.models
	$(RUN) -m erl_envs.eval --attempts 2

test: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TEST) -m "not slow"

test-slow: .venv/.dev
	$(TEST)

# each framework in a virtual environment of its own, for their versions clash
ADAPTERS := verifiers openenv trl skyrl gem rllm verl ray

test-adapters: $(ADAPTERS:%=test-adapter-%)

test-adapter-%: .venv-%/.made
	HF_HUB_OFFLINE=1 .venv-$*/bin/python -m pytest -rs tests/adapters/test_$*.py

.PRECIOUS: .venv-%/.made
.venv-%/.made: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --constraint tests/adapters/constraints.txt \
		-e ".[$*]" pytest pytest-benchmark hypothesis
	@touch $@

bench: .venv/.dev
	$(RUN) -m pytest benchmarks --benchmark-enable --benchmark-only -o python_files='test_*.py' -s

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; say make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.models: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e ".[models]"
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e ".[dev]"
	@touch $@ .venv/.models
