"""One small network and its model file, built once for the whole room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from landmarks_fastai.inference.modelfile import ModelHeader, save_model
from landmarks_fastai.network import build_network
from landmarks_fastai.schema import KAGGLE15


@pytest.fixture(scope="session")
def header() -> ModelHeader:
    return ModelHeader(
        arch="resnet18",
        head={"name": "lin-relu-lin", "hidden": 16},
        channels=3,
        input_size=64,
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.25, 0.3],
        schema=KAGGLE15,
        recipe={"epochs": 3},
        metrics={"rmse": 1.5},
    )


@pytest.fixture(scope="session")
def network(header: ModelHeader) -> nn.Module:
    torch.manual_seed(0)
    return build_network(header.arch, header.head, len(header.landmarks), header.channels).eval()


@pytest.fixture(scope="session")
def model_path(header: ModelHeader, network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first" / "model.safetensors"
    save_model(path, network.state_dict(), header)
    return path
