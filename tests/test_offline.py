"""No command opens a connection to another machine unless it was asked to.

The commands run in processes in which such connections are forbidden and recorded, also if an exception is
caught: by fastai, torch hub, matplotlib, gradio's analytics, update checks and so on.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import write_gray_clip

from landmarks_fastai.cli.app import app
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces, draw_synthetic_photo
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.visualization.saving import save_png

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = Path(__file__).parent / "helpers" / "offline"

TRAIN = (
    "train --config quick --data synthetic --device cpu --epochs 1 --batch-size 8 --set data.count=24"
    " --set model.input_size=32 --set training.precision=fp32 --out run"
)
COMMANDS = [
    TRAIN,
    "evaluate run --device cpu",
    "predict photo.png --model run --device cpu --out found",
    "video clip.mp4 --model run --device cpu --detector none --out drawn.mp4",
    "export run --out exported.onnx",
    "submit run --data competition --device cpu",
    "benchmark run --format onnx",
    "data --data labels.csv",
    "convert labels.csv converted.json --format coco",
    "configs",
    "cache",
    "live --model run --camera missing.mp4 --device cpu",
]
MAY_FAIL = {"live"}
"""Commands that need a screen, but must not open a connection before they say so."""

RUN_ALL = """
import sys
from landmarks_fastai.cli.app import run
for line in sys.argv[1:]:
    print("ran", line.split()[0], run(line.split()), flush=True)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a process in which connections are forbidden; they are in network.log."""
    hidden = (
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "GRADIO_ANALYTICS_ENABLED",
        "HF_HUB_OFFLINE",
        "ORT_DISABLE_TELEMETRY",
        "XDG_CACHE_HOME",
    )
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    paths = os.pathsep.join([str(OFFLINE), str(ROOT)])
    for folder in ("home", "temporary"):
        (tmp_path / folder).mkdir()
    return {
        **inherited,
        "PYTHONPATH": paths,
        "OFFLINE_LOG": str(tmp_path / "network.log"),
        "LANDMARKS_FASTAI_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
        "MPLBACKEND": "agg",
    }


def attempts(folder: Path) -> str:
    """Return the recorded attempts to open a connection."""
    log = folder / "network.log"
    return log.read_text() if log.exists() else ""


def telemetry_files(folder: Path) -> list[Path]:
    """Return the files that ONNX Runtime writes for its telemetry, which connects in native code."""
    return [*folder.rglob("*.ses"), *folder.rglob("*.onnxruntime*")]


def write_inputs(folder: Path) -> None:
    """Write a photo, a clip, labels and Kaggle's files."""
    save_png(folder / "photo.png", draw_synthetic_photo(12, (160, 120))[0])
    write_gray_clip(folder / "clip.mp4", 5)
    faces = draw_synthetic_faces(6, seed=3)
    columns = [f"{name}_{axis}" for name in KAGGLE15.names for axis in "xy"]
    rows, training, testing = (
        [",".join(["image", *columns])],
        [",".join([*columns, "Image"])],
        ["ImageId,Image"],
    )
    (folder / "competition").mkdir()
    for number, (image, points) in enumerate(zip(faces.images, faces.points, strict=True), start=1):
        save_png(folder / f"{number}.png", np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)
        values = ",".join(f"{value:.3f}" for value in points.ravel())
        pixels = " ".join(map(str, image[..., 0].ravel().tolist()))
        rows.append(f"{number}.png,{values}")
        training.append(f"{values},{pixels}")
        testing.append(f"{number},{pixels}")
    lookup = ["RowId,ImageId,FeatureName,Location", "1,1,nose_tip_x,", "2,6,nose_tip_y,"]
    (folder / "labels.csv").write_text("\n".join(rows))
    (folder / "competition" / "training.csv").write_text("\n".join(training))
    (folder / "competition" / "test.csv").write_text("\n".join(testing))
    (folder / "competition" / "IdLookupTable.csv").write_text("\n".join(lookup))


def test_no_command_opens_a_connection(tmp_path: Path, environment: dict[str, str]) -> None:
    write_inputs(tmp_path)
    process = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *COMMANDS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    names = [line.split()[0] for line in COMMANDS]
    codes = dict(line.split()[1:] for line in process.stdout.splitlines() if line.startswith("ran "))
    assert {name for name, code in codes.items() if code != "0"} <= MAY_FAIL, process.stderr
    assert codes.keys() == set(names)
    assert attempts(tmp_path) == ""
    assert telemetry_files(tmp_path) == []


def test_every_command_is_tested_without_a_network() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert commands == {line.split()[0] for line in COMMANDS} | {"web"}


def test_web_page_opens_a_connection_to_this_machine_only(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "landmarks_fastai", "web", "--model", "resnet18", "--no-browser"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = next((line for line in iter(process.stdout.readline, "") if "http://" in line), "")
        assert lines, "the page did not start"
        open_directly = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        with open_directly(f"http://127.0.0.1:{port}/", timeout=60) as response:
            assert response.status == 200
        time.sleep(1)  # gradio's analytics would be sent by threads
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert attempts(tmp_path) == ""


def test_data_set_that_was_asked_for_is_the_only_connection(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """The recording works: the default data set of a config is downloaded."""
    code = """
import landmarks_fastai.utils.download as download
download.time.sleep = lambda seconds: None
download.download.__kwdefaults__["sleep"] = lambda seconds: None
from landmarks_fastai.cli.app import run
print(run(["data", "--data", "kaggle"]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout == "1\n"
    assert "no connection" in process.stderr
    assert process.stderr.count("\n") == 1
    assert "https://" in process.stderr
    assert set(attempts(tmp_path).split()) - {"socket.getaddrinfo"}
