PYTHON ?= python3
BIN := .venv/bin
.PHONY: run test install lock format bench-scoring effects families

run: install       ## the main job on the embedded model
	$(BIN)/harness run

test: install      ## lint, types, imports, tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/pytest

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

families: install        ## every architecture on vLLM, uniform and per-layer widths
	HARNESS_ALL_FAMILIES=1 $(BIN)/pytest tests/harness/test_families.py
