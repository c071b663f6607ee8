# Every target makes its own environment: the first one installs everything into $(VENV), the others reuse it.
PYTHON ?= python3
VENV ?= .venv

PY = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed

.PHONY: help demo test slow lint docs bench campaign
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=$(PYTHON) (3.10 or newer), VENV=$(VENV)"

demo: $(INSTALLED)  ## train a teacher and three small students on generated images, print the table, draw the picture
	@$(PY) tools/demo.py

test: $(INSTALLED)  ## run the tests, but for the slow ones
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal -m 'not slow'

slow: $(INSTALLED)  ## run the slow tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal -m slow

lint: $(INSTALLED)  ## check the code with ruff
	@$(PY) -m ruff check .

bench: $(INSTALLED)  ## the short benchmarks: a training beside its bare networks, the data paths, the loss (needs CIFAR-100)
	@$(PY) -m benchmarks.step_time --rounds 3 --iterations 10 --json work_dirs/bench/step_time.json
	@$(PY) -m benchmarks.cache_time --rounds 2 --blocks 1 --json work_dirs/bench/cache_time.json
	@$(PY) -m benchmarks.data_time --rounds 3 --batches 10 --json work_dirs/bench/data_time.json
	@$(PY) -m benchmarks.loss_cost --quick --json work_dirs/bench/loss_cost.json
	@$(PY) -m benchmarks.sync_audit configs/crrcd/resnet56_resnet20_cifar100.py --cfg-options model.teacher_checkpoint=None

campaign: $(INSTALLED)  ## try to break it: kills, wrong settings, damaged files, files with code (docs/reliability.md)
	@OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(PY) -m campaign

docs: $(INSTALLED)  ## write the results into README and docs, check the pages, build the site into docs/_build/html
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[docs]'
	@$(PY) -m experiments render && $(PY) -m pytest -q tests/test_docs.py
	@rm -rf docs/api && OMP_NUM_THREADS=1 $(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# The stamp is written last, so an interrupted install is repeated.
$(INSTALLED): setup.py pyproject.toml mmcrrcd/version.py
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or newer, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "mmcrrcd needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'): name another with PYTHON=..." >&2; exit 1; }
	@test -x $(VENV)/bin/pip || { echo "Making the environment $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing mmcrrcd with torch and mmpretrain into $(VENV) (once, a few minutes)"
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@
