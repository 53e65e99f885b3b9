"""Fixtures of the command line tests.

workspace        Path of the current folder, with the trained run runs/quick
predictor        Predictor of that run
training_data    LandmarkDataset that the run was trained on
photo            (120, 200, 3) uint8 RGB image with a face right of the center
kaggle_archive   Path of a small zip in Kaggle's layout
fold_models      Path of a folder with two fold models that differ
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.schemas import KAGGLE15


@pytest.fixture
def workspace(trained_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to the folder with runs/quick."""
    monkeypatch.chdir(trained_workspace)
    return trained_workspace


@pytest.fixture(scope="session")
def predictor(trained_workspace: Path) -> Predictor:
    """Open the trained model."""
    return Predictor.open(trained_workspace / "runs" / "quick", "cpu")


@pytest.fixture
def training_data(cache_dir: Path) -> LandmarkDataset:
    """Load the data of runs/quick."""
    return load_dataset(DataConfig(source="synthetic", count=60), seed=0, cache=cache_dir)


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """Return a wide image with a face right of its center."""
    image = np.full((120, 200, 3), 90, np.uint8)
    image[12:108, 80:176] = draw_synthetic_faces(1, seed=9).images[0]
    return image


@pytest.fixture(scope="session")
def kaggle_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a zip in Kaggle's layout: nine training and five test images, and a shuffled lookup table."""
    train, test = draw_synthetic_faces(9, seed=21), draw_synthetic_faces(5, seed=22)
    columns = [f"{name}_{axis}" for name in KAGGLE15.names for axis in "xy"]
    training = [",".join([*columns, "Image"])]
    for image, points in zip(train.images, train.points, strict=True):
        training.append(",".join([*(f"{value:.6f}" for value in points.ravel()), gray_text(image)]))
    testing = ["ImageId,Image", *(f"{50 - i},{gray_text(image)}" for i, image in enumerate(test.images))]
    requested = [f"{image},{column}" for image in range(46, 51) for column in columns[:20]]
    shuffled = np.random.default_rng(0).permutation(requested)
    lookup = ["RowId,ImageId,FeatureName,Location", *(f"{i + 1},{one}," for i, one in enumerate(shuffled))]
    path = tmp_path_factory.mktemp("kaggle") / "small.zip"
    path.write_bytes(
        zip_bytes(
            {
                "training.zip": zip_bytes({"training.csv": "\n".join(training).encode()}),
                "test.zip": zip_bytes({"test.csv": "\n".join(testing).encode()}),
                "IdLookupTable.csv": "\n".join(lookup).encode(),
            }
        )
    )
    return path


@pytest.fixture(scope="session")
def fold_models(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write fold-1 and fold-2 with the trained model and different noise added to its first layer."""
    folder = tmp_path_factory.mktemp("runs") / "folds"
    model = open_model(trained_workspace / "runs" / "quick")
    assert model.network is not None
    weights = model.network.state_dict()
    first = next(iter(weights))
    for fold in (1, 2):
        noise = torch.randn(weights[first].shape, generator=torch.Generator().manual_seed(fold))
        path = folder / f"fold-{fold}" / "model.safetensors"
        save_model(path, {**weights, first: weights[first] + 0.1 * noise}, model.header)
    return folder


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """Return a zip archive with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def gray_text(image: NDArray[np.uint8]) -> str:
    """Return the pixels as text in Kaggle's format."""
    return " ".join(map(str, image.ravel().tolist()))
