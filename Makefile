# Thin names over commands that anyone can run. Each target makes the virtual environment it needs.
#
#   make test PYTHON=python3.12 VENV=/tmp/env
#   make -j2 --output-sync test    (its parts side by side, as .ci/run has them)
#   make demo FRAMEWORK=torch OUT=/tmp/maps
#
# PYTHON   the interpreter that makes the virtual environment
# VENV     where that environment is; an existing one is used as it is
# OUT      where the demo writes its pictures
# BENCH    where the benchmarks' own environment is, with other libraries in it
# PART     of the study: one that is measured, "record" or "tables"
# PHOTOGRAPHS  where the study's photographs are
# SWEEP    where the environment with packages of models is
# DOCS     where the environment that builds the site is
# VERSIONS of other sites that are published beside the one that is built: docs/releasing.md
# ARGS     more arguments for pytest
# WORKERS  how pytest spreads the test files over the cores; empty for one process. In their order, which
#          tests/conftest.py sets

PYTHON ?= python3
VENV ?= .venv
FRAMEWORK := torch
OUT := demo-out
BENCH ?= .venv-bench
PART := tables
PHOTOGRAPHS :=
SWEEP ?= .venv-sweep
DOCS ?= .venv-docs
VERSIONS :=
ARGS :=
WORKERS := -n auto --dist loadfile --no-loadscope-reorder

FRAMEWORKS := torch tensorflow jax
ifeq ($(filter $(FRAMEWORK),$(FRAMEWORKS)),)
$(error FRAMEWORK=$(FRAMEWORK) is not one of the demo's frameworks: $(FRAMEWORKS))
endif

KERAS_ON_JAX := test_keras_contract and (Functional or Subclassed) \
  or test_keras_kinds and (sigmoid_is_seen and squeeze or first-underflow-mixed or frame_replaced or runs_twice or until) \
  or test_inputs and TestKeras and (not fixed_batch or True-2) or test_told and TestKeras

PY := $(VENV)/bin/python
DEMO := $(VENV)/.fusioncam-demo-$(FRAMEWORK)
DEV := $(VENV)/.fusioncam-dev

# The second variable is what pip 25.3 and later read for isolated builds; older ones read the first there too.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads that wait for work sleep: where others use the same cores, spinning costs several times the work itself.
export OMP_WAIT_POLICY ?= PASSIVE
# Most of a framework's modules are never imported: those that are get compiled then, once for all processes that follow.
# Where the environment forbids to keep what was compiled, each process would take seconds for it.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(PY) -m pip install --quiet --no-compile

# What JAX compiled for one test is found again by others, and by other processes: a third of what its tests take.
CACHED := JAX_COMPILATION_CACHE_DIR="$(abspath $(VENV))/jax-cache" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
  JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# Most of what is compiled in a test runs once, on a tiny model: two thirds of JAX's tests were XLA's optimisations. The
# code that users get, with them, is held to the same values by the wheel's jobs and all of it by test-all.
QUICKLY := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
  --xla_cpu_use_fusion_emitters=false"

# One thread a worker; a framework that is asked for and does not import is a failure, not a skipped test.
CHECK = $(CACHED) $(QUICKLY) OMP_NUM_THREADS=1 FUSIONCAM_REQUIRE=torch,tensorflow,keras,jax,flax,equinox $(PY) -m pytest -q

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-source test-plugins test-keras-torch test-keras-jax wheel env \
        bench study sweep gallery docs docs-links lint format typecheck clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO)  ## Explain two photographs with an ImageNet network
	$(PY) -m examples.demo --framework $(FRAMEWORK) --out "$(OUT)"

test: lint typecheck test-source test-plugins test-keras-torch test-keras-jax  ## Run every check: ruff, mypy, pytest

test-source: $(DEV)
	$(CHECK) $(WORKERS) $(ARGS)

test-plugins: $(DEV)
	$(CHECK) -o pythonpath="examples/plugin_onnx examples/plugin_method" examples/plugin_onnx examples/plugin_method

