"""The audit: its CSV is a file of corrections."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.label_errors import FACES, inject_label_errors, sample_predictions
from PIL import Image

from landmarks_fastai.cli import run
from landmarks_fastai.commands.audit import COLUMNS, audit_run
from landmarks_fastai.data.corrections import apply_corrections
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.out_of_fold import write_out_of_fold
from landmarks_fastai.training.run_folder import describe_dataset


@pytest.fixture
def cross_validation(tmp_path: Path) -> tuple[Path, LandmarkDataset]:
    """Write the files of a cross-validation that the audit reads."""
    dataset = inject_label_errors(FACES)
    folder = tmp_path / "folds"
    write_out_of_fold(folder / "oof.csv", dataset, sample_predictions(FACES, 0))
    (folder / "folds.json").write_text(json.dumps({**describe_dataset(dataset), "folds": 5, "done": 5}))
    return folder, dataset


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_audit_csv_with_actions_corrects_labels(
    cross_validation: tuple[Path, LandmarkDataset], tmp_path: Path
) -> None:
    folder, dataset = cross_validation
    label_errors = audit_run(folder, dataset, tmp_path / "out")
    path = tmp_path / "out" / "audit.csv"
    rows = read_rows(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["face"] for row in rows] == [dataset.names[error.row] for error in label_errors]
    with Image.open(tmp_path / "out" / "audit.png") as sheet:
        assert min(sheet.size) > 300
    unchanged = apply_corrections(dataset, path)
    np.testing.assert_array_equal(unchanged.points, dataset.points)
    for row in rows:
        if row["face"] in dataset.names[:15]:
            assert row["landmark"] == row["x"] == row["y"] == ""
            row["action"] = "drop"
        elif row["face"] in dataset.names[15:20]:
            row["action"] = "move"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    corrected = apply_corrections(dataset, path)
    assert corrected.names == dataset.names[15:]
    assert np.hypot(*(corrected.points[:5, 3] - FACES.points[15:20, 3]).T).max() < 6
    with pytest.raises(UserError, match=r"audit\.csv: already exists and may contain your actions"):
        audit_run(folder, dataset, tmp_path / "out")
    assert read_rows(path) == rows


def test_audit_refuses_unfinished_folds_and_other_data(
    cross_validation: tuple[Path, LandmarkDataset], tmp_path: Path
) -> None:
    folder, dataset = cross_validation
    with pytest.raises(UserError, match=r"no cross-validation in this folder; run one with: .*--folds 5"):
        audit_run(tmp_path, dataset, tmp_path / "out")
    with pytest.raises(UserError, match="is not the data that the folds were trained on"):
        audit_run(folder, replace(dataset, digest="0"), tmp_path / "out")
    with pytest.raises(UserError, match="is not the data that the folds were trained on"):
        audit_run(folder, replace(dataset, corrections="0"), tmp_path / "out")
    (folder / "oof.csv").unlink()
    with pytest.raises(UserError, match=r"5 of 5 folds are finished; resume with: .*--resume"):
        audit_run(folder, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_audit_of_small_model_finds_injected_label_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line to the CSV: all 20 wrong rows are among the first 25."""
    monkeypatch.chdir(tmp_path)
    dataset = draw_synthetic_faces(500, seed=0)
    rng = np.random.default_rng(5)
    rows = rng.permutation(500)[:20]
    wrong = dataset.points[rows].copy()
    wrong[:10] = np.roll(wrong[:10], 1, axis=0)
    for i in range(10, 20):
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
        if i < 15:
            wrong[i] += rng.uniform(5, 8) * direction
        else:
            wrong[i, rng.integers(15)] += rng.uniform(9, 12) * direction
    lines = ["face,landmark,action,x,y"]
    for row, before, after in zip(rows, dataset.points[rows], wrong, strict=True):
        for landmark in np.flatnonzero((before != after).any(axis=1)):
            x, y = after[landmark]
            lines.append(f"{dataset.names[row]},{dataset.schema.names[landmark]},move,{x:.3f},{y:.3f}")
    (tmp_path / "injected.csv").write_text("\n".join(lines) + "\n")
    options = (
        "--config quick --data synthetic --corrections injected.csv --folds 2 --epochs 20 --batch-size 16"
    )
    small = ["--device", "cpu", "--set", "data.count=500", "--set", "model.input_size=48", "--out", "folds"]
    assert run(["train", *options.split(), *small]) == 0
    assert run(["data", "--audit", "folds", "--out", "audit"]) == 0
    first = {row["face"] for row in read_rows(tmp_path / "audit" / "audit.csv")[:25]}
    injected = {dataset.names[row] for row in rows}
    assert len(first & injected) / 25 >= 0.8
