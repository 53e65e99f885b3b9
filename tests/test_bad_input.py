"""What goes wrong in real life, each through the command line: one line that says what and where."""

from __future__ import annotations

import http.server
import io
import pickle
import socket
import struct
import threading
import urllib.error
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import save_file

from landmarks_fastai.cli import run
from landmarks_fastai.data import kaggle
from landmarks_fastai.data.download import fetch

Refused = Callable[..., str]

TINY = ["--data", "synthetic", "--device", "cpu", "--epochs", "1", "--set", "data.count=20"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, with an empty cache."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must end with one line on stderr which holds all of `said`."""

    def refuse(*arguments: str, said: tuple[str, ...], code: int = 2) -> str:
        capsys.readouterr()
        assert run(list(arguments)) == code
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        assert "Traceback" not in captured.out + captured.err
        assert "a fault of ours" not in line
        for part in said:
            assert part in line
        return line

    return refuse


@pytest.fixture(scope="session")
def model(workplace: Path) -> str:
    return str(workplace / "runs" / "quick")


# --- tables ---------------------------------------------------------------------------------------


def training_csv(path: Path, **cells: str | None) -> Path:
    """Write three rows; `cells` stand in the second, line 3; None leaves the column out."""
    columns = [name for name in (*kaggle.COLUMNS, "Image") if cells.get(name, "") is not None]
    lines = [",".join(columns)]
    for row in range(3):
        field = {name: str(20 + i) for i, name in enumerate(kaggle.COLUMNS)}
        field["Image"] = " ".join(str((row * 50 + i) % 256) for i in range(9216))
        if row == 1:
            field |= {name: value for name, value in cells.items() if value is not None}
        lines.append(",".join(field[name] for name in columns))
    path.write_text("\n".join(lines) + "\n")
    return path


GRAY = ["7"] * 9216


def test_the_table_that_the_others_are_spoilt_from_is_good(here: Path) -> None:
    training_csv(here / "training.csv")
    assert run(["data", "--data", "training.csv"]) == 0


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"nose_tip_x": None}, ("training.csv", "column 'nose_tip_x' is missing")),
        ({"Image": None}, ("training.csv", "column 'Image' is missing")),
        ({"Image": " ".join(GRAY[:-1])}, ("training.csv line 3", "9,215 pixels where 9,216")),
        ({"Image": " ".join(["x", *GRAY[1:]])}, ("training.csv line 3", "'x' stands among the pixels")),
        ({"Image": " ".join(["256", *GRAY[1:]])}, ("training.csv line 3", "256")),
        ({"nose_tip_y": "960"}, ("training.csv line 3", "nose_tip_y is 960, far outside of the image")),
        ({"nose_tip_y": "low"}, ("training.csv line 3", "nose_tip_y is 'low'")),
    ],
    ids=["column", "pixels", "few", "letter", "bright", "far", "word"],
)
def test_a_bad_table(
    here: Path, refused: Refused, cells: dict[str, str | None], said: tuple[str, ...]
) -> None:
    training_csv(here / "training.csv", **cells)
    refused("data", "--data", "training.csv", said=said)
    refused("train", *TINY[2:6], "--data", "training.csv", said=said)
    assert [path.name for path in here.iterdir() if not path.name.startswith(".")] in (
        ["training.csv"],
        ["runs", "training.csv"],
        ["training.csv", "runs"],
    )
    assert not list(here.glob("runs/*"))


def test_an_empty_table(here: Path, refused: Refused) -> None:
    (here / "training.csv").touch()
    refused("data", "--data", "training.csv", said=("training.csv", "empty"))


def test_a_zip_that_is_cut_off(here: Path, refused: Refused) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("training.csv", training_csv(here / "training.csv").read_bytes())
    (here / "faces.zip").write_bytes(buffer.getvalue()[:-200])
    refused("data", "--data", "faces.zip", said=("faces.zip", "cut off"))
    refused("submit", "none", "--data", "faces.zip", said=("none",))


