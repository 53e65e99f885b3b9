"""Exported models: the same predictions, smaller or for ONNX Runtime, and no folders of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from landmarks_fastai.commands.export import export_model
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.evaluation.report import evaluate_dataset
from landmarks_fastai.export import targets
from landmarks_fastai.export.checks import Bounds
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.schemas import KAGGLE15

KILLED = """
import sys, time
from landmarks_fastai.commands import export
from landmarks_fastai.export import exporting

def wait(*_):
    print("written, but not complete", flush=True)
    time.sleep(60)

exporting._checked_record = wait
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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["out.safetensors", "out.onnx"])
def test_export_keeps_predictions_and_strips_folders(
    model: Path, tmp_path: Path, name: str, precision: str
) -> None:
    out = tmp_path / name
    result = export_model(model, out, precision=precision)
    images = draw_synthetic_faces(4, seed=3).images
    original, exported = (Predictor.open(path, "cpu").predict_batch(images) for path in (model, out))
    assert np.abs(original.points - exported.points).max() <= 0.02
    assert result.record.faces is not None
    assert result.record.faces.max <= 0.02
    assert result.size == out.stat().st_size
    assert open_model(out).header.config["data"]["source"] == "faces.zip"
    if precision == "fp16":
        assert out.stat().st_size < 0.55 * model.stat().st_size
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["out.safetensors", "out.onnx"])
def test_export_that_differs_is_refused_and_keeps_existing_file(
    model: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"existing file")
    bounds = Bounds(faces=-1.0, random=1.0, nme=1.0)
    with pytest.raises(RunError, match=r"not written, because an output differs .* on faces"):
        export_model(model, tmp_path / name, precision="fp16", overwrite=True, bounds=bounds)
    assert (tmp_path / name).read_bytes() == b"existing file"
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", name}


def test_export_with_data_records_nme_and_refuses_increase(model: Path, tmp_path: Path) -> None:
    data = DataConfig(source="synthetic", count=20)
    result = export_model(model, tmp_path / "a.onnx", data=data)
    nme = result.record.nme
    assert nme is not None
    assert nme.rows == 20
    assert abs(nme.change) < 1e-4
    dataset = load_dataset(data, seed=1)
    predicted = Predictor.open(tmp_path / "a.onnx", "cpu").predict_batch(dataset.images)
    assert nme.exported == pytest.approx(evaluate_dataset(predicted, dataset).overall.nme, rel=1e-3)
    with pytest.raises(RunError, match="not written, because the NME rises from"):
        export_model(model, tmp_path / "b.onnx", data=data, bounds=Bounds(faces=1.0, random=1.0, nme=-1.0))
    assert not (tmp_path / "b.onnx").exists()


def test_int8_export_is_calibrated_on_rows_that_are_not_evaluated(model: Path, tmp_path: Path) -> None:
    data = DataConfig(source="synthetic", count=20)
    bounds = Bounds(faces=60.0, random=60.0, nme=10.0)
    result = export_model(model, tmp_path / "a.onnx", precision="int8", data=data, bounds=bounds)
    assert result.record.nme is not None
    assert result.record.nme.rows == 10
    assert str(result.record.calibration).startswith("10 rows of ")
    assert result.size < 0.3 * model.stat().st_size
    operators = {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert result.record.faces is not None
    assert 0.001 < result.record.faces.mean < 5


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


def test_export_refuses_what_it_cannot_write(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no format has this suffix; use one of \.safetensors, \.onnx"):
        export_model(model, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"--format onxn: no such format; did you mean 'onnx'"):
        export_model(model, tmp_path / "model.onnx", "onxn")
    with pytest.raises(UserError, match=r"not a file name of format onnx; use the suffix \.onnx"):
        export_model(model, tmp_path / "model.pt", "onnx")
    with pytest.raises(UserError, match="--precision int4: no such precision"):
        export_model(model, tmp_path / "model.onnx", precision="int4")
    with pytest.raises(UserError, match="cannot be written with --precision int8; use fp32 or fp16"):
        export_model(model, tmp_path / "model.pt", precision="int8")
    with pytest.raises(UserError, match="--out FILE or --format"):
        export_model(model)
    with pytest.raises(UserError, match="--overwrite"):
        export_model(model, model)


def test_export_names_the_extra_of_a_missing_package(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'needs openvino, onnx: pip install "landmarks-fastai\[openvino\]"'):
        export_model(model, tmp_path / "model.xml")


def test_export_without_name_writes_to_working_directory(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = export_model(model, target="onnx", precision="fp16")
    assert result.path == Path(f"{tmp_path.name}-fp16.onnx")
    assert result.path.is_file()


def test_export_refuses_onnx_file(model: Path, tmp_path: Path) -> None:
    export_model(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"model\.onnx: an ONNX file cannot be converted"):
        export_model(tmp_path / "model.onnx", tmp_path / "again.safetensors")
