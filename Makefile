# `make` lists the targets. Settings, in the environment or behind make: PYTHON, PYTHON36, PYTEST_WORKERS, HELM.

PYTHON ?= python3
PYTHON36 ?= $(firstword $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.6.*/bin/python) python3.6)
PYTEST_WORKERS ?= 2
# The tests of charts/ are skipped where it is not there.
HELM ?= helm
export HELM

PACKAGES := core agent trainer evaluator analyst gateway
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VENV36 := .venv36
INSTALLED36 := $(VENV36)/.installed

# One thread per process: the tests run in parallel, and steps say their own thread counts.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) ## Make .venv with every package and tool; at once when nothing changed
	@:

$(INSTALLED): $(PACKAGES:%=services/%/pyproject.toml) constraints.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Edgejoule needs Python 3.10 or newer, and PYTHON=$(PYTHON) is not: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV), once: torch, ONNX Runtime, OpenVINO and the rest; about a minute plus the download ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --progress-bar off \
	  --constraint constraints.txt --requirement requirements-dev.txt --editable 'services/core[stack,accounts]' $(PACKAGES:%=--editable services/%)
	@touch $@
	@echo "Done."

.PHONY: demo
demo: setup ## Two detectors from weights and images to a judged result, in at most eight minutes
	@$(BIN)/edgejoule data generate --into runs/demo/data
	@$(BIN)/edgejoule run examples/demo.yaml --out runs/demo

.PHONY: demo-full
demo-full: setup ## Five detectors x all precisions, in at most three quarters of an hour
	@$(BIN)/edgejoule data generate --into runs/demo-full/data --train 3000 --val 100
	@$(BIN)/edgejoule run examples/demo-full.yaml --out runs/demo-full

.PHONY: learnability
learnability: setup ## Each detector from random weights to AP50 .5 on generated pictures (at most a quarter of an hour each)
	@$(BIN)/edgejoule data generate --into runs/learnability/data --train 3000 --val 300
	@$(BIN)/edgejoule run examples/learnability.yaml --out runs/learnability

.PHONY: test
test: setup ## The fast tests: unit, contract, integration, doctests
	@$(BIN)/pytest -q -n $(PYTEST_WORKERS)

.PHONY: test-py36
test-py36: $(INSTALLED36) ## The agent's tests under a real Python 3.6 with numpy 1.19, as on a Jetson Nano
	@$(VENV36)/bin/python -m compileall -q services/agent/src
	@PYTHONPATH=services/agent/src:tests $(VENV36)/bin/python -m pytest -q -c /dev/null --rootdir . --confcutdir tests/unit/agent -p no:cacheprovider \
	  --import-mode=importlib tests/unit/agent

# pip comes in two strides, since the pip that 3.6 brings picks wheels and build back ends that 3.6 cannot run;
# --isolated keeps it from indexes that were set up for newer Pythons.
$(INSTALLED36): requirements-py36.txt
	@$(PYTHON36) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 6))' 2>/dev/null || { \
	  echo "No Python 3.6 found (tried $(PYTHON36)): pyenv install 3.6.15, or make test-py36 PYTHON36=/path/to/python3.6"; exit 1; }
	@echo "Installing the agent's Python 3.6 packages into $(VENV36), once; half a minute ..."
	@$(PYTHON36) -m venv $(VENV36)
	@$(VENV36)/bin/python -m pip --isolated --disable-pip-version-check install -q $${PIP_CERT:+--cert "$$PIP_CERT"} pip==21.3.1
	@$(VENV36)/bin/python -m pip --isolated --disable-pip-version-check install -q $${PIP_CERT:+--cert "$$PIP_CERT"} \
	  --requirement requirements-py36.txt
	@touch $@

.PHONY: faithfulness
faithfulness: setup ## Our detectors beside their authors' code, same random weights (fetches that code into .references)
	@$(BIN)/python tests/faithfulness/run.py $(ARGS)

.PHONY: live-view
live-view: setup ## Every query of the dashboards during a run, and what Prometheus saw beside the records (nine minutes)
	@$(BIN)/python tests/integration/live_view.py $(ARGS)

