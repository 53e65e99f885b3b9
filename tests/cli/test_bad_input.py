"""Bad input on the command line: each error is one line that says what is wrong and where."""

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
from landmarks_fastai.data.formats import kaggle
from landmarks_fastai.utils.download import download

ExpectError = Callable[..., None]

RELEASED = "resnet18"
"""A model that predicts on images without a warning."""

TINY = ["--data", "synthetic", "--device", "cpu", "--epochs", "1", "--set", "data.count=20"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder."""
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    return current


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the cache folder by a new one."""
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def expect_error(capsys: pytest.CaptureFixture[str]) -> ExpectError:
    """Return a function that runs a command and checks that it prints one error line with all `parts`."""

    def check(*arguments: str, parts: tuple[str, ...], code: int = 2) -> None:
        capsys.readouterr()
        assert run(list(arguments)) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert not line.startswith("error: internal error")
        for part in parts:
            assert part in line

    return check


@pytest.fixture(scope="session")
def model(trained_workspace: Path) -> str:
    """Return the path of the trained run."""
    return str(trained_workspace / "runs" / "quick")


# --- tables ---------------------------------------------------------------------------------------


def training_csv(path: Path, **cells: str | None) -> Path:
    """Write three rows; `cells` replace values of the second row (line 3), None removes the column."""
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


def test_unmodified_csv_is_accepted(folder: Path) -> None:
    training_csv(folder / "training.csv")
    assert run(["data", "--data", "training.csv"]) == 0


@pytest.mark.parametrize(
    ("cells", "parts"),
    [
        ({"nose_tip_x": None}, ("training.csv", "column 'nose_tip_x' is missing")),
        ({"Image": None}, ("training.csv", "column 'Image' is missing")),
        ({"Image": " ".join(GRAY[:-1])}, ("training.csv, line 3", "9,215 pixels, but 9,216")),
        ({"Image": " ".join(["x", *GRAY[1:]])}, ("training.csv, line 3", "'x' among the pixels")),
        ({"Image": " ".join(["256", *GRAY[1:]])}, ("training.csv, line 3", "256")),
        ({"nose_tip_y": "960"}, ("training.csv, line 3", "nose_tip_y is 960, far outside the image")),
        ({"nose_tip_y": "low"}, ("training.csv, line 3", "nose_tip_y is 'low'")),
    ],
    ids=["column", "pixels", "few", "letter", "bright", "far", "word"],
)
def test_csv_with_wrong_column_or_value_is_refused(
    folder: Path, expect_error: ExpectError, cells: dict[str, str | None], parts: tuple[str, ...]
) -> None:
    training_csv(folder / "training.csv", **cells)
    expect_error("data", "--data", "training.csv", parts=parts)
    expect_error("train", *TINY[2:6], "--data", "training.csv", parts=parts)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] in (
        ["training.csv"],
        ["runs", "training.csv"],
        ["training.csv", "runs"],
    )
    assert not list(folder.glob("runs/*"))


def test_empty_csv_is_refused(folder: Path, expect_error: ExpectError) -> None:
    (folder / "training.csv").touch()
    expect_error("data", "--data", "training.csv", parts=("training.csv", "empty"))


def test_truncated_zip_is_refused(folder: Path, expect_error: ExpectError) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("training.csv", training_csv(folder / "training.csv").read_bytes())
    (folder / "faces.zip").write_bytes(buffer.getvalue()[:-200])
    expect_error("data", "--data", "faces.zip", parts=("faces.zip", "truncated"))
    expect_error("submit", "none", "--data", "faces.zip", parts=("none",))


def test_csv_of_own_images_with_wrong_row_is_refused(folder: Path, expect_error: ExpectError) -> None:
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    (folder / "half.jpg").write_bytes(jpeg()[:2000])
    for row, parts in (
        ("b.png,1,2,30,20", ("own.csv, line 3", "no such image 'b.png'")),
        ("half.jpg,1,2,30,20", ("own.csv, line 3", "half.jpg", "truncated")),
        ("a.png,1,2,300,20", ("own.csv, line 3", "far outside")),
        ("a.png,1,,30,20", ("own.csv, line 3", "tip_y is empty but tip_x is not")),
        ("a.png,1,2,30", ("own.csv, line 3", "4 fields, but the header has 5")),
    ):
        (folder / "own.csv").write_text(f"image,tip_x,tip_y,base_x,base_y\na.png,1,2,30,20\n{row}\n")
        expect_error("data", "--data", "own.csv", parts=parts)


