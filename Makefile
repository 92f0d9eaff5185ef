PY ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: setup demo test slow check format clean

setup: $(STAMP)

# torch first and alone: its plain CPU build satisfies the pin before anything else can ask for CUDA
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PY) -m venv .venv
	@$(BIN)/python -m pip install -q --upgrade pip
	@$(BIN)/python -m pip install -q "torch==2.13.0"
	@$(BIN)/python -m pip install -q -e ".[dev]"
	@touch $(STAMP)

demo: setup
	$(BIN)/skyvec demo --out demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: setup
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --timeout 900

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

clean:
	rm -rf demo .mypy_cache .pytest_cache .ruff_cache build *.egg-info
