"""The audit: planted errors rank first, hard faces do not, and its CSV is a file of fixes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.calibration import chance_near
from landmarks_fastai.cli import run
from landmarks_fastai.data.fixes import apply_fixes
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.tasks.audit import COLUMNS, FACE, POINT, SHIFT, audit_run, find_doubts
from landmarks_fastai.training.folds import describe_table
from landmarks_fastai.training.oof import OutOfFold, write_oof

FACES = draw_faces(120, seed=8)
HARD = slice(100, 120)
"""Faces on which the model errs five times as much, and knows it."""


def plausible(table: FaceTable, seed: int) -> OutOfFold:
    """Predict as a model might: off by a Laplace-distributed pixel, by two for the chin-side points."""
    rng = np.random.default_rng(seed)
    scale = np.ones(table.points.shape[:2])
    scale[:, 10:] *= 2
    scale[HARD] *= 5
    points = table.points + rng.laplace(size=table.points.shape) * scale[..., None]
    confidence = chance_near(scale, table.size)
    return OutOfFold(np.ones(len(table), np.int64), points.astype(np.float32), confidence.astype(np.float32))


def planted(table: FaceTable) -> FaceTable:
    """Shuffle rows 0 … 9, shift rows 10 … 14, move one point of rows 15 … 19."""
    points = table.points.copy()
    points[:10] = np.roll(points[:10], 1, axis=0)
    points[10:15] += np.array([6, -5], np.float32)
    points[15:20, 3] += np.array([7, 8], np.float32)
    return replace(table, points=points)


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_rank_first_each_as_what_it_is(seed: int) -> None:
    doubts = find_doubts(planted(FACES), plausible(FACES, seed))
    assert len(doubts) == 120
    assert sum(doubt.row < 20 for doubt in doubts[:22]) >= 19
    assert all(one.score >= other.score for one, other in pairwise(doubts))
    by_row = {doubt.row: doubt for doubt in doubts}
    assert all(by_row[row].kind in (FACE, SHIFT) for row in range(10))
    for row in range(10, 15):
        assert by_row[row].kind == SHIFT
        assert by_row[row].shift == pytest.approx((6, -5), abs=2)
    for row in range(15, 20):
        assert (by_row[row].kind, by_row[row].worst) == (POINT, 3)
        assert by_row[row].error == pytest.approx(np.hypot(7, 8), abs=6)


def test_a_hard_face_is_no_mistake_where_the_model_says_so() -> None:
    found = plausible(FACES, 0)
    knowing = [doubt.row for doubt in find_doubts(FACES, found)[:20]]
    assert sum(row >= HARD.start for row in knowing) < 10
    blind = replace(found, confidence=np.full_like(found.confidence, np.nan))
    assert sum(doubt.row >= HARD.start for doubt in find_doubts(FACES, blind)[:20]) > 15


def test_a_point_that_is_always_hard_hides_no_other() -> None:
    """And that without a word of the model's about it."""
    rng = np.random.default_rng(3)
    noise = rng.laplace(size=FACES.points.shape)
    noise[:, 14] *= 8
    noise[40, 0] = 10, -8
    blind = np.full(FACES.points.shape[:2], np.nan, np.float32)
    found = OutOfFold(np.ones(120, np.int64), (FACES.points + noise).astype(np.float32), blind)
    first = find_doubts(FACES, found)[0]
    assert (first.row, first.kind, first.worst) == (40, POINT, 0)


def test_unlabelled_points_and_faces_have_no_say() -> None:
    table = planted(FACES)
    points = table.points.copy()
    points[30] = np.nan
    points[:, 5] = np.nan
    points[20:60, 2:9] = np.nan
    found = plausible(FACES, 1)
    found.points[15, 5] = 1e4
    doubts = find_doubts(replace(table, points=points), found)
    assert sorted(doubt.row for doubt in doubts) == [row for row in range(120) if row != 30]
    assert all(np.isfinite((doubt.score, doubt.error)).all() and doubt.worst != 5 for doubt in doubts)
    assert sum(doubt.row < 20 for doubt in doubts[:22]) >= 18


