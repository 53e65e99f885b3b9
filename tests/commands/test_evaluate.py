"""The evaluation command: which rows are evaluated, and what is returned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.commands.evaluate import evaluate, unseen_rows
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError


def write_run(
    folder: Path,
    dataset: LandmarkDataset,
    valid: Sequence[int],
    seed: int = 0,
    limit: int | None = None,
) -> Path:
    """Write the files of a run that describe its data, and return its folder."""
    folder.mkdir()
    data = {"sha256": dataset.digest, "rows": len(dataset), "split": {"valid": list(valid)}}
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "config.yaml").write_text(f"seed: {seed}\ndata:\n  limit: {limit or 'null'}\n")
    return folder


def test_unseen_rows_are_validation_rows_of_all_runs(tmp_path: Path, dataset: LandmarkDataset) -> None:
    one = write_run(tmp_path / "one", dataset, [3, 5, 8, 13])
    two = write_run(tmp_path / "two", dataset, [13, 4, 5], seed=1)
    other_data = write_run(tmp_path / "other", replace(dataset, digest="other"), [1])
    no_run = tmp_path / "empty"
    no_run.mkdir()

    def unseen(*runs: Path) -> list[int] | None:
        rows = unseen_rows(runs, dataset)
        return None if rows is None else rows.tolist()

    assert unseen(one) == [3, 5, 8, 13]
    assert unseen(one, two) == unseen(two, other_data, one) == [5, 13]
    assert unseen(other_data, one, no_run) == [3, 5, 8, 13]
    assert unseen(other_data, no_run) is None


def test_unseen_rows_of_all_folds_raises(tmp_path: Path, dataset: LandmarkDataset) -> None:
    parts = np.array_split(np.arange(len(dataset)), 3)
    folds = [write_run(tmp_path / f"fold-{i}", dataset, part.tolist()) for i, part in enumerate(parts, 1)]
    with pytest.raises(UserError, match=r"one of these 3 models .* use other --data, .*out-of-fold"):
        unseen_rows(folds, dataset)


def test_unseen_rows_of_different_selections_raises(tmp_path: Path, dataset: LandmarkDataset) -> None:
    limited = [
        write_run(tmp_path / str(seed), dataset, [1, 2], seed=seed, limit=len(dataset)) for seed in (0, 1)
    ]
    assert unseen_rows(limited[:1], dataset) is not None
    with pytest.raises(UserError, match=r"0, .*1: data\.limit selected different rows"):
        unseen_rows(limited, dataset)
    fewer = write_run(tmp_path / "fewer", dataset.subset(np.arange(9)), [1])
    with pytest.raises(UserError, match=r"fewer/data\.json: .* trained on 9 of these rows"):
        unseen_rows([limited[0], fewer], dataset)


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
        Image.fromarray(dataset.images[row, ..., 0]).save(tmp_path / f"{row}.png")
        lines.append(",".join([f"{row}.png", *(f"{value:.2f}" for value in dataset.points[row].ravel())]))
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    result = evaluate("resnet18", "own.csv", device="cpu")
    assert result.folder == Path("evaluation")
    assert (tmp_path / "evaluation" / "metrics.json").is_file()
    assert result.rows == 3
    assert result.notes == (
        "evaluating all 3 rows: a model file without its run folder does not say which rows it was trained"
        " on",
    )


def test_evaluate_refuses_unknown_rows() -> None:
    with pytest.raises(UserError, match=r"^--rows some: choose auto or all$"):
        evaluate("resnet18", rows="some")
