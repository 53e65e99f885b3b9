"""Saving model files: atomic writes, file permissions, tensors that share memory, half precision."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers.file_sizes import limited_file_size
from safetensors.torch import load_file

from landmarks_fastai.errors import RunError
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.saving import save_model

WEIGHTS = {"a": torch.zeros(3)}


def test_save_model_to_full_disk_keeps_existing_file(tmp_path: Path, header: ModelHeader) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, WEIGHTS, header)
    before = path.read_bytes()
    with (
        limited_file_size(50_000),
        pytest.raises(RunError, match=r"model\.safetensors: cannot be written \(File too large"),
    ):
        save_model(path, {"a": torch.zeros(100_000)}, header)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_save_model_creates_file_with_permissions_of_umask(tmp_path: Path, header: ModelHeader) -> None:
    path, before = tmp_path / "model.safetensors", os.umask(0o022)
    try:
        save_model(path, WEIGHTS, header)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_save_model_accepts_tensors_that_share_memory(tmp_path: Path, header: ModelHeader) -> None:
    shared = torch.arange(6.0).view(2, 3)
    save_model(tmp_path / "m.safetensors", {"a": shared, "b": shared.t()}, header)
    assert torch.equal(load_file(tmp_path / "m.safetensors")["b"], shared.t())


def test_save_model_half_converts_matrices_only(tmp_path: Path, header: ModelHeader) -> None:
    weights = {"matrix": torch.rand(2, 3), "bias": torch.rand(3)}
    save_model(tmp_path / "m.safetensors", weights, header, half=True)
    saved = load_file(tmp_path / "m.safetensors")
    assert torch.equal(saved["matrix"], weights["matrix"].half())
    assert torch.equal(saved["bias"], weights["bias"])
