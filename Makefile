PYTHON ?= python3
BIN := .venv/bin
# a worker a core; one that starts engines takes 1 to 2 GiB
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4
.DEFAULT_GOAL := help
# images of containers often set it; without caches of bytecode the checks take a quarter longer
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help run check test long thorough lint install install-dev lock generate docs format \
	bench-scoring effects smollm2-math smollm2-skills recovery sweep families hostile gpu-check

help:                     ## this list
	@awk -F ':[^#]*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install              ## the main job on the embedded model
	$(BIN)/harness run

check: lint               ## format, lint, types, imports and the quick tests: the loop while working
	$(PYTEST) --tier quick

test: lint                ## the same with the tests that start vLLM
	$(PYTEST)

long: install-dev         ## longer tests, which CI runs besides
	$(PYTEST) --tier long

thorough: lint            ## all tests, also second ways to the same ground
	$(PYTEST) --tier all

lint: install-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

install:                  ## what running needs, into .venv
	@$(PYTHON) scripts/install.py

install-dev:              ## that and what development needs
	@$(PYTHON) scripts/install.py dev

lock: install-dev         ## both locks from .venv, after changing a version there with pip
	$(BIN)/python -m scripts.lock

generate: install-dev     ## every generated file: commands.md, decisions, picture, figures of the pages, schema, failure kinds
	$(BIN)/python -m scripts.write_commands
	$(BIN)/python -m scripts.write_decisions
	$(BIN)/python -m scripts.make_figures
	$(BIN)/python -m scripts.write_figures
	$(BIN)/python -m scripts.write_schema
	$(BIN)/python -m scripts.write_failure_kinds

docs: install-dev         ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: install-dev       ## format and lint, repaired
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench-scoring: install    ## scoring against the bare forward pass
	$(BIN)/python benchmarks/scoring.py

effects: install          ## the paper's effects on the embedded model, test split
	$(BIN)/python benchmarks/effects.py --split test --out docs/effects.json

smollm2-math: install-dev ## a 135M model with a real task accuracy, 15 to 50 minutes on two cores
	$(BIN)/harness recover smollm2-135m --task mini_math --arms dense --out runs/smollm2-math

smollm2-skills: install-dev ## a 135M model with three skills: word problems, facts, functions
	$(BIN)/harness recover smollm2-135m --arms dense --out runs/smollm2-skills \
	  --task mini_math,mini_facts,mini_code \
	  --mixture mini_math=680,mini_facts=112,mini_code=24,text=9 --samples 3640 --epochs 1 \
	  --packing --batch 1 --learning-rate 3e-4 --curve 0 --limit 200

recovery: install         ## what fine-tuning recovers on the embedded model: 4 arms, 2 ratios, 3 seeds
	$(BIN)/python benchmarks/recovered.py

sweep: install            ## the whole experiment on the embedded model, with the claims judged
	$(BIN)/harness sweep --preset laptop --out runs/laptop

hostile: install          ## programs that try to escape, in every mode of the sandbox: make hostile FOLDERS="A B"
	@test -n "$(FOLDERS)" || { echo 'name folders with programs and a manifest.json: make hostile FOLDERS="A B"'; exit 2; }
	$(BIN)/python -m tests.tasks.hostile --every-mode $(FOLDERS)

gpu-check: install        ## speed and memory on one GPU: make gpu-check ARGS="--shape 7b"; docs/gpu.md
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

families: install-dev     ## every architecture on vLLM, uniform and per-layer widths
	HARNESS_ALL_FAMILIES=1 $(PYTEST) --tier all tests/harness/engine/test_families.py \
		tests/harness/engine/test_vision_language.py tests/harness/engine/test_weight_swap.py \
		tests/harness/engine/test_elastic.py