.PHONY: live-alerts
live-alerts: setup ## A simulated board gets hot, loses a rail and is killed: a real Prometheus must say so (eight minutes)
	@$(BIN)/python tests/integration/live_alerts.py

.PHONY: bench-devices
bench-devices: setup ## Two hundred devices in one Prometheus: scrapes, rules and queries within their intervals (six minutes)
	@$(BIN)/python benchmarks/many_devices.py $(ARGS)

.PHONY: up
up: ## Start the whole stack in containers; writes .env with random secrets when there is none
	@$(PYTHON) docker/environment.py
	@docker compose up --detach --build --wait
	@echo "The stack is up. To use it from this host: set -a; . ./.env.operator; set +a; edgejoule submit SPEC"

.PHONY: down
down: ## Stop the stack; what it made stays in its volumes
	@docker compose --profile '*' down

.PHONY: test-stack
test-stack: setup ## The whole stack in real containers: built, used, scaled, gone (needs a Docker engine)
	@PYTHONPATH=tests $(BIN)/python tests/stack/run.py

.PHONY: test-faults
test-faults: setup ## Thirty faults at random moments while the stack works, and nothing is lost (a quarter of an hour)
	@PYTHONPATH=tests $(BIN)/python tests/stack/faults.py $(ARGS)

.PHONY: test-boards
test-boards: setup ## The boards' images built, in part emulated, used behind the stack, and a played board from nothing to removed
	@PYTHONPATH=tests $(BIN)/python tests/stack/boards.py $(ARGS)

.PHONY: jetson-deploy
jetson-deploy: setup ## Bring the agent onto a Jetson over ssh and register it: HOST=user@board NAME=nano (POWER_MODES=1)
	@$(BIN)/python l4t/deploy.py deploy

.PHONY: jetson-status
jetson-status: setup ## How the agent on a Jetson fares: HOST=user@board
	@$(BIN)/python l4t/deploy.py status

.PHONY: jetson-logs
jetson-logs: setup ## What the agent on a Jetson says: HOST=user@board, FOLLOW=1 to stay with it
	@$(BIN)/python l4t/deploy.py logs

.PHONY: jetson-remove
jetson-remove: setup ## Take the agent off a Jetson and void its token: HOST=user@board
	@$(BIN)/python l4t/deploy.py remove

.PHONY: lint
lint: setup ## Style, format, types, and that the agent asks for no Python newer than 3.6
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/vermin --quiet --no-tips --eval-annotations --target=3.6- --violations services/agent/src l4t/edgejoule_power.py

.PHONY: check
check: lint test test-py36 ## All that CI checks, but the demo

.PHONY: docs
docs: schemas ## Write the generated pages: cli, spec, detectors, paper-audit, schemas, and errors by making each one (minutes)
	@$(BIN)/python -m edgejoule.reference
	@$(BIN)/python -m edgejoule_trainer.detector_table
	@$(BIN)/python -m edgejoule_analyst.audit_page
	@$(BIN)/python tests/integration/bad_input.py

.PHONY: dashboards
dashboards: setup ## Write Grafana's dashboards (grafana/dashboards.py makes them; needs Python 3.11)
	@$(BIN)/python grafana/dashboards.py

.PHONY: schemas
schemas: setup ## Write the JSON Schema files of the records
	@$(BIN)/python -m edgejoule.schemas

.PHONY: step-versions
step-versions: setup ## Write down the sources of each step kind whose VERSION was raised
	@$(BIN)/python tests/contract/test_step_versions.py $(ARGS)

.PHONY: demo-weights
demo-weights: setup ## Train the demo's small starts again (an hour; examples/ holds the results)
	@for detector in nanodet_m yolov5n; do $(BIN)/python -m edgejoule_trainer.demo_weights $$detector || exit 1; done

.PHONY: clean
clean: ## Remove environments, caches and the demo's files; finished steps stay in runs/.store
	rm -rf $(VENV) $(VENV36) .references runs/demo runs/demo-full runs/learnability .mypy_cache .ruff_cache .pytest_cache .hypothesis services/*/src/*.egg-info
	find services tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