def test_unknown_source_is_refused(expect_error: ExpectError) -> None:
    expect_error("data", "--data", "kagle", parts=("kagle", "did you mean 'kaggle'"))
    expect_error(
        "train", "--data", "faces.zip", "--device", "cpu", parts=("faces.zip", "no such source or file")
    )


# --- download ---------------------------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses between retries instead of waiting."""
    seconds: list[float] = []
    monkeypatch.setitem(download.__kwdefaults__, "sleep", seconds.append)
    monkeypatch.setenv("no_proxy", "*")
    return seconds


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    """A file server without a log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve a wrong file, and yield its URL."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "faces.zip").write_bytes(b"PK another file than requested")
    handler = partial(SilentHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/faces.zip"
        server.shutdown()


def test_download_with_wrong_digest_is_refused(
    served: str,
    empty_cache: Path,
    capsys: pytest.CaptureFixture[str],
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kaggle, "URL", served)
    assert run(["data", "--data", "kaggle"]) == 2
    announcement, error = capsys.readouterr().err.splitlines()
    assert announcement.startswith("downloading ")
    assert announcement.endswith(served)
    assert all(part in error for part in (served, "digest", kaggle.ARCHIVE_BLOB))
    assert not list(empty_cache.glob("*.zip*")) or not (empty_cache / kaggle.ARCHIVE).exists()


def test_download_without_network_fails(
    empty_cache: Path, expect_error: ExpectError, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/faces.zip"
        monkeypatch.setattr(kaggle, "URL", url)
        parts = (url, "no connection", "--data path/to/")
        expect_error("train", "--device", "cpu", parts=parts, code=1)
        expect_error("submit", "none", parts=("none",))
    assert len(waits) == 4
    assert not list(Path("runs").glob("*"))


def test_pretrained_weights_without_network_fails(
    expect_error: ExpectError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    parts = ("model.pretrained", "resnet18", "connect to the internet", "--set model.pretrained=false")
    expect_error("train", *TINY, "--set", "model.pretrained=true", parts=parts, code=1)


# --- images -------------------------------------------------------------------------------------


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def huge_png(side: int) -> bytes:
    """Return a PNG of a few bytes whose header declares side × side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.jpg", b"these are notes\n" * 50, "not an image"),
        ("half.jpg", jpeg()[:3000], "truncated"),
        ("empty.png", b"", "0 bytes"),
        ("huge.png", huge_png(30_000), "million pixels; reduce its size"),
    ],
)
def test_unusable_image_is_refused(
    folder: Path, expect_error: ExpectError, name: str, content: bytes, reason: str
) -> None:
    (folder / name).write_bytes(content)
    expect_error("predict", name, "--model", RELEASED, parts=(name, reason))
    assert [path.name for path in folder.iterdir()] == [name]


def test_missing_images_is_refused(folder: Path, expect_error: ExpectError) -> None:
    expect_error("predict", "face.jpg", "--model", RELEASED, parts=("face.jpg", "no such file"))
    expect_error("predict", "faces/*.jpg", "--model", RELEASED, parts=("faces/*.jpg", "no image matches"))
    expect_error("predict", ".", "--model", RELEASED, parts=("no images directly in this folder",))
    expect_error("predict", "x" * 5000, "--model", RELEASED, parts=("no such file",))


