"""YuNet with a stand-in network from a local server: the download, its failures, and the detections."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.detectors.base import CropAlignment
from landmarks_fastai.inference.detectors.yunet import download_yunet, open_yunet
from landmarks_fastai.utils.progress import Progress

GetWeights = Callable[[Path, Progress | None], Path]


def build_red_block_network() -> bytes:
    """Return a network with YuNet's inputs and outputs that detects red blocks of 32 px as faces.

    Each block at a multiple of 32 px is the center of a face 64 px wide and 96 px high, whose five keypoints
    all lie a quarter of the block right and down of its corner. Red is the last of OpenCV's channels.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, outputs = [], [], []
    biases = {
        "cls": [-15.0],
        "obj": [-15.0],
        "bbox": [0.5, 0.5, float(np.log(2)), float(np.log(3))],
        "kps": [0.25] * 10,
    }
    for kind, bias in biases.items():
        for stride in (8, 16, 32):
            name, count = f"{kind}_{stride}", len(bias)
            kernel = np.zeros((count, 3, stride, stride), np.float32)
            if stride == 32 and count == 1:
                kernel[:, 2] = 0.1 / stride**2
            weights += [
                numpy_helper.from_array(kernel, f"{name}_kernel"),
                numpy_helper.from_array(np.array(bias, np.float32), f"{name}_bias"),
                numpy_helper.from_array(np.array([1, -1, count]), f"{name}_shape"),
            ]
            nodes += [
                helper.make_node(
                    "Conv",
                    ["input", f"{name}_kernel", f"{name}_bias"],
                    [f"{name}_1"],
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                ),
                helper.make_node("Transpose", [f"{name}_1"], [f"{name}_2"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_2", f"{name}_shape"], [f"{name}_3"]),
                helper.make_node("Sigmoid" if count == 1 else "Identity", [f"{name}_3"], [name]),
            ]
            rows = (640 // stride) ** 2
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, rows, count]))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "yunet", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def weights() -> bytes:
    return build_red_block_network()


class Handler(BaseHTTPRequestHandler):
    """Sends its server's `body`, or status 503 if there is none."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.body is None:
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.length or len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Serves `body` and counts requests; `length` replaces the correct Content-Length."""

    daemon_threads = True
    body: bytes | None = None
    length: int | None = None
    requests = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, weights: bytes) -> Iterator[Server]:
    """Serve the weights of the stand-in network."""
    pytest.importorskip("cv2")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as serving:
        serving.body = weights
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield serving
        finally:
            serving.shutdown()
            thread.join()


@pytest.fixture
def get_weights(server: Server, weights: bytes) -> GetWeights:
    """Return a download function for the local server that does not wait between attempts."""
    return partial(
        download_yunet,
        url=f"http://127.0.0.1:{server.server_address[1]}/yunet.onnx",
        sha256=hashlib.sha256(weights).hexdigest(),
        sleep=lambda seconds: None,
    )


def test_yunet_downloads_weights_once_and_reports_progress(
    server: Server, get_weights: GetWeights, tmp_path: Path
) -> None:
    calls: list[tuple[int, int | None]] = []
    open_yunet(tmp_path / "cache", lambda *call: calls.append(call), get_weights=get_weights)
    assert calls[-1] == (len(server.body or b""),) * 2
    open_yunet(tmp_path / "cache", get_weights=get_weights)
    assert server.requests == 1
    assert [path.name for path in (tmp_path / "cache").glob("*.onnx")] == ["yunet.onnx"]


def test_yunet_finds_blocks_in_images_of_any_size_without_output(
    get_weights: GetWeights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    detector = open_yunet(tmp_path, alignment=CropAlignment(0, 0, 1), get_weights=get_weights)
    image = np.zeros((400, 600, 3), np.uint8)
    image[64:96, 320:352] = (255, 0, 0)
    image[64:96, 96:128] = (0, 0, 255)  # a blue block is not detected
    # the keypoints are at 328, 72
    np.testing.assert_allclose(detector(image).boxes, [[328 - 48, 72 - 48, 328 + 48, 72 + 48]], atol=1e-3)
    # reduced to half its size for the detector
    large = np.zeros((800, 1280, 3), np.uint8)
    large[128:192, 640:704] = (255, 0, 0)
    np.testing.assert_allclose(detector(large).boxes, [[656 - 96, 144 - 96, 656 + 96, 144 + 96]], atol=1e-3)
    assert detector(np.zeros((1, 1, 3), np.uint8)).boxes.shape == (0, 4)
    with ThreadPoolExecutor(4) as pool:
        counts = [len(detections.boxes) for detections in pool.map(detector, [image, 0 * image] * 4)]
    assert counts == [1, 0] * 4
    assert capfd.readouterr() == ("", "")


def test_yunet_with_damaged_download_is_refused(
    server: Server, get_weights: GetWeights, tmp_path: Path
) -> None:
    server.body = b"x" + (server.body or b"")[1:]
    with pytest.raises(UserError, match=r"damaged in transfer; try again, or choose another --detector"):
        open_yunet(tmp_path / "cache", get_weights=get_weights)
    assert not list((tmp_path / "cache").glob("*.onnx"))


def test_yunet_with_broken_connection_is_refused(
    server: Server, get_weights: GetWeights, tmp_path: Path
) -> None:
    server.length = len(server.body or b"") + 1
    with pytest.raises(RunError, match=r"the connection broke.*choose another --detector"):
        open_yunet(tmp_path / "cache", get_weights=get_weights)


def test_yunet_replaces_damaged_weights_in_cache(
    get_weights: GetWeights, tmp_path: Path, weights: bytes
) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"damaged")
    open_yunet(tmp_path, get_weights=get_weights)
    assert (tmp_path / "yunet.onnx").read_bytes() == weights


def test_yunet_without_connection_is_refused_with_alternatives(
    server: Server, get_weights: GetWeights, tmp_path: Path
) -> None:
    server.body = None
    with pytest.raises(RunError, match=r"Service Unavailable.*choose another --detector"):
        open_yunet(tmp_path, get_weights=get_weights)
    server.shutdown()
    server.server_close()
    with pytest.raises(RunError, match=r"Connection refused.*choose another --detector") as caught:
        open_yunet(tmp_path, get_weights=get_weights)
    assert "\n" not in str(caught.value)
    assert f"put the file at {tmp_path / 'yunet.onnx'}" in str(caught.value)
