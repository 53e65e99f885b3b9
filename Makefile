# make demo: from nothing to a drawn photo. make test: from nothing to passed tests.
# Each makes the virtual environment that it needs, and makes it anew when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/ready

.PHONY: demo test lint screen clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python cli.py train --config quick --data synthetic --out runs/demo --overwrite
	$(BIN)/python cli.py evaluate runs/demo
	$(BIN)/python cli.py predict docs/astronaut.jpg --model runs/demo --box 155,50,295,190 --out runs/demo/photo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture landmarks_fastai cli.py --min-confidence 80

# what the tests of the window and of the page need: without it they are skipped, and say so
screen:
	apt-get update -qq
	apt-get install -y -qq chromium xvfb xdotool ffmpeg

clean:
	rm -rf $(VENV)
