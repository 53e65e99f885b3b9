"""Models, files and a running server for the tests of the page."""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
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
from landmarks_fastai.web.limits import Limits
from landmarks_fastai.web.uploads import Uploads
from landmarks_fastai.web.worker_service import WorkerService

Shape = NDArray[np.float64]
MakeVideo = Callable[[Path, int], Path]

SERVER_LIMITS = Limits(
    megabytes=1, megapixels=1, seconds=3, photo_seconds=20, stall_seconds=20, queue=4, grace_seconds=0
)

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
    """Address and folder of a running server, and the addresses of other machines that it connected to."""

    address: str
    folder: Path
    service: WorkerService
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

    with (
        pytest.MonkeyPatch.context() as patch,
        listen(HOST, 0) as listener,
        tempfile.TemporaryDirectory() as folder,
        closing(WorkerService(models, "none", SERVER_LIMITS)) as service,
        Uploads(Path(folder), SERVER_LIMITS) as uploads,
    ):
        patch.setattr(socket.socket, "connect", connect)
        for variable in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(variable, "")  # so that it is restored afterwards
        service.start()
        running = build_server(service, uploads)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield RunningServer(f"http://{HOST}:{listener.getsockname()[1]}", Path(folder), service, external)
        running.should_exit = True
        thread.join()


class RawClient:
    """A client that sends what it likes, and not only what the scripts of the page send.

    Parameters
    ----------
    address
        Address of the server.
    """

    PHOTO, VIDEO = "predict", "predict_1"

    def __init__(self, address: str) -> None:
        self.host = address.removeprefix("http://")

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Return the status and the content of the answer."""
        with closing(http.client.HTTPConnection(self.host, timeout=60)) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def upload(self, name: str, content: bytes) -> tuple[int, str]:
        """Return the status and the answer of an upload: the path of the file, if it is accepted."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        status, answer = self.request("POST", "/gradio_api/upload", body, headers)
        return status, json.loads(answer)[0] if status == 200 else answer.decode()

    def join(self, handler: str, data: list[Any], session: str) -> tuple[int, str]:
        """Send a request to an event handler; return the status and the content of the answer."""
        config = json.loads(self.request("GET", "/config")[1])
        index = next(d["id"] for d in config["dependencies"] if d["api_name"] == handler)
        body = json.dumps({"data": data, "fn_index": index, "session_hash": session}).encode()
        headers = {"Content-Type": "application/json"}
        status, answer = self.request("POST", "/gradio_api/queue/join", body, headers)
        return status, answer.decode()

    def run(self, handler: str, data: list[Any], session: str) -> str:
        """Return all messages with which an event handler answers, as text."""
        assert self.join(handler, data, session)[0] == 200
        return self.request("GET", f"/gradio_api/queue/data?session_hash={session}")[1].decode()


@pytest.fixture
def client(server: RunningServer) -> RawClient:
    """Return a client of the running server."""
    return RawClient(server.address)


@pytest.fixture
def make_client() -> type[RawClient]:
    """Return the class of the clients."""
    return RawClient
