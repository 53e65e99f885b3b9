"""A model handed on is the same model: smaller or for another runtime, and without a word of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.modelfile import ModelHeader, open_model, save_model
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.network import build_network
from landmarks_fastai.schema import KAGGLE15
from landmarks_fastai.tasks.export import export_model


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    head = {"name": "soft-argmax", "width": 16, "scales": True}
    network = build_network("resnet18", head, 15, 1)
    header = ModelHeader(
        arch="resnet18",
        head=head,
        channels=1,
        input_size=64,
        mean=[0.5],
        std=[0.25],
        schema=KAGGLE15,
        recipe={"seed": 1, "data": {"source": "/home/somebody/faces.zip"}},
    )
    save_model(tmp_path / "model.safetensors", network.state_dict(), header)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("name", "half"), [("out.safetensors", True), ("out.safetensors", False), ("o.onnx", False)]
)
def test_the_points_stay_and_the_folders_go(trained: Path, tmp_path: Path, name: str, half: bool) -> None:
    out = tmp_path / name
    moved = export_model(trained, out, half=half)
    images = draw_faces(4, seed=3).images
    before, after = (Predictor.open(path, "cpu").predict_crops(images) for path in (trained, out))
    assert np.abs(before.points - after.points).max() <= 0.02
    assert moved <= 0.02
    assert open_model(out).header.recipe["data"]["source"] == "faces.zip"
    if half:
        assert out.stat().st_size < 0.55 * trained.stat().st_size
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_exported_is_told(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one of these ends"):
        export_model(trained, tmp_path / "model.pth")
    with pytest.raises(UserError, match="--half goes with"):
        export_model(trained, tmp_path / "model.onnx", half=True)
    with pytest.raises(UserError, match="--overwrite"):
        export_model(trained, trained)


def test_half_precision_that_moves_points_is_not_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landmarks_fastai.tasks.export.MOVED", -1.0)
    with pytest.raises(RunError, match="a point moved by"):
        export_model(trained, tmp_path / "out.safetensors", half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
