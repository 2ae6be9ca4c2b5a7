# For GNU make. `make` lists what there is. Targets make the environment first, in .venv.
# PYTHON chooses another Python and makes the environment again with it:
#   make run PYTHON=python3.12
# PARAMETERS go to papermill and change the parameters cell of the notebook:
#   make run PARAMETERS="-p SEED 7 -p MAX_STEPS 5000"
# LAB goes to JupyterLab:
#   make lab LAB="--no-browser --port 9000"

# The Python that made .venv; nothing if that has gone, as after an upgrade.
MADE_WITH := $(shell .venv/bin/python -c \
    'import sys; print(sys._base_executable)' 2> /dev/null)
PYTHON ?= $(or $(MADE_WITH),python3)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PARAMETERS ?=
LAB ?=
# Programs are started by `python -m`, which still works when the folder is renamed.
RUN := .venv/bin/python -m
BENCH := .venv-bench/bin/python -m
# The lock has the version of each package, of what it needs and of what builds it.
LOCKED := -c constraints.txt --build-constraint constraints.txt
OVERLAY := $(RUN) pip install --quiet --no-deps --build-constraint constraints.txt
NOTEBOOK := notebooks/dqn_cartpole.ipynb
EXECUTED := outputs/dqn_cartpole.ipynb
PAGE := outputs/dqn_cartpole.html
PYTEST := $(RUN) pytest -n logical --maxprocesses 8 --dist loadfile
# Packages and kernels come from the environment, whatever the user has set, and programs
# find the folders tools, tests and benchmarks.
export PIP_USER := 0
export JUPYTER_PREFER_ENV_PATH := 1
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH

.DEFAULT_GOAL := help
.PHONY: help lab run html test test-full notebook format lint browser has-browser
.PHONY: bench bench-full lock clean again

help:  ## list these targets
	@echo "This is for GNU make, which BSD calls gmake. It takes other values, such as"
	@echo "PYTHON=python3.12, PARAMETERS=\"-p SEED 7\" and LAB=\"--no-browser\"."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

lab: .venv/lab.stamp  ## open the notebook in JupyterLab
	$(RUN) jupyterlab --ServerApp.root_dir=notebooks \
	    --LabApp.default_url=/lab/tree/dqn_cartpole.ipynb $(LAB)

run: .venv/run.stamp  ## execute the notebook without a window; results in outputs/
	mkdir -p outputs
	$(RUN) papermill -k python3 $(NOTEBOOK) $(EXECUTED) $(PARAMETERS)
	$(RUN) tools.export_html $(EXECUTED) $(PAGE)
	@echo "Done. Read $(PAGE); its section 5 names the folder of the numbers."

html: .venv/run.stamp  ## export the notebook as it is as a page, without running it
	mkdir -p outputs
	$(RUN) tools.export_html $(NOTEBOOK) outputs/not_run.html

test: lint  ## check style, and run all tests that take minutes
	$(PYTEST) -m "not full"

test-full: lint has-browser .venv-bench/run.stamp  ## run all tests; they need Chromium
	$(PYTEST)

notebook:  ## run, and put outputs and pictures into the repository
	rm -f outputs/*.png  # pictures of an older run
	$(MAKE) run PARAMETERS=
	$(RUN) tools.refresh_notebook $(EXECUTED) outputs

format: .venv/test.stamp  ## format Python files and the notebook
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

lint: .venv/test.stamp  ## check style
	$(RUN) ruff check .
	$(RUN) ruff format --check .

browser: .venv/test.stamp  ## install Chromium for the tests, by apt-get or Playwright
	if command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update && apt-get install -y --no-install-recommends chromium; \
	else $(RUN) playwright install chromium; fi

has-browser: .venv/test.stamp
	@$(RUN) tests.helpers

bench: .venv-bench/run.stamp  ## compare with other implementations, in minutes
	$(BENCH) benchmarks.bench --quick

bench-full: .venv-bench/run.stamp  ## measure all of benchmarks/README.md, in hours
	$(BENCH) benchmarks.bench

lock: .venv/python-$(VERSION)  ## write both locks (UV_OPTIONS=--upgrade: newest)
	$(RUN) pip install --quiet uv -c constraints.txt
	$(RUN) uv pip compile --quiet --universal --python-version 3.10 \
	    --custom-compile-command "make lock" $(UV_OPTIONS) \
	    --output-file constraints.txt requirements-dev.txt
	$(RUN) uv pip compile --quiet --universal --python-version 3.10 \
	    --custom-compile-command "make lock" $(UV_OPTIONS) -c constraints.txt \
	    --output-file benchmarks/constraints.txt benchmarks/requirements.txt

clean:  ## remove environments, caches and all results
	if [ -e .venv/by-make ]; then rm -rf .venv; fi
	rm -rf .venv-bench .overlays .pytest_cache .ruff_cache
	rm -rf outputs executed.ipynb .ipynb_checkpoints .virtual_documents
	rm -rf notebooks/outputs notebooks/.ipynb_checkpoints notebooks/.virtual_documents
	find benchmarks tests tools -name __pycache__ -prune -exec rm -rf {} +

# No environment yet, or one with another Python, or one whose Python has gone. The mark
# comes before what can fail and stays, so that the next try knows the environment.
.venv/python-$(VERSION): $(if $(MADE_WITH),,again)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
	    "This is Python $(VERSION), and the notebook needs 3.10 or newer. " \
	    "Choose one: make PYTHON=python3.12 ...")'
	@if [ -e .venv ] && [ ! -e .venv/by-make ]; then \
	    echo "There is a .venv that this Makefile did not make. Move it away or" \
	        "remove it, and run make again."; exit 1; fi
	mkdir -p .venv
	touch .venv/by-make
	find .venv -mindepth 1 -maxdepth 1 ! -name by-make -exec rm -rf {} +
	$(PYTHON) -m venv .venv
	$(RUN) pip install --quiet pip -c constraints.txt
	touch $@

.venv/run.stamp: .venv/python-$(VERSION) requirements.txt constraints.txt
	$(RUN) pip install -r requirements.txt $(LOCKED)
	touch $@

.venv/lab.stamp: .venv/run.stamp
	$(RUN) pip install jupyterlab $(LOCKED)
	touch $@

# The tests try other versions of some packages, each in a folder of its own. NumPy 1.26
# has no wheel for Python 3.13.
.venv/test.stamp: .venv/run.stamp requirements-dev.txt
	$(RUN) pip install -r requirements-dev.txt $(LOCKED)
	rm -rf .overlays
	$(OVERLAY) --target .overlays/gym-0.25.0 gym==0.25.0
	case $(VERSION) in 3.10|3.11|3.12) \
	    $(OVERLAY) --target .overlays/numpy-1.26 numpy==1.26.4;; esac
	touch $@

.venv-bench/run.stamp: .venv/python-$(VERSION) benchmarks/requirements.txt \
    benchmarks/constraints.txt requirements.txt
	$(PYTHON) -m venv --clear .venv-bench
	$(BENCH) pip install --quiet pip -c benchmarks/constraints.txt
	$(BENCH) pip install -r benchmarks/requirements.txt -c benchmarks/constraints.txt \
	    --build-constraint benchmarks/constraints.txt
	touch $@