test-keras-torch: $(DEV)
	KERAS_BACKEND=torch $(CHECK) tests/test_keras.py tests/test_keras_contract.py tests/test_keras_loading.py \
	  tests/test_keras_kinds.py tests/test_keras_on_torch.py tests/test_told.py tests/test_inputs.py \
	  -k "not test_inputs or TestKeras"

test-keras-jax: $(DEV)
	KERAS_BACKEND=jax $(CHECK) tests/test_keras_contract.py tests/test_keras_kinds.py tests/test_told.py tests/test_inputs.py \
	  -k "$(KERAS_ON_JAX)"

# What every change need not wait for: what XLA optimises, eager JAX everywhere, exact maps where others are approximate, compiled functions
# at further sizes, every Keras model on JAX, environments of the wheel that are installed anew, other versions of Python,
# the oldest versions of what is required.
test-all: export FUSIONCAM_TESTS := all
test-all: KERAS_ON_JAX := not test_inputs or TestKeras
test-all: QUICKLY :=
# The report in a browser: skipped where there is no Chromium, such as Debian's package `chromium`.
test-all: test  ## Run the slow and redundant variants as well, and test the wheel in fresh environments
	$(INSTALL) playwright axe-playwright-python
	$(CHECK) -rs tests/test_report_browser.py
	$(INSTALL) --editable '.[ray]'
	$(CHECK) tests/test_ray.py tests/test_batches.py tests/test_ray_evaluate.py tests/faults/test_kill_ray.py
	$(INSTALL) 'moto[s3,server]' pyspark pandas
	$(CHECK) -rs tests/test_bucket.py tests/test_spark.py
	$(INSTALL) --editable '.[openvino,onnxruntime,torch2onnx,tf2onnx,jax2onnx]'
	$(CHECK) tests/test_engines.py tests/test_engine_choice.py tests/test_engines_jax.py tests/test_engines_keras.py tests/test_told.py
	$(CACHED) .ci/test-wheel --fresh
	PYTHON="$(PYTHON)" .ci/test-pythons

wheel: $(DEV)  ## Test the wheel in environments of its own
	$(CACHED) VENV="$(VENV)" .ci/test-wheel

env: $(DEV)

# Threads wait here as they do for users by default.
bench: $(BENCH)/.fusioncam-bench  ## Measure times, memory and accuracy beside other libraries: see docs/benchmarks.md
	env -u OMP_WAIT_POLICY $(BENCH)/bin/python -m benchmarks.run --out bench-out
	env -u OMP_WAIT_POLICY $(BENCH)/bin/python -m benchmarks.budgets --out bench-out
	$(BENCH)/bin/python -m benchmarks.report bench-out docs/benchmarks.md

study: $(BENCH)/.fusioncam-bench  ## Compare all methods by all metrics, PART by PART: see docs/study.md
	$(BENCH)/bin/python -m benchmarks.study $(PART) --out study-out $(if $(PHOTOGRAPHS),--photographs "$(PHOTOGRAPHS)")

sweep: $(SWEEP)/.fusioncam-sweep  ## Explain a model of every architecture of other packages: see docs/models.md
	-$(SWEEP)/bin/python -m benchmarks.sweep.run --out sweep-out
	$(SWEEP)/bin/python -m benchmarks.sweep.report sweep-out docs/models.md

gallery: $(DEV)  ## Explain photographs by all methods: see docs/gallery.md
	$(PY) -m examples.gallery --out docs/images/gallery --page docs/gallery.md

# Notebooks are run by the build: a framework's own threads, and its words on standard error, are none of the reader's.
SPHINX := FUSIONCAM_DOCS_VERSIONS="$(VERSIONS)" TF_CPP_MIN_LOG_LEVEL=3 $(DOCS)/bin/python -m sphinx -W --keep-going -j auto

