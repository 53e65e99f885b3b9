"""Models, files and a running server for the tests of the page."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces, draw_synthetic_photo
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.video.writer import VideoWriter
from landmarks_fastai.web.app import HOST, build_server, listen
from landmarks_fastai.web.service import LandmarkService, Limits

Shape = NDArray[np.float64]
MakeVideo = Callable[[Path, int], Path]

ARROW = LandmarkSchema("arrow", ("<b>tip</b>", "tail"))
"""A schema without eyes; the name of a landmark contains HTML."""


def save_constant_model(
    path: Path, schema: LandmarkSchema, shape: Shape, *, scales: bool, synthetic: bool = False
) -> Path:
    """Save a model that predicts the same (K, 2) points, as fractions of the crop, for every image."""
    head = {"name": "linear", "scales": scales}
    header = ModelHeader(
        arch="resnet18",
        head=head,
        channels=1,
        input_size=32,
        mean=[0.5],
        std=[0.25],
        schema=schema,
        mean_shape=shape.tolist() if scales else None,
        config={"data": {"source": "synthetic"}} if synthetic else {},
    )
    network = build_network(header.arch, head, len(schema), 1)
    weights = {
        name: torch.zeros_like(tensor) if name.endswith(("points.weight", "scales.weight")) else tensor
        for name, tensor in network.state_dict().items()
    }
    (bias,) = (name for name in weights if name.endswith("points.bias"))
    weights[bias] = torch.from_numpy(shape * 2 - 1).float().reshape(-1)
    save_model(path, weights, header)
    return path


@pytest.fixture(scope="session")
def mean_shape() -> Shape:
    """Return the (15, 2) mean landmarks of synthetic faces, as fractions of the crop."""
    return np.round((draw_synthetic_faces(20, seed=1).points.mean(axis=0) + 0.5) / 96, 2)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, mean_shape: Shape) -> list[Path]:
    """Save three models: faces with confidence, arrows without, and faces trained on synthetic data."""
    runs = tmp_path_factory.mktemp("web-runs")
    arrow = np.array([[0.25, 0.5], [0.75, 0.5]])
    save_constant_model(runs / "faces" / "model.safetensors", KAGGLE15, mean_shape, scales=True)
    return [
        runs / "faces",
        save_constant_model(runs / "arrow.safetensors", ARROW, arrow, scales=False),
        save_constant_model(
            runs / "synthetic.safetensors", KAGGLE15, mean_shape, scales=True, synthetic=True
        ),
    ]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a photo of 120 x 80 pixels whose name has a space and an accent."""
    path = tmp_path / "uploads" / "café 1.png"
    path.parent.mkdir()
    Image.fromarray(draw_synthetic_photo(1, (120, 80))[0]).save(path)
    return path


@pytest.fixture
def make_video() -> MakeVideo:
    """Return a function that writes a video of the given number of frames at 25 per second."""

    def write(path: Path, frames: int) -> Path:
        path.parent.mkdir(exist_ok=True)
        size = (96, 64)
        image = draw_synthetic_photo(1, size)[0]
        with VideoWriter(path, size, Fraction(25), Fraction(1, 25)) as writer:
            for index in range(frames):
                writer.write(np.roll(image, index, axis=1), Fraction(index, 25))
        return path

    return write


@dataclass
class RunningServer:
    """Address of a running server, and the addresses of other machines that it connected to."""

    address: str
    external: list[Any] = field(default_factory=list)


@pytest.fixture(scope="module")
def server(models: list[Path]) -> Iterator[RunningServer]:
    """Run the server while the tests of a module run."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    external: list[Any] = []
    original = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] != HOST:
            external.append(address)
        original(self, address)

    service = LandmarkService(models, "none", Limits(megabytes=1, seconds=3))
    with (
        pytest.MonkeyPatch.context() as patch,
        listen(0) as listener,
        tempfile.TemporaryDirectory() as folder,
    ):
        patch.setattr(socket.socket, "connect", connect)
        patch.setenv("GRADIO_TEMP_DIR", folder)  # so that it is restored afterwards
        running = build_server(service, Path(folder))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield RunningServer(f"http://{HOST}:{listener.getsockname()[1]}", external)
        running.should_exit = True
        thread.join()
