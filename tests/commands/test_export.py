"""Exported models: the same predictions, smaller or for ONNX Runtime, and no folders of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.killing import run_killed

from landmarks_fastai.commands.export import export_model
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.schemas import KAGGLE15

KILLED = """
import sys, time
from landmarks_fastai.commands import export
from landmarks_fastai.inference.predictor import Predictor

def wait(*_):
    print("written, but not complete", flush=True)
    time.sleep(60)

Predictor.open = wait
export.export_model(sys.argv[1], sys.argv[2], overwrite=True)
"""
"""A program that is killed when the new file is written, but has not been checked."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write a model with random weights whose config names folders."""
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
        config={"seed": 1, "data": {"source": "/home/somebody/faces.zip"}},
    )
    save_model(tmp_path / "model.safetensors", network.state_dict(), header)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("name", "half"), [("out.safetensors", True), ("out.safetensors", False), ("o.onnx", False)]
)
def test_export_keeps_predictions_and_strips_folders(
    model: Path, tmp_path: Path, name: str, half: bool
) -> None:
    out = tmp_path / name
    deviation = export_model(model, out, half=half)
    images = draw_synthetic_faces(4, seed=3).images
    original, exported = (Predictor.open(path, "cpu").predict_batch(images) for path in (model, out))
    assert np.abs(original.points - exported.points).max() <= 0.02
    assert deviation <= 0.02
    assert open_model(out).header.config["data"]["source"] == "faces.zip"
    if half:
        assert out.stat().st_size < 0.55 * model.stat().st_size
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("half", "advice"), [(True, "export without --half"), (False, r"export as \.safetensors")]
)
def test_export_that_differs_advises_what_was_not_done(
    model: Path, tmp_path: Path, half: bool, advice: str
) -> None:
    name = "out.safetensors" if half else "out.onnx"
    with pytest.raises(RunError, match=f"not written, because a prediction differs .*; {advice}$"):
        export_model(model, tmp_path / name, half=half, max_deviation=-1.0)


def test_export_killed_keeps_earlier_file_and_next_one_cleans_up(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported" / "out.safetensors"
    out.parent.mkdir()
    out.write_bytes(b"earlier")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(model), str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    assert out.read_bytes() == b"earlier"
    assert len(list(out.parent.iterdir())) == 2
    with pytest.raises(UserError, match="already exists"):
        export_model(model, out)
    export_model(model, out, overwrite=True)
    assert [path.name for path in out.parent.iterdir()] == ["out.safetensors"]


def test_export_refuses_other_suffix_half_onnx_and_existing_file(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use one of these suffixes"):
        export_model(model, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"--half is for \.safetensors files only"):
        export_model(model, tmp_path / "model.onnx", half=True)
    with pytest.raises(UserError, match="--overwrite"):
        export_model(model, model)


def test_export_refuses_onnx_file(model: Path, tmp_path: Path) -> None:
    export_model(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"model\.onnx: an ONNX file cannot be converted"):
        export_model(tmp_path / "model.onnx", tmp_path / "again.safetensors")


def test_export_with_deviating_predictions_leaves_no_file(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not written, because a prediction differs by"):
        export_model(model, tmp_path / "out.safetensors", half=True, max_deviation=-1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".onnx", marks=pytest.mark.slow)])
def test_export_killed_at_random_moments_keeps_a_complete_file(
    model: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / "folder" / f"out{suffix}"
    images = draw_synthetic_faces(1, seed=3).images
    began = time.monotonic()
    export_model(model, out)
    duration = time.monotonic() - began
    expected = Predictor.open(out, "cpu").predict_batch(images).points
    rng = np.random.default_rng(0)
    for _ in range(6):
        out.write_bytes(b"earlier")
        was_done = run_killed(rng.uniform(0, duration), partial(export_model, model, out, overwrite=True))
        if was_done or out.read_bytes() != b"earlier":
            np.testing.assert_array_equal(Predictor.open(out, "cpu").predict_batch(images).points, expected)
    export_model(model, out, overwrite=True)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    np.testing.assert_array_equal(Predictor.open(out, "cpu").predict_batch(images).points, expected)
