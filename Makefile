# `make` alone lists what there is; each target sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
DEMO_OPTIONS := $(if $(OPERATOR),--operator $(OPERATOR))
export CLUSTER

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Install and build what is missing (the other targets do it themselves)
	@dev/setup.sh

.PHONY: demo
demo: setup ## Inject faults into a real PostgreSQL and watch them healed (OPERATOR=off: unhealed; CLUSTER=kind: on kind)
	@$(PYTHON) -m kintsugi_dev.demo $(DEMO_OPTIONS)

.PHONY: torch
torch: ## Install what training the models needs (PyPI's torch brings CUDA: 2.7 GB to fetch, 5 GB on disk)
	@dev/setup.sh train

.PHONY: test
test: lint torch ## Lint, then the unit, contract and short end-to-end tests
	@$(PYTHON) -m pytest -m "not slow" tests/unit tests/contract tests/e2e

.PHONY: test-full
test-full: lint torch ## All tests, the slow ones too
	@$(PYTHON) -m pytest tests/unit tests/contract tests/e2e

.PHONY: lint
lint: setup ## Formatting, style, types, import rules, generated files
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
	@$(PYTHON) -m kintsugi.cli.crds --check
	@$(PYTHON) -m kintsugi_dev.admission --check
	@$(PYTHON) -m kintsugi.engines.catalogue --check
	@$(PYTHON) -m kintsugi_ml.lab.card --check
	@$(PYTHON) -m kintsugi_ml.detection.card --check

.PHONY: crds
crds: setup ## Generate what is generated: CRDs, docs/api.md, docs/signals.md, the copy of the admission policies
	@$(PYTHON) -m kintsugi.cli.crds
	@$(PYTHON) -m kintsugi_dev.admission
	@$(PYTHON) -m kintsugi.engines.catalogue --docs

.PHONY: bench
bench: setup ## Print detection time, CPU per cycle, memory, a model's CPU for 1,000 databases, `detect`'s time, the faults unhealed
	@$(PYTHON) -m kintsugi_dev.bench
	@OPENBLAS_NUM_THREADS=1 $(PYTHON) tests/bench/batched.py
	@$(PYTHON) tests/bench/detect_command.py
	@$(PYTHON) -m kintsugi_dev.demo --operator off

.PHONY: lab
lab: setup ## Record the fault lab's data set into data/lab-v1; resumable, hours (LAB="--minutes 60 --fault deadlocks")
	@$(PYTHON) -m kintsugi_ml.lab run $(LAB)

.PHONY: lab-check
lab-check: setup ## Run one fault from scratch and compare it with the recorded runs: FAULT=missing-index WORKLOAD=tpcc, or FAULT=all
	@$(PYTHON) -m kintsugi_ml.lab check --fault "$(FAULT)" --workload "$(WORKLOAD)" $(LAB)

.PHONY: lab-card
lab-card: setup ## Assemble the manifest, check for leaks, draw the pictures and fill the tables of docs/lab.md
	@$(PYTHON) -m kintsugi_ml.lab.card

.PHONY: train-detection
train-detection: torch ## Train the detector that ships, the same for the same data: under 30 minutes on 2 cores
	@$(PYTHON) -m kintsugi_ml.detection.evaluate ship
	@$(PYTHON) -m kintsugi_ml.lab.diagnosis --write

.PHONY: bundle
bundle: setup ## Pack the trained weights into the bundle that the operator loads (VERSION=2026.11.22)
	@$(PYTHON) -m kintsugi_ml.bundle $(or $(VERSION),$(shell date -u +%Y.%m.%d))

.PHONY: eval-detection
eval-detection: torch ## Compare detectors; resumable, hours; prints the table, writes docs/results/detection.json
	@$(PYTHON) -m kintsugi_ml.detection.evaluate run $(EVAL)
	@$(PYTHON) tests/bench/statistical.py
	@$(PYTHON) -m kintsugi_ml.detection.evaluate summary $(EVAL)
	@$(PYTHON) -m kintsugi_ml.lab.diagnosis --results docs/results/detection.json
	@$(PYTHON) -m kintsugi_ml.detection.card

.PHONY: cluster-up
cluster-up: setup ## Start the development cluster with the chart installed; writes out/cluster/kubeconfig
	@$(PYTHON) -m kintsugi_dev.cluster up

.PHONY: cluster-down
cluster-down: setup ## End the development cluster and remove all of it
	@$(PYTHON) -m kintsugi_dev.cluster down

.PHONY: kubectl
kubectl: setup ## Run kubectl on the development cluster: make kubectl ARGS="get mdb -A"
	@$(PYTHON) -m kintsugi_dev.cluster kubectl $(ARGS)

.PHONY: clean
clean: ## End the development cluster, remove out/ and tools' caches (.venv and ~/.cache/kintsugi stay)
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m kintsugi_dev.cluster down; fi
	@rm -rf out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
