# Every target except screen and clean first creates the virtual environment, and updates it when pyproject.toml has
# changed. make demo: train, evaluate, and predict the landmarks of a photo. make test: run the fast tests.

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

# a model trained on synthetic faces is not accurate on photos: the photo is predicted with the released model
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

# what the tests of the camera window and of the web page need (Debian, as root); without it they are skipped
screen:
	apt-get update -qq
	apt-get install -y -qq chromium xvfb xdotool ffmpeg

clean:
	rm -rf $(VENV) site
