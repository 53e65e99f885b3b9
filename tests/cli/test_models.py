"""The model that commands use: the given ones or the default, and the warning about synthetic data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.cli import run

WARNING = (
    "warning: this model was trained on synthetic faces only; its landmarks on photos are not reliable\n"
)


def write_run(folder: Path, trained_workspace: Path, source: str, age: int) -> None:
    """Write a run folder with the trained model, as if trained on `source`, `age` seconds old."""
    folder.mkdir(parents=True)
    trained = trained_workspace / "runs" / "quick"
    for name in ("run.json", "config.yaml"):
        (folder / name).write_bytes((trained / name).read_bytes())
    data = json.loads((trained / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**data, "source": source}))
    model = folder / "model.safetensors"
    model.write_bytes((trained / "model.safetensors").read_bytes())
    os.utime(model, (10_000 - age, 10_000 - age))


@pytest.fixture
def image(tmp_path: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> str:
    """Change to an empty folder with one image."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo).save("a.png")
    return "a.png"


def test_default_is_newest_run_on_real_data(
    image: str, trained_workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, source, age in (("a", "kaggle", 10), ("b", "kaggle", 0), ("c", "synthetic", -10)):
        write_run(Path("runs", name), trained_workspace, source, age)
    assert run(["predict", image]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "model: runs/b/model.safetensors (the newest run in runs)"
    assert Path("predictions/a_landmarks.png").is_file()


def test_default_without_runs_is_released_model(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", image]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("model: ")
    assert first.endswith(
        "models/resnet18.safetensors (the released model, because no run in runs has finished)"
    )


def test_default_does_not_use_run_on_synthetic_data(
    image: str, trained_workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(Path("runs", "quick"), trained_workspace, "synthetic", 0)
    assert run(["predict", image]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].endswith(
        "models/resnet18.safetensors (the released model, because no run in runs was trained on real data)"
    )
    assert printed.err == ""


def test_predict_with_synthetic_model_prints_warning(
    image: str, trained_workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(trained_workspace / "runs" / "quick")
    assert run(["predict", image, "--model", model, "--detector", "none"]) == 0
    assert capsys.readouterr().err == WARNING
