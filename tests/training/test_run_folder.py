"""Run folders: their numbering, and preparing one for a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.run_marker import check_run_folder
from landmarks_fastai.training.run_folder import lock_folder, next_run_folder, start_run_folder


def test_next_run_folder_appends_number_if_taken(tmp_path: Path) -> None:
    assert next_run_folder(tmp_path, "quick") == tmp_path / "quick"
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "config.yaml").touch()
    assert next_run_folder(tmp_path, "quick") == tmp_path / "quick-2"


def test_start_run_folder_replaces_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"written by landmarks-fastai 0\.1"):
        check_run_folder(tmp_path)
    start_run_folder(tmp_path, TrainConfig(seed=7))
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "config.yaml"}
    assert load_config(str(tmp_path / "config.yaml")).seed == 7
    check_run_folder(tmp_path)


def test_lock_folder_removes_empty_folder_and_lock(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not list(tmp_path.iterdir())
