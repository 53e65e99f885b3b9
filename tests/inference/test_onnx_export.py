"""One file, found right before it is kept, that runs where there is no torch."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.modelfile import HEADER_KEY, ModelHeader, open_model, save_model
from landmarks_fastai.inference.onnx_export import export_onnx
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.network import build_network
from landmarks_fastai.schema import KAGGLE15


@pytest.fixture(scope="module")
def onnx_path(header: ModelHeader, network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    export_onnx(network, header, path)
    return path


def test_one_file_with_the_header_inside(onnx_path: Path, header: ModelHeader) -> None:
    assert os.listdir(onnx_path.parent) == ["model.onnx"]
    graph = onnx.load(onnx_path)
    onnx.checker.check_model(graph, full_check=True)
    assert json.loads(graph.metadata_props[0].value) == header.to_dict()
    assert str(Path.cwd()).encode() not in onnx_path.read_bytes()
    assert open_model(onnx_path).header == header


def test_it_runs_without_torch_and_finds_the_same(onnx_path: Path, model_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    np.save(onnx_path.parent.parent / "images.npy", images)
    program = (
        "import sys, numpy as np\n"
        "from landmarks_fastai.inference.predictor import Predictor\n"
        "predictor = Predictor.open(sys.argv[1], device='cpu')\n"
        "points = predictor.predict_crops(np.load(sys.argv[2]), batch_size=4).points\n"
        "assert not {'torch', 'fastai', 'matplotlib', 'scipy'} & set(sys.modules), 'heavy imports'\n"
        "np.save(sys.argv[3], points)\n"
    )
    found = onnx_path.parent.parent / "found.npy"
    arguments = [str(onnx_path), str(onnx_path.parent.parent / "images.npy"), str(found)]
    ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    expected = Predictor.open(model_path, device="cpu").predict_crops(images).points
    np.testing.assert_allclose(np.load(found), expected, atol=0.01)


def test_the_file_takes_bytes_and_gives_pixels(
    onnx_path: Path, header: ModelHeader, network: nn.Module
) -> None:
    session = open_model(onnx_path, device="cpu").session
    image = torch.rand(1, 3, 64, 64) * 255
    points = session.run(["points"], {"image": image.numpy()})[0]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (header.mean, header.std))
    with torch.inference_mode():
        scaled = network((image / 255 - mean) / std)
    np.testing.assert_allclose(points, (scaled + 1) / 2 * 64 - 0.5, atol=0.01)


def test_the_scale_factor_counts_once_whichever_file_is_opened(tmp_path: Path) -> None:
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
        ours, other = (
            Predictor.open(tmp_path / name, "cpu").predict_crops(images)
            for name in ("model.safetensors", "model.onnx")
        )
        np.testing.assert_allclose(ours.confidence, other.confidence, atol=1e-4)
        scales[factor] = ours.scales
    np.testing.assert_allclose(scales[1.6], 1.6 * scales[1.0], rtol=1e-5)


class Fickle(nn.Module):
    """Finds other points when it is traced than when it runs."""

    def forward(self, image: Tensor) -> Tensor:
        points = image.mean((2, 3))[:, :2].repeat(1, 15).unflatten(1, (-1, 2))
        return points + 0.1 if torch.onnx.is_in_onnx_export() else points


class NotANumber(nn.Module):
    """A network whose training went wrong."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))[:, :2].repeat(1, 15).unflatten(1, (-1, 2)) * float("nan")


class Untranslatable(nn.Module):
    """Uses what ONNX has no operator for."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.linalg.lstsq(image, image).solution


@pytest.mark.parametrize(
    ("network", "said"),
    [(Fickle(), "3.2 px from torch's"), (NotANumber(), "nan px"), (Untranslatable(), "can't export")],
)
def test_a_wrong_export_is_not_kept(
    tmp_path: Path, header: ModelHeader, network: nn.Module, said: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"the earlier one")
    with pytest.raises(RunError, match=said):
        export_onnx(network, header, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"the earlier one"


def test_nothing_half_written_on_a_full_disk(tmp_path: Path, header: ModelHeader, network: nn.Module) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError, match=r"model\.onnx"):
            export_onnx(network, header, tmp_path / "model.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_the_network_is_left_as_it_was(tmp_path: Path, header: ModelHeader) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 30, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Unflatten(1, (15, 2))
    )
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, header, tmp_path / "m.onnx")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def save_graph(path: Path, outputs: int, metadata: dict[str, str]) -> None:
    """Write a small ONNX file that does nothing."""
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", outputs, 2])
    points = onnx.helper.make_tensor_value_info("points", onnx.TensorProto.FLOAT, ["n", outputs, 2])
    node = onnx.helper.make_node("Identity", ["image"], ["points"])
    graph = onnx.helper.make_graph([node], "g", [image], [points])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def test_foreign_and_damaged_files(tmp_path: Path, header: ModelHeader, onnx_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_graph(path, 15, {})
    with pytest.raises(UserError, match=r"m\.onnx: a model of another program"):
        open_model(path)
    save_graph(path, 15, {HEADER_KEY: json.dumps(header.to_dict())})
    with pytest.raises(UserError, match=r"m\.onnx: inputs and outputs .* don't fit"):
        open_model(path)
    path.write_bytes(onnx_path.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"m\.onnx: .*cut off"):
        open_model(path)


def test_options_that_cannot_act(
    tmp_path: Path, header: ModelHeader, onnx_path: Path, network: nn.Module
) -> None:
    with pytest.raises(UserError, match="auto, cpu or cuda"):
        open_model(onnx_path, device="mps")
    with pytest.raises(UserError, match=r"must be called \.onnx"):
        export_onnx(network, header, tmp_path / "model.bin")
