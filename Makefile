# Two commands do everything: `make run` and `make test`. Both make the environment first.
# Without PYTHON=, an environment that is there is used; another PYTHON makes a new one.
PYTHON ?= $(if $(wildcard .venv/python-*),.venv/bin/python,python3)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BIN := .venv/bin
# Every version is that of the lock: of packages, of what they need, and of what builds them.
LOCKED := -c constraints.txt --build-constraint constraints.txt
OVERLAY := $(BIN)/python -m pip install --quiet --no-deps --build-constraint constraints.txt --target .overlays
NOTEBOOK := notebooks/dqn_cartpole.ipynb
EXECUTED := outputs/dqn_cartpole.ipynb
PAGE := outputs/dqn_cartpole.html
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: run html notebook test test-full lint browser bench bench-full format lock clean

run: .venv/run.stamp  ## execute the notebook headless; results in outputs/
	mkdir -p outputs
	$(BIN)/papermill $(NOTEBOOK) $(EXECUTED) $(PARAMETERS)
	$(BIN)/python tools/export_html.py $(EXECUTED) $(PAGE)
	@echo "Done. Read $(PAGE); the figures of the run are in outputs/metrics.json."

notebook: run  ## refresh the committed outputs and pictures from a real run
	$(BIN)/python tools/refresh_notebook.py $(EXECUTED) outputs

html: .venv/run.stamp  ## export the committed notebook, without running it
	mkdir -p outputs
	$(BIN)/python tools/export_html.py $(NOTEBOOK) $(PAGE)

test: lint  ## lint and all tests that an ordinary change can break, in minutes
	$(PYTEST) -m "not full"

test-full: lint browser  ## everything: browser, versions, faults, full counts
	$(PYTEST)

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

browser: .venv/test.stamp  ## Chromium for the browser tests, where there is none
	@command -v chromium chromium-browser > /dev/null || \
	if command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	else $(BIN)/playwright install chromium; fi

bench: .venv-bench/run.stamp  ## compare with other implementations, several minutes
	.venv-bench/bin/python benchmarks/bench.py --quick

bench-full: .venv-bench/run.stamp  ## all that benchmarks/README.md reports, hours; replaces the tracked results
	.venv-bench/bin/python benchmarks/bench.py

format: .venv/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/python-$(VERSION)  ## write constraints.txt anew; newest versions with UV_OPTIONS=--upgrade
	$(BIN)/python -m pip install --quiet uv -c constraints.txt
	$(BIN)/uv pip compile --universal --python-version 3.10 --custom-compile-command "make lock" $(UV_OPTIONS) --quiet --output-file constraints.txt requirements-dev.txt benchmarks/requirements.txt

clean:
	rm -rf .venv .venv-bench .overlays outputs

# Python that is not the environment's, or no environment: make it anew.
.venv/python-$(VERSION):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python $(VERSION) found; this project needs 3.10 or newer. Choose one: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet pip -c constraints.txt
	touch $@

.venv/run.stamp: .venv/python-$(VERSION) requirements.txt constraints.txt
	$(BIN)/python -m pip install -r requirements.txt $(LOCKED)
	touch $@

# Other versions for the tests, each in a folder that a test puts before the others. NumPy 1.26 has
# no wheel for Python 3.13.
.venv/test.stamp: .venv/run.stamp requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt $(LOCKED)
	rm -rf .overlays
	$(OVERLAY)/gym-0.25.0 gym==0.25.0
	case $(VERSION) in 3.10|3.11|3.12) $(OVERLAY)/numpy-1.26 numpy==1.26.4;; esac
	$(OVERLAY)/gymnasium gymnasium farama-notifications -c constraints.txt
	touch $@

.venv-bench/run.stamp: .venv/python-$(VERSION) benchmarks/requirements.txt requirements.txt constraints.txt
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet pip -c constraints.txt
	.venv-bench/bin/python -m pip install -r benchmarks/requirements.txt $(LOCKED)
	touch $@
