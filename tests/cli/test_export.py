"""The command `export`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from landmarks_fastai.cli import run
from landmarks_fastai.inference.predictor import Predictor


def test_export_prints_size_and_deviation(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.safetensors"
    assert run(["export", "runs/quick", "--precision", "fp16", "--out", str(out)]) == 0
    line = capsys.readouterr().out
    match = re.fullmatch(
        r"(.*): ([\d.]+) MB, fp16; outputs differ from torch by at most ([\d.e-]+) px on faces"
        r" \(mean [\d.e-]+ px\), [\d.e-]+ px on random images\n",
        line,
    )
    assert match is not None
    assert match[1] == str(out)
    assert float(match[2]) == pytest.approx(out.stat().st_size / 1e6, abs=0.06)
    assert float(match[3]) <= 0.1
    assert Predictor.open(out, "cpu").schema.name == "kaggle15"
