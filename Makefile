# make demo: from nothing to a photo with landmarks. make test: from nothing to passed tests.
# Each creates the virtual environment that it needs, again when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/ready

.PHONY: demo docs test lint screen clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(READY)

# a model trained on synthetic faces is evaluated on synthetic faces; the photo is for the released model
demo: $(READY)
	$(BIN)/python cli.py train --config quick --data synthetic --out runs/demo --overwrite
	$(BIN)/python cli.py evaluate runs/demo
	$(BIN)/python cli.py predict docs/astronaut.jpg --model resnet18 --out runs/demo/photo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture landmarks_fastai cli.py --min-confidence 80

# the site is written to site/; any warning is an error
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# what the tests of the window and of the page need; without it they are skipped
screen:
	apt-get update -qq
	apt-get install -y -qq chromium xvfb xdotool ffmpeg

clean:
	rm -rf $(VENV) site