def test_own_points_and_their_pictures(here: Path, refused: Refused) -> None:
    Image.new("RGB", (40, 30), "red").save(here / "a.png")
    (here / "half.jpg").write_bytes(jpeg()[:2000])
    for row, said in (
        ("b.png,1,2,30,20", ("own.csv line 3", "b.png is not there")),
        ("half.jpg,1,2,30,20", ("own.csv line 3", "half.jpg", "cut off")),
        ("a.png,1,2,300,20", ("own.csv line 3", "far outside")),
        ("a.png,1,,30,20", ("own.csv line 3", "tip_x has a value")),
        ("a.png,1,2,30", ("own.csv line 3", "4 fields where the header has 5")),
    ):
        (here / "own.csv").write_text(f"image,tip_x,tip_y,base_x,base_y\na.png,1,2,30,20\n{row}\n")
        refused("data", "--data", "own.csv", said=said)


def test_a_source_that_there_is_not(refused: Refused) -> None:
    refused("data", "--data", "kagle", said=("kagle", "did you mean 'kaggle'"))
    refused("train", "--data", "faces.zip", "--device", "cpu", said=("faces.zip", "no such source or file"))


# --- the download ---------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Don't wait between two tries."""
    waits: list[float] = []
    monkeypatch.setitem(fetch.__kwdefaults__, "sleep", waits.append)
    monkeypatch.setenv("no_proxy", "*")
    return waits


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "faces.zip").write_bytes(b"PK another file than was asked for")
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/faces.zip"
        server.shutdown()


def test_a_wrong_digest(
    served: str, empty_cache: Path, refused: Refused, patient: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaggle, "URL", served)
    refused("data", "--data", "kaggle", said=(served, "digest", kaggle.ARCHIVE_BLOB))
    assert not list(empty_cache.glob("*.zip*")) or not (empty_cache / kaggle.ARCHIVE).exists()


