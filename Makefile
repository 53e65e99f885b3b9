# Every target except screen and clean first creates the virtual environment, and updates it when pyproject.toml has
# changed. make demo: train, evaluate, and predict the landmarks of a photo. make test: run the fast tests; with another
# Python: PYTHON=python3.12 VENV=.venv-3.12 make test.

PYTHON ?= python3
VENV ?= .venv
FUZZ_INPUTS ?= 100000
FUZZ_SEED ?= 0
LOWEST = .venv-lowest
BIN = $(VENV)/bin
READY = $(VENV)/ready

.PHONY: demo docs test coverage test-lowest fuzz gpu lint screen clean

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

# with the oldest versions of the dependencies that pyproject.toml allows; 7 GB with the CUDA build of torch
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip compile --quiet --resolution lowest-direct --python $(LOWEST)/bin/python pyproject.toml \
		--extra coco --extra deeplabcut --extra sleap --extra web -o $(LOWEST)/lowest.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python -r $(LOWEST)/lowest.txt pytest hypothesis psutil setuptools
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps -e .
	$(LOWEST)/bin/python -m pytest

# mutated files of every kind that is read; hours with the default number. It continues where it was stopped
fuzz: $(READY)
	$(BIN)/python benchmarks/damaged_input.py --inputs $(FUZZ_INPUTS) --seed $(FUZZ_SEED) --out runs/fuzz-$(FUZZ_SEED)

# the fast tests, slower, with the lines and branches of the package that they execute; fails below 92 %
coverage: $(READY)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# what is still to be measured on a GPU: training beside the bare step, also compiled, and beside the original loop
gpu: $(READY)
	mkdir -p runs/gpu
	$(BIN)/python benchmarks/training_speed.py --device cuda --out runs/gpu
	$(BIN)/python benchmarks/original_loop.py --device cuda --out runs/gpu

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
	rm -rf $(VENV) $(LOWEST) site
