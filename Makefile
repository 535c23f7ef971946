# Everything a person runs. `make demo` and `make test` need nothing before them but python3 >= 3.11 and a C compiler.
PYTHON := .venv/bin/python
# Most tests wait for processes of their own.
WORKERS := 3
# Once more from the sources: what is compiled must do what they say.
PURE := tests/actors tests/simulation tests/api/test_front*.py tests/api/test_smuggling.py
BENCHES := start switch cli mailbox models proxy workers broker replay policy

.PHONY: help setup compiled models browser check test test-fast test-gpu demo clean $(addprefix bench-,$(BENCHES))
.DEFAULT_GOAL := help

help:
	@echo "make demo         two real models behind one endpoint, end to end, on this machine"
	@echo "make test         every check and every test, real engines included"
	@echo "make test-fast    within a minute: no real engine, no server started for a test"
	@echo "make test-gpu     the acceptance on this machine's NVIDIA GPUs, with a report (elsewhere: on fake ones)"
	@echo "make check        ruff and mypy"
	@echo "make bench-NAME   $(BENCHES): prints a table, writes bench/out/NAME.json"

setup:
	@python3 tools/environment.py

# What is on a warm request's way, beside its sources; they run alone where one of them has changed since.
compiled: setup
	@$(PYTHON) tools/compiling.py

models: setup
	@$(PYTHON) tools/models.py

check: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

browser: setup
	@$(PYTHON) tools/chromium.py

# Every worker reads all of the tests: compiled and rewritten once, not again by each in each run.
test test-fast: export PYTHONDONTWRITEBYTECODE :=

test: check compiled models browser
	@$(PYTHON) -m pytest -n $(WORKERS) --histories=2000 --durations=10 -m "not engine"
	@VLLAMA_PURE=1 $(PYTHON) -m pytest -n $(WORKERS) --histories=24 -m "not engine" $(PURE)
	@$(PYTHON) -m pytest --durations=10 -m engine

test-fast: check
	@$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal --histories=200 -m "not engine and not slow"

test-gpu: compiled models
	@$(PYTHON) -m pytest tests/gpu tests/host/test_nvml.py tests/acceptance/test_gpus.py

demo: export DEMO_BEGAN := $(shell date +%s.%N)
demo: compiled models
	@$(PYTHON) tools/demo.py

# TRACE=file.csv: cut into windows instead of Azure's recording.
bench-policy: compiled
	@$(PYTHON) -m bench.policy

$(addprefix bench-,$(filter-out policy,$(BENCHES))): bench-%: compiled models
	@$(PYTHON) bench/$*.py

clean:
	rm -rf .demo bench/out build .mypy_cache .ruff_cache .pytest_cache
	find vllama \( -name '*.so' -o -name compiled.txt \) -delete
