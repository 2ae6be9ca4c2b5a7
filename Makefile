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
# Programs are started by `python -m`, which still works when the folder is renamed.
RUN := .venv/bin/python -m
BENCH := .venv-bench/bin/python -m
# The locks have the version of each package, of what it needs and of what builds it.
INSTALL := pip install --build-constraint constraints.txt
OVERLAY := $(RUN) $(INSTALL) --quiet --no-deps --target
LOCK := $(RUN) uv pip compile --quiet --universal --python-version 3.10 \
    --custom-compile-command "make lock" $(UV_OPTIONS) --output-file
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
.PHONY: help lab run test test-full notebook format lint browser has-browser
.PHONY: bench bench-full lock clean again

help:  ## list these targets
	@echo "This is for GNU make, which BSD calls gmake. It takes other values, such as"
	@echo "PYTHON=python3.12, PARAMETERS=\"-p SEED 7\" and LAB=\"--no-browser\"."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

lab: .venv/lab.stamp notebooks/my_copy.ipynb  ## open your copy of the notebook
	$(RUN) jupyterlab --ServerApp.root_dir=notebooks \
	    --LabApp.default_url=/lab/tree/my_copy.ipynb $(LAB)

run: .venv/run.stamp  ## execute the notebook without a window; results in outputs/
	mkdir -p outputs
	$(RUN) papermill -k python3 $(NOTEBOOK) $(EXECUTED) $(PARAMETERS)
	$(RUN) tools.export_html $(EXECUTED) $(PAGE)
	@echo "Done. Read $(PAGE); its section 5 names the folder of the numbers."

test: lint  ## check style, and run all tests that take minutes
	$(PYTEST) -m "not full"

test-full: lint has-browser .venv-bench/run.stamp  ## run all tests; they need Chromium
	$(PYTEST)

notebook:  ## run, and put outputs and pictures into the repository
	rm -rf outputs  # so that nothing speaks of an older run
	$(MAKE) run PARAMETERS=
	$(RUN) tools.refresh_notebook $(EXECUTED)

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
	$(LOCK) constraints.txt requirements-dev.txt
	$(LOCK) benchmarks/constraints.txt benchmarks/requirements.txt -c constraints.txt

clean:  ## remove environments, caches and all results, but not your copy
	if [ -e .venv/by-make ]; then rm -rf .venv; fi
	rm -rf .venv-bench .overlays .pytest_cache .ruff_cache
	rm -rf outputs notebooks/outputs executed.ipynb notebooks/*.nbconvert.ipynb
	for name in .ipynb_checkpoints .virtual_documents __pycache__; do \
	    find . -name $$name -not -path "./.venv/*" -prune -exec rm -rf {} +; done

# What a reader changes is in a file of their own, which git does not see.
notebooks/my_copy.ipynb:
	cp $(NOTEBOOK) $@

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

.venv/run.stamp: .venv/python-$(VERSION) requirements-lesson.txt constraints.txt
	$(RUN) $(INSTALL) -r requirements-lesson.txt -c constraints.txt
	touch $@

.venv/lab.stamp: .venv/run.stamp
	$(RUN) $(INSTALL) jupyterlab -c constraints.txt
	touch $@

# The tests try other versions of some packages, each in a folder of its own. NumPy 1.26
# has no wheel for Python 3.13.
.venv/test.stamp: .venv/run.stamp requirements.txt requirements-dev.txt
	$(RUN) $(INSTALL) -r requirements-dev.txt -c constraints.txt
	rm -rf .overlays
	$(OVERLAY) .overlays/gym-0.25.0 gym==0.25.0
	case $(VERSION) in 3.10|3.11|3.12) \
	    $(OVERLAY) .overlays/numpy-1.26 numpy==1.26.4;; esac
	touch $@

.venv-bench/run.stamp: .venv/python-$(VERSION) requirements-lesson.txt \
    benchmarks/requirements.txt benchmarks/constraints.txt
	$(PYTHON) -m venv --clear .venv-bench
	$(BENCH) pip install --quiet pip -c benchmarks/constraints.txt
	$(BENCH) $(INSTALL) -r benchmarks/requirements.txt -c benchmarks/constraints.txt
	touch $@
