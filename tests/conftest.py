"""Fixtures that tests of several packages share.

dataset             LandmarkDataset of 60 synthetic faces, some of them partially labeled
kaggle_zip          Path of a zip of real faces in Kaggle's layout; skips the test if it is missing
cache_dir           Path of the cache folder of all tests, applied to every test
trained_workspace   Path of a folder with the finished run runs/quick and its output train.log
header              ModelHeader of a small ResNet18 with 64 px inputs
network             nn.Module that `header` describes, with random weights
model_path          Path of a model file with `header` and `network`
"""

from __future__ import annotations

import os

# before torch is imported: results depend on the number of threads, which training chooses by measuring
os.environ.setdefault("OMP_NUM_THREADS", "1")

from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.schemas import KAGGLE15

# no deadline: examples are not timed, because a busy machine must not make a test fail
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def dataset() -> LandmarkDataset:
    """Return 60 synthetic faces; every seventh has 7 of 15 landmarks, like the partial rows of Kaggle."""
    complete = draw_synthetic_faces(60, seed=5, size=96)
    points = complete.points.copy()
    points[::7, 2:10] = np.nan
    return replace(complete, points=points)


@pytest.fixture(scope="session")
def kaggle_zip() -> Path:
    """Return the path of the zip of real faces in Kaggle's layout, which is not part of the repository."""
    path = SHARED_DATA / "facial-keypoints-detection.zip"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the user's cache folder with one that all tests share."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(folder))
    os.environ.setdefault("MPLBACKEND", "agg")
    return folder


@pytest.fixture(scope="session")
def trained_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train once from the command line; return the folder with runs/quick and the output in train.log."""
    from landmarks_fastai.cli.app import run

    folder = tmp_path_factory.mktemp("workspace")
    overrides = (
        "model.head=simcc",
        "model.input_size=32",
        "data.count=60",
        "training.loss=laplace",
        "training.precision=fp32",
    )
    command = ["train", "--config", "quick", "--data", "synthetic", "--device", "cpu"]
    command += ["--epochs", "2", "--batch-size", "16"]
    command += [argument for override in overrides for argument in ("--set", override)]
    with pytest.MonkeyPatch.context() as patch, (folder / "train.log").open("w") as log, redirect_stdout(log):
        patch.chdir(folder)
        patch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert run(command) == 0
    return folder


@pytest.fixture(scope="session")
def header() -> ModelHeader:
    """Return the header of a small ResNet18."""
    return ModelHeader(
        arch="resnet18",
        head={"name": "lin-relu-lin", "hidden": 16},
        channels=3,
        input_size=64,
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.25, 0.3],
        schema=KAGGLE15,
        config={"epochs": 3},
        metrics={"rmse": 1.5},
    )


@pytest.fixture(scope="session")
def network(header: ModelHeader) -> nn.Module:
    """Return the network that `header` describes, with random weights."""
    torch.manual_seed(0)
    return build_network(header.arch, header.head, len(header.landmark_schema), header.channels).eval()


@pytest.fixture(scope="session")
def model_path(header: ModelHeader, network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a model file with `header` and `network`."""
    path = tmp_path_factory.mktemp("runs") / "first" / "model.safetensors"
    save_model(path, network.state_dict(), header)
    return path
