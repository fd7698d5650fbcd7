# Two commands on a fresh machine: `make demo` and `make test`. Python 3.11 or newer is all they need.
PYTHON ?= python3
VENV := .venv
SWINFT := $(VENV)/bin/swinft
# What each phase took, in seconds, printed at its end.
PHASE = @bash -c 'started=$$(date +%s); "$$@"; code=$$?; echo "[$$0: $$(( $$(date +%s) - started )) s]"; exit $$code'

.PHONY: help install demo test lint docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

install: $(VENV)/.installed  ## a virtual environment with swinft and what its tests need

$(VENV)/.installed: pyproject.toml
	$(PHASE) "virtual environment" $(PYTHON) -m venv $(VENV)
	$(PHASE) "install" $(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install  ## check, fit 3 folds for 16 of the config's 20 epochs, predict and submit on 500 real satellite tiles
	$(PHASE) "check" $(SWINFT) check --config configs/bluemarble.yaml
	$(PHASE) "fit" $(SWINFT) fit --config configs/bluemarble.yaml --overwrite --trainer.max_epochs 16
	$(PHASE) "predict" $(SWINFT) predict runs/bluemarble
	$(PHASE) "submit" $(SWINFT) submit runs/bluemarble
	$(PHASE) "report" $(SWINFT) report runs/bluemarble
	@echo
	@echo "submission   runs/bluemarble/submission.csv"
	@echo "report       runs/bluemarble/report.html"
	@echo "OOF          runs/bluemarble/oof.csv, scores in runs/bluemarble/scores.json"

test: install  ## the whole test suite
	$(VENV)/bin/python -m pytest -n 2

lint: install  ## ruff, ruff format and mypy, as CI runs them
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: install  ## the site, into site/; a warning or a link to nothing ends it
	$(PHASE) "docs" env NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet

clean:  ## delete the virtual environment, keep the runs
	rm -rf $(VENV) build site *.egg-info
