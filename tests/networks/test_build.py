"""Complete networks: inference builds the same modules as training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.training.learner import build_learner


@pytest.fixture(scope="module")
def small_dataset() -> LandmarkDataset:
    """Return 12 synthetic faces."""
    return draw_synthetic_faces(12, seed=1)


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("resnet18", "lin-relu-lin"),
        ("resnet18", "linear"),
        ("resnet18", "soft-argmax"),
        ("resnet50", "soft-argmax"),
        ("resnet18", "simcc"),
    ],
)
def test_build_network_from_header_loads_weights_of_learner(
    small_dataset: LandmarkDataset, tmp_path: Path, arch: str, head: str
) -> None:
    config = validate_config(
        {
            "model": {"arch": arch, "head": head, "input_size": 32},
            "training": {"device": "cpu", "batch_size": 4, "precision": "fp32"},
        },
        "test",
    )
    split = split_dataset(small_dataset, "random", 0.5, 0)
    learn = build_learner(config, small_dataset, split, tmp_path)
    header = learn.header
    network = build_network(header["arch"], header["head"], len(small_dataset.schema), header["channels"])
    network.load_state_dict(learn.model.state_dict(), strict=True)
    image = torch.randn(2, small_dataset.channels, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network.eval()(image), learn.model.eval()(image))