def test_box_outside_image_is_refused(folder: Path, expect_error: ExpectError) -> None:
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    parts = ("a.png", "box (100, 100, 120, 120)", "outside the image")
    expect_error("predict", "a.png", "--model", RELEASED, "--box", "100,100,120,120", parts=parts)
    expect_error("predict", "a.png", "--model", RELEASED, "--box", "0,0,nan,9", parts=("--box 0,0,nan,9",))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
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
        ("train --config release-resnet81", ("'release-resnet81'", "did you mean 'release-resnet18'")),
        ("train --epochs many", ("--epochs", "valid integer")),
        ("train --epochs 0", ("training.epochs", "1")),
        ("train --lr -1", ("training.schedule.max_lr",)),
        ("train --epoch 3", ("--epoch", "--epochs")),
        ("train --device gpu", ("gpu", "cpu")),
        ("trian", ("trian",)),
        ("evaluate runs/none --rows some", ("--rows some", "auto or all")),
        ("evaluate", ("MODEL",)),
        ("configs defualt", ("'defualt'", "did you mean 'default'")),
    ],
)
def test_wrong_option_is_refused(
    expect_error: ExpectError, folder: Path, arguments: str, parts: tuple[str, ...]
) -> None:
    expect_error(*arguments.split(), parts=parts)
    assert not list(folder.glob("runs/*"))


