# The newcomer's two commands; each does all the set-up it needs. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

demo: $(VENV)/demo.stamp  ## train LeNet on real handwritten digits, on two ranks
	$(BIN)/mpirun -n 2 $(BIN)/mpitrain lenet

test: $(VENV)/test.stamp  ## all tests: those of one process, drills and jobs, then those of the exchange under 1, 2, 3 and 4 ranks; one summary
	$(BIN)/python tests/every.py

TASKS ?=
paper: $(VENV)/test.stamp  ## the paper's tables and figures again (TASKS="table1 -n 9": one, or other options): some 20 minutes
	$(BIN)/python benchmarks/redo.py $(TASKS)

lint: $(VENV)/test.stamp  ## ruff, mypy and clang-format
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror kernels/*.cl kernels/*.h kernels/*/*.cl kernels/*/*.h

$(VENV)/bin/python:
	@echo "Making $(VENV) with $(PYTHON)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "Installing mpitrain with OpenCL runtimes for CPUs and an MPI (a minute or two the first time)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[runtimes]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	@echo "Installing what the tests need"
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[runtimes,plots,tests]'
	@touch $@

.DELETE_ON_ERROR:
.PHONY: demo test paper lint