docs: $(DOCS)/.fusioncam-docs  ## Build the site in docs/ into docs/_build/html, with every notebook run
	$(SPHINX) -b html docs docs/_build/html -d docs/_build/doctrees
	@[ ! -d .docs-cache ] || find .docs-cache -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
	@echo "The site begins at docs/_build/html/index.html"

docs-links: $(DOCS)/.fusioncam-docs  ## Follow the links that lead out of the site: needs a network
	$(SPHINX) -b linkcheck docs docs/_build/linkcheck -d docs/_build/doctrees

lint: $(DEV)  ## Check style, formatting and which room imports which
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo

format: $(DEV)  ## Put style and formatting right
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

typecheck: $(DEV)  ## Check types, strictly, over fusioncam_core
	$(PY) -m mypy

clean:  ## Remove what builds, checks, measurements and the demo wrote; the virtual environment stays
	rm -rf build dist demo-out bench-out study-out sweep-out docs/_build .mypy_cache .pytest_cache .ruff_cache
	find fusioncam_core backends tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The peers come without their dependencies, which would move the versions that are compared.
$(BENCH)/.fusioncam-bench: pyproject.toml constraints.txt benchmarks/peers/requirements.txt
	$(PYTHON) -m venv "$(BENCH)"
	$(BENCH)/bin/python -m pip install --quiet --editable '.[demo-torch,demo-tensorflow,demo-jax,openvino,test]'
	$(BENCH)/bin/python -m pip install --quiet --no-deps foolbox --requirement benchmarks/peers/requirements.txt
	@touch $@

# So do the packages of models.
$(SWEEP)/.fusioncam-sweep: pyproject.toml constraints.txt benchmarks/sweep/requirements.txt
	$(PYTHON) -m venv "$(SWEEP)"
	$(SWEEP)/bin/python -m pip install --quiet --editable '.[demo-torch,demo-tensorflow,demo-jax,equinox,test]' transformers
	$(SWEEP)/bin/python -m pip install --quiet --no-deps --requirement benchmarks/sweep/requirements.txt
	@touch $@

# Notebooks import all frameworks; of the packages of models only what they need and what is not there already.
$(DOCS)/.fusioncam-docs: pyproject.toml constraints.txt
	@echo "Installing fusioncam with what builds its site into $(DOCS): a few minutes, once."
	$(PYTHON) -m venv "$(DOCS)"
	$(DOCS)/bin/python -m pip install --quiet --no-compile \
	  --editable '.[demo-torch,demo-tensorflow,demo-jax,equinox,objects,report,docs]' transformers
	$(DOCS)/bin/python -m pip install --quiet --no-compile --no-deps timm torchvision foolbox
	@touch $@

$(VENV)/pyvenv.cfg:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "'$(PYTHON)' was not found: name a Python 3.11 or newer, as in 'make PYTHON=python3.12 ...'." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fusioncam needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1):" \
	         "name another one, as in 'make PYTHON=python3.12 ...'." >&2; exit 1; }
	@$(PYTHON) -m venv "$(VENV)" || \
	  { echo "'$(PYTHON) -m venv' failed: on Debian and Ubuntu it needs the package python3-venv." >&2; exit 1; }

$(DEMO): pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	@echo "Installing fusioncam with $(FRAMEWORK) into $(VENV): a few minutes, once."
	$(INSTALL) --editable '.[demo-$(FRAMEWORK)]'
	@touch $@

# foolbox is wanted for its photographs alone, which the golden tests read as files: hence not for its dependencies.
# torchvision's compiled operators belong to another build of PyTorch: benchmarks/sweep/torchvision_operators.py has what
# models need in their place.
# torchcam and captum are what metrics are compared with; all they import is there already.
$(DEV): pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	@echo "Installing fusioncam with its tests' tools into $(VENV): a few minutes, once."
	$(INSTALL) --editable '.[demo-torch,demo-tensorflow,demo-jax,equinox,dev]' onnx onnxruntime onnxscript transformers
	$(INSTALL) --no-deps foolbox timm torchcam captum torchvision ./examples/plugin_onnx
	@touch $@
