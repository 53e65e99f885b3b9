"""Which faces are new to a model, and to several."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.tasks.evaluate import unseen_rows


def trained(
    folder: Path, table: FaceTable, valid: list[int], seed: int = 0, limit: int | None = None
) -> Path:
    """Write what a run leaves of its data."""
    folder.mkdir()
    data = {"sha256": table.digest, "rows": len(table), "split": {"valid": valid}}
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "config.yaml").write_text(f"seed: {seed}\ndata:\n  limit: {limit or 'null'}\n")
    return folder


def test_rows_that_are_new_to_all(tmp_path: Path, faces: FaceTable) -> None:
    one = trained(tmp_path / "one", faces, [3, 5, 8, 13])
    two = trained(tmp_path / "two", faces, [13, 4, 5], seed=1)
    elsewhere = trained(tmp_path / "elsewhere", replace(faces, digest="other"), [1])
    (tmp_path / "nothing").mkdir()

    def new_to(*runs: Path) -> list[int] | None:
        rows = unseen_rows(runs, faces)
        return None if rows is None else rows.tolist()

    assert new_to(one) == [3, 5, 8, 13]
    assert new_to(one, two) == new_to(two, elsewhere, one) == [5, 13]
    assert new_to(elsewhere, one, tmp_path / "nothing") == [3, 5, 8, 13]
    assert new_to(elsewhere, tmp_path / "nothing") is None


def test_folds_have_seen_every_face_together(tmp_path: Path, faces: FaceTable) -> None:
    parts = np.array_split(np.arange(len(faces)), 3)
    folds = [trained(tmp_path / f"fold-{i}", faces, part.tolist()) for i, part in enumerate(parts, 1)]
    with pytest.raises(UserError, match=r"one of these 3 models, .* use other --data, .*out-of-fold"):
        unseen_rows(folds, faces)


def test_rows_that_can_t_be_told_by_number(tmp_path: Path, faces: FaceTable) -> None:
    limited = [trained(tmp_path / str(seed), faces, [1, 2], seed=seed, limit=len(faces)) for seed in (0, 1)]
    assert unseen_rows(limited[:1], faces) is not None
    with pytest.raises(UserError, match=r"0, .*1: data\.limit drew other rows"):
        unseen_rows(limited, faces)
    fewer = trained(tmp_path / "fewer", faces.rows(np.arange(9)), [1])
    with pytest.raises(UserError, match=r"fewer/data\.json: .* trained on 9 of these rows"):
        unseen_rows([limited[0], fewer], faces)
