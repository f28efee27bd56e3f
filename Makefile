# `make` alone prints what there is. Everything runs from .venv, which is built in this folder from the lock, once, and
# again when the lock changes. `bench`, `test`, `test-fast`, `torture`, `lint`, `pictures` and `sweep` fetch their tools at
# their first call; `data`, `audit` and `lock` always need the network.

PYTHON ?= python3
PROFILE ?= demo
RUN ?= $(PROFILE)
SETS ?= seed=1,2,3
EXECUTOR ?= local
JOBS ?= 2
PORT ?= 8866
ARGS ?=

PY := .venv/bin/python
UV := $(PY) -m uv
# Copies of the locks, put into .venv when all that they pin is installed.
READY := .venv/analysis.lock
DEV_READY := .venv/dev.lock
SWEEP_READY := .venv/sweep.lock

.DEFAULT_GOAL := help
.PHONY: help setup reports test test-fast torture data lab app bench sweep slides pictures results lint audit lock clean FORCE

help: ## print this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: PYTHON=python3.12 (which Python builds .venv), PROFILE=$(PROFILE) (reports), RUN=$(RUN) (slides), PORT=$(PORT) (app),"
	@echo "SETS='seed=1,2,3 recipe=classic,full', JOBS=2, EXECUTOR=local, slurm or kubernetes (sweep),"
	@echo "ARGS='...' (handed on by reports, test, test-fast, torture, lab, app, bench, sweep, results, lock). Example: make reports ARGS='--set seed=2 --name two'"

setup: $(READY) ## build .venv from requirements/analysis.lock
	@echo "Ready: .venv ($$($(PY) --version)). Next: make reports"

reports: $(READY) ## run the seven notebooks into reports/demo (or PROFILE=chest_xray, smoke)
	$(PY) -m helpers.run --profile $(PROFILE) $(ARGS)

# On two cores: one of three waits, for a kernel that starts, a browser or a page.
test: $(DEV_READY) ## run all tests
	$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(DEV_READY) ## run the unit tests: the loop while you write
	$(PY) -m pytest -n 2 --dist loadfile tests/unit $(ARGS)

torture: $(DEV_READY) ## kill runs, fill the disk, feed oddities, fuzz the readers (about 90 minutes)
	$(PY) -m tests.torture $(ARGS)

data: $(READY) ## download the public dataset into data/chest_xray (2.3 GB to fetch, 1.2 GB kept)
	$(PY) -m helpers.download

lab: $(READY) ## step through the notebooks in JupyterLab
	$(PY) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(ARGS)

app: $(READY) ## serve the prediction page on this machine (PORT=8866)
	$(PY) -m helpers.serve --port $(PORT) $(ARGS)

# Without `--template slides`, nbconvert makes slides that fetch reveal.js from the network each time they are shown.
slides: $(READY) ## make slides of the notebooks that ran in reports/demo (or RUN=name)
	@test -e reports/$(RUN)/01_eda.ipynb || { echo "reports/$(RUN) has no notebooks that ran: make reports first, or name a run, RUN=..." >&2; exit 1; }
	$(PY) -m nbconvert --to slides --template slides --TemplateExporter.extra_template_basedirs=helpers/run/templates \
	  --HTMLExporter.exclude_anchor_links=True --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags=plot \
	  --TagRemovePreprocessor.remove_cell_tags=injected-parameters \
	  --output-dir=reports/$(RUN)/slides reports/$(RUN)/0*.ipynb
	@echo "Open reports/$(RUN)/slides/01_eda.slides.html and press the space bar. No network is needed."

bench: $(DEV_READY) ## measure speed and memory (phantoms only, no download)
	$(PY) -m tests.benchmarks $(ARGS)

# As many runs at once as JOBS says and memory holds; the Snakefile says what one takes.
sweep: $(SWEEP_READY) ## run every combination of SETS, then compare them in reports/sweep-PROFILE/index.html
	$(PY) -m snakemake --profile workflow/profiles/$(EXECUTOR) --jobs $(JOBS) \
	  --resources mem_mb=$$($(PY) -c 'import psutil; print(psutil.virtual_memory().available >> 20)') \
	  --config profile=$(PROFILE) sets="$(SETS)" $(ARGS)