def test_option_without_effect_on_source_is_refused(folder: Path, expect_error: ExpectError) -> None:
    (folder / "faces.csv").write_text("image,tip_x,tip_y,base_x,base_y\n")
    arguments = ("train", "--set", "data.count=9", "--data", "faces.csv")
    expect_error(*arguments, parts=("data.count", "faces.csv"))
    assert not list(folder.glob("runs/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_missing_device_is_refused(expect_error: ExpectError, model: str) -> None:
    expect_error(
        "train", "--device", "cuda", "--data", "synthetic", parts=("--device cuda", "use auto or cpu")
    )
    expect_error("evaluate", model, "--device", "cuda", parts=("device", "cuda", "cpu"))


def test_batch_too_small_for_batch_normalization_is_refused(folder: Path, expect_error: ExpectError) -> None:
    small = ["--set", "model.input_size=32", "--batch-size", "1", "--out", "run"]
    expect_error("train", *TINY, *small, parts=("training.batch_size", "at least 2"))
    assert not (folder / "run").exists()


def test_invalid_config_file_is_refused(folder: Path, expect_error: ExpectError) -> None:
    (folder / "mine.yaml").write_text("seed: 1\nmodel: {arch: [resnet18\ntraining: 3\n")
    expect_error("train", "--config", "mine.yaml", parts=("mine.yaml", "YAML", "line"))
    (folder / "mine.yaml").write_text("training:\n  schedule: {name: one_cycle, gamma: 0.9}\n")
    expect_error(
        "train", "--config", "mine.yaml", parts=("mine.yaml", "training.schedule.gamma", "no such key")
    )
    expect_error("train", "--config", "their.yaml", parts=("their.yaml", "no such config file"))


# --- models ---------------------------------------------------------------------------------------


def test_missing_model_is_refused(folder: Path, expect_error: ExpectError) -> None:
    expect_error("evaluate", "runs/none", parts=("runs/none", "no such model"))
    (folder / "runs" / "unfinished").mkdir(parents=True)
    expect_error("evaluate", "runs/unfinished", parts=("runs/unfinished", "no model.safetensors"))


def test_file_that_is_not_a_model_is_refused(folder: Path, expect_error: ExpectError) -> None:
    save_file({"a": torch.zeros(3)}, folder / "other.safetensors")
    (folder / "text.safetensors").write_text("not a model\n" * 99)
    (folder / "text.onnx").write_text("not a model\n" * 99)
    (folder / "empty.safetensors").touch()
    torch.save({"a": torch.zeros(3)}, folder / "other.pth")
    (folder / "other.pkl").write_bytes(pickle.dumps({"a": 1}))
    for name, reason in (
        ("other.safetensors", "not a landmarks-fastai model"),
        ("text.safetensors", "not a safetensors file"),
        ("text.onnx", "not an ONNX file"),
        ("empty.safetensors", "0 bytes"),
        ("other.pth", "not a landmarks-fastai model"),
        ("other.pkl", "can execute arbitrary code when opened"),
    ):
        expect_error("evaluate", name, "--device", "cpu", parts=(name, reason))
    arguments = ("evaluate", "other.pkl", "--trust-pickle", "--device", "cpu")
    expect_error(*arguments, parts=("other.pkl", "not an exported learner"))


def test_run_and_model_of_version_0_1_is_refused(
    folder: Path, expect_error: ExpectError, trained_workspace: Path
) -> None:
    (folder / "old").mkdir()
    for name in ("config.yaml", "model.safetensors"):
        (folder / "old" / name).symlink_to(trained_workspace / "runs" / "quick" / name)
    parts = ("old: written by landmarks-fastai 0.1", "train again")
    expect_error("evaluate", "old", parts=parts)
    expect_error("train", "--resume", "old", parts=parts)
    save_file({"a": torch.zeros(3)}, folder / "v1.safetensors", {"landmarks_fastai": '{"format": 1}'})
    expect_error("evaluate", "v1.safetensors", parts=("v1.safetensors: written by landmarks-fastai 0.1",))


def test_truncated_model_is_refused(folder: Path, expect_error: ExpectError, trained_workspace: Path) -> None:
    complete = (trained_workspace / "runs" / "quick" / "model.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(complete[: len(complete) // 2])
    expect_error("evaluate", "half.safetensors", parts=("half.safetensors", "truncated"))


def test_damaged_data_json_is_refused(
    folder: Path, expect_error: ExpectError, trained_workspace: Path
) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "model.safetensors").symlink_to(
        trained_workspace / "runs" / "quick" / "model.safetensors"
    )
    (folder / "run" / "data.json").write_text("{")
    expect_error("evaluate", "run", "--device", "cpu", parts=("run/data.json", "JSON"))


def test_data_with_landmarks_that_the_model_lacks_is_refused(
    folder: Path, expect_error: ExpectError, model: str
) -> None:
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    (folder / "own.csv").write_text("image,tip_x,tip_y,base_x,base_y\na.png,1,2,30,20\n")
    expect_error("evaluate", model, "--data", "own.csv", parts=("'tip'", "choose other data"))


# --- disk -------------------------------------------------------------------------------------


def fail_with_full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("function", ["os.replace", "pathlib.Path.write_bytes"])
def test_full_disk_while_predicting_fails(
    folder: Path, expect_error: ExpectError, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(function, fail_with_full_disk)
        parts = ("predictions/a_landmarks.png", "No space left on device", "free some space")
        expect_error("predict", "a.png", "--model", RELEASED, parts=parts, code=1)
    assert not (folder / "predictions").exists()


@pytest.mark.parametrize(
    ("function", "file"),
    [("os.replace", "run.json"), ("torch.save", "best.pt"), ("torch.onnx.export", "onnx")],
)
def test_full_disk_while_training_fails(
    folder: Path, expect_error: ExpectError, function: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function, fail_with_full_disk)
    small = ["--set", "model.input_size=32", "--batch-size", "16", "--out", "run"]
    expect_error("train", *TINY, *small, parts=(f"{file}", "No space left on device"), code=1)
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_run_folder_in_use_is_refused(folder: Path, expect_error: ExpectError) -> None:
    (folder / "run").mkdir()
    with FileLock(folder / "run" / ".lock"):
        expect_error("train", *TINY, "--out", "run", parts=("run", "in use by another run"))


def test_existing_run_folder_is_refused(folder: Path, expect_error: ExpectError, model: str) -> None:
    before = sorted(path.stat().st_mtime_ns for path in Path(model).rglob("*"))
    expect_error("train", *TINY, "--out", model, parts=(model, "--overwrite"))
    assert sorted(path.stat().st_mtime_ns for path in Path(model).rglob("*")) == before


def test_file_in_place_of_folder_is_refused(folder: Path, expect_error: ExpectError, model: str) -> None:
    (folder / "file").write_text("mine")
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    expect_error("train", *TINY, "--out", "file", parts=("file", "--out"))
    expect_error("train", *TINY, "--out", "file/run", parts=("file/run", "--out"))
    expect_error("train", *TINY, "--out", "file", "--overwrite", parts=("file", "--out"))
    expect_error("predict", "a.png", "--model", RELEASED, "--out", "file", parts=("file", "choose another"))
    expect_error("evaluate", model, "--out", "file", "--device", "cpu", parts=("file", "choose another"))
    expect_error("data", "--data", "synthetic", "--set", "data.count=20", "--out", "file", parts=("file",))
    assert (folder / "file").read_text() == "mine"
