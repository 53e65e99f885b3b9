"""ONNX export: the file is compared with torch before it is kept, and runs without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.file_sizes import limited_file_size
from torch import Tensor, nn

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.export.checks import CHECKED_IMAGES
from landmarks_fastai.export.onnx import export_onnx
from landmarks_fastai.export.record import EXPORT_KEY
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.schemas import KAGGLE15


@pytest.fixture(scope="module")
def onnx_path(header: ModelHeader, network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of `network` exported to a folder that did not exist."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    export_onnx(network, header, path)
    return path


def test_export_writes_one_valid_file_with_header(onnx_path: Path, header: ModelHeader) -> None:
    assert os.listdir(onnx_path.parent) == ["model.onnx"]
    graph = onnx.load(onnx_path)
    onnx.checker.check_model(graph, full_check=True)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(metadata[HEADER_KEY]) == header.to_dict()
    record = json.loads(metadata[EXPORT_KEY])
    assert record["checked"]
    assert record["faces"]["images"] == record["random"]["images"] == CHECKED_IMAGES
    assert 0 < record["random"]["max"] < 0.05
    assert str(Path.cwd()).encode() not in onnx_path.read_bytes()
    assert open_model(onnx_path).header == header


def test_exported_file_predicts_like_torch_without_importing_it(onnx_path: Path, model_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    np.save(onnx_path.parent.parent / "images.npy", images)
    program = (
        "import sys, numpy as np\n"
        "from landmarks_fastai.inference.predictor import Predictor\n"
        "predictor = Predictor.open(sys.argv[1], device='cpu')\n"
        "points = predictor.predict_batch(np.load(sys.argv[2]), batch_size=4).points\n"
        "heavy = {'torch', 'fastai', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, f'imported: {heavy}'\n"
        "np.save(sys.argv[3], points)\n"
    )
    points_path = onnx_path.parent.parent / "points.npy"
    arguments = [str(onnx_path), str(onnx_path.parent.parent / "images.npy"), str(points_path)]
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    expected = Predictor.open(model_path, device="cpu", backend="torch").predict_batch(images).points
    np.testing.assert_allclose(np.load(points_path), expected, atol=0.01)


def test_exported_file_maps_bytes_to_pixels(onnx_path: Path, header: ModelHeader, network: nn.Module) -> None:
    session = open_model(onnx_path, device="cpu").session
    image = torch.rand(1, 3, 64, 64) * 255
    points = session.run(["points"], {"image": image.numpy()})[0]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (header.mean, header.std))
    with torch.inference_mode():
        normalized = network((image / 255 - mean) / std)
    np.testing.assert_allclose(points, (normalized + 1) / 2 * 64 - 0.5, atol=0.01)


def test_scale_factor_is_applied_once_in_safetensors_and_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = {"name": "soft-argmax", "width": 8, "scales": True}
    network = build_network("resnet18", head, len(KAGGLE15), 1).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
    scales: dict[float, np.ndarray] = {}
    for factor in (1.0, 1.6):
        header = ModelHeader(
            arch="resnet18", head=head, channels=1, input_size=32, mean=[0.5], std=[0.25], schema=KAGGLE15,
            scale_factor=factor,
        )  # fmt: skip
        save_model(tmp_path / "model.safetensors", network.state_dict(), header)
        export_onnx(network, header, tmp_path / "model.onnx")
        safetensors_landmarks, onnx_landmarks = (
            Predictor.open(tmp_path / name, "cpu").predict_batch(images)
            for name in ("model.safetensors", "model.onnx")
        )
        np.testing.assert_allclose(safetensors_landmarks.confidence, onnx_landmarks.confidence, atol=1e-4)
        scales[factor] = safetensors_landmarks.scales
    np.testing.assert_allclose(scales[1.6], 1.6 * scales[1.0], rtol=1e-5)


class DifferentWhenTraced(nn.Module):
    """Predicts other points while it is exported than when it runs."""

    def forward(self, image: Tensor) -> Tensor:
        points = image.mean((2, 3))[:, :2].repeat(1, 15).unflatten(1, (-1, 2))
        return points + 0.1 if torch.onnx.is_in_onnx_export() else points


class NotANumber(nn.Module):
    """Predicts NaN, like a network whose training has diverged."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))[:, :2].repeat(1, 15).unflatten(1, (-1, 2)) * float("nan")


class WithoutOnnxOperator(nn.Module):
    """Uses an operator that ONNX does not have."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.linalg.lstsq(image, image).solution


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (DifferentWhenTraced(), r"differs by 3\.2 px from that of torch on faces"),
        (NotANumber(), "an output of the network is not a number"),
        (WithoutOnnxOperator(), r"model\.onnx: cannot be exported in this format: "),
    ],
)
def test_wrong_export_is_refused_and_keeps_existing_file(
    tmp_path: Path, header: ModelHeader, network: nn.Module, message: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"existing file")
    with pytest.raises(RunError, match=message):
        export_onnx(network, header, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"existing file"


def test_export_to_full_disk_leaves_no_file(tmp_path: Path, header: ModelHeader, network: nn.Module) -> None:
    with limited_file_size(100_000), pytest.raises(RunError, match=r"model\.onnx"):
        export_onnx(network, header, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == []


def test_export_does_not_modify_network(tmp_path: Path, header: ModelHeader) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 30, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Unflatten(1, (15, 2))
    )
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, header, tmp_path / "m.onnx")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_export_to_other_suffix_is_refused(tmp_path: Path, header: ModelHeader, network: nn.Module) -> None:
    with pytest.raises(UserError, match=r"model\.bin: not an ONNX file name; use the suffix \.onnx"):
        export_onnx(network, header, tmp_path / "model.bin")


def save_identity_graph(path: Path, outputs: int, metadata: dict[str, str]) -> None:
    """Write a small ONNX file whose output is its input."""
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", outputs, 2])
    points = onnx.helper.make_tensor_value_info("points", onnx.TensorProto.FLOAT, ["n", outputs, 2])
    node = onnx.helper.make_node("Identity", ["image"], ["points"])
    graph = onnx.helper.make_graph([node], "g", [image], [points])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def test_onnx_file_without_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_identity_graph(path, 15, {})
    with pytest.raises(UserError, match=r"m\.onnx: not a landmarks-fastai model"):
        open_model(path)


def test_onnx_file_with_other_outputs_than_header_is_refused(tmp_path: Path, header: ModelHeader) -> None:
    path = tmp_path / "m.onnx"
    save_identity_graph(path, 15, {HEADER_KEY: json.dumps(header.to_dict())})
    with pytest.raises(UserError, match=r"m\.onnx: its inputs and outputs .* do not match the header"):
        open_model(path)


def test_truncated_onnx_file_is_refused(tmp_path: Path, onnx_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_path.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"m\.onnx: .*truncated"):
        open_model(path)


def test_onnx_file_on_unsupported_device_is_refused(onnx_path: Path) -> None:
    with pytest.raises(UserError, match="auto, cpu or cuda"):
        open_model(onnx_path, device="mps")
