"""The training command: whether a single run or a cross-validation is started or resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from landmarks_fastai.commands.train import default_run_folder, resume, train
from landmarks_fastai.config.loading import load_config
from landmarks_fastai.errors import UserError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Replace training with a record of the functions that were called and their folders."""
    calls: list[tuple[str, Path]] = []

    def record(name: str) -> None:
        def start(*arguments: Any, **_: object) -> str:
            calls.append((name, arguments[-1]))
            return name

        monkeypatch.setattr(f"landmarks_fastai.commands.train.{name}", start)

    for name in ("train_run", "cross_validate", "resume_run", "resume_cross_validation"):
        record(name)
    return calls


def test_train_starts_cross_validation_only_with_folds_and_no_fold(
    started: list[tuple[str, Path]], tmp_path: Path
) -> None:
    for options in ({}, {"data.folds": 3}, {"data.folds": 3, "data.fold": 2}):
        train(load_config("quick", options), str(tmp_path / "run"))
    assert started == [(name, tmp_path / "run") for name in ("train_run", "cross_validate", "train_run")]


def test_resume_detects_run_or_cross_validation(started: list[tuple[str, Path]], tmp_path: Path) -> None:
    resume(str(tmp_path))
    (tmp_path / "folds.json").touch()
    resume(tmp_path)
    assert started == [("resume_run", tmp_path), ("resume_cross_validation", tmp_path)]


def test_resume_without_run_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: "):
        resume(tmp_path / "nothing")


def test_default_run_folder_is_numbered(tmp_path: Path) -> None:
    assert default_run_folder(tmp_path, "quick") == tmp_path / "quick"
    for name in ("quick", "quick-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").touch()
    assert default_run_folder(tmp_path, "quick") == tmp_path / "quick-3"
