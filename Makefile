# `make repro` and `make test` need Python >= 3.11, make and git; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test soak cluster ui notebook clean

VIEWS := http://127.0.0.1:5000/\#/experiments

repro: $(VENV)/installed
	dvc repro
	@python -m pipeline headline
	@printf '%s\n' 'report:   reports/report.html' 'MLflow:   make ui' \
	  'commands: source $(VENV)/bin/activate, then python -m pipeline --help'
	@python -m pipeline compare | tail -n 2

test: $(VENV)/installed-tests
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile

soak: $(VENV)/installed-tests
	SOAK=1 OMP_NUM_THREADS=1 pytest -n 0 -m soak tests/soak tests/distributed

cluster: $(VENV)/installed-tests $(VENV)/installed-cluster
	OMP_NUM_THREADS=1 pytest -n 0 -m cluster tests/cluster

ui: $(VENV)/installed
	@printf '%s\n    %s\n' \
	  'the worst attack of each defence' '$(VIEWS)/1/runs?workflowType=machine_learning&viewStateShareKey=worst' \
	  'the whole grid' '$(VIEWS)/1/runs?workflowType=machine_learning&viewStateShareKey=current' \
	  'what the search found' '$(VIEWS)/2/runs?workflowType=machine_learning&viewStateShareKey=found' \
	  'the studies' '$(VIEWS)/2/runs?workflowType=machine_learning&viewStateShareKey=current' \
	  'the report' '$(VIEWS)/3/runs?workflowType=machine_learning&viewStateShareKey=current'
	@MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 --host 127.0.0.1 --port 5000 \
	  --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///tracking/mlflow.db}"

notebook: $(VENV)/installed-notebooks
	jupyter lab --no-browser --port=8888 --ServerApp.port_retries=0 \
	  --ServerApp.allow_origin=https://colab.research.google.com --ServerApp.allow_credentials=True

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "making an environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing the packages of pyproject.toml: some minutes, 6 GB with torch"
	python -m pip install --editable .
	touch $@

$(VENV)/installed-tests: pyproject.toml $(VENV)/installed
	python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/installed-cluster: pyproject.toml $(VENV)/installed
	python -m pip install --quiet --editable '.[cluster]'
	touch $@

$(VENV)/installed-notebooks: pyproject.toml $(VENV)/installed
	python -m pip install --quiet --editable '.[notebooks]'
	touch $@
