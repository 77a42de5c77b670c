# make demo and make test work on a machine with Python 3.11, make and git.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo_data
READY := $(VENV)/.ready

# The thread pools of a test's libraries would fight over the cores that xdist already fills.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup viewer demo test lint lock docs notices container-test cluster-test boutiques clean

help:
	@echo "make demo   phantom dataset through the participant and group levels"
	@echo "make test   the whole test suite"
	@echo "make docs   the documentation as web pages"

setup: $(READY)

$(READY): requirements.lock pyproject.toml javascript/deno.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python javascript/bring.py || echo 'Reports will have the simpler views of nilearn; "make viewer" tries again.'
	touch $(READY)

# What draws the interactive views of reports.
viewer: setup
	$(BIN)/python javascript/bring.py

demo: setup
	$(BIN)/neurolesion-tools demo $(DEMO)
	$(BIN)/neurolesion $(DEMO)/bids $(DEMO)/derivatives participant -w $(DEMO)/work \
	    --output-spaces MNI152NLin2009aSym:res-2
	$(BIN)/neurolesion $(DEMO)/bids $(DEMO)/derivatives group
	@echo "Open $(CURDIR)/$(DEMO)/derivatives/sub-01.html and group.html beside it."

test: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=docs/generator $(BIN)/mypy docs/generator/*.py javascript/bring.py
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/codespell bids_app tests benchmarks docs derivatives_spec javascript templates/reports *.md
	$(BIN)/bosh validate --bids boutiques.json

# Run in a fresh environment after a change of pyproject.toml.
lock: setup
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock

# mkdocs-material would print an announcement of its makers at every build.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open $(CURDIR)/build/docs/index.html, or serve it with search: $(BIN)/mkdocs serve"

notices: setup
	$(BIN)/python docs/generator/notices.py

# Builds the image and runs it beside a bare run; needs podman or docker (ENGINE=docker).
container-test: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/container/run.sh

# Starts a SLURM of one node and runs the demo dataset through it; needs slurm-wlm, munge and root.
cluster-test: setup
	tests/cluster/run.sh

# After a change of the command line.
boutiques: setup
	$(BIN)/python -m bids_app.cli.descriptor boutiques.json

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