@pytest.fixture
def folds(tmp_path: Path) -> tuple[Path, FaceTable]:
    """Write what the audit reads of a folder of folds."""
    table = planted(FACES)
    folder = tmp_path / "folds"
    write_oof(folder / "oof.csv", table, plausible(FACES, 0))
    (folder / "folds.json").write_text(json.dumps({**describe_table(table), "folds": 5, "done": 5}))
    return folder, table


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_becomes_a_file_of_fixes(folds: tuple[Path, FaceTable], tmp_path: Path) -> None:
    folder, table = folds
    doubts = audit_run(folder, table, tmp_path / "out")
    path = tmp_path / "out" / "audit.csv"
    rows = rows_of(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["face"] for row in rows] == [table.names[doubt.row] for doubt in doubts]
    with Image.open(tmp_path / "out" / "audit.png") as sheet:
        assert min(sheet.size) > 300
    untouched = apply_fixes(table, path)
    np.testing.assert_array_equal(untouched.points, table.points)
    for row in rows:
        if row["face"] in table.names[:15]:
            assert row["point"] == row["x"] == row["y"] == ""
            row["action"] = "drop"
        elif row["face"] in table.names[15:20]:
            row["action"] = "move"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    fixed = apply_fixes(table, path)
    assert fixed.names == table.names[15:]
    assert np.hypot(*(fixed.points[:5, 3] - FACES.points[15:20, 3]).T).max() < 6
    with pytest.raises(UserError, match=r"audit\.csv is there already, with your actions perhaps"):
        audit_run(folder, table, tmp_path / "out")
    assert rows_of(path) == rows


def test_folds_that_can_t_be_audited(folds: tuple[Path, FaceTable], tmp_path: Path) -> None:
    folder, table = folds
    with pytest.raises(UserError, match=r"holds no folds; train them: .*--folds 5"):
        audit_run(tmp_path, table, tmp_path / "out")
    with pytest.raises(UserError, match="is not the data that the folds were trained on"):
        audit_run(folder, replace(table, digest="0"), tmp_path / "out")
    with pytest.raises(UserError, match="is not the data that the folds were trained on"):
        audit_run(folder, replace(table, fixes="0"), tmp_path / "out")
    (folder / "oof.csv").unlink()
    with pytest.raises(UserError, match=r"5 of 5 folds have ended; go on with: .*--resume"):
        audit_run(folder, table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_twenty_planted_errors_are_found_by_a_small_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line to the CSV."""
    monkeypatch.chdir(tmp_path)
    table = draw_faces(500, seed=0)
    rng = np.random.default_rng(5)
    rows = rng.permutation(500)[:20]
    wrong = table.points[rows].copy()
    wrong[:10] = np.roll(wrong[:10], 1, axis=0)
    for i in range(10, 20):
        angle = rng.uniform(0, 2 * np.pi)
        towards = np.array([np.cos(angle), np.sin(angle)], np.float32)
        if i < 15:
            wrong[i] += rng.uniform(5, 8) * towards
        else:
            wrong[i, rng.integers(15)] += rng.uniform(9, 12) * towards
    lines = ["face,point,action,x,y"]
    for row, before, after in zip(rows, table.points[rows], wrong, strict=True):
        for point in np.flatnonzero((before != after).any(axis=1)):
            x, y = after[point]
            lines.append(f"{table.names[row]},{table.schema.points[point]},move,{x:.3f},{y:.3f}")
    (tmp_path / "planted.csv").write_text("\n".join(lines) + "\n")
    options = "--config quick --data synthetic --fixes planted.csv --folds 2 --epochs 20 --batch-size 16"
    small = ["--device", "cpu", "--set", "data.count=500", "--set", "model.input_size=48", "--out", "folds"]
    assert run(["train", *options.split(), *small]) == 0
    assert run(["data", "--audit", "folds", "--out", "audit"]) == 0
    first = {row["face"] for row in rows_of(tmp_path / "audit" / "audit.csv")[:25]}
    planted_names = {table.names[row] for row in rows}
    assert len(first & planted_names) / 25 >= 0.8


def test_a_run_without_folds_is_told_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "--audit", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere: holds no folds; train them: ")


@pytest.mark.parametrize(
    "other", ["--data synthetic", "--seed 3", "--set seed=3", "-c quick", "--fixes x.csv"]
)
def test_audit_takes_no_other_option(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "--audit", "runs/folds", *other.split()]) == 2
    assert "--audit" in capsys.readouterr().err
