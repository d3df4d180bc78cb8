# Everything a developer runs. `make setup` is implied by the others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One torch thread per test process: with more, busy cores make torch many times slower.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1
WORKERS ?= 2

.PHONY: setup demo test lint format bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# A real clip with a box, and a drawn one by words, through the model that ships with the package.
DEMO_FORMATS := --format png --format exr --format prores --format composite --format overlay --format contact

demo: setup
	$(BIN)/x2roto segment demo/juggle.mp4 --box man=406,30,534,448 --frames 1001-1072 \
		$(DEMO_FORMATS) -o out/juggle --overwrite
	$(BIN)/x2roto footage make --out out/drawn-clip --count 1 --seed 29 --size 640x360 --frames 48
	$(BIN)/x2roto segment out/drawn-clip/000000/frames --text "man=the right man" --rate 24 --shot drawn \
		$(DEMO_FORMATS) -o out/drawn --overwrite
	@echo "Mattes (png, exr), movies (prores, composite, overlay) and contact sheets are in out/juggle and out/drawn:"
	@ls out/juggle out/drawn | grep -v '\.[0-9]*\.' || true

test: setup
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python bench/engine.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
