# Everything a person runs. `make demo` and `make test` need nothing before them but python3 >= 3.11 and a C compiler.
PYTHON := .venv/bin/python
BENCHES := start switch cli mailbox

.PHONY: help setup models check test test-fast demo clean $(addprefix bench-,$(BENCHES))
.DEFAULT_GOAL := help

help:
	@echo "make demo         two real models behind one endpoint, end to end, on this machine"
	@echo "make test         every check and every test, real engines included"
	@echo "make test-fast    the same without real engines"
	@echo "make check        ruff and mypy"
	@echo "make bench-NAME   $(BENCHES): prints a table, writes bench/out/NAME.json"

setup:
	@python3 tools/setup.py

models: setup
	@$(PYTHON) tools/models.py

check: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

test: check models
	@$(PYTHON) -m pytest --histories=2000

test-fast: check
	@$(PYTHON) -m pytest --histories=200 -m "not engine"

demo: export VLLAMA_DEMO_BEGAN := $(shell date +%s.%N)
demo: models
	@$(PYTHON) tools/demo.py

$(addprefix bench-,$(BENCHES)): bench-%: models
	@$(PYTHON) bench/$*.py

clean:
	rm -rf .demo bench/out .mypy_cache .ruff_cache .pytest_cache
