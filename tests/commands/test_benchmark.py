"""The benchmark of runtimes: one row for each runtime and precision, the CSV, and what is not measured."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from landmarks_fastai.cli import run
from landmarks_fastai.commands import benchmark as module
from landmarks_fastai.commands.benchmark import COLUMNS, benchmark
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.errors import UserError


def test_benchmark_measures_each_runtime_and_precision(trained_workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.csv"
    data = DataConfig(source="synthetic", count=6)
    result = benchmark(
        [trained_workspace / "runs" / "quick"],
        formats=["safetensors", "onnx"],
        precisions=["fp32", "fp16"],
        data=data,
        out=out,
    )
    assert [(row.runtime, row.precision) for row in result.rows] == [
        ("safetensors", "fp32"), ("safetensors", "fp16"), ("onnx", "fp32"), ("onnx", "fp16")
    ]  # fmt: skip
    full, half = result.rows[2:]
    assert half.megabytes == pytest.approx(full.megabytes / 2, rel=0.05)
    assert full.deviation is not None
    assert half.deviation is not None
    assert 0 < full.deviation.max < 0.02
    assert full.deviation.max < half.deviation.max < 0.1
    for row in result.rows:
        assert row.nme is not None
        assert math.isfinite(row.nme)
        assert min(row.milliseconds, row.faces_per_second, row.load_seconds) > 0
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [list(COLUMNS), *(list(row.cells()) for row in result.rows)]


def test_benchmark_names_runtimes_that_are_not_installed(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = module.TARGETS["onnx"]
    absent = module.TARGETS["openvino"].__class__("openvino", ".xml", ("no_such_package",), "openvino")
    monkeypatch.setattr(module, "TARGETS", {"onnx": onnx, "openvino": absent})
    result = benchmark([model_path])
    assert [row.runtime for row in result.rows] == ["onnx"]
    assert 'openvino: not installed (pip install "landmarks-fastai[openvino]")' in result.notes


def test_benchmark_command_prints_table(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    assert run(["benchmark", str(model_path), "--format", "onnx", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"written to {out}"
    with out.open(newline="") as file:
        header, row = csv.reader(file)
    assert header == list(COLUMNS)
    assert lines[-2].split() == [cell for cell in row if cell]


def test_benchmark_refuses_unknown_names(model_path: Path) -> None:
    with pytest.raises(UserError, match="--format onxn: not known; did you mean 'onnx'"):
        benchmark([model_path], formats=["onxn"])
    with pytest.raises(UserError, match="--precision int4: not known"):
        benchmark([model_path], precisions=["int4"])
