"""Each export target: its file gives the outputs of torch, and carries the header and the deviation."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.file_sizes import limited_file_size
from torch import nn

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.export.checks import Bounds, compare_outputs, face_inputs, run_batches
from landmarks_fastai.export.exporting import ExportOptions, export_network
from landmarks_fastai.export.record import EXPORT_KEY
from landmarks_fastai.export.targets import TARGETS
from landmarks_fastai.inference.backends import torch_backend
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader
from landmarks_fastai.model_files.loading import open_model

# random weights: the ranges of 8-bit integers are much wider than those of a trained network
INTEGER_BOUNDS = Bounds(faces=64.0, random=math.inf, nme=math.inf)

RUNNABLE = [
    (name, precision)
    for name, target in TARGETS.items()
    if name not in ("coreml", "tensorrt")
    for precision in target.precisions
]


def skip_without(name: str) -> None:
    """Skip the test if a package of a target is not installed."""
    missing = TARGETS[name].missing_packages()
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


@pytest.mark.parametrize(("name", "precision"), RUNNABLE)
def test_exported_file_gives_outputs_of_torch_and_carries_deviation(
    name: str, precision: str, header: ModelHeader, network: nn.Module, tmp_path: Path
) -> None:
    skip_without(name)
    target = TARGETS[name]
    path = tmp_path / f"model{target.suffix}"
    bounds = INTEGER_BOUNDS if precision == "int8" else None
    record = export_network(network, header, path, target, ExportOptions(precision, bounds=bounds))
    files = {path.name, *(path.with_suffix(suffix).name for suffix in target.companions)}
    assert {file.name for file in tmp_path.iterdir()} == files

    exporter = target.exporter()
    metadata = exporter.read_metadata(path)
    assert json.loads(metadata[HEADER_KEY]) == header.to_dict()
    stored = json.loads(metadata[EXPORT_KEY])
    assert (stored["precision"], stored["checked"], stored["nme"]) == (precision, True, None)
    assert (stored["calibration"] is not None) == (precision == "int8")
    assert record.faces is not None
    assert stored["faces"]["max"] == round(record.faces.max, 6)

    images = face_inputs(header, 8, seed=3)
    outputs = [run_batches(one, images) for one in (
        torch_backend(network, header, "cpu"), exporter.open_backend(path, header)
    )]  # fmt: skip
    deviation = compare_outputs(outputs[0], outputs[1], header)
    assert deviation.max <= {"fp32": 0.02, "fp16": 0.1, "int8": 64.0}[precision]
    assert deviation.mean <= {"fp32": 0.01, "fp16": 0.05, "int8": 8.0}[precision]


@pytest.mark.parametrize("name", ["onnx", "openvino", "torchscript"])
def test_refused_export_leaves_earlier_files(
    name: str, header: ModelHeader, network: nn.Module, tmp_path: Path
) -> None:
    skip_without(name)
    target = TARGETS[name]
    path = tmp_path / f"model{target.suffix}"
    files = [path.with_suffix(suffix) for suffix in (target.suffix, *target.companions)]
    for file in files:
        file.write_bytes(b"earlier")
    faces = face_inputs(header, 4)
    options = ExportOptions(faces=faces, bounds=Bounds(faces=1.0, random=-1.0, nme=0.0))
    with pytest.raises(RunError, match=r"differs by .* px from that of torch on random images"):
        export_network(network, header, path, target, options)
    assert all(file.read_bytes() == b"earlier" for file in files)
    assert len(list(tmp_path.iterdir())) == len(files)


@pytest.mark.parametrize(("name", "precision"), RUNNABLE)
def test_full_disk_leaves_earlier_file(
    name: str, precision: str, header: ModelHeader, network: nn.Module, tmp_path: Path
) -> None:
    """The write fails in the process that exports: torch.jit.save once ended it by SIGABRT."""
    skip_without(name)
    target = TARGETS[name]
    path = tmp_path / f"model{target.suffix}"
    path.write_bytes(b"earlier")
    with limited_file_size(100_000), pytest.raises(RunError, match=rf"model\{target.suffix}: "):
        export_network(network, header, path, target, ExportOptions(precision))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"earlier"


def test_openvino_file_is_opened_for_prediction(
    header: ModelHeader, network: nn.Module, model_path: Path, tmp_path: Path
) -> None:
    skip_without("openvino")
    path = tmp_path / "model.xml"
    export_network(network, header, path, TARGETS["openvino"])
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    actual = Predictor.open(path, "cpu").predict_batch(images)
    expected = Predictor.open(model_path, "cpu", backend="torch").predict_batch(images)
    np.testing.assert_allclose(actual.points, expected.points, atol=0.02)
    assert "openvino_telemetry.main" not in sys.modules
    path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"its weights, model\.bin, are missing"):
        open_model(path)


def test_openvino_file_needs_the_extra(tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is not None:
        pytest.skip("OpenVINO is installed")
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(
        UserError, match=r'an \.xml file needs OpenVINO: pip install "landmarks-fastai\[openv'
    ):
        open_model(tmp_path / "model.xml")


def test_torchscript_file_is_not_opened_for_prediction(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="not a landmarks-fastai model"):
        open_model(tmp_path / "model.pt")


def test_coreml_file_is_refused_unless_unchecked_where_it_cannot_run(
    header: ModelHeader, network: nn.Module, tmp_path: Path
) -> None:
    skip_without("coreml")
    if sys.platform == "darwin":
        pytest.skip("macOS runs Core ML")
    path, target = tmp_path / "model.mlpackage", TARGETS["coreml"]
    with pytest.raises(RunError, match="Core ML models run on macOS only; export it there, or use"):
        export_network(network, header, path, target)
    assert not list(tmp_path.iterdir())
    for _ in range(2):  # the second time, the folder is replaced
        record = export_network(network, header, path, target, ExportOptions(unchecked=True))
        assert not record.checked
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.mlpackage"]
    stored = json.loads(target.exporter().read_metadata(path)[EXPORT_KEY])
    assert (stored["checked"], stored["faces"]) == (False, None)


def test_tensorrt_needs_a_gpu(header: ModelHeader, network: nn.Module, tmp_path: Path) -> None:
    import torch

    from landmarks_fastai.export.job import ExportJob
    from landmarks_fastai.export.tensorrt import convert
    from landmarks_fastai.inference.backends import pixel_network_of

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="which has no NVIDIA GPU"):
        convert(ExportJob(pixel_network_of(network, header), header))
