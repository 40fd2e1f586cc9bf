# `make run` and `make test` set up .venv when it is missing and then do their job. Nothing else is needed.
PYTHON ?= python3
# Linux without a GPU, away from a machine that offers a CPU wheel by itself: TORCH_ARGS='--index-url <PyTorch CPU index>'
TORCH_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_DISABLE_TELEMETRY := 1
# else each worker of the tests, and each process that a test starts, compiles everything again
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run smoke test check bench wheel clean

run: $(VENV)/ready
	$(BIN)/orthomesh run default

smoke: $(VENV)/ready
	$(BIN)/orthomesh run smoke

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 3 --dist worksteal

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.overhead

wheel: $(VENV)/ready
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build runs

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"orthomesh needs Python 3.11 or newer, $(PYTHON) is {v.major}.{v.minor}; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(TORCH_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
