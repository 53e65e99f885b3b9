"""Graphs: ONNX Runtime predicts what torch predicts, from the weights of the same file, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files import graph_building, graphs
from landmarks_fastai.model_files.discovery import released_models
from landmarks_fastai.model_files.graphs import RELEASED_GRAPHS, Graph, graph_name, open_graph
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.model_files.weights import read_contents
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.networks.heads import HEADS
from landmarks_fastai.schemas import KAGGLE15

ROOT = Path(__file__).resolve().parents[2]


def random_images(header: ModelHeader, count: int = 3) -> np.ndarray:
    shape = (count, header.input_size, header.input_size, header.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def largest_difference(path: Path) -> float:
    """Return by how many pixels ONNX Runtime and torch differ in points, scales and visibility."""
    images = random_images(read_contents(path).header)
    predictions = [
        Predictor.open(path, "cpu", backend=name).predict_batch(images) for name in ("onnx", "torch")
    ]
    pairs = zip(*[(one.points, one.scales, one.visibility) for one in predictions], strict=True)
    differences = []
    for onnx, expected in pairs:
        assert np.array_equal(np.isnan(onnx), np.isnan(expected))
        differences.append(np.nan_to_num(np.abs(onnx - expected)).max())
    return float(max(differences))


def forbid_building(header: ModelHeader) -> Graph:
    raise AssertionError("a graph was built")


@pytest.mark.parametrize("path", released_models(), ids=lambda path: path.stem)
def test_released_model_has_a_graph_that_agrees_with_torch(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path))
    monkeypatch.setattr(graph_building, "build_graph", forbid_building)
    assert largest_difference(path) < 0.02
    assert not list(tmp_path.iterdir())


def test_every_released_graph_is_used_and_small() -> None:
    used = {graph_name(read_contents(path).header) for path in released_models()}
    assert {path.name for path in RELEASED_GRAPHS.iterdir()} == used
    assert all(path.stat().st_size < 100_000 for path in RELEASED_GRAPHS.iterdir())


@pytest.mark.parametrize("visibility", [False, True])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_graph_of_each_head_agrees_with_torch(tmp_path: Path, head: str, visibility: bool) -> None:
    options: dict[str, Any] = {"name": head, "scales": True, "visibility": visibility}
    options |= {"hidden": 8} if head == "lin-relu-lin" else {} if head == "linear" else {"width": 8}
    header = ModelHeader(
        arch="resnet18",
        head=options,
        channels=1 if visibility else 3,
        input_size=32,
        mean=[0.4] if visibility else [0.4, 0.5, 0.6],
        std=[0.2] if visibility else [0.2, 0.25, 0.3],
        schema=KAGGLE15,
        scale_factor=1.7,
        visibility_calibration=(1.3, -0.4),
    )
    torch.manual_seed(1)
    network = build_network(header.arch, header.head, len(KAGGLE15), header.channels)
    for name, tensor in network.named_buffers():
        if "running" in name:  # so that each normalization does something
            tensor.uniform_(0.5, 1.5)
    save_model(tmp_path / "m.safetensors", network.state_dict(), header)
    assert largest_difference(tmp_path / "m.safetensors") < 1e-3


def test_graph_depends_on_the_architecture_only(header: ModelHeader) -> None:
    name = graph_name(header)
    same = {"mean": [0.1] * 3, "scale_factor": 3.0, "label_bias": 0.1, "metrics": {}, "config": {}}
    assert graph_name(header.model_copy(update=same)) == name
    for change in ({"channels": 1}, {"input_size": 32}, {"arch": "resnet34"}, {"head": {"name": "linear"}}):
        assert graph_name(header.model_copy(update=change)) != name


def test_name_of_graph_is_no_path(header: ModelHeader) -> None:
    name = graph_name(header.model_copy(update={"arch": "../../etc/passwd"}))
    assert Path(name).name == name


def test_graph_is_built_once_and_announced(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path))
    notes: list[str] = []
    first = Predictor.open(model_path, "cpu", note=notes.append)
    assert len(notes) == 1
    assert str(model_path) in notes[0]
    monkeypatch.setattr(graph_building, "build_graph", forbid_building)
    images = random_images(first.header)
    again = Predictor.open(model_path, "cpu", note=notes.append)
    np.testing.assert_array_equal(again.predict_batch(images).points, first.predict_batch(images).points)
    assert len(notes) == 1
    # a graph of other code of the networks is not used
    monkeypatch.setattr(graphs, "_version_of_networks", lambda: "other")
    with pytest.raises(AssertionError, match="a graph was built"):
        Predictor.open(model_path, "cpu")


def test_damaged_graph_in_cache_is_replaced(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    contents = read_contents(model_path)
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path))
    graph = open_graph(contents)
    (file,) = (tmp_path / "graphs").rglob("*.graph")
    assert Graph.from_bytes(file.read_bytes()) == graph
    monkeypatch.setattr(graph_building, "build_graph", lambda header: graph)
    for content in (b"", b"{}\n", file.read_bytes()[:500], b"[]\n123"):
        file.write_bytes(content)
        assert open_graph(contents) == graph
        assert Graph.from_bytes(file.read_bytes()) == graph


def test_cache_that_cannot_be_written_is_reported(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graph = open_graph(read_contents(model_path))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(graph_building, "build_graph", lambda header: graph)
    notes: list[str] = []
    assert open_graph(read_contents(model_path), notes.append) == graph
    assert len(notes) == 2
    assert "the next start takes as long" in notes[1]


def test_weights_that_do_not_fit_the_graph_are_refused(
    tmp_path: Path, header: ModelHeader, network: nn.Module
) -> None:
    weights = dict(network.state_dict())
    for name, change in {
        "is (3,), but resnet18 needs (30,)": {"1.points.bias": torch.zeros(3)},
        "contains NaN or infinity": {"1.points.bias": torch.full((30,), float("nan"))},
        "contains a negative variance": {"0.1.running_var": -torch.ones(64)},
    }.items():
        save_model(tmp_path / "m.safetensors", {**weights, **change}, header)
        with pytest.raises(UserError) as caught:
            Predictor.open(tmp_path / "m.safetensors", "cpu", backend="onnx")
        assert name in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_types_are_read_as_float32(
    tmp_path: Path, header: ModelHeader, network: nn.Module, dtype: torch.dtype
) -> None:
    weights = {
        name: value.to(dtype) if value.ndim > 1 else value for name, value in network.state_dict().items()
    }
    save_model(tmp_path / "m.safetensors", weights, header)
    read = read_contents(tmp_path / "m.safetensors").read()
    assert set(read) == {name for name, value in weights.items() if value.is_floating_point()}
    for name, value in read.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, weights[name].float().numpy())


# --- without torch -------------------------------------------------------------------------------

CHECK = """
import json, sys
from landmarks_fastai.cli import run
code = run(json.loads(sys.argv[1]))
heavy = sorted({"torch", "torchvision", "fastai", "onnx", "pandas", "matplotlib"} & set(sys.modules))
print("imported:", heavy)
sys.exit(code)
"""


def run_and_list_imports(folder: Path, *arguments: str) -> str:
    """Run a command in a process of its own; return its output, which ends with the imported packages."""
    command = [sys.executable, "-c", CHECK, json.dumps(arguments)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "photo.jpg").write_bytes((ROOT / "docs" / "astronaut.jpg").read_bytes())
    return tmp_path / "photo.jpg"


def test_predict_imports_no_torch(photo: Path) -> None:
    arguments = ("predict", photo.name, "--device", "cpu", "--model", "resnet18")
    run_and_list_imports(photo.parent, *arguments)  # prepares the face detector, which needs onnx
    output = run_and_list_imports(photo.parent, *arguments, "--overwrite")
    assert "(1 face)" in output
    assert output.endswith("imported: []\n")


def test_predict_with_a_run_imports_no_torch(photo: Path, trained_workspace: Path) -> None:
    model = str(trained_workspace / "runs" / "quick")
    output = run_and_list_imports(
        photo.parent, "predict", photo.name, "--device", "cpu", "--model", model, "--detector", "none"
    )
    assert output.endswith("imported: []\n")


def test_video_imports_no_torch(photo: Path) -> None:
    from PIL import Image

    frames = photo.parent / "frames"
    frames.mkdir()
    with Image.open(photo) as image:
        for index in range(2):
            image.save(frames / f"frame_{index:06d}.png")
    output = run_and_list_imports(
        photo.parent,
        *("video", "--from-frames", "frames", "--fps", "10", "--model", "resnet18"),
        *("--device", "cpu", "--detector", "none", "--out", "clip.mp4"),
    )
    assert output.endswith("imported: []\n")


def test_web_service_imports_no_torch(photo: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from landmarks_fastai.model_files.discovery import released_models
        from landmarks_fastai.web.service import LandmarkService
        service = LandmarkService(released_models()[:1], "none")
        service.predict_photo(Path("photo.jpg"), service.models[0], Path("out"))
        print(sorted({"torch", "torchvision", "fastai", "onnx"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=photo.parent, capture_output=True, text=True, check=False)
    assert result.stdout.endswith("[]\n"), result.stderr
