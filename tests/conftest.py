"""What several tests share: small tables of drawn faces, and where the development data lies."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import settings

from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable

# a busy machine must not fail a test: nothing here is timed
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def faces() -> FaceTable:
    """Sixty drawn faces; every seventh lacks two thirds of its points, as most of Kaggle's do."""
    table = draw_faces(60, seed=5, size=96)
    points = table.points.copy()
    points[::7, 2:10] = float("nan")
    return FaceTable(table.images, points, table.schema, table.names, table.source, table.digest)


@pytest.fixture(scope="session")
def kaggle_zip() -> Path:
    """Find the development data in Kaggle's layout."""
    path = SHARED / "facial-keypoints-detection.zip"
    if not path.is_file():
        pytest.skip("the development data is not here")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep tests out of the user's cache; they share one of their own."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(cache))
    os.environ.setdefault("MPLBACKEND", "agg")
    return cache


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train once, as a user would: a folder with runs/quick, and train.log with what was printed."""
    from landmarks_fastai.cli import run

    folder = tmp_path_factory.mktemp("workplace")
    options = "--config quick --data synthetic --epochs 2 --batch-size 16 --device cpu"
    small = ["--set", "data.count=60", "--set", "model.input_size=32", "--set", "training.precision=fp32"]
    with pytest.MonkeyPatch.context() as patch, (folder / "train.log").open("w") as log, redirect_stdout(log):
        patch.chdir(folder)
        patch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert run(["train", *options.split(), *small]) == 0
    return folder
