"""The evaluation command: which rows are evaluated, and what is returned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from landmarks_fastai.commands.evaluate import evaluate
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError


def test_evaluate_returns_report_rows_and_notes(trained_workspace: Path, tmp_path: Path) -> None:
    run = trained_workspace / "runs" / "quick"
    result = evaluate(run, out=tmp_path / "report", device="cpu")
    assert (result.rows, result.report.overall.faces) == (12, 12)
    assert result.folder == tmp_path / "report"
    assert set(result.files) == {path.name for path in result.folder.iterdir()}
    assert result.notes == (
        "evaluating the 12 rows that the model was not trained on (--rows all evaluates every row)",
    )
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics["source"] == "synthetic"
    names = [scores.name for scores in result.report.landmarks]
    assert [entry["name"] for entry in metrics["landmarks"]] == names
    everything = evaluate([run], out=tmp_path / "report", rows="all", device="cpu")
    assert (everything.rows, everything.notes) == (60, ())


def test_evaluate_of_released_model_writes_to_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: LandmarkDataset
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = [f"{name}_{axis}" for name in dataset.schema.names for axis in "xy"]
    lines = [",".join(["image", *columns])]
    for row in range(1, 4):
        Image.fromarray(dataset.images[:][row, ..., 0]).save(tmp_path / f"{row}.png")
        lines.append(",".join([f"{row}.png", *(f"{value:.2f}" for value in dataset.points[row].ravel())]))
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    result = evaluate("resnet18", "own.csv", device="cpu")
    assert result.folder == Path("evaluation")
    assert (tmp_path / "evaluation" / "metrics.json").is_file()
    assert result.rows == 3
    assert result.notes == (
        "own.csv: CSV with the columns image, NAME_x and NAME_y, 3 rows on 3 images",
        "evaluating all 3 rows: a model file without its run folder does not say which rows it was trained"
        " on",
    )


def test_evaluate_refuses_unknown_rows() -> None:
    with pytest.raises(UserError, match=r"^--rows some: choose auto or all$"):
        evaluate("resnet18", rows="some")