pictures: $(DEV_READY) ## make the pictures in docs/ from reports/demo
	$(PY) docs/make_pictures.py

results: $(READY) ## make the table of reports/RESULTS.md from the records in reports/results
	$(PY) docs/make_results.py $(ARGS)

lint: $(DEV_READY) ## check style, types, documents, notebooks and the lists of packages
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m tests.lint

# Without --strict, pip-audit calls packages that it could not ask about clean.
audit: $(DEV_READY) ## ask which locked packages have known vulnerabilities (needs the network)
	$(UV) tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes -r requirements/analysis.lock -r requirements/dev.lock -r requirements/sweep.lock

# Pins that still fit the lists stay; `make lock ARGS=--upgrade` moves them all.
lock: $(DEV_READY) ## resolve requirements/*.in into the locks, with hashes (needs the network)
	$(UV) pip compile --quiet --universal --fork-strategy fewest --generate-hashes --python-version 3.11 --no-header $(ARGS) requirements/analysis.in -o requirements/analysis.lock
	$(UV) pip compile --quiet --universal --fork-strategy fewest --generate-hashes --python-version 3.11 --no-header $(ARGS) requirements/dev.in -o requirements/dev.lock
	$(UV) pip compile --quiet --universal --fork-strategy fewest --generate-hashes --python-version 3.11 --no-header $(ARGS) requirements/sweep.in -o requirements/sweep.lock

clean: ## remove .venv, caches and the phantoms drawn by code
	rm -rf .venv .snakemake .pytest_cache .ruff_cache .hypothesis data/demo data/smoke data/demo-[0-9]* data/smoke-[0-9]*
	find . -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	@echo "Left as they are: reports/, data/chest_xray, data/pretrained and everything else in data/."

# A set-up that was interrupted leaves .venv/unfinished behind, and the next one starts from an empty .venv; so does a
# .venv whose Python has gone. A changed lock is installed over what is there.
$(READY): requirements/analysis.lock $(if $(shell test -x $(PY) && echo yes),,FORCE)
	@set -e; \
	if cmp -s requirements/analysis.lock $@ && ! test -e .venv/unfinished && $(PY) -m pip --version >/dev/null 2>&1; then \
	  touch $@; exit 0; \
	fi; \
	if test -e .venv/unfinished || ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  if ! $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    echo "Python 3.11, 3.12 or 3.13 is needed, but '$(PYTHON) --version' says: $$($(PYTHON) --version 2>&1 | head -n 1)." \
	      "Name another one: make setup PYTHON=python3.12" >&2; exit 1; \
	  fi; \
	  $(PYTHON) -m venv --clear .venv; \
	fi; \
	touch .venv/unfinished; \
	echo "Installing about 150 packages (some 800 MB to download the first time) into .venv; this takes a few minutes."; \
	$(PY) -m pip install --disable-pip-version-check --require-hashes -r requirements/analysis.lock || { \
	  echo "The set-up did not finish; pip's lines above say why. It needs the network this once. Try again: make setup" >&2; \
	  exit 1; }; \
	cp requirements/analysis.lock $@; \
	rm -f .venv/unfinished

$(DEV_READY): requirements/dev.lock $(READY)
	@if ! cmp -s requirements/dev.lock $@; then \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock || { \
	    echo "The tools for tests are not installed; pip's lines above say why. Try again when there is a network." >&2; \
	    exit 1; }; \
	fi; \
	cp requirements/dev.lock $@

$(SWEEP_READY): requirements/sweep.lock $(READY)
	@if ! cmp -s requirements/sweep.lock $@; then \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/sweep.lock || { \
	    echo "Snakemake is not installed; pip's lines above say why. Try again when there is a network." >&2; \
	    exit 1; }; \
	fi; \
	cp requirements/sweep.lock $@