def test_no_network(
    empty_cache: Path, refused: Refused, patient: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: whoever calls is turned away
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/faces.zip"
        monkeypatch.setattr(kaggle, "URL", url)
        said = (url, "no connection", "--data path/to/")
        refused("train", "--device", "cpu", said=said, code=1)
        refused("submit", "none", said=("none",))
    assert len(patient) == 4
    assert not list(Path("runs").glob("*"))


def test_weights_that_can_t_be_fetched(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    said = ("model.pretrained", "resnet18", "connect to a network", "--set model.pretrained=false")
    refused("train", *TINY, "--set", "model.pretrained=true", said=said, code=1)


# --- pictures -------------------------------------------------------------------------------------


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def huge_png(side: int) -> bytes:
    """Make a PNG of a few bytes whose header promises side × side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.jpg", b"these are notes\n" * 50, "not a picture"),
        ("half.jpg", jpeg()[:3000], "cut off"),
        ("empty.png", b"", "0 bytes"),
        ("huge.png", huge_png(30_000), "million pixels; make it smaller"),
    ],
)
def test_a_bad_picture(
    here: Path, refused: Refused, model: str, name: str, content: bytes, said: str
) -> None:
    (here / name).write_bytes(content)
    refused("predict", name, "--model", model, said=(name, said))
    assert [path.name for path in here.iterdir()] == [name]


def test_pictures_that_are_not_there(here: Path, refused: Refused, model: str) -> None:
    refused("predict", "face.jpg", "--model", model, said=("face.jpg", "no such file"))
    refused("predict", "faces/*.jpg", "--model", model, said=("faces/*.jpg", "no picture matches"))
    refused("predict", ".", "--model", model, said=("no pictures right in this folder",))
    refused("predict", "x" * 5000, "--model", model, said=("no such file",))


def test_a_box_beside_the_picture(here: Path, refused: Refused, model: str) -> None:
    Image.new("RGB", (40, 30), "red").save(here / "a.png")
    said = ("a.png", "box (100, 100, 120, 120)", "outside of the picture")
    refused("predict", "a.png", "--model", model, "--box", "100,100,120,120", said=said)
    refused("predict", "a.png", "--model", model, "--box", "0,0,nan,9", said=("--box 0,0,nan,9",))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --arch resnet19", ("'resnet19'", "did you mean 'resnet1")),
        ("train --arch vgg16", ("'vgg16'", "known:", "resnet18")),
        ("train --set model.head=soft-argmaks", ("model.head", "did you mean 'soft-argmax'")),
        ("train --set training.epoch=3", ("training.epoch", "did you mean 'epochs'")),
        ("train --set training.precision=fp23", ("training.precision", "did you mean 'fp32'")),
        (
            "train --set training.schedule=one_cycle --set training.schedule.gamma=0.9",
            ("training.schedule.gamma", "no such key", "max_lr"),
        ),
        ("train --set data.count=9 --data faces.csv", ("data.count", "faces.csv")),
        ("train --config resnet81", ("'resnet81'", "did you mean 'resnet18'")),
        ("train --epochs many", ("--epochs", "valid integer")),
        ("train --epochs 0", ("training.epochs", "1")),
        ("train --lr -1", ("training.schedule.max_lr",)),
        ("train --epoch 3", ("--epoch", "--epochs")),
        ("train --device gpu", ("gpu", "cpu")),
        ("trian", ("trian",)),
        ("evaluate runs/none --rows some", ("--rows some", "auto or all")),
        ("evaluate", ("MODEL",)),
        ("recipes defualt", ("'defualt'", "did you mean 'default'")),
    ],
)
def test_a_wrong_option(refused: Refused, here: Path, arguments: str, said: tuple[str, ...]) -> None:
    refused(*arguments.split(), said=said)
    assert not list(here.glob("runs/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has it")
def test_a_device_that_is_not_there(refused: Refused, model: str) -> None:
    refused("train", "--device", "cuda", "--data", "synthetic", said=("--device cuda", "use auto or cpu"))
    refused("evaluate", model, "--device", "cuda", said=("device", "cuda", "cpu"))


def test_a_batch_too_small_for_its_normalisation(here: Path, refused: Refused) -> None:
    small = ["--set", "model.input_size=32", "--batch-size", "1", "--out", "run"]
    refused("train", *TINY, *small, said=("training.batch_size", "at least 2"))
    assert not (here / "run").exists()


def test_a_recipe_that_is_not_yaml(here: Path, refused: Refused) -> None:
    (here / "mine.yaml").write_text("seed: 1\nmodel: {arch: [resnet18\ntraining: 3\n")
    refused("train", "--config", "mine.yaml", said=("mine.yaml", "YAML", "line"))
    (here / "mine.yaml").write_text("training:\n  schedule: {name: one_cycle, gamma: 0.9}\n")
    refused("train", "--config", "mine.yaml", said=("mine.yaml", "training.schedule.gamma", "no such key"))
    refused("train", "--config", "their.yaml", said=("their.yaml", "no such recipe file"))


# --- models ---------------------------------------------------------------------------------------


def test_a_model_that_is_not_there(here: Path, refused: Refused) -> None:
    refused("evaluate", "runs/none", said=("runs/none", "no such model"))
    (here / "runs" / "begun").mkdir(parents=True)
    refused("evaluate", "runs/begun", said=("runs/begun", "no model.safetensors"))


def test_a_foreign_model(here: Path, refused: Refused) -> None:
    save_file({"a": torch.zeros(3)}, here / "other.safetensors")
    (here / "text.safetensors").write_text("not a model\n" * 99)
    (here / "text.onnx").write_text("not a model\n" * 99)
    (here / "empty.safetensors").touch()
    torch.save({"a": torch.zeros(3)}, here / "other.pth")
    (here / "other.pkl").write_bytes(pickle.dumps({"a": 1}))
    for name, said in (
        ("other.safetensors", "of another program"),
        ("text.safetensors", "not a safetensors file"),
        ("text.onnx", "not an ONNX file"),
        ("empty.safetensors", "0 bytes"),
        ("other.pth", "not a model of landmarks-fastai"),
        ("other.pkl", "can run any code when opened"),
    ):
        refused("evaluate", name, "--device", "cpu", said=(name, said))
    said = ("other.pkl",)
    refused("evaluate", "other.pkl", "--trust-pickle", "--device", "cpu", said=said)


def test_a_model_that_is_cut_off(here: Path, refused: Refused, workplace: Path) -> None:
    whole = (workplace / "runs" / "quick" / "model.safetensors").read_bytes()
    (here / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    refused("evaluate", "half.safetensors", said=("half.safetensors", "cut off"))


def test_a_damaged_data_json(here: Path, refused: Refused, workplace: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "model.safetensors").symlink_to(workplace / "runs" / "quick" / "model.safetensors")
    (here / "run" / "data.json").write_text("{")
    refused("evaluate", "run", "--device", "cpu", said=("run/data.json", "JSON"))


def test_other_points_than_the_model_s(here: Path, refused: Refused, model: str) -> None:
    Image.new("RGB", (40, 30), "red").save(here / "a.png")
    (here / "own.csv").write_text("image,tip_x,tip_y,base_x,base_y\na.png,1,2,30,20\n")
    refused("evaluate", model, "--data", "own.csv", said=("'tip'", "use other --data"))


# --- the disk -------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("door", ["os.replace", "pathlib.Path.write_bytes"])
def test_a_full_disk_while_predicting(
    here: Path, refused: Refused, model: str, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30), "red").save(here / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(door, full)
        said = ("predictions/a_points.png", "No space left on device", "make room")
        refused("predict", "a.png", "--model", model, said=said, code=1)
    assert not list((here / "predictions").iterdir())


@pytest.mark.parametrize(
    ("door", "file"),
    [("os.replace", "config.yaml"), ("torch.save", "best.pt"), ("torch.onnx.export", "onnx")],
)
def test_a_full_disk_while_training(
    here: Path, refused: Refused, door: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, full)
    small = ["--set", "model.input_size=32", "--batch-size", "16", "--out", "run"]
    refused("train", *TINY, *small, said=(f"{file}", "No space left on device"), code=1)
    assert not [path for path in here.rglob(".*") if path.is_file()]


def test_a_run_folder_in_use(here: Path, refused: Refused) -> None:
    with FileLock(here / ".run.lock"):
        refused("train", *TINY, "--out", "run", said=("run", "in use by another run"))


def test_a_run_folder_that_is_taken(here: Path, refused: Refused, model: str) -> None:
    before = sorted(path.stat().st_mtime_ns for path in Path(model).rglob("*"))
    refused("train", *TINY, "--out", model, said=(model, "--overwrite"))
    assert sorted(path.stat().st_mtime_ns for path in Path(model).rglob("*")) == before


def test_a_file_where_a_folder_should_be(here: Path, refused: Refused, model: str) -> None:
    (here / "file").write_text("mine")
    Image.new("RGB", (40, 30), "red").save(here / "a.png")
    refused("train", *TINY, "--out", "file", said=("file", "--out"))
    refused("train", *TINY, "--out", "file/run", said=("file/run", "--out"))
    refused("train", *TINY, "--out", "file", "--overwrite", said=("file", "--out"))
    refused("predict", "a.png", "--model", model, "--out", "file", said=("file", "choose another"))
    refused("evaluate", model, "--out", "file", "--device", "cpu", said=("file", "choose another"))
    refused("data", "--data", "synthetic", "--set", "data.count=20", "--out", "file", said=("file",))
    assert (here / "file").read_text() == "mine"
