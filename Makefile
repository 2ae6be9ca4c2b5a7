# Two commands do everything: `make run` and `make test`. Both make the environment first.
PYTHON ?= python3
BIN := .venv/bin
TOOLS := .venv-tools/bin
# Every version is that of the lock: of packages, of what they need, and of what builds them.
LOCKED := -c constraints.txt --build-constraint constraints.txt
NOTEBOOK := notebooks/dqn_cartpole.ipynb
EXECUTED := outputs/dqn_cartpole.ipynb
TO_HTML := $(BIN)/python tools/to_html.py

.PHONY: run html notebook test browser test-quick test-slow bench bench-full ablation search format lock licences audit clean

run: .venv/run.stamp  ## execute the notebook headless; results in outputs/
	mkdir -p outputs
	$(BIN)/jupyter nbconvert --config tools/nbconvert_progress.py --to notebook --stdin --output $(EXECUTED) < $(NOTEBOOK)
	$(TO_HTML) $(EXECUTED) outputs
	@echo "Done. Read outputs/dqn_cartpole.html; the figures of the run are in outputs/metrics.json."

notebook: run  ## refresh the committed outputs and pictures from a real run
	$(BIN)/python tools/refresh_notebook.py $(EXECUTED) outputs

html: .venv/run.stamp  ## export the committed notebook, without running it
	mkdir -p outputs
	$(TO_HTML) $(NOTEBOOK) outputs

test: .venv/test.stamp browser  ## lint and all tests but the slow ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow"

browser: .venv/test.stamp  ## Chromium for the browser tests, where there is none
	@command -v chromium chromium-browser > /dev/null || \
	if command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	else $(BIN)/playwright install chromium; fi

test-quick: .venv/test.stamp  ## under a minute: no notebook is executed
	$(BIN)/python -m pytest -m "not run and not slow"

test-slow: .venv/test.stamp browser  ## everything, with full counts
	$(BIN)/python -m pytest

bench: .venv-bench/stamp  ## compare with other implementations, several minutes
	.venv-bench/bin/python benchmarks/floor.py
	.venv-bench/bin/python benchmarks/bench.py

bench-full: .venv-bench/stamp  ## the same with 20 seeds each, hours; replaces the tracked results
	.venv-bench/bin/python benchmarks/floor.py floor
	.venv-bench/bin/python benchmarks/bench.py --seeds 20 --notebook-seeds 20 --name latest

ablation: .venv-bench/stamp  ## what each change to plain DQN is worth, and what cost grows with
	.venv-bench/bin/python benchmarks/ablation.py
	.venv-bench/bin/python benchmarks/scaling.py

search: .venv-bench/stamp  ## search the hyperparameters again, on tuning seeds
	.venv-bench/bin/python benchmarks/search.py

format: .venv/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv-tools/uv.stamp  ## write constraints.txt anew; newest versions with UV_OPTIONS=--upgrade
	$(TOOLS)/uv pip compile --universal --python-version 3.10 --custom-compile-command "make lock" $(UV_OPTIONS) --quiet --output-file constraints.txt requirements-dev.txt requirements-tools.txt benchmarks/requirements.txt

licences: .venv-tools/stamp  ## write LICENCES.md: what requirements.txt installs, on Linux, with Python 3.11
	$(TOOLS)/uv venv --quiet --clear --python 3.11 .venv-tools/licences
	$(TOOLS)/uv pip install --quiet --python .venv-tools/licences -r requirements.txt $(LOCKED)
	$(TOOLS)/pip-licenses --python .venv-tools/licences/bin/python --with-system --format markdown --output-file LICENCES.md
	rm -rf .venv-tools/licences

audit: .venv-tools/stamp  ## look up every locked version among known vulnerabilities; needs the network
	$(TOOLS)/pip-audit --strict --disable-pip --no-deps -r constraints.txt $$(sed -n 's/^\([A-Z][^ ]*\) .*/--ignore-vuln \1/p' accepted-vulnerabilities.txt)

clean:
	rm -rf .venv .venv-bench .venv-tools .matrix outputs

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 12) or sys.exit("Python %d.%d found; this project needs 3.10, 3.11 or 3.12. Choose one: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv .venv
	touch $@

.venv/run.stamp: .venv/python.stamp requirements.txt constraints.txt
	$(BIN)/python -m pip install pip -c constraints.txt
	$(BIN)/python -m pip install -r requirements.txt $(LOCKED)
	touch $@

.venv/test.stamp: .venv/run.stamp requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt $(LOCKED)
	touch $@

.venv-bench/stamp: .venv/python.stamp benchmarks/requirements.txt requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install pip -c constraints.txt
	.venv-bench/bin/python -m pip install -r benchmarks/requirements.txt $(LOCKED)
	touch $@

# uv alone comes before the lock, which it writes.
.venv-tools/uv.stamp: .venv/python.stamp requirements-tools.txt
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python -m pip install $$(grep '^uv==' requirements-tools.txt)
	touch $@

.venv-tools/stamp: .venv-tools/uv.stamp constraints.txt
	$(TOOLS)/python -m pip install pip -c constraints.txt
	$(TOOLS)/python -m pip install -r requirements-tools.txt $(LOCKED)
	touch $@
