"""The command `data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.cli import run
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.schemas import KAGGLE15


def gray_text(image: NDArray[np.uint8]) -> str:
    return " ".join(map(str, image.ravel().tolist()))


def test_data_prints_summary_and_saves_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = draw_synthetic_faces(6, seed=3)
    columns = [f"{name}_{axis}" for name in KAGGLE15.names for axis in "xy"]
    lines = [",".join([*columns, "Image"])]
    for i, (image, points) in enumerate(zip(faces.images, faces.points, strict=True)):
        fields = [f"{value:.3f}" for value in points.ravel()]
        if i == 2:
            fields[2:4] = ["", ""]
        lines.append(",".join([*fields, gray_text(faces.images[0] if i == 5 else image)]))
    (tmp_path / "training.csv").write_text("\n".join(lines))
    out = tmp_path / "report"
    assert run(["data", "--data", str(tmp_path / "training.csv"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "6 rows of 96 × 96 px, gray" in printed
    assert "complete: 5 rows" in printed
    assert "exact duplicates: 1 " in printed
    (missing,) = (line.split() for line in printed.splitlines() if line.startswith("right_eye_center"))
    assert missing == ["right_eye_center", "5", "1"]
    assert "flip pairs: left_eye_center ↔ right_eye_center, " in printed
    assert "6 rows in 5 groups" in printed
    assert f"samples: {out / 'samples.png'}" in printed
    with Image.open(out / "samples.png") as sheet:
        assert min(sheet.size) > 300


def test_audit_without_cross_validation_fails_before_loading_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["data", "--audit", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: nowhere: no cross-validation in this folder; run one with: "
    )


@pytest.mark.parametrize(
    "option", ["--data synthetic", "--seed 3", "--set seed=3", "-c quick", "--corrections x.csv"]
)
def test_audit_refuses_other_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "--audit", "runs/folds", *option.split()]) == 2
    assert "--audit" in capsys.readouterr().err
