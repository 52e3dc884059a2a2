# make demo | test | fuzz | lint | typecheck | gates | bench, each in an environment of its own making (.venv).
# Another interpreter: make test PYTHON=python3.12.  Fewer or more test processes: make test JOBS=4.

JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Without PYTHON=, the environment that is there goes on being used. One of another Python than the one that is
# asked for, or of one too old, is made anew.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
SAY_VERSION := import sys; print("%d.%d" % sys.version_info[:2])
ifndef PYTHON
PYTHON := $(shell $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(BIN)/python || echo python3)
endif
VERSION := $(shell $(PYTHON) -c '$(SAY_VERSION)' 2>/dev/null)
HAVE := $(shell $(BIN)/python -c '$(SAY_VERSION)' 2>/dev/null)
ANEW := $(if $(filter $(VERSION),$(HAVE)),,anew)
# mypy cannot follow an editable install of mapped folders, so it reads a plain one.
INSTALLED := build/installed

# With one thread a process, test processes do not fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -q

.PHONY: anew help python demo test fuzz test-long test-applications lint typecheck plan-table gates bench clean
.DEFAULT_GOAL := help

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## a network defined, one imported, trained, compiled to kernels and profiled
	$(BIN)/python examples/demo.py

test: $(STAMP) ## every test that needs neither a GPU nor minutes
	$(PYTEST)

fuzz: $(STAMP) ## random networks for SECONDS=60; from FIRST=, or SEED= alone; BACKEND=aten or triton
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --seconds $(or $(SECONDS),60) --backend $(or $(BACKEND),aten) \
		$(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED))

test-long: $(STAMP) ## the slow tests
	$(PYTEST) -m "slow and not gpu"

test-applications: $(STAMP) ## keras.applications against Keras itself; writes docs/applications.md
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,applications]'
	$(PYTEST) -m applications tests/test_applications.py
	$(BIN)/python tests/applications/table.py

lint: $(STAMP) ## ruff: style and common mistakes
	$(BIN)/ruff check .

# In tests a wrong call may be what is tested, which `type: ignore[...]` says where it is; torch's own untyped
# functions need no saying.
LENIENT := --allow-untyped-calls --allow-untyped-defs --allow-incomplete-defs --no-warn-return-any \
	--follow-imports=silent

typecheck: $(STAMP) ## mypy over the package as it installs, over the tests and over the benchmarks
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target $(INSTALLED) .
	cd $(INSTALLED) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p convloom
	cd $(INSTALLED) && MYPYPATH=$(CURDIR)/tests:$(CURDIR)/examples:$(CURDIR)/benchmarks $(CURDIR)/$(BIN)/mypy $(LENIENT) \
		--config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache/tests $(CURDIR)/tests/*.py $(CURDIR)/benchmarks/*.py

plan-table: $(STAMP) ## kernels and bytes of whole networks into tests/data; refuses what rose without RISES=1
	PYTHONPATH=benchmarks $(BIN)/python tests/plan_table.py $(if $(RISES),--rises)

gates: $(STAMP) ## compiles whole networks for four cards into tests/data and docs/gates.md: hours
	PYTHONPATH=benchmarks $(BIN)/python tests/estimates.py
	PYTHONPATH=benchmarks $(BIN)/python tests/gates.py $(ARGS)
	$(BIN)/python docs/make_pages.py

bench: $(STAMP) ## ConvLoom against PyTorch, ONNX Runtime and OpenVINO on this machine; ARGS='--quick'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,bench]'
	$(BIN)/python benchmarks/run.py $(ARGS)

clean: ## remove the environment, builds and caches
	rm -rf $(VENV) build dist .gates.jsonl *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

python:
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "ConvLoom needs Python 3.11 or newer, and $(PYTHON) is $(or $(VERSION),not there)." >&2; \
		echo "Name another one: make $(or $(firstword $(MAKECMDGOALS)),demo) PYTHON=python3.12" >&2; exit 1; }

anew:

$(STAMP): pyproject.toml constraints.txt $(ANEW) | python
	$(if $(ANEW),$(PYTHON) -m venv --clear $(VENV))
	@echo "Installing PyTorch, Triton and the tools into $(VENV): once, and some minutes."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@
