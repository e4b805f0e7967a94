PYTHON ?= python3
BIN := .venv/bin
.PHONY: run test thorough install lock format bench-scoring effects families smollm2-math recovery sweep

run: install       ## the main job on the embedded model
	$(BIN)/harness run

test: install      ## lint, types, imports, tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/python scripts/run_tests.py

thorough: install  ## the same, with the tests that are long
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/python scripts/run_tests.py -m ""

install:
	@$(PYTHON) scripts/install.py

format: install
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock:
	$(BIN)/python scripts/lock.py

bench-scoring: install   ## scoring against the bare forward pass
	$(BIN)/python benchmarks/scoring.py

effects: install         ## the paper's effects on the embedded model, test split
	$(BIN)/python benchmarks/effects.py --split test

smollm2-math: install    ## a 135M model with a real task accuracy, 15 to 50 minutes on two cores
	$(BIN)/harness recover smollm2-135m --task mini_math --arms dense --out runs/smollm2-math

recovery: install        ## what fine-tuning brings back on the embedded model: 4 arms, 2 ratios, 3 seeds
	$(BIN)/python benchmarks/recovered.py

sweep: install           ## the whole experiment on the embedded model, with the claims judged
	$(BIN)/harness sweep --preset laptop --out runs/laptop

families: install        ## every architecture on vLLM, uniform and per-layer widths
	HARNESS_ALL_FAMILIES=1 $(BIN)/pytest -m "" tests/harness/engine/test_families.py tests/harness/engine/test_weight_swap.py
